/// <reference types="node" />

import assert from "node:assert/strict";
import { test } from "node:test";

import { examine } from "./report.js";

test("lines and words are counted and the longest word is found", () => {
  const table: [string, number, number, string][] = [
    ["", 0, 0, ""],
    ["one", 1, 1, "one"],
    ["one three\ntwo\n", 2, 3, "three"],
    ["😀😀😀 pretty", 1, 2, "pretty"], // by characters, not by their halves
  ];
  for (const [text, lines, words, longest] of table) {
    assert.deepEqual(examine(text), { lines, words, longest }, JSON.stringify(text));
  }
});
