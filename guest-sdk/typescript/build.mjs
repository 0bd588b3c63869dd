// Makes a component of an agent in TypeScript or JavaScript: `leasehold build` runs this with node.
//
//     node build.mjs --project DIR --wit DIR --out FILE [--no-check]
//
// The project's package.json names the entry (`main`) and may name the engine (`leasehold.engine`). esbuild and what
// puts the bundle into the engine are looked for as node would from there: in the project's node_modules and those of
// the folders above it. What the agent does not call is not imported by the component, so that `leasehold inspect` says
// what it could ever ask for. Errors go to standard error, with exit code 1.

import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync, mkdirSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { parseArgs } from "node:util";

const SDK = dirname(fileURLToPath(import.meta.url));

/** The versions that this SDK was made with. */
const PACKAGES = {
  "esbuild": "0.28.2",
  "componentize-qjs": "0.4.5",
  "@bytecodealliance/componentize-js": "0.23.0",
  "@bytecodealliance/preview2-shim": "0.17.4",
};

/** WASI that the SDK itself needs, in the version the engines import anyway; the host has nothing behind it. */
const WASI = {
  io: `package wasi:io@0.2.12;
interface poll { resource pollable { block: func(); } }`,
  clocks: `package wasi:clocks@0.2.12;
interface monotonic-clock {
    use wasi:io/poll@0.2.12.{pollable};
    type instant = u64;
    type duration = u64;
    now: func() -> instant;
    subscribe-duration: func(when: duration) -> pollable;
}`,
  random: `package wasi:random@0.2.12;
interface random { get-random-bytes: func(len: u64) -> list<u8>; }`,
};

/** An import of the host, as esbuild writes it. */
const IMPORT = /^import (?:\{([^}]*)\}|\* as ([\w$]+)|([\w$]+)) from "((?:leasehold|wasi):[^"]+)";$/gm;

/** What puts a bundle into a component, by the name of the engine that runs it there. */
const ENGINES = {
  async quickjs(project, witPath, jsSource, jsPath) {
    const { componentize } = load(project, "componentize-qjs");
    // `sync`: the host takes no component that needs component-model async.
    return (await componentize({ witPath, world: "agent", jsSource, jsPath, sync: true })).component;
  },
  async starlingmonkey(project, witPath, jsSource, sourcePath) {
    // It needs this one, and does not ask npm for it.
    placeOf(project, "@bytecodealliance/preview2-shim");
    const { componentize } = await loadModule(project, "@bytecodealliance/componentize-js");
    // The host offers no `wasi:http`, whose requests no lease would be asked about.
    const disableFeatures = ["http", "fetch-event"];
    return (await componentize({ sourcePath, witPath, worldName: "agent", disableFeatures })).component;
  },
};

/** An error that says all there is to say: no stack is printed for it. */
class Failure extends Error {}

try {
  await main();
} catch (error) {
  process.stderr.write(error instanceof Failure ? `${error.message}\n` : `${error?.stack ?? error}\n`);
  process.exitCode = 1;
}

async function main() {
  const { values } = parseArgs({
    options: {
      project: { type: "string" },
      wit: { type: "string" },
      out: { type: "string" },
      "no-check": { type: "boolean", default: false },
    },
  });
  for (const name of ["project", "wit", "out"]) {
    if (!values[name]) throw new Failure(`--${name} is missing`);
  }
  const project = resolve(values.project);
  const manifest = join(project, "package.json");
  if (!existsSync(manifest)) throw new Failure(`there is no package.json in ${project}`);
  const { main: entry, leasehold: { engine = "quickjs" } = {} } = JSON.parse(readFileSync(manifest, "utf8"));
  if (!entry || !existsSync(join(project, entry))) {
    throw new Failure(`"main" of ${manifest} has to name the agent's source, such as src/agent.ts`);
  }
  if (!Object.hasOwn(ENGINES, engine)) {
    const known = Object.keys(ENGINES).map((name) => JSON.stringify(name));
    throw new Failure(`"leasehold.engine" of ${manifest} is ${JSON.stringify(engine)}; there is ${known.join(" and ")}`);
  }
  if (!values["no-check"]) checkTypes(project, entry);
  const bundle = narrow(await bundled(project, entry));
  const component = await componentized(project, bundle, resolve(values.wit), ENGINES[engine]);
  mkdirSync(dirname(resolve(values.out)), { recursive: true });
  writeFileSync(values.out, component);
}

