// Writes `src/host.d.ts`, the types of what an agent can import, out of the contract: `node tools/host-types.mjs`.

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const SDK = fileURLToPath(new URL("..", import.meta.url));

/** The interfaces in the order of the contract's own text. */
const INTERFACES = ["types", "calls", "fs", "net", "tool", "model", "delegate", "metrics", "events", "output", "job"];

/** What does not fit is broken: the lines of a module are indented, and a function's begin with `export function`. */
const LINE_MAX = 100;

const PLAIN = { string: "string", bool: "boolean", u8: "number", u16: "number", u32: "number", u64: "number" };

/** Gives the declarations for the contract in a folder. */
export function hostTypes(wit) {
  const modules = INTERFACES.map((name) => module(name, readFileSync(join(wit, `${name}.wit`), "utf8")));
  return `// Generated from wit/ by tools/host-types.mjs; do not change it by hand.
//
// What an agent's component imports, as the component toolchain hands it to JavaScript. A \`result\` is its value, or
// an error with the contract's record as \`payload\`. The modules of this package are the pleasant way to all of it.

${modules.join("\n")}
declare module "wasi:clocks/monotonic-clock@0.2.12" {
  export interface Pollable {
    block(): void;
    [Symbol.dispose](): void;
  }
  export function now(): number | bigint;
  export function subscribeDuration(when: number): Pollable;
}

declare module "wasi:random/random@0.2.12" {
  export function getRandomBytes(len: number): Uint8Array;
}
`;
}

function module(name, text) {
  const scan = scanner(text.replace(/\/\/.*$/gm, ""));
  scan.skip("interface");
  scan.skip(name);
  scan.skip("{");
  const [uses, items] = [[], []];
  while (!scan.at("}")) item(scan, uses, items);
  const lines = [...uses, ...items].flatMap((item) => item.split("\n"));
  return `declare module "leasehold:agent/${name}@0.1.0" {\n${lines.map((line) => `  ${line}\n`).join("")}}\n`;
}

function item(scan, uses, items) {
  const word = scan.take();
  if (word === "use") {
    const from = scan.take();
    scan.skip(".");
    const names = list(scan, "{", "}", () => pascal(scan.take()));
    scan.skip(";");
    uses.push(`import type { ${names.join(", ")} } from "leasehold:agent/${from}@0.1.0";`);
  } else if (word === "type") {
    const name = scan.take();
    scan.skip("=");
    items.push(`export type ${pascal(name)} = ${type(scan)};`);
    scan.skip(";");
  } else if (word === "enum") {
    const name = scan.take();
    const cases = list(scan, "{", "}", () => `"${scan.take()}"`);
    const type = `export type ${pascal(name)} = ${cases.join(" | ")};`;
    items.push(type.length > LINE_MAX ? type.replace(/ \| |(?<= = )/g, "\n  | ").replace("= \n", "=\n") : type);
  } else if (word === "record") {
    const name = scan.take();
    const fields = list(scan, "{", "}", () => parameter(scan));
    items.push(`export interface ${pascal(name)} {\n${fields.map((field) => `  ${field};\n`).join("")}}`);
  } else if (word === "resource") {
    const name = scan.take();
    const methods = [];
    scan.skip("{");
    while (!scan.at("}")) methods.push(`  ${func(scan, scan.take())}\n`);
    scan.skip("}");
    items.push(`export interface ${pascal(name)} {\n${methods.join("")}  [Symbol.dispose](): void;\n}`);
  } else {
    items.push(`export function ${func(scan, word)}`);
  }
}

function func(scan, name) {
  scan.skip(":");
  scan.skip("func");
  const parameters = list(scan, "(", ")", () => parameter(scan));
  const isGiven = scan.at("->");
  if (isGiven) scan.skip("->");
  const result = isGiven ? type(scan) : "void";
  scan.skip(";");
  const line = `${camel(name)}(${parameters.join(", ")}): ${result};`;
  if (line.length <= LINE_MAX) return line;
  return `${camel(name)}(\n${parameters.map((parameter) => `  ${parameter},\n`).join("")}): ${result};`;
}

function parameter(scan) {
  const name = camel(scan.take());
  scan.skip(":");
  return `${name}: ${type(scan)}`;
}

function type(scan) {
  const word = scan.take();
  if (PLAIN[word]) return PLAIN[word];
  if (word === "_") return "void";
  if (!scan.at("<")) return pascal(word);
  const inner = list(scan, "<", ">", () => type(scan));
  switch (word) {
    case "list":
      return inner[0] === "number" ? "Uint8Array" : inner[0].includes(" | ") ? `(${inner[0]})[]` : `${inner[0]}[]`;
    case "option":
      return `${inner[0]} | null | undefined`;
    case "tuple":
      return `[${inner.join(", ")}]`;
    case "borrow":
    case "result":
      return inner[0];
    default:
      throw new Error(`no TypeScript for ${word}`);
  }
}

function list(scan, open, close, each) {
  const found = [];
  scan.skip(open);
  while (!scan.at(close)) {
    found.push(each());
    if (!scan.at(close)) scan.skip(",");
  }
  scan.skip(close);
  return found;
}

function scanner(text) {
  const words = text.match(/->|%?[\w-]*\w|[^\s\w]/g);
  let next = 0;
  return {
    at: (word) => words[next] === word,
    take: () => words[next++].replace(/^%/, ""),
    skip(word) {
      if (words[next] !== word) throw new Error(`expected ${word}, found ${words.slice(next, next + 5).join(" ")}`);
      next++;
    },
  };
}

function camel(name) {
  return name.replace(/-(\w)/g, (_, letter) => letter.toUpperCase());
}

function pascal(name) {
  return camel(`-${name}`);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  writeFileSync(join(SDK, "src/host.d.ts"), hostTypes(join(SDK, "../../wit")));
}
