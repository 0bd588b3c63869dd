/**
 * A result too large for one message, streamed (ARCP §8.4). Needs no grant.
 *
 * A job that wrote anything here has a streamed result: its function then returns nothing, or a `string` as the
 * summary. Text and bytes cannot be mixed in one result.
 */

import {
  finish as hostFinish,
  writeBytes as hostWriteBytes,
  writeText as hostWriteText,
} from "leasehold:agent/output@0.1.0";

import { bytes, text } from "./check.js";
import { host } from "./error.js";

/** How much a writer gathers before it calls the host: characters of a text, bytes of bytes. */
const GATHERED_MAX = 64 * 1024;

/**
 * Adds text to the result, at once.
 *
 * Throws `too-large` over the host's limit (default 256 MiB), `invalid-request` after `finish` or when bytes were
 * written.
 */
export function writeText(contents: string): void {
  host(() => hostWriteText(text(contents, "contents")));
}

/** Adds bytes to the result, at once. Throws as `writeText` does. */
export function writeBytes(contents: ArrayBuffer | ArrayBufferView): void {
  host(() => hostWriteBytes(bytes(contents, "contents")));
}

/** Ends the result; the host does so itself when the agent returns. Throws `invalid-request` if it ended before. */
export function finish(): void {
  host(() => hostFinish());
}

/** Gathers many small texts into few writes. `finish` or `using` writes what is left. */
export class TextWriter implements Disposable {
  // Pairs of surrogates are put together before they are looked at: a text may be cut between two writes.
  #gathered = "";

  /** Adds a text. Throws what `writeText` throws, also of an earlier write. */
  write(contents: string): void {
    if (typeof contents !== "string") text(contents, "contents");
    this.#gathered += contents;
    if (this.#gathered.length < GATHERED_MAX) return;
    const isCut = /[\ud800-\udbff]$/.test(this.#gathered);
    const rest = isCut ? this.#gathered.slice(-1) : "";
    this.#send(isCut ? this.#gathered.slice(0, -1) : this.#gathered);
    this.#gathered = rest;
  }

  /** Hands over what was gathered, so that watchers see it now. */
  flush(): void {
    this.#send(this.#gathered);
  }

  /** Writes what is left and ends the result. */
  finish(): void {
    this.flush();
    finish();
  }

  [Symbol.dispose](): void {
    this.flush();
  }

  #send(contents: string): void {
    this.#gathered = "";
    if (contents !== "") writeText(contents);
  }
}

/** Gathers many small pieces of bytes into few writes. `finish` or `using` writes what is left. */
export class BytesWriter implements Disposable {
  #gathered: Uint8Array[] = [];
  #length = 0;

  /** Adds bytes, which may change afterwards. Throws what `writeBytes` throws, also of an earlier write. */
  write(contents: ArrayBuffer | ArrayBufferView): void {
    const piece = bytes(contents, "contents").slice();
    this.#gathered.push(piece);
    this.#length += piece.length;
    if (this.#length >= GATHERED_MAX) this.flush();
  }

  /** Hands over what was gathered, so that watchers see it now. */
  flush(): void {
    if (this.#length === 0) return;
    const all = new Uint8Array(this.#length);
    let at = 0;
    for (const piece of this.#gathered) {
      all.set(piece, at);
      at += piece.length;
    }
    this.#gathered = [];
    this.#length = 0;
    writeBytes(all);
  }

  /** Writes what is left and ends the result. */
  finish(): void {
    this.flush();
    finish();
  }

  [Symbol.dispose](): void {
    this.flush();
  }
}
