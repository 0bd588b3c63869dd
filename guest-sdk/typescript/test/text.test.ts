/// <reference types="node" />

import assert from "node:assert/strict";
import { test } from "node:test";

import { describe, format, inspect } from "../src/inspect.js";
import { decodeHere, encodeHere, mend } from "../src/text.js";

test("what is done without the engine's coders is what theirs do", () => {
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  const fatal = new TextDecoder("utf-8", { ignoreBOM: true, fatal: true });
  for (const text of [
    "",
    "plain",
    "é",
    "a\u{1f600}b",
    "\ufeffx",
    "\ud800",
    "a\udc00\ud800b",
    "\u0000\u007f\u0080\u07ff\u0800\uffff\u{10ffff}",
  ]) {
    assert.deepEqual(encodeHere(text), new TextEncoder().encode(text), JSON.stringify(text));
    assert.equal(decodeHere(encodeHere(text)), text.toWellFormed(), JSON.stringify(text));
  }
  // What is done in blocks, cut at every place of a character.
  for (let before = 4090; before < 4100; before++) {
    const text = `${"x".repeat(before)}\u{1f600}é\u{1f600}${"y".repeat(5000)}é`;
    assert.deepEqual(encodeHere(text), new TextEncoder().encode(text), String(before));
    assert.equal(decodeHere(encodeHere(text)), text, String(before));
  }
  // Every pair of bytes that can begin a character, and what can go wrong after it.
  const tails = [[], [0x80], [0xbf], [0x41], [0x80, 0x80], [0x80, 0x41], [0x80, 0x80, 0x80], [0xff]];
  for (let first = 0x7f; first < 0x100; first++) {
    for (const second of [0x00, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xff]) {
      for (const tail of tails) {
        const bytes = new Uint8Array([first, second, ...tail]);
        assert.equal(mend(bytes), decoder.decode(bytes), bytes.join());
        let strict: string | undefined;
        try {
          strict = fatal.decode(bytes);
        } catch {
          strict = undefined;
        }
        assert.equal(decodeHere(bytes), strict, bytes.join());
      }
    }
  }
});

test("a value is shown as a program would write it", () => {
  const circular: { self?: unknown } = {};
  circular.self = circular;
  class Point {
    x = 1;
  }
  for (const [value, expected] of [
    ["text", "text"],
    [["text", 1n, null, undefined], '["text", 1n, null, undefined]'],
    [{ a: { b: { c: { d: { e: 1 } } } } }, "{ a: { b: { c: { d: {…} } } } }"],
    [{ "a b": 1 }, '{ "a b": 1 }'],
    [circular, "{ self: [circular] }"],
    [new Point(), "Point { x: 1 }"],
    [new Map([["k", [1]]]), 'Map(1) {"k" => [1]}'],
    [new Set([1]), "Set(1) {1}"],
    [new Uint8Array(3), "Uint8Array(3) [0, 0, 0]"],
    [new Date(0), "1970-01-01T00:00:00.000Z"],
    [/x/g, "/x/g"],
    [Symbol("s"), "Symbol(s)"],
    [function named() {}, "[function named]"],
    [Object.create(null), "{}"],
    [Array.from({ length: 102 }, () => 0), `[${"0, ".repeat(100)}… 2 more]`],
  ] as const) {
    assert.equal(inspect(value), expected);
  }
  assert.match(
    describe(new RangeError("far", { cause: new Error("near") })),
    /^RangeError: far\n +at [^]*\ncaused by Error: near\n/,
  );
});

test("what is printed is put together as by a console", () => {
  for (const [values, expected] of [
    [[], ""],
    [["a", 1, { b: 2 }], "a 1 { b: 2 }"],
    [
      ["%s is %d%%, %j %i %f %o %c!", "x", "7", { a: 1 }, 1.9, "2.5", [1], "css", "rest"],
      'x is 7%, {"a":1} 1 2.5 [1] ! rest',
    ],
    [["%s"], "%s"],
    [[1, "%s", 2], "1 %s 2"],
  ] as const) {
    assert.equal(format([...values]), expected);
  }
});
