// A host of a test's own: what it does not say is answered with a refusal, as a host does.

import { AgentPromise } from "../src/promise.js";

type Functions = Record<string, (...values: never[]) => unknown>;

declare global {
  var leaseholdHost: Record<string, Functions>;
}

/** One call under way. */
export interface Call {
  callId(): string;
  /** When it has something to take, on the clock of the test. */
  at: number;
  [Symbol.dispose](): void;
}

/** What happened at the host, in order. */
export const told: string[] = [];

/** The clock, in milliseconds; waiting moves it. */
export const clock = { ms: 0, cancelledAt: Number.POSITIVE_INFINITY };

/** Makes a call that has something to take at a moment. */
export function callUntil(name: string, at: number): Call {
  return { at, callId: () => name, [Symbol.dispose]: () => told.push(`dropped ${name}`) };
}

/** A refusal, as the component toolchain throws it. */
export function refused(code: string, message = code): Error {
  return Object.assign(new Error(`${message} (see error.payload)`), { payload: { code, message } });
}

/** Begins anew, with what the test says of the host. */
export function begin(functions: Record<string, Functions> = {}): void {
  told.length = 0;
  Object.assign(clock, { ms: 0, cancelledAt: Number.POSITIVE_INFINITY });
  const own: Record<string, Functions> = {
    events: { log: (level: string, message: string) => told.push(`${level}: ${message}`) },
    job: { cancelRequested: () => clock.ms >= clock.cancelledAt },
    calls: { waitAny },
    "monotonic-clock": {
      now: () => BigInt(Math.round(clock.ms * 1e6)),
      subscribeDuration: (nanos: number) => ({
        block: () => (clock.ms += nanos / 1e6),
        [Symbol.dispose]: () => undefined,
      }),
    },
    random: { getRandomBytes: (length: number) => new Uint8Array(length).fill(0x80) },
  };
  for (const [name, list] of Object.entries(functions)) own[name] = { ...own[name], ...list };
  globalThis.leaseholdHost = own;
}

function waitAny(calls: Call[], timeoutMs?: number | null): number | null {
  if (calls.length === 0) throw refused("invalid-request");
  const first = calls.reduce((one, other) => (other.at < one.at ? other : one));
  const end = clock.ms + (timeoutMs ?? Number.POSITIVE_INFINITY);
  if (first.at > end) {
    if (end === Number.POSITIVE_INFINITY) throw new Error("the test would wait for ever");
    clock.ms = end;
    return null;
  }
  clock.ms = Math.max(clock.ms, first.at);
  told.push(`waited for ${calls.map((call) => call.callId()).join(", ")}: ${first.callId()}`);
  return calls.indexOf(first);
}

/** Has `async` code use the SDK's promises, as in a component, while a function runs. */
export function withOwnPromises<T>(act: () => T): T {
  const nodes = globalThis.Promise;
  globalThis.Promise = AgentPromise as unknown as PromiseConstructor;
  try {
    return act();
  } finally {
    globalThis.Promise = nodes;
  }
}
