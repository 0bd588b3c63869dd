/**
 * What JavaScript programs expect around them, as far as an agent has it.
 *
 * `build.mjs` imports this before everything else. Each name is an ordinary global afterwards; `globals.d.ts` has the
 * types. What would need a grant (`fetch`, files, the environment) is not here: see the modules of the host.
 */

import { log } from "leasehold:agent/events@0.1.0";
import { getRandomBytes } from "wasi:random/random@0.2.12";

import { u64 } from "./check.js";
import { format, inspect } from "./inspect.js";
import { AgentPromise, after, enqueue, forget, milliseconds } from "./promise.js";
import { decode, decodeLenient, encode } from "./text.js";

type Level = "debug" | "info" | "warn" | "error";

function printer(level: Level): (...values: unknown[]) => void {
  return (...values) => log(level, format(values).toWellFormed());
}

/** Prints to the job's log, where each line of a program's own becomes an event. */
const console = {
  debug: printer("debug"),
  log: printer("info"),
  info: printer("info"),
  warn: printer("warn"),
  error: printer("error"),
  trace: printer("debug"),
  dir: (value: unknown) => log("info", inspect(value).toWellFormed()),
  assert: (isTrue: unknown, ...values: unknown[]) => {
    if (!isTrue) log("error", `assertion failed${values.length > 0 ? `: ${format(values)}` : ""}`.toWellFormed());
  },
};

class Encoder {
  readonly encoding = "utf-8";

  encode(text = ""): Uint8Array {
    return encode(String(text));
  }
}

class Decoder {
  readonly encoding = "utf-8";
  readonly fatal: boolean;
  readonly ignoreBOM: boolean;

  constructor(label = "utf-8", options: { fatal?: boolean; ignoreBOM?: boolean } = {}) {
    if (!/^(utf-?8|unicode-1-1-utf-8)$/i.test(label.trim())) {
      throw new RangeError(`an agent decodes UTF-8 and nothing else, not ${label}`);
    }
    this.fatal = options.fatal ?? false;
    this.ignoreBOM = options.ignoreBOM ?? false;
  }

  decode(input?: ArrayBuffer | ArrayBufferView, options: { stream?: boolean } = {}): string {
    if (options.stream) throw new TypeError("an agent's TextDecoder decodes whole texts: `stream` is not supported");
    if (input === undefined) return "";
    const bytes =
      input instanceof ArrayBuffer
        ? new Uint8Array(input)
        : new Uint8Array(input.buffer, input.byteOffset, input.byteLength);
    const text = this.fatal ? decode(bytes) : decodeLenient(bytes);
    if (text === undefined) throw new TypeError("the bytes are not UTF-8");
    return this.ignoreBOM ? text : text.replace(/^\ufeff/, "");
  }
}

// The engine draws its seed when the agent is built, and every job would see the same numbers. These come from the
// job's own seed, so that two jobs differ and a replay of one does not.
let pool = new DataView(new ArrayBuffer(0));
let taken = 0;

function random(): number {
  if (taken + 8 > pool.byteLength) {
    pool = new DataView(randomBytes(1024).buffer);
    taken = 0;
  }
  const bits = (pool.getUint32(taken) >>> 5) * 0x400_0000 + (pool.getUint32(taken + 4) >>> 6);
  taken += 8;
  return bits / 2 ** 53;
}

function randomBytes(length: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array(getRandomBytes(u64(length, "length")));
}

const crypto = {
  getRandomValues<T extends ArrayBufferView>(array: T): T {
    if (array.byteLength > 65_536) throw new RangeError("at most 65536 random bytes at a time");
    new Uint8Array(array.buffer, array.byteOffset, array.byteLength).set(randomBytes(array.byteLength));
    return array;
  },
  randomUUID(): string {
    const bytes = randomBytes(16);
    bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x40;
    bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
    const digits = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    return digits.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
  },
};

type Task = (...values: unknown[]) => void;

function repeat(id: { timer: number }, ms: number, run: () => void): void {
  id.timer = after(ms, () => {
    repeat(id, ms, run);
    run();
  });
}

// What a timer is known by; an interval changes its timer each time.
const intervals = new Map<number, { timer: number }>();

function setInterval(run: Task, ms = 0, ...values: unknown[]): number {
  const id = { timer: 0 };
  repeat(id, ms, () => run(...values));
  intervals.set(id.timer, id);
  return id.timer;
}

function clear(timer?: number): void {
  if (timer === undefined || timer === null) return;
  forget(intervals.get(timer)?.timer ?? timer);
  intervals.delete(timer);
}

/** The engine's own gives a promise of the engine's own, which nobody would settle. */
async function fromAsync<T, R>(
  items: AsyncIterable<T> | Iterable<T | PromiseLike<T>> | ArrayLike<T | PromiseLike<T>>,
  map?: (item: T, index: number) => R | PromiseLike<R>,
): Promise<(T | R)[]> {
  const found: (T | R)[] = [];
  const list = Symbol.asyncIterator in items || Symbol.iterator in items ? items : Array.from(items);
  for await (const item of list) found.push(map ? await map(item, found.length) : item);
  return found;
}

const globals: Record<string, unknown> = {
  Promise: AgentPromise,
  console,
  crypto,
  performance: { now: milliseconds },
  queueMicrotask: (run: () => void) => enqueue(run),
  setTimeout: (run: Task, ms = 0, ...values: unknown[]) => after(ms, () => run(...values)),
  clearTimeout: clear,
  setInterval,
  clearInterval: clear,
  TextEncoder: Encoder,
  TextDecoder: Decoder,
};
// Defined and not assigned: of some the engine has its own, as getters.
for (const [name, value] of Object.entries(globals)) {
  Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
}
// One engine has its own, which has nothing behind it and would crash the agent.
Reflect.deleteProperty(globalThis, "fetch");
Math.random = random;
Object.assign(Array, { fromAsync });
