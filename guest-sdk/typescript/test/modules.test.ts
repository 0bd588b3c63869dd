/// <reference types="node" />

import assert from "node:assert/strict";
import { test } from "node:test";

import { u32, u64 } from "../src/check.js";
import * as delegate from "../src/delegate.js";
import { LeaseholdError } from "../src/error.js";
import * as events from "../src/events.js";
import * as fs from "../src/fs.js";
import * as job from "../src/job.js";
import * as metrics from "../src/metrics.js";
import * as model from "../src/model.js";
import * as net from "../src/net.js";
import * as output from "../src/output.js";
import * as tool from "../src/tool.js";
import { begin, callUntil, refused } from "./host.js";

/** Has every function of an interface note its arguments, and answer with what is next in a list. */
function noting(module: string, answers: Record<string, unknown[]>): unknown[][] {
  const noted: unknown[][] = [];
  const functions = Object.entries(answers).map(([name, list]) => [
    name,
    (...values: unknown[]) => {
      noted.push([name, ...values]);
      const answer = list.shift();
      if (answer instanceof Error) throw answer;
      return answer;
    },
  ]);
  begin({ [module]: Object.fromEntries(functions) });
  return noted;
}

const utf8 = (text: string) => new TextEncoder().encode(text);

function code(act: () => unknown): string {
  try {
    act();
  } catch (error) {
    return error instanceof LeaseholdError ? error.code : String(error);
  }
  return "nothing";
}

test("fs takes texts and bytes, and gives what the host gives", () => {
  const noted = noting("fs", {
    read: [utf8("é"), new Uint8Array([255]), refused("permission-denied")],
    readRange: [utf8("ab"), utf8("c"), utf8("")],
    write: [],
    append: [],
    stat: [{ kind: "file", size: 3n, modified: "2026-05-13T19:30:00.020Z" }],
  });
  assert.equal(fs.readText("/a"), "é");
  assert.equal(
    code(() => fs.readText("/b")),
    "invalid-request",
  );
  assert.equal(
    code(() => fs.readText("/c")),
    "permission-denied",
  );
  assert.deepEqual(
    [...fs.chunks("/d", 2)].map((part) => part.length),
    [2, 1],
  );
  fs.write("/e", "x\ud800");
  fs.append("/e", new Uint8Array([9, 1, 2, 9]).subarray(1, 3));
  fs.append("/e", new Uint8Array([3]).buffer);
  assert.deepEqual(fs.stat("/e"), { kind: "file", size: 3, modified: new Date(1_778_700_600_020) });
  assert.equal(
    code(() => fs.read(7 as never)),
    "TypeError: path: expected a string, got 7",
  );
  assert.equal(
    code(() => fs.write("/e", {} as never)),
    "TypeError: contents: expected a string or bytes, got a value of type object",
  );
  assert.equal(
    code(() => fs.readRange("/e", -1, 2)),
    "TypeError: offset: expected a whole number that is not negative, got -1",
  );
  assert.deepEqual(noted.slice(3), [
    ["readRange", "/d", 0, 2],
    ["readRange", "/d", 2, 2],
    ["readRange", "/d", 3, 2],
    ["write", "/e", utf8("x\ufffd")],
    ["append", "/e", new Uint8Array([1, 2])],
    ["append", "/e", new Uint8Array([3])],
    ["stat", "/e"],
  ]);
});

test("a tree is walked from the outside in, however deep it is", () => {
  const entry = (name: string, kind: string) => ({ name, kind, size: 0 });
  const noted = noting("fs", {
    list: [[entry("a", "directory"), entry("b", "file")], [entry("c", "directory")], [entry("d", "other")]],
  });
  assert.deepEqual(
    [...fs.walk("/top/")].map(({ path }) => path),
    ["/top/a", "/top/a/c", "/top/a/c/d", "/top/b"],
  );
  assert.deepEqual(
    noted.map(([, path]) => path),
    ["/top/", "/top/a", "/top/a/c"],
  );
});

test("a value leaves for the host only if the contract can say it", () => {
  for (const [check, value, expected] of [
    [u64, 0, 0],
    [u64, 2 ** 53 - 1, 2 ** 53 - 1],
    [u64, 2 ** 53, "TypeError"],
    [u64, 1.5, "TypeError"],
    [u64, Number.NaN, "TypeError"],
    [u32, 2 ** 31 - 1, 2 ** 31 - 1],
    [u32, 2 ** 31, "TypeError"],
    [u32, -1, "TypeError"],
    [u32, "1", "TypeError"],
  ] as const) {
    const outcome = ((): unknown => {
      try {
        return check(value as number, "value");
      } catch (error) {
        return (error as Error).name;
      }
    })();
    assert.equal(outcome, expected, `${check.name} ${String(value)}`);
  }
});

