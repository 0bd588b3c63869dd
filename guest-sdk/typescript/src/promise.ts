/**
 * Promises, and what runs them.
 *
 * The host calls an agent as a plain function, and the engine runs no job of its own before that function returns. So
 * the SDK brings the promises that `async` and `await` are built on (`build.mjs` makes generators of them), and runs
 * what they wait for: `settle` takes the next job, and when none is left it waits for whichever comes first, a call
 * that is under way at the host or a timer.
 */

import { waitAny as hostWaitAny, type PendingCall } from "leasehold:agent/calls@0.1.0";
import { cancelRequested } from "leasehold:agent/job@0.1.0";
import { now as hostNow, subscribeDuration } from "wasi:clocks/monotonic-clock@0.2.12";

import { u64 } from "./check.js";
import { LeaseholdError, host } from "./error.js";

/** How long to sleep at most before looking whether the job is cancelled; the host's grace time is longer. */
const NAP_MAX_MS = 1000;

/** A call that somebody awaits. */
export interface Watch {
  call: PendingCall;
  /** Called once the call has something to take. */
  ready(): void;
  /** Called if it cannot be waited for any more. */
  failed(error: unknown): void;
}

interface Timer {
  due: number;
  /** Timers of one moment run in the order of their making. */
  id: number;
  run(): void;
  /** Set if the timer ends when the job is cancelled. */
  cancelled?: ((error: LeaseholdError) => void) | undefined;
}

let jobs: (() => void)[] = [];
const watches = new Set<Watch>();
const timers = new Map<number, Timer>();
const unhandled = new Map<object, unknown>();
let timersMade = 0;

/** Has a function called once what runs now is done. */
export function enqueue(job: () => void): void {
  jobs.push(job);
}

/** Has somebody told when a call has something to take; the function that is given back ends that. */
export function watch(watch: Watch): () => void {
  watches.add(watch);
  return () => watches.delete(watch);
}

/** Has a function called after so many milliseconds, and gives the timer's number. */
export function after(ms: number, run: () => void, cancelled?: (error: LeaseholdError) => void): number {
  const id = ++timersMade;
  timers.set(id, { due: milliseconds() + Math.max(0, Number(ms) || 0), id, run, cancelled });
  return id;
}

/** Takes a timer back. */
export function forget(timer: number): void {
  timers.delete(timer);
}

/** Milliseconds of the job's own clock, since an unknown beginning. */
export function milliseconds(): number {
  return Number(hostNow()) / 1e6;
}

/** Sleeps; nothing else goes on meanwhile but what goes on at the host. */
export function sleepFor(ms: number): void {
  const pollable = subscribeDuration(u64(Math.round(ms * 1e6), "ms"));
  pollable.block();
  pollable[Symbol.dispose]();
}

/** The error of an operation of a job that is being cancelled. */
export function cancellation(): LeaseholdError {
  return new LeaseholdError("cancelled", "the job is being cancelled");
}

/** Runs until a value is there: at once, unless it is a promise. */
export function settle<T>(value: T | PromiseLike<T>): T {
  if (!isThenable(value)) return value;
  let outcome: { value: T } | { error: unknown } | undefined;
  value.then(
    (value) => (outcome = { value }),
    (error) => (outcome = { error }),
  );
  for (;;) {
    runJobs();
    if (outcome) break;
    waitForMore();
  }
  if ("error" in outcome) throw outcome.error;
  return outcome.value;
}

/** Gives what was thrown into promises nobody looks at, and forgets it. */
export function takeUnhandled(): unknown[] {
  const errors = [...unhandled.values()];
  unhandled.clear();
  return errors;
}

/** Forgets everything, for tests. */
export function reset(): void {
  jobs = [];
  watches.clear();
  timers.clear();
  unhandled.clear();
}

function runJobs(): void {
  while (jobs.length > 0) {
    // A batch at a time: what was run is let go of, however long the chain of jobs gets.
    const batch = jobs;
    jobs = [];
    for (const [index, job] of batch.entries()) {
      try {
        job();
      } catch (error) {
        jobs = [...batch.slice(index + 1), ...jobs];
        throw error;
      }
    }
  }
}

function waitForMore(): void {
  const timer = nextTimer();
  const left = timer && Math.max(0, timer.due - milliseconds());
  if (watches.size > 0) {
    waitForCalls(left);
  } else if (left !== undefined) {
    if (left > 0) sleepFor(Math.min(left, NAP_MAX_MS));
    if (left > 0 && cancelRequested()) endTimers();
  } else {
    // Also the engine's own promises, whose jobs nobody runs: those of `async` code in `eval`, and of `import()` with a
    // path that the build could not follow.
    throw new LeaseholdError("internal-error", "the agent awaits a promise that nothing is going to settle");
  }
  runTimers();
}

