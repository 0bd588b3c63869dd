/**
 * Calls that are under way while the agent goes on.
 *
 * What takes its time can be started instead of done: `net.start`, `tool.start`, `model.start` and `delegate.start`
 * give a `Pending` at once. It can be finished, which waits, or awaited, which lets others go on; several are best
 * awaited together:
 *
 * ```ts
 * const pages = await Promise.all(urls.map((url) => net.start(url)));
 * ```
 */

import type { PendingCall } from "leasehold:agent/calls@0.1.0";

import { LeaseholdError, host } from "./error.js";
import { waitFirst, watch } from "./promise.js";

/** Something that can be waited for: a `Pending` or a stream. */
export abstract class UnderWay implements Disposable {
  #call: PendingCall | undefined;
  readonly #awaited = new Set<() => void>();

  /** @internal */
  constructor(call: PendingCall) {
    this.#call = call;
  }

  /** The `call_id` of its `tool_call` and `tool_result` events (ARCP §8.2). */
  get id(): string {
    return this.call.callId();
  }

  /** Gives the call up: what can be stopped of it is stopped. Nothing happens if it has ended. */
  drop(): void {
    this.take()?.[Symbol.dispose]();
  }

  [Symbol.dispose](): void {
    this.drop();
  }

  /** Whether nothing has to be waited for any more. @internal */
  get isOver(): boolean {
    return this.#call === undefined;
  }

  /** The call, as the host knows it. @internal */
  get call(): PendingCall {
    if (!this.#call) throw new LeaseholdError("invalid-request", "the call was finished or dropped");
    return this.#call;
  }

  /** Gives the call away, once; nobody can wait for it from then on. @internal */
  protected take(): PendingCall | undefined {
    const call = this.#call;
    this.#call = undefined;
    for (const end of [...this.#awaited]) end();
    return call;
  }

  /** Promises what `act` gives once the call has something to take. @internal */
  protected whenReady<T>(act: () => T): Promise<T> {
    return new Promise((resolve, reject) => {
      const call = this.call;
      const ready = () => {
        this.#awaited.delete(end);
        try {
          resolve(act());
        } catch (error) {
          reject(error);
        }
      };
      const stop = watch({ call, ready, failed: reject });
      const end = () => {
        this.#awaited.delete(end);
        stop();
        reject(new LeaseholdError("cancelled", "the call was finished or dropped"));
      };
      this.#awaited.add(end);
    });
  }
}

/** A call under way, and what it will give. It can be awaited. */
export class Pending<T> extends UnderWay implements PromiseLike<T> {
  readonly #finish: (call: PendingCall) => T;
  #outcome: { value: T } | { error: unknown } | undefined;
  #promise: Promise<T> | undefined;
  #settle: (() => void) | undefined;

  /** @internal */
  constructor(call: PendingCall, finish: (call: PendingCall) => T) {
    super(call);
    this.#finish = finish;
  }

  /** Waits for the call's end and gives its outcome, or throws it; the same every time. */
  finish(): T {
    if (!this.#outcome) {
      this.call;
      const call = this.take() as PendingCall;
      try {
        this.#outcome = { value: host(() => this.#finish(call)) };
      } catch (error) {
        this.#outcome = { error };
      }
      // Before the promise hears that the call is gone.
      this.#settle?.();
    }
    if ("error" in this.#outcome) throw this.#outcome.error;
    return this.#outcome.value;
  }

  then<A = T, B = never>(
    onFulfilled?: ((value: T) => A | PromiseLike<A>) | null,
    // As the language's own declaration has it, so that a handler may say what it expects.
    onRejected?: ((reason: any) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    this.#promise ??= new Promise<T>((resolve, reject) => {
      this.#settle = () => {
        try {
          resolve(this.finish());
        } catch (error) {
          reject(error);
        }
      };
      if (this.#outcome) this.#settle();
      else this.whenReady(() => this.finish()).then(resolve, reject);
    });
    return this.#promise.then(onFulfilled, onRejected);
  }
}

/**
 * A call that comes in parts. `for (const part of stream)` waits for each part; `for await` lets others go on
 * meanwhile. Leaving the loop early gives the call up.
 */
export abstract class Stream<T, R = void> extends UnderWay implements Iterable<T>, AsyncIterable<T> {
  #isAtEnd = false;
  #outcome: { value: R } | { error: unknown } | undefined;

  /** Takes what the host has for it, if there is more. @internal */
  protected abstract nextPart(call: PendingCall): T | undefined;

  /** Gives the call back to the host, and takes what it comes to. @internal */
  protected abstract close(call: PendingCall): R;

  /** Waits for the next part; `undefined` at the end. */
  next(): T | undefined {
    if (this.#isAtEnd) return undefined;
    const part = host(() => this.nextPart(this.call));
    if (part !== undefined) return part;
    this.#isAtEnd = true;
    // At once, since what a call has cost is settled when it is given back. An error of it is kept for `outcome`.
    this.#end();
    return undefined;
  }

  /** Waits for the end, and gives what all of it comes to; the same every time. @internal */
  protected outcome(): R {
    const outcome = this.#end();
    if ("error" in outcome) throw outcome.error;
    return outcome.value;
  }

  #end(): { value: R } | { error: unknown } {
    if (!this.#outcome) {
      this.call;
      const call = this.take() as PendingCall;
      try {
        this.#outcome = { value: host(() => this.close(call)) };
      } catch (error) {
        this.#outcome = { error };
      }
      this.#isAtEnd = true;
    }
    return this.#outcome;
  }

  *[Symbol.iterator](): Generator<T, void> {
    try {
      for (let part = this.next(); part !== undefined; part = this.next()) yield part;
    } finally {
      this.drop();
    }
  }

  [Symbol.asyncIterator](): AsyncIterator<T> {
    const result = (value: T | undefined): IteratorResult<T> =>
      value === undefined ? { done: true, value } : { done: false, value };
    // One after the other, also if more than one is asked for at a time.
    let last: Promise<unknown> = Promise.resolve();
    const step = () => (this.#isAtEnd ? result(undefined) : this.whenReady(() => result(this.next())));
    return {
      next: () => {
        const next = last.then(step);
        last = next.catch(() => undefined);
        return next;
      },
      return: () => {
        this.drop();
        return Promise.resolve({ done: true, value: undefined });
      },
    };
  }
}

/**
 * Waits until one of some calls has something to take, and gives its index: the one that had it first.
 *
 * `undefined` once `timeoutMs` are over without. An empty list is `invalid-request`.
 *
 * ```ts
 * const racers = [net.start("https://a.example/"), net.start("https://b.example/")];
 * const first = calls.waitAny(racers, { timeoutMs: 5000 });
 * const page = first === undefined ? undefined : racers[first].finish();
 * ```
 */
export function waitAny(calls: Iterable<UnderWay>, options: { timeoutMs?: number } = {}): number | undefined {
  const list = [...calls];
  // What was finished has its outcome already, so nothing is to be waited for.
  const over = list.findIndex((call) => call.isOver);
  if (over >= 0) return over;
  return waitFirst(
    list.map((call) => call.call),
    options.timeoutMs,
  );
}

/** How a call ended. */
export type Outcome<T> = { ok: true; value: T } | { ok: false; error: LeaseholdError };

/** Waits for all of some calls and gives their outcomes, in the order of the calls. */
export function finishAll<T>(calls: Iterable<Pending<T>>): Outcome<T>[] {
  return [...calls].map((call) => {
    try {
      return { ok: true, value: call.finish() };
    } catch (error) {
      if (!(error instanceof LeaseholdError)) throw error;
      return { ok: false, error };
    }
  });
}
