// The globals of an agent beside those of the language: what `environment.ts` installs. A project with DOM or Node
// types has its own declarations of them, and `skipLibCheck` lets those win.

interface Console {
  debug(...values: unknown[]): void;
  log(...values: unknown[]): void;
  info(...values: unknown[]): void;
  warn(...values: unknown[]): void;
  error(...values: unknown[]): void;
  trace(...values: unknown[]): void;
  dir(value: unknown): void;
  assert(isTrue: unknown, ...values: unknown[]): void;
}

declare var console: Console;

declare var crypto: {
  getRandomValues<T extends ArrayBufferView>(array: T): T;
  randomUUID(): string;
};

declare var performance: { now(): number };

declare function queueMicrotask(run: () => void): void;
declare function setTimeout<A extends unknown[]>(run: (...values: A) => void, ms?: number, ...values: A): number;
declare function clearTimeout(timer?: number): void;
declare function setInterval<A extends unknown[]>(run: (...values: A) => void, ms?: number, ...values: A): number;
declare function clearInterval(timer?: number): void;
declare function atob(text: string): string;
declare function btoa(text: string): string;

declare class TextEncoder {
  readonly encoding: string;
  encode(text?: string): Uint8Array;
}

declare class TextDecoder {
  constructor(label?: string, options?: { fatal?: boolean; ignoreBOM?: boolean });
  readonly encoding: string;
  readonly fatal: boolean;
  readonly ignoreBOM: boolean;
  decode(bytes?: ArrayBuffer | ArrayBufferView): string;
}