test("events have their parts where the contract has them", () => {
  const noted = noting("events", { log: [], thought: [], status: [], progress: [], artifactRef: [], vendor: [] });
  events.warn("careful \ud800");
  events.thought("because");
  events.status("indexing");
  events.progress(1, { total: 2, message: "m" });
  events.artifact("file:///a", "text/plain", { byteSize: 3 });
  events.vendor("x-vendor.acme.heat", { celsius: 71 });
  assert.deepEqual(noted, [
    ["log", "warn", "careful \ufffd"],
    ["thought", "because"],
    ["status", "indexing", undefined],
    ["progress", 1, 2, undefined, "m"],
    ["artifactRef", { uri: "file:///a", contentType: "text/plain", byteSize: 3, sha256: undefined }],
    ["vendor", "x-vendor.acme.heat", '{"celsius":71}'],
  ]);
});

test("a figure is written without exponent, and money is a text", () => {
  for (const [value, expected] of [
    [1e-9, "0.000000001"],
    [1.5e-7, "0.00000015"],
    [-2.5e-10, "-0.00000000025"],
    [1e21, "1000000000000000000000"],
    [1.25e22, "12500000000000000000000"],
    [0.1, "0.1"],
    [-3, "-3"],
    [12n, "12"],
    ["0.0234", "0.0234"],
  ] as const) {
    assert.equal(metrics.decimal(value), expected);
  }
  assert.throws(() => metrics.decimal(Number.POSITIVE_INFINITY), TypeError);
  const noted = noting("metrics", { emit: [] });
  metrics.metric("queue", 3, { dimensions: { shard: "eu-1" } });
  metrics.cost("inference", "0.25", "USD");
  assert.equal(
    code(() => metrics.cost("inference", 0.25 as never, "USD")),
    "TypeError: amount: expected a string, got 0.25",
  );
  assert.deepEqual(noted, [
    ["emit", "queue", "3", undefined, [["shard", "eu-1"]]],
    ["emit", "cost.inference", "0.25", "USD", []],
  ]);
});

test("a job tells what it may know, and sleeps in naps", () => {
  noting("job", {
    expiresAt: [undefined, "2026-05-13T19:30:00.020Z"],
    budget: [[["USD", "0.75"]]],
    cancelRequested: [false, true],
  });
  assert.equal(job.expiresAt(), undefined);
  assert.deepEqual(job.expiresAt(), new Date(1_778_700_600_020));
  assert.deepEqual(job.budget(), { USD: "0.75" });
  assert.equal(
    code(() => job.sleep(60_000)),
    "cancelled",
  ); // at the second nap
});

test("a request says what it is asked to, and its answer reads like one", () => {
  const answer = (status: number, body: Uint8Array, headers: [string, Uint8Array][] = []) => {
    return { status, url: "http://x/", headers, body };
  };
  const noted = noting("net", {
    fetch: [
      answer(200, utf8('{"n": 1}'), [
        ["Content-Type", utf8("text/é")],
        ["x", new Uint8Array([0xe9])],
        ["x", utf8("2")],
      ]),
      answer(404, new Uint8Array([255])),
      answer(200, utf8("no json")),
    ],
  });
  const first = net.request("http://x/", {
    headers: [
      ["x-a", "1"],
      ["x-a", new Uint8Array([50])],
    ],
    json: { n: 1 },
  });
  assert.deepEqual(first.json(), { n: 1 });
  assert.deepEqual(
    [first.ok, first.headers.get("content-TYPE"), first.headers.getAll("X"), first.headers.has("y")],
    [true, "text/é", ["é", "2"], false],
  );
  const second = net.get("http://x/", { headers: { accept: "*/*" }, redirects: 0, timeoutMs: 5 });
  assert.equal(
    code(() => second.text()),
    "invalid-request",
  );
  assert.equal(
    code(() => second.successful()),
    "internal-error",
  );
  assert.equal(
    code(() => net.request("http://x/", { body: "b" }).json()),
    "invalid-request",
  );
  assert.deepEqual(
    noted.map(([, request]) => request),
    [
      {
        method: "POST",
        url: "http://x/",
        body: utf8('{"n":1}'),
        redirects: 10,
        timeoutMs: undefined,
        headers: [
          ["x-a", utf8("1")],
          ["x-a", utf8("2")],
          ["content-type", utf8("application/json")],
        ],
      },
      {
        method: "GET",
        url: "http://x/",
        body: utf8(""),
        redirects: 0,
        timeoutMs: 5,
        headers: [["accept", utf8("*/*")]],
      },
      { method: "POST", url: "http://x/", body: utf8("b"), redirects: 10, timeoutMs: undefined, headers: [] },
    ],
  );
});

