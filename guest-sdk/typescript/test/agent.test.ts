/// <reference types="node" />

import assert from "node:assert/strict";
import { test } from "node:test";

import { agent, exported } from "../src/agent.js";
import { ERROR_CODES, LeaseholdError, host, refusal } from "../src/error.js";
import * as shape from "../src/shape.js";
import { begin, refused, told, withOwnPromises } from "./host.js";

/** Gives the result's text, or the code and message of the job's error. */
function outcome(made: unknown, input: string): string {
  try {
    return withOwnPromises(() => exported({ default: made })(input));
  } catch (error) {
    const { code, message } = error as { code: string; message: string };
    assert.equal(error instanceof Error, false, "the contract's record, not an error, crosses the border");
    return `${code}: ${message}`;
  }
}

test("an input that is of its shape reaches the agent, and another one is refused with the field's name", () => {
  begin();
  const Input = shape.optional(
    shape.object({
      name: shape.where(shape.string(), (name) => name !== "", "must not be empty"),
      limit: shape.optional(shape.integer()),
      list: shape.optional(shape.array(shape.object({ on: shape.boolean() }))),
      kind: shape.optional(shape.oneOf("a", "b")),
      more: shape.optional(shape.record(shape.number())),
    }),
  );
  const made = agent(Input, (input) => input ?? "none");
  for (const [input, expected] of [
    ["null", '"none"'],
    ['{"name": "Ada", "unknown": []}', '{"name":"Ada"}'],
    ['{"name": "Ada", "limit": null, "list": [{"on": true}]}', '{"name":"Ada","list":[{"on":true}]}'],
    ['{"name": "Ada", "more": {"x": 1.5}}', '{"name":"Ada","more":{"x":1.5}}'],
    ["{}", "invalid-request: input: name: missing, expected a string"],
    ['{"name": ""}', "invalid-request: input: name: must not be empty"],
    ['{"name": 7}', "invalid-request: input: name: expected a string, got 7"],
    ['{"name": "a", "limit": 1.5}', "invalid-request: input: limit: expected a whole number, got 1.5"],
    [
      '{"name": "a", "list": [{"on": true}, {}]}',
      "invalid-request: input: list[1].on: missing, expected true or false",
    ],
    ['{"name": "a", "list": {}}', "invalid-request: input: list: expected a list, got an object"],
    ['{"name": "a", "kind": "c"}', 'invalid-request: input: kind: expected "a" or "b", got "c"'],
    ['{"name": "a", "more": {"x": "y"}}', 'invalid-request: input: more.x: expected a number, got "y"'],
    ["[]", "invalid-request: input: expected an object, got a list"],
    [
      `{"name": "a", "kind": "${"c".repeat(99)}"}`,
      'invalid-request: input: kind: expected "a" or "b", got a long text',
    ],
  ] as const) {
    assert.equal(outcome(made, input), expected, input);
  }
  assert.deepEqual(told, []);
});

test("a function of the project's own or a standard schema does as a shape", () => {
  begin();
  const even = (value: unknown) => {
    if (typeof value === "number" && value % 2 === 0) return value;
    throw new RangeError("not even");
  };
  assert.equal(
    outcome(
      agent(even, (n) => n / 2),
      "4",
    ),
    "2",
  );
  assert.equal(
    outcome(
      agent(even, (n) => n),
      "3",
    ),
    "invalid-request: input: not even",
  );

  const standard = (
    issues?: readonly { message: string; path?: readonly (PropertyKey | { key: PropertyKey })[] }[],
  ) => ({
    "~standard": { validate: (value: unknown) => (issues ? { issues } : { value: String(value) }) },
  });
  assert.equal(
    outcome(
      agent(standard(), (text) => `${text}!`),
      "4",
    ),
    '"4!"',
  );
  const issues = [{ message: "too short", path: ["list", 0, { key: "name" }] }];
  assert.equal(
    outcome(
      agent(standard(issues), () => 0),
      "4",
    ),
    "invalid-request: input: list[0].name: too short",
  );
});

test("whatever an agent throws ends its job with a code and a message", () => {
  const broken = Object.assign(new Error("from the host itself"), {
    payload: { code: "timeout", message: "too slow" },
  });
  for (const [thrown, expected, log] of [
    [new LeaseholdError("not-found", "no chapter 7"), "not-found: no chapter 7", undefined],
    [broken, "timeout: too slow", undefined],
    [new LeaseholdError("cancelled", "half \ud800"), "cancelled: half \ufffd", undefined],
    [new TypeError("mine"), "internal-error: TypeError: mine", /^error: uncaught TypeError: mine\n +at /],
    [new Error("plain"), "internal-error: plain", /^error: uncaught Error: plain\n/],
    [new Error("outer", { cause: "inner" }), "internal-error: outer", /caused by inner$/],
    ["a text", "internal-error: thrown: a text", /^error: uncaught a text$/],
    [undefined, "internal-error: thrown: undefined", /^error: uncaught undefined$/],
    [
      new ReferenceError("fetch is not defined"),
      "internal-error: ReferenceError: fetch is not defined" +
        " (an agent has no fetch; there is net.get and net.request of @leasehold/agent/net)",
      /uncaught ReferenceError/,
    ],
  ] as const) {
    for (const act of [
      () => {
        throw thrown;
      },
      async () => {
        throw thrown;
      },
    ]) {
      begin();
      assert.equal(outcome(agent(act), "null"), expected);
      assert.equal(told.length, log ? 1 : 0, told.join("\n"));
      if (log) assert.match(told[0] ?? "", log);
    }
  }
});

test("a result is JSON that every reader takes", () => {
  for (const [result, expected] of [
    [undefined, "null"],
    [{ a: undefined, b: [undefined] }, '{"b":[null]}'],
    ["\ud800", '"\ufffd"'],
    [{ "k\udc00": "\\ud800 \ud83d\ude00" }, '{"k\ufffd":"\\\\ud800 \u{1f600}"}'],
    [new Date(0), '"1970-01-01T00:00:00.000Z"'],
    [() => 1, "internal-error: TypeError: result: expected something JSON can say, got a value of type function"],
  ] as const) {
    begin();
    assert.equal(
      outcome(
        agent(() => result),
        "null",
      ),
      expected,
    );
  }
});

test("a module without an agent is told what it lacks", () => {
  assert.throws(() => exported({}), /export default agent/);
  assert.throws(() => exported({ default: () => 1 }), /export default agent/);
  assert.throws(() => agent(7 as never), /expected a function/);
});

test("a refusal of the host becomes an error with its code, and nothing else does", () => {
  for (const code of ERROR_CODES) {
    assert.throws(
      () =>
        host(() => {
          throw refused(code, "what happened");
        }),
      (error: LeaseholdError) => {
        return error instanceof LeaseholdError && error.code === code && String(error) === `${code}: what happened`;
      },
    );
  }
  for (const other of [new Error("x"), refused("PERMISSION_DENIED"), null, undefined, "text"]) {
    assert.equal(refusal(other), undefined);
  }
  assert.equal(new LeaseholdError("budget-exhausted", "").endsTheJob, true);
  assert.equal(new LeaseholdError("not-found", "").endsTheJob, false);
});
