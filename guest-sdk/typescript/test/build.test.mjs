import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const path = (relative) => fileURLToPath(new URL(relative, import.meta.url));

test("an engine that there is not is refused with the names of those there are", () => {
  for (const engine of ["v8", "toString", 7]) {
    const dir = mkdtempSync(join(tmpdir(), "leasehold-"));
    try {
      writeFileSync(join(dir, "agent.js"), "");
      writeFileSync(join(dir, "package.json"), JSON.stringify({ main: "agent.js", leasehold: { engine } }));
      const args = [path("../build.mjs"), "--project", dir, "--wit", path("../../../wit"), "--out", join(dir, "a.wasm")];
      const { status, stderr } = spawnSync(process.execPath, args, { encoding: "utf8" });
      const text = `"leasehold.engine" of ${join(dir, "package.json")} is ${JSON.stringify(engine)}; there is `;
      assert.deepEqual([status, stderr], [1, `${text}"quickjs" and "starlingmonkey"\n`]);
    } finally {
      rmSync(dir, { recursive: true });
    }
  }
});
