/**
 * The files a lease grants: `fs.read` and `fs.write` (ARCP §9.2).
 *
 * Every function can throw a `LeaseholdError` with `lease-expired`, `budget-exhausted`, `permission-denied` and
 * `cancelled`, in addition to what it says itself. A path is absolute and is taken as written.
 */

import {
  append as hostAppend,
  createDir as hostCreateDir,
  list as hostList,
  read as hostRead,
  readRange as hostReadRange,
  remove as hostRemove,
  stat as hostStat,
  write as hostWrite,
  type Kind,
} from "leasehold:agent/fs@0.1.0";

import { bytes, text, u64 } from "./check.js";
import { LeaseholdError, host } from "./error.js";
import { decode } from "./text.js";

export type { Kind };

/** What a file may be made of: a text, which is written as UTF-8, or bytes. */
export type Contents = string | ArrayBuffer | ArrayBufferView;

/** One entry of a directory, as `list` and `walk` give it. */
export interface Entry {
  /** The whole path, ready for `read` or `list`. */
  path: string;
  /** The last part of the path. */
  name: string;
  kind: Kind;
  /** Bytes for a file, 0 for everything else. */
  size: number;
}

/** What is known of a file or directory. */
export interface Metadata {
  kind: Kind;
  /** Bytes for a file, 0 for everything else. */
  size: number;
  /** When it was last changed. */
  modified: Date;
}

/** How much `chunks` asks for at a time, unless it is told. */
const CHUNK_BYTES = 256 * 1024;

/**
 * Reads a whole file. Needs `fs.read` on `path`.
 *
 * Throws `too-large` over the host's read limit (default 16 MiB), where `chunks` is the way; `not-found`, `not-a-file`.
 */
export function read(path: string): Uint8Array {
  return host(() => hostRead(text(path, "path")));
}

/** Reads a whole file as UTF-8. Throws what `read` throws, and `invalid-request` for a file that is not UTF-8. */
export function readText(path: string): string {
  const contents = decode(read(path));
  if (contents === undefined) throw new LeaseholdError("invalid-request", `${path} is not UTF-8`);
  return contents;
}

/**
 * Reads at most `length` bytes from `offset`. Needs `fs.read` on `path`.
 *
 * Gives fewer at the end of the file, none beyond it, and never more than the host's read limit (default 16 MiB).
 */
export function readRange(path: string, offset: number, length: number): Uint8Array {
  return host(() => hostReadRange(text(path, "path"), u64(offset, "offset"), u64(length, "length")));
}

/** Reads a file of any size in parts, the last of which may be smaller. Needs `fs.read` on `path`. */
export function* chunks(path: string, length = CHUNK_BYTES): Generator<Uint8Array, void> {
  for (let offset = 0; ;) {
    const part = readRange(path, offset, length);
    if (part.length === 0) return;
    yield part;
    offset += part.length;
  }
}

/**
 * Lists a directory in the order of its names. Needs `fs.read` on `path`.
 *
 * Names that are not UTF-8 are left out. Throws `too-large` over the host's limit (default 65,536 entries),
 * `not-found`, `not-a-directory`.
 */
export function list(path: string): Entry[] {
  const folder = path.replace(/\/+$/, "");
  return host(() => hostList(text(path, "path"))).map(({ name, kind, size }) => {
    return { path: `${folder}/${name}`, name, kind, size: Number(size) };
  });
}

/**
 * Gives everything under a directory, each directory before what is in it. Needs `fs.read` on all of it: what cannot
 * be listed ends the walk with its error.
 */
export function* walk(path: string): Generator<Entry, void> {
  // With a stack of its own: an engine's is short, and a tree may be deep.
  const open = [list(path)];
  for (let entries = open.at(-1); entries; entries = open.at(-1)) {
    const entry = entries.shift();
    if (!entry) {
      open.pop();
      continue;
    }
    yield entry;
    if (entry.kind === "directory") open.push(list(entry.path));
  }
}

/** Describes a file or directory without opening it. Needs `fs.read` on `path`. Throws `not-found`. */
export function stat(path: string): Metadata {
  const { kind, size, modified } = host(() => hostStat(text(path, "path")));
  return { kind, size: Number(size), modified: new Date(modified) };
}

/**
 * Replaces a file's contents at once, or creates the file. Needs `fs.write` on `path`.
 *
 * A reader sees the old contents or the new, never a mixture. Throws `not-found` without its directory, `not-a-file`,
 * `too-large` over the host's write limit (default 16 MiB).
 */
export function write(path: string, contents: Contents): void {
  host(() => hostWrite(text(path, "path"), bytes(contents, "contents")));
}

/** Adds to the end of a file, or creates it. Needs `fs.write` on `path`. Throws what `write` throws. */
export function append(path: string, contents: Contents): void {
  host(() => hostAppend(text(path, "path"), bytes(contents, "contents")));
}

/** Creates a directory, whose parent must exist. Needs `fs.write` on `path`. Throws `already-exists`, `not-found`. */
export function createDir(path: string): void {
  host(() => hostCreateDir(text(path, "path")));
}

/** Removes a file or an empty directory. Needs `fs.write` on `path`. Throws `not-found`, `not-empty`. */
export function remove(path: string): void {
  host(() => hostRemove(text(path, "path")));
}