function waitForCalls(timeoutMs: number | undefined): void {
  const waiting = [...watches];
  let first: number | undefined;
  try {
    first = waitFirst(
      waiting.map((watch) => watch.call),
      timeoutMs === undefined ? undefined : Math.ceil(timeoutMs),
    );
  } catch (error) {
    watches.clear();
    for (const watch of waiting) watch.failed(error);
    return;
  }
  const watch = first === undefined ? undefined : waiting[first];
  if (watch && watches.delete(watch)) watch.ready();
}

/** The host's `wait-any`. */
export function waitFirst(calls: PendingCall[], timeoutMs: number | undefined): number | undefined {
  const timeout = timeoutMs === undefined ? undefined : u64(timeoutMs, "timeoutMs");
  return host(() => hostWaitAny(calls, timeout)) ?? undefined;
}

function nextTimer(): Timer | undefined {
  let next: Timer | undefined;
  for (const timer of timers.values()) {
    if (!next || timer.due < next.due) next = timer;
  }
  return next;
}

function runTimers(): void {
  if (timers.size === 0) return;
  const now = milliseconds();
  const due = [...timers.values()].filter((timer) => timer.due <= now);
  due.sort((one, other) => one.due - other.due || one.id - other.id);
  for (const timer of due) {
    // One of the others may have taken it back.
    if (!timers.delete(timer.id)) continue;
    timer.run();
    runJobs();
  }
}

/** Ends what can be told of a cancellation; without such a timer, the agent itself. */
function endTimers(): void {
  const told = [...timers.values()].filter((timer) => timer.cancelled);
  if (told.length === 0) throw cancellation();
  for (const timer of told) {
    timers.delete(timer.id);
    timer.cancelled?.(cancellation());
  }
}

function isThenable<T>(value: unknown): value is PromiseLike<T> {
  return (
    ((typeof value === "object" && value !== null) || typeof value === "function") &&
    typeof (value as { then?: unknown }).then === "function"
  );
}

type Resolve<T> = (value: T | PromiseLike<T>) => void;
type Reject = (reason?: unknown) => void;
type State = "pending" | "fulfilled" | "rejected";
type Handler = ((value: never) => unknown) | null | undefined;

/** What happens once a promise settles: a handler decides how the next promise does. */
interface Reaction {
  onFulfilled: Handler;
  onRejected: Handler;
  next: { resolve(value: unknown): void; reject(reason: unknown): void };
}

/** The `Promise` of an agent: ECMAScript's, with its jobs in the queue above, and without species. */
export class AgentPromise<T> implements PromiseLike<T> {
  #state: State = "pending";
  #result: unknown;
  #reactions: Reaction[] | undefined;
  #isHandled = false;

  constructor(executor: (resolve: Resolve<T>, reject: Reject) => void) {
    if (typeof executor !== "function") throw new TypeError("a Promise needs a function");
    // A promise that is made in here is resolved by what made it, and does without the two functions.
    if (executor === UNRESOLVED) return;
    const { resolve, reject } = this.#resolvers();
    try {
      executor(resolve, reject);
    } catch (error) {
      reject(error);
    }
  }

  get [Symbol.toStringTag](): string {
    return "Promise";
  }

  then<A = T, B = never>(
    onFulfilled?: ((value: T) => A | PromiseLike<A>) | null,
    onRejected?: ((reason: any) => B | PromiseLike<B>) | null,
  ): AgentPromise<A | B> {
    const promise = new AgentPromise<A | B>(UNRESOLVED);
    const next = {
      resolve: (value: unknown) => promise.#resolve(value),
      reject: (reason: unknown) => promise.#settle("rejected", reason),
    };
    this.#react({ onFulfilled, onRejected, next });
    return promise;
  }

  catch<B = never>(onRejected?: ((reason: unknown) => B | PromiseLike<B>) | null): AgentPromise<T | B> {
    return this.then(undefined, onRejected);
  }

  finally(onFinally?: (() => void) | null): AgentPromise<T> {
    if (typeof onFinally !== "function") return this.then();
    return this.then(
      (value) => AgentPromise.resolve(onFinally()).then(() => value),
      (reason) => AgentPromise.resolve(onFinally()).then(() => AgentPromise.reject(reason)),
    );
  }

  static resolve<T>(value?: T | PromiseLike<T>): AgentPromise<T> {
    if (value instanceof AgentPromise) return value;
    const promise = new AgentPromise<T>(UNRESOLVED);
    promise.#resolve(value);
    return promise;
  }

  static reject<T = never>(reason?: unknown): AgentPromise<T> {
    const promise = new AgentPromise<T>(UNRESOLVED);
    promise.#settle("rejected", reason);
    return promise;
  }

