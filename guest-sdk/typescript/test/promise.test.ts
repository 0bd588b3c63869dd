/// <reference types="node" />

import assert from "node:assert/strict";
import { test } from "node:test";

import { Pending, Stream, finishAll, waitAny } from "../src/calls.js";
import { LeaseholdError } from "../src/error.js";
import { delay } from "../src/job.js";
import { after, enqueue, forget, reset, settle, takeUnhandled } from "../src/promise.js";
import { begin, callUntil, clock, refused, told, withOwnPromises, type Call } from "./host.js";

/** Runs an async function as an agent's is run; node's own promises have no part in it. */
function run<T>(act: () => PromiseLike<T>): T {
  reset();
  return withOwnPromises(() => settle(act()));
}

function pending(name: string, at: number, outcome: string | Error = name): Pending<string> {
  return new Pending(callUntil(name, at) as never, () => {
    told.push(`finished ${name}`);
    if (typeof outcome !== "string") throw outcome;
    return outcome;
  });
}

class Parts extends Stream<number, string> {
  #left = [1, 2, 3];

  protected override nextPart(call: unknown): number | undefined {
    (call as Call).at += 10;
    return this.#left.shift();
  }

  protected override close(): string {
    told.push("closed");
    return "all";
  }

  finish(): string {
    return this.outcome();
  }
}

test("jobs, timers and values come in the language's order", () => {
  begin();
  const order: string[] = [];
  run(async () => {
    after(5, () => order.push("timer 5"));
    after(0, () => {
      order.push("timer 0");
      enqueue(() => order.push("a job of it"));
    });
    forget(after(1, () => order.push("taken back")));
    after(0, () => order.push("timer 0 too"));
    enqueue(() => order.push("job"));
    Promise.resolve().then(() => order.push("then"));
    order.push("at once");
    await null;
    order.push("after await");
    await delay(10);
  });
  const expected = ["at once", "job", "then", "after await", "timer 0", "a job of it", "timer 0 too", "timer 5"];
  assert.deepEqual(order, expected);
  assert.equal(clock.ms, 10);
});

test("promises settle as ECMAScript's do", () => {
  begin();
  const fail = (reason: unknown) => Promise.reject(reason);
  const table: [string, () => unknown, unknown][] = [
    ["a value", () => 1, 1],
    ["a promise of a promise", () => Promise.resolve(Promise.resolve(1)), 1],
    ["a thenable", () => Promise.resolve({ then: (yes: (value: number) => void) => yes(2) }), 2],
    [
      "a thenable that throws late",
      () =>
        Promise.resolve({
          then: (yes: (value: number) => void) => {
            yes(3);
            throw 4;
          },
        }),
      3,
    ],
    ["catch", () => fail(5).catch((reason) => [reason]), [5]],
    [
      "a throw in then",
      () =>
        Promise.resolve()
          .then(() => {
            throw 6;
          })
          .catch((reason) => reason),
      6,
    ],
    ["finally keeps the value", () => Promise.resolve(7).finally(() => 8), 7],
    [
      "a throw in finally wins",
      () =>
        fail(9)
          .finally(() => {
            throw 10;
          })
          .catch((reason) => reason),
      10,
    ],
    ["all", () => Promise.all([1, Promise.resolve(2), delay(3)]), [1, 2, undefined]],
    ["all of none", () => Promise.all([]), []],
    ["all with a rejection", () => Promise.all([1, fail("no")]).catch((reason) => reason), "no"],
    ["any", () => Promise.any([fail(1), 2]), 2],
    ["any of none", () => Promise.any([]).catch((error) => error.constructor.name), "AggregateError"],
    ["any of failures", () => Promise.any([fail(1), fail(2)]).catch((error) => error.errors), [1, 2]],
    ["race", () => Promise.race([delay(5).then(() => "late"), delay(1).then(() => "early")]), "early"],
    [
      "allSettled",
      () => Promise.allSettled([1, fail(2)]),
      [
        { status: "fulfilled", value: 1 },
        { status: "rejected", reason: 2 },
      ],
    ],
    [
      "a promise of itself",
      () => {
        const { promise, resolve } = Promise.withResolvers();
        resolve(promise);
        return promise.catch((error) => error.constructor.name);
      },
      "TypeError",
    ],
    [
      "an executor that throws",
      () =>
        new Promise(() => {
          throw 11;
        }).catch((reason) => reason),
      11,
    ],
    [
      "the first end counts",
      () =>
        new Promise((yes, no) => {
          yes(12);
          no(13);
          yes(14);
        }),
      12,
    ],
    [
      "for await",
      async () => {
        const all = [];
        for await (const each of [1, Promise.resolve(2)]) all.push(each);
        return all;
      },
      [1, 2],
    ],
  ];
  for (const [name, act, expected] of table) {
    assert.deepEqual(
      run(async () => act()),
      expected,
      name,
    );
  }
  assert.deepEqual(takeUnhandled(), []);
});

test("what nobody looks at is told, and what somebody catches late is not", () => {
  begin();
  run(async () => {
    Promise.reject("unseen");
    const late = Promise.reject("seen");
    await null;
    await late.catch(() => undefined);
  });
  assert.deepEqual(takeUnhandled(), ["unseen"]);
  assert.deepEqual(takeUnhandled(), []);
});

test("a promise that nothing settles is an error and no endless wait", () => {
  begin();
  const error = catching(() => run(() => new Promise(() => undefined)));
  assert.equal((error as LeaseholdError).code, "internal-error");
});

