/**
 * Looks at values before they leave for the host.
 *
 * The engine takes what does not fit the contract for its own fault and ends the job without a word, so a value of
 * another type is found here, and is a `TypeError` that names it.
 */

import { encode } from "./text.js";

/** A text. What is no Unicode in it (half of a surrogate pair) becomes U+FFFD, as everywhere on the web. */
export function text(value: string, name: string): string {
  if (typeof value !== "string") throw wrong(name, "a string", value);
  return value.toWellFormed();
}

/** A text, or none. */
export function optionalText(value: string | undefined | null, name: string): string | undefined {
  return value === undefined || value === null ? undefined : text(value, name);
}

/** A whole number from 0 to 2⁵³ - 1. */
export function u64(value: number, name: string): number {
  if (!Number.isSafeInteger(value) || value < 0) throw wrong(name, "a whole number that is not negative", value);
  return value;
}

/** A whole number from 0 to 2³¹ - 1, which is as far as the engine reads a `u32`. */
export function u32(value: number, name: string): number {
  if (!Number.isInteger(value) || value < 0 || value > 0x7fff_ffff) {
    throw wrong(name, "a whole number from 0 to 2147483647", value);
  }
  return value;
}

/** Bytes, or a text as its UTF-8. */
export function bytes(value: string | ArrayBuffer | ArrayBufferView, name: string): Uint8Array {
  if (typeof value === "string") return encode(value);
  if (value instanceof ArrayBuffer) return new Uint8Array(value);
  if (ArrayBuffer.isView(value)) return new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
  throw wrong(name, "a string or bytes", value);
}

/** The JSON text of a value. */
export function json(value: unknown, name: string): string {
  const text = JSON.stringify(value ?? null);
  if (text === undefined) throw wrong(name, "something JSON can say", value);
  // Half of a surrogate pair is written as an escape that no other JSON reader takes.
  return text.replace(/\\(ud[89a-f][0-9a-f]{2}|.)/g, (all, escape: string) => (escape.length === 5 ? "\ufffd" : all));
}

function wrong(name: string, expected: string, value: unknown): TypeError {
  const found = value === null ? "null" : typeof value === "number" ? String(value) : `a value of type ${typeof value}`;
  return new TypeError(`${name}: expected ${expected}, got ${found}`);
}