/** Loads a package as the project would. */
function load(project, name) {
  const require = createRequire(join(project, "package.json"));
  try {
    return require(name);
  } catch (error) {
    if (error.code !== "MODULE_NOT_FOUND") throw error;
    throw missing(project, name);
  }
}

/** Loads a package that is there for `import` alone. */
async function loadModule(project, name) {
  const place = placeOf(project, name);
  const { exports } = JSON.parse(readFileSync(join(place, "package.json"), "utf8"));
  return import(pathToFileURL(join(place, exports.import)));
}

/** Finds the folder of a package as node would. */
function placeOf(project, name) {
  const places = createRequire(join(project, "package.json")).resolve.paths(name).map((dir) => join(dir, name));
  const place = places.find((place) => existsSync(join(place, "package.json")));
  if (!place) throw missing(project, name);
  return place;
}

function missing(project, name) {
  return new Failure(
    `${name} is not installed for ${project}: run \`npm install\` there` +
      ` (or \`npm install --save-dev --save-exact ${name}@${PACKAGES[name]}\` if its package.json does not name it)`,
  );
}

/** Has the compiler look at the types, which nothing else does: esbuild takes them away unread. */
function checkTypes(project, entry) {
  if (!/\.[cm]?tsx?$/.test(entry) || !existsSync(join(project, "tsconfig.json"))) return;
  const require = createRequire(join(project, "package.json"));
  let manifest;
  try {
    manifest = require.resolve("typescript/package.json");
  } catch {
    return; // Without a compiler the project does without the check.
  }
  const tsc = join(dirname(manifest), require(manifest).bin.tsc);
  const { status } = spawnSync(process.execPath, [tsc, "--noEmit", "-p", project], { stdio: ["ignore", 2, 2] });
  if (status !== 0) throw new Failure("the types do not fit (see above)");
}

/** Gives one module of everything that the agent imports. */
async function bundled(project, entry) {
  const esbuild = load(project, "esbuild");
  const from = (path) => JSON.stringify(path);
  try {
    const { outputFiles, warnings } = await esbuild.build({
      stdin: {
        // The environment comes first: what else is imported may look for a console while it loads.
        contents: `import "@leasehold/agent/environment";
          import { exported } from "@leasehold/agent/agent";
          import * as module from ${from(join(project, entry))};
          export const run = exported(module);`,
        resolveDir: project,
        sourcefile: "leasehold-entry.js",
      },
      absWorkingDir: project,
      bundle: true,
      write: false,
      format: "esm",
      platform: "neutral",
      mainFields: ["module", "main"],
      conditions: ["import", "module", "default"],
      target: "es2024",
      // QuickJS does not run its jobs inside a synchronous call, so `async` is made of generators and of the
      // promises of `src/promise.ts`, which the SDK runs itself.
      supported: { "async-await": false, "async-generator": false, "for-await": false, "using": false },
      alias: { "@leasehold/agent": join(SDK, "src") },
      define: {
        // What packages ask their surroundings that look for no more than this.
        "process.env.NODE_ENV": '"production"',
        "global": "globalThis",
      },
      external: ["leasehold:*", "wasi:*"],
      logLevel: "silent",
    });
    for (const text of await esbuild.formatMessages(warnings, { kind: "warning" })) process.stderr.write(text);
    return outputFiles[0].text;
  } catch (error) {
    if (!error.errors) throw error;
    const texts = await esbuild.formatMessages(error.errors.map(explained), { kind: "error" });
    throw new Failure(texts.join("").trimEnd());
  }
}