test("awaited calls go on together, and the host is asked for whichever is first", () => {
  begin();
  const result = run(() => Promise.all([pending("a", 30), pending("b", 10), pending("c", 20)]));
  assert.deepEqual(result, ["a", "b", "c"]);
  assert.deepEqual(told, [
    "waited for a, b, c: b",
    "finished b",
    "waited for a, c: c",
    "finished c",
    "waited for a: a",
    "finished a",
  ]);
  assert.equal(clock.ms, 30);
});

test("a timer that is due first does not wait for the calls", () => {
  begin();
  const seen = run(async () => {
    const call = pending("slow", 100);
    const first = await Promise.race([call, delay(7).then(() => "timer")]);
    const at = clock.ms;
    call.drop();
    return [first, at];
  });
  assert.deepEqual(seen, ["timer", 7]);
  assert.deepEqual(told, ["dropped slow"]);
});

test("a pending call gives one outcome however it is asked", () => {
  begin();
  const call = pending("a", 10);
  const awaited = run(async () => {
    const promise = call.then((value) => `then ${value}`);
    assert.equal(call.finish(), "a"); // while somebody awaits it
    assert.equal(call.finish(), "a");
    return [await promise, await call];
  });
  assert.deepEqual(awaited, ["then a", "a"]);
  assert.deepEqual(told, ["finished a"]);
  call.drop(); // It has ended: nothing is left to be dropped.
  assert.deepEqual(told, ["finished a"]);

  const failed = pending("f", 10, refused("timeout"));
  for (const error of [
    catching(() => failed.finish()),
    run(async () =>
      failed.then(
        () => 0,
        (error) => error,
      ),
    ),
  ]) {
    assert.equal((error as LeaseholdError).code, "timeout");
  }
});

test("a dropped call is refused to whoever awaits or finishes it", () => {
  begin();
  const call = pending("a", 10);
  const code = run(async () => {
    const promise = call.then(
      () => "value",
      (error: LeaseholdError) => error.code,
    );
    await null;
    call.drop();
    return promise;
  });
  assert.equal(code, "cancelled");
  assert.equal((catching(() => call.finish()) as LeaseholdError).code, "invalid-request");
  assert.equal((catching(() => call.id) as LeaseholdError).code, "invalid-request");
  assert.deepEqual(told, ["dropped a"]);
});

test("waiting for any of several gives the index of the first, and nothing once the time is over", () => {
  begin();
  const [late, early, done] = [pending("late", 50), pending("early", 20), pending("done", 0)];
  assert.equal(waitAny([late, early]), 1);
  assert.equal(waitAny([late], { timeoutMs: 5 }), undefined);
  done.finish();
  assert.equal(waitAny([late, done]), 1); // It has its outcome: there is nothing to wait for.
  assert.equal((catching(() => waitAny([])) as LeaseholdError).code, "invalid-request");
  const outcomes = finishAll([late, pending("no", 1, refused("not-found")), early]);
  const seen = outcomes.map((outcome) => (outcome.ok ? outcome.value : outcome.error.code));
  assert.deepEqual(seen, ["late", "not-found", "early"]);
});

test("a stream is read by `for`, by `for await` and to its end, and is given back when it is left", () => {
  begin();
  assert.deepEqual([...new Parts(callUntil("s", 0) as never)], [1, 2, 3]);
  assert.deepEqual(told.splice(0), ["closed"]);

  const parts = new Parts(callUntil("s", 0) as never);
  const both = run(async () => {
    const all: unknown[] = [];
    const other = delay(15).then(() => all.push("meanwhile"));
    for await (const part of parts) all.push(part);
    await other;
    return all;
  });
  assert.deepEqual(both, [1, 2, "meanwhile", 3]);
  assert.equal(parts.finish(), "all");
  assert.equal(told.filter((line) => line === "closed").length, 1);

  told.length = 0;
  for (const part of new Parts(callUntil("left", 0) as never)) {
    if (part === 2) break;
  }
  assert.deepEqual(told, ["dropped left"]);
});

test("parts that are asked for together come one after the other, and end with the stream", () => {
  begin();
  const seen = run(async () => {
    const parts = new Parts(callUntil("s", 5) as never)[Symbol.asyncIterator]();
    return Promise.all([parts.next(), parts.next(), parts.next(), parts.next(), parts.next()]);
  });
  assert.deepEqual(
    seen.map(({ value }) => value),
    [1, 2, 3, undefined, undefined],
  );

  const ends = run(async () => {
    const parts = new Parts(callUntil("s", 5) as never);
    const iterator = parts[Symbol.asyncIterator]();
    const both = Promise.allSettled([iterator.next(), iterator.next()]);
    await null;
    assert.equal(parts.finish(), "all");
    return both;
  });
  assert.deepEqual(
    ends.map((end) => (end.status === "rejected" ? end.reason.code : end.value.done)),
    ["cancelled", true],
  );
});

test("a cancelled job ends what waits", () => {
  begin();
  clock.cancelledAt = 1500;
  const code = run(async () => delay(60_000).catch((error: LeaseholdError) => error.code));
  assert.equal(code, "cancelled");
  assert.equal(clock.ms, 2000); // It looks once a second.

  begin();
  clock.cancelledAt = 0;
  const error = catching(() => run(() => new Promise((resolve) => after(5000, () => resolve(undefined)))));
  assert.equal((error as LeaseholdError).code, "cancelled");

  begin({
    calls: {
      waitAny: () => {
        throw refused("cancelled");
      },
    },
  });
  const codes = run(() => Promise.allSettled([pending("a", 1), pending("b", 1)])).map((end) => {
    return end.status === "rejected" ? end.reason.code : end.value;
  });
  assert.deepEqual(codes, ["cancelled", "cancelled"]);
});

function catching(act: () => unknown): unknown {
  try {
    act();
  } catch (error) {
    return error;
  }
  assert.fail("it was to throw");
}
