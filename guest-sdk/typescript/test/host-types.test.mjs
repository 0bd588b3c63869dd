import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

import { hostTypes } from "../tools/host-types.mjs";

const path = (relative) => fileURLToPath(new URL(relative, import.meta.url));

test("the types of the host are those of the contract (else: node tools/host-types.mjs)", () => {
  assert.equal(readFileSync(path("../src/host.d.ts"), "utf8"), hostTypes(path("../../../wit")));
});

test("the error codes are those of the contract, in its order", () => {
  const [, cases] = /enum error-code \{([^}]*)\}/.exec(readFileSync(path("../../../wit/types.wit"), "utf8"));
  const codes = cases.replace(/\/\/.*/g, "").match(/[a-z-]+/g);
  const [, list] = /ERROR_CODES = \[([^\]]*)\]/.exec(readFileSync(path("../src/error.ts"), "utf8"));
  assert.deepEqual(list.match(/[a-z-]+/g), codes);
});