test("tools, models and agents are spoken to in JSON", () => {
  const call = callUntil("t", 0);
  noting("tool", {
    list: [[{ name: "upper", description: "d", inputSchema: '{"type":"object"}', outputSchema: null }]],
    call: ['{"text":"A"}', refused("invalid-request")],
    start: [call],
    finish: ["[1]"],
  });
  assert.deepEqual(tool.list(), [{ name: "upper", description: "d", inputSchema: { type: "object" } }]);
  assert.deepEqual(tool.call("upper", { text: "a" }), { text: "A" });
  assert.equal(
    code(() => tool.call("upper", {})),
    "invalid-request",
  );
  assert.deepEqual(tool.start("upper", {}).finish(), [1]);

  const chunk = (content?: string) => JSON.stringify({ choices: [{ delta: { content } }] });
  const noted = noting("model", {
    complete: ['{"choices":[{"message":{"role":"assistant","content":"yes"}}]}', '{"choices":[]}'],
    startStream: [callUntil("m", 0)],
    next: [chunk("a"), chunk(), '{"choices":[]}', chunk("b"), undefined],
    finish: ['{"choices":[{"message":{"role":"assistant","content":"ab"}}]}'],
  });
  assert.equal(model.ask("small", "is it?"), "yes");
  assert.equal(
    code(() => model.ask("small", "is it?")),
    "internal-error",
  );
  const stream = model.stream("small", { messages: [] });
  assert.deepEqual([...stream.texts()], ["a", "b"]);
  assert.equal(stream.finish().choices[0]?.message.content, "ab");
  assert.deepEqual(noted[0], ["complete", "small", '{"messages":[{"role":"user","content":"is it?"}]}']);

  const tasks = noting("delegate", {
    run: ['"done"'],
    startStream: [callUntil("d", 0)],
    jobId: ["job_1"],
    nextEvent: ['{"kind":"log","ts":"t","body":{}}', undefined],
    finish: [refused("budget-exhausted")],
  });
  const at = new Date(0);
  assert.equal(
    delegate.run("echo", { input: [1], lease: { "fs.read": ["/**"] }, expiresAt: at, maxRuntimeSec: 5 }),
    "done",
  );
  const watched = delegate.watch("echo");
  assert.equal(watched.jobId(), "job_1");
  assert.deepEqual([...watched], [{ kind: "log", ts: "t", body: {} }]);
  assert.equal(
    code(() => watched.finish()),
    "budget-exhausted",
  );
  assert.deepEqual(tasks.slice(0, 2), [
    [
      "run",
      { agent: "echo", input: "[1]", lease: [["fs.read", ["/**"]]], expiresAt: at.toISOString(), maxRuntimeSec: 5 },
    ],
    ["startStream", { agent: "echo", input: "null", lease: [], expiresAt: undefined, maxRuntimeSec: undefined }],
  ]);
});

test("small writes become few calls, none is lost, and no character is cut", () => {
  const noted = noting("output", { writeText: [], writeBytes: [], finish: [] });
  const text = new output.TextWriter();
  text.write(`${"x".repeat(65_535)}\ud83d`);
  text.write("\ude00 the end");
  text.flush();
  text.flush();
  text.finish();
  const written = noted.map(([name, contents]) => [name, typeof contents === "string" ? contents.length : contents]);
  assert.deepEqual(written, [
    ["writeText", 65_535],
    ["writeText", 10],
    ["finish", undefined],
  ]);
  assert.equal(noted[1]?.[1], "😀 the end");

  noted.length = 0;
  {
    using bytes = new output.BytesWriter();
    const piece = new Uint8Array(30_000);
    for (let each = 0; each < 3; each++) bytes.write(piece);
    piece.fill(1); // What was written does not change any more.
    bytes.write(utf8("the end"));
  }
  const sizes = noted.map(([name, contents]) => [name, (contents as Uint8Array).length, (contents as Uint8Array)[0]]);
  assert.deepEqual(sizes, [
    ["writeBytes", 90_000, 0],
    ["writeBytes", 7, 116],
  ]);
});