  static withResolvers<T>(): { promise: AgentPromise<T>; resolve: Resolve<T>; reject: Reject } {
    const promise = new AgentPromise<T>(UNRESOLVED);
    return { promise, ...promise.#resolvers() };
  }

  static try<T, A extends unknown[]>(run: (...values: A) => T | PromiseLike<T>, ...values: A): AgentPromise<T> {
    return new AgentPromise((resolve) => resolve(run(...values)));
  }

  static all<T>(values: Iterable<T | PromiseLike<T>>): AgentPromise<T[]> {
    return gather(values, (promise, index, results: T[], done, _, reject) => {
      promise.then((value) => {
        results[index] = value;
        done();
      }, reject);
    });
  }

  static allSettled<T>(values: Iterable<T | PromiseLike<T>>): AgentPromise<PromiseSettledResult<T>[]> {
    return gather(values, (promise, index, results: PromiseSettledResult<T>[], done) => {
      const put = (result: PromiseSettledResult<T>) => {
        results[index] = result;
        done();
      };
      promise.then(
        (value) => put({ status: "fulfilled", value }),
        (reason) => put({ status: "rejected", reason }),
      );
    });
  }

  static any<T>(values: Iterable<T | PromiseLike<T>>): AgentPromise<T> {
    const errors: unknown[] = [];
    return new AgentPromise<T>((resolve, reject) => {
      let left = 1;
      const failed = () => {
        if (--left === 0) reject(new AggregateError(errors, "all promises were rejected"));
      };
      let index = 0;
      for (const value of values) {
        const at = index++;
        left++;
        AgentPromise.resolve(value).then(resolve, (reason) => {
          errors[at] = reason;
          failed();
        });
      }
      failed();
    });
  }

  static race<T>(values: Iterable<T | PromiseLike<T>>): AgentPromise<T> {
    return new AgentPromise<T>((resolve, reject) => {
      for (const value of values) AgentPromise.resolve(value).then(resolve, reject);
    });
  }

  #resolvers(): { resolve: Resolve<T>; reject: Reject } {
    let isDone = false;
    const once = (act: (value: unknown) => void) => (value?: unknown) => {
      if (isDone) return;
      isDone = true;
      act(value);
    };
    const resolve = once((value) => this.#resolve(value));
    return { resolve: resolve as Resolve<T>, reject: once((reason) => this.#settle("rejected", reason)) };
  }

  #resolve(value: unknown): void {
    if (value === this) return this.#settle("rejected", new TypeError("a promise cannot wait for itself"));
    let then: unknown;
    try {
      const isObject = (typeof value === "object" && value !== null) || typeof value === "function";
      then = isObject ? (value as { then?: unknown }).then : undefined;
    } catch (error) {
      return this.#settle("rejected", error);
    }
    if (typeof then !== "function") return this.#settle("fulfilled", value);
    // In a job of its own, as the language has it: a `then` must not run inside the code that resolves.
    enqueue(() => {
      const { resolve, reject } = this.#resolvers();
      try {
        then.call(value, resolve, reject);
      } catch (error) {
        reject(error);
      }
    });
  }

  #settle(state: "fulfilled" | "rejected", result: unknown): void {
    this.#state = state;
    this.#result = result;
    if (state === "rejected" && !this.#isHandled) unhandled.set(this, result);
    for (const reaction of this.#reactions ?? []) this.#run(reaction);
    this.#reactions = undefined;
  }

  #react(reaction: Reaction): void {
    if (!this.#isHandled) {
      this.#isHandled = true;
      unhandled.delete(this);
    }
    if (this.#state !== "pending") this.#run(reaction);
    else if (this.#reactions) this.#reactions.push(reaction);
    else this.#reactions = [reaction];
  }

  #run({ onFulfilled, onRejected, next }: Reaction): void {
    enqueue(() => {
      const isFulfilled = this.#state === "fulfilled";
      const handler = isFulfilled ? onFulfilled : onRejected;
      let result: unknown;
      try {
        if (typeof handler === "function") result = handler(this.#result as never);
        else if (isFulfilled) result = this.#result;
        else return next.reject(this.#result);
      } catch (error) {
        return next.reject(error);
      }
      next.resolve(result);
    });
  }
}

/** What a promise is made with that is resolved from in here. */
function UNRESOLVED(): void {}

function gather<T, R>(
  values: Iterable<T | PromiseLike<T>>,
  each: (
    promise: AgentPromise<T>,
    index: number,
    results: R[],
    done: () => void,
    resolve: Resolve<R[]>,
    reject: Reject,
  ) => void,
): AgentPromise<R[]> {
  return new AgentPromise<R[]>((resolve, reject) => {
    const results: R[] = [];
    // One more than there are values, so that an empty list is done too, and none is done before all are begun.
    let left = 1;
    const done = () => {
      if (--left === 0) resolve(results);
    };
    let index = 0;
    for (const value of values) {
      left++;
      each(AgentPromise.resolve(value), index++, results, done, resolve, reject);
    }
    done();
  });
}
