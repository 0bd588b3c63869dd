// Runs the unit tests with node, where the SDK talks to a host that a test makes up: `globalThis.leaseholdHost`.

import { spawnSync } from "node:child_process";
import { readFileSync, readdirSync, rmSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const SDK = fileURLToPath(new URL("..", import.meta.url));

/** The names that `src/host.d.ts` declares, by module. */
const declared = new Map(
  readFileSync(`${SDK}/src/host.d.ts`, "utf8")
    .split(/^declare module /m)
    .slice(1)
    .map((text) => [
      /^"([^"]+)"/.exec(text)[1],
      [...text.matchAll(/^ {2}export function (\w+)/gm)].map(([, name]) => name),
    ]),
);

/** Every function of the host asks the test's own for what it answers. */
const madeUpHost = {
  name: "made-up-host",
  setup(build) {
    build.onResolve({ filter: /^(leasehold|wasi):/ }, ({ path }) => ({ path, namespace: "host" }));
    build.onLoad({ filter: /.*/, namespace: "host" }, ({ path }) => {
      const name = JSON.stringify(/[/]([\w-]+)@/.exec(path)[1]);
      const functions = declared.get(path).map((each) => {
        return `export const ${each} = (...values) => globalThis.leaseholdHost[${name}].${each}(...values);`;
      });
      return { contents: functions.join("\n") };
    });
  },
};

const tests = readdirSync(`${SDK}/test`).filter((name) => name.endsWith(".test.ts"));
rmSync(`${SDK}/build`, { recursive: true, force: true });
await build({
  absWorkingDir: SDK,
  entryPoints: tests.map((name) => `test/${name}`),
  outdir: "build",
  outExtension: { ".js": ".mjs" },
  bundle: true,
  format: "esm",
  platform: "node",
  target: "es2024",
  // As in an agent's own build.
  supported: { "async-await": false, "async-generator": false, "for-await": false, "using": false },
  plugins: [madeUpHost],
  logLevel: "warning",
});
const own = ["test/build.test.mjs", "test/host-types.test.mjs"];
const files = [...own, ...tests.map((name) => `build/${name.replace(/\.ts$/, ".mjs")}`)];
const { status } = spawnSync(process.execPath, ["--test", ...files], { cwd: SDK, stdio: "inherit" });
process.exitCode = status ?? 1;