/** Adds what an agent's author needs to know to a message of esbuild, in place of what does not help here. */
function explained(message) {
  const [, name] = /^Could not resolve "([^"]+)"/.exec(message.text) ?? [];
  if (name?.startsWith("node:") || message.notes.some((note) => note.text.includes("built into node"))) {
    const text = `An agent has no ${name}: what its lease grants is in @leasehold/agent/fs, …/net, …/job and so on.`;
    return { ...message, notes: [{ text }] };
  }
  if (!/^Top-level await/.test(message.text)) return message;
  const text = "A module's top level runs when the agent is built: await inside the agent's function.";
  return { ...message, notes: [{ text }] };
}

/** Drops the imports that are not used, and tells which are left: names of each interface, or all of it. */
function narrow(bundle) {
  const code = bundle.replace(IMPORT, "");
  const isUsed = (name) => new RegExp(`(?<![\\w$])${name.replaceAll("$", "\\$")}(?![\\w$])`).test(code);
  const interfaces = new Map();
  const source = bundle.replace(IMPORT, (_, list, namespace, whole, specifier) => {
    if (list === undefined) {
      if (!isUsed(namespace ?? whole)) return "";
      interfaces.set(specifier, undefined);
      return _;
    }
    const names = list
      .split(",")
      .map((name) => name.trim())
      .filter(Boolean);
    const used = names.filter((name) => isUsed(name.split(" as ").at(-1)));
    if (used.length === 0) return "";
    const known = interfaces.has(specifier) ? interfaces.get(specifier) : new Set();
    for (const name of used) known?.add(kebab(name.split(" as ")[0]));
    interfaces.set(specifier, known);
    return `import { ${used.join(", ")} } from "${specifier}";`;
  });
  return { source, interfaces };
}

function kebab(name) {
  return name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

/** Writes the part of the contract that the bundle uses. */
function writeContract(wit, interfaces, dir) {
  const specifier = (name) => `leasehold:agent/${name}@0.1.0`;
  for (const file of readdirSync(wit).filter((file) => file.endsWith(".wit"))) {
    let text = readFileSync(join(wit, file), "utf8").replace(/^\s*\/\/.*\n/gm, "");
    if (file === "world.wit") {
      const others = [...interfaces.keys()].filter((name) => name.startsWith("wasi:"));
      text = text
        .replace(/^\s*import ([\w-]+);\n/gm, (line, name) => (interfaces.has(specifier(name)) ? line : ""))
        .replace(/^(\s*)export run/m, (line) => others.map((name) => `    import ${name};\n`).join("") + line);
    } else {
      const used = interfaces.get(specifier(file.replace(/\.wit$/, "")));
      // What is not imported as a whole keeps its types and the functions that are called.
      const keeps = (name) => used === undefined || used.has(name);
      text = text.replace(/^ {4}%?([a-z][\w-]*): func\([\s\S]*?;\n/gm, (text, name) => (keeps(name) ? text : ""));
    }
    writeFileSync(join(dir, file), text);
  }
  for (const [name, text] of Object.entries(WASI)) {
    mkdirSync(join(dir, "deps", name), { recursive: true });
    writeFileSync(join(dir, "deps", name, "package.wit"), text);
  }
}

/** Puts the bundle and its engine into a component, where the bundle's top level has already run. */
async function componentized(project, { source, interfaces }, wit, engine) {
  const dir = mkdtempSync(join(tmpdir(), "leasehold-"));
  try {
    writeContract(wit, interfaces, dir);
    const sourcePath = join(dir, "agent.js");
    writeFileSync(sourcePath, source);
    return await engine(project, dir, source, sourcePath);
  } catch (error) {
    // As the one engine's tools say it, and the other's.
    const call = /unknown import(?:: `|ed function: ')leasehold:agent\/([\w-]+)@[\d.]+(?:#|' ')([\w-]+)/.exec(
      error.message,
    );
    if (call) {
      throw new Failure(
        `the agent called ${call[1]}.${call[2]} while it was built: what stands at the top level of a module runs` +
          ` at build time, where there is no host; call it from inside the agent's function`,
      );
    }
    const thrown =
      /(?:Failed to finish JavaScript module evaluation:|Exception while evaluating top-level script)([\s\S]*)/.exec(
        error.message,
      );
    if (thrown) throw new Failure(`the agent threw while its modules were loaded, at build time: ${thrown[1].trim()}`);
    throw error;
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}
