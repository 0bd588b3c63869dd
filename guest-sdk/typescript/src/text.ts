/** UTF-8 both ways, by the engine's own means where it has some: QuickJS has no `TextEncoder` and no `TextDecoder`. */

interface Base64 {
  fromBase64?(text: string): Uint8Array;
}

const Native = globalThis as unknown as {
  TextEncoder?: new () => { encode(text: string): Uint8Array };
  TextDecoder?: new (
    label: string,
    options: { fatal: boolean; ignoreBOM: boolean },
  ) => {
    decode(bytes: Uint8Array): string;
  };
};
const nativeEncoder = Native.TextEncoder && new Native.TextEncoder();
const nativeDecoder = Native.TextDecoder && new Native.TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const nativeLenient = Native.TextDecoder && new Native.TextDecoder("utf-8", { fatal: false, ignoreBOM: true });

/** Gives the UTF-8 of a text; half of a surrogate pair becomes U+FFFD. */
export function encode(text: string): Uint8Array {
  return nativeEncoder ? nativeEncoder.encode(text) : encodeHere(text);
}

/** Reads UTF-8; `undefined` if it is none. */
export function decode(bytes: Uint8Array): string | undefined {
  if (!nativeDecoder) return decodeHere(bytes);
  try {
    return nativeDecoder.decode(bytes);
  } catch {
    return undefined;
  }
}

/** Reads UTF-8, with U+FFFD in place of what is none. */
export function decodeLenient(bytes: Uint8Array): string {
  return nativeLenient ? nativeLenient.decode(bytes) : (decodeHere(bytes) ?? mend(bytes));
}

// A loop over characters takes a microsecond a character in an interpreter. So the work is left to what is native:
// `escape` and `encodeURIComponent` know UTF-8, base64 moves bytes, and a block of ASCII needs neither of the first two.

const BLOCK = 4096;
const ASCII = /^[\x00-\x7f]*$/;

/** `encode` for an engine without `TextEncoder`. */
export function encodeHere(text: string): Uint8Array {
  const whole = text.toWellFormed();
  let binary = "";
  for (let from = 0, to: number; from < whole.length; from = to) {
    to = from + BLOCK;
    // Not between the two halves of a character.
    if ((whole.charCodeAt(to) & 0xfc00) === 0xdc00) to++;
    const block = whole.slice(from, to);
    binary += ASCII.test(block) ? block : unescape(encodeURIComponent(block));
  }
  const { fromBase64 } = Uint8Array as unknown as Base64;
  if (fromBase64) return fromBase64.call(Uint8Array, btoa(binary));
  const bytes = new Uint8Array(binary.length);
  for (let index = 0; index < binary.length; index++) bytes[index] = binary.charCodeAt(index);
  return bytes;
}

/** `decode` for an engine without `TextDecoder`. */
export function decodeHere(bytes: Uint8Array): string | undefined {
  const binary = latin1(bytes);
  let text = "";
  try {
    for (let from = 0, to: number; from < binary.length; from = to) {
      to = from + BLOCK;
      while ((binary.charCodeAt(to) & 0xc0) === 0x80) to++;
      const block = binary.slice(from, to);
      text += ASCII.test(block) ? block : decodeURIComponent(escape(block));
    }
  } catch {
    return undefined;
  }
  return text;
}

/** Gives one character a byte. */
export function latin1(bytes: Uint8Array): string {
  const { toBase64 } = bytes as unknown as { toBase64?(): string };
  if (toBase64) return atob(toBase64.call(bytes));
  let text = "";
  for (let from = 0; from < bytes.length; from += 8192) {
    text += String.fromCharCode(...bytes.subarray(from, from + 8192));
  }
  return text;
}

/** Decodes what is not all UTF-8, character by character: U+FFFD stands for the longest part that could begin one. */
export function mend(bytes: Uint8Array): string {
  let text = "";
  for (let at = 0; at < bytes.length;) {
    const first = bytes[at++] ?? 0;
    if (first < 0x80) {
      text += String.fromCharCode(first);
      continue;
    }
    const more =
      first >= 0xc2 && first < 0xe0 ? 1 : first >= 0xe0 && first < 0xf0 ? 2 : first >= 0xf0 && first < 0xf5 ? 3 : 0;
    let point = more === 1 ? first & 0x1f : more === 2 ? first & 0x0f : first & 0x07;
    let left = more;
    // The second byte is bounded where the first one leaves overlong forms, surrogates or too large values open.
    let low = first === 0xe0 ? 0xa0 : first === 0xf0 ? 0x90 : 0x80;
    let high = first === 0xed ? 0x9f : first === 0xf4 ? 0x8f : 0xbf;
    for (; left > 0; left--) {
      const next = bytes[at] ?? 0;
      if (next < low || next > high) break;
      [low, high] = [0x80, 0xbf];
      point = (point << 6) | (next & 0x3f);
      at++;
    }
    text += more === 0 || left > 0 ? "\ufffd" : String.fromCodePoint(point);
  }
  return text;
}
