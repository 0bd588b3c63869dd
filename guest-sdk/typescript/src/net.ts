/**
 * HTTP requests the lease grants: `net.fetch` (ARCP §9.2).
 *
 * A status such as 404 is a `Response` and no error. Every function can throw a `LeaseholdError` with `lease-expired`,
 * `budget-exhausted`, `permission-denied` and `cancelled`, in addition to what it says itself.
 */

import {
  fetch as hostFetch,
  finish as hostFinish,
  head as hostHead,
  next as hostNext,
  start as hostStart,
  startStream as hostStartStream,
  type Request as HostRequest,
  type Response as HostResponse,
} from "leasehold:agent/net@0.1.0";
import type { PendingCall } from "leasehold:agent/calls@0.1.0";

import { Pending, Stream } from "./calls.js";
import { bytes, json, text, u32, u64 } from "./check.js";
import { LeaseholdError, host } from "./error.js";
import { decode, latin1 } from "./text.js";

/** How many redirects a request follows that does not say. */
const REDIRECTS = 10;

/** What a request may say beside its URL. */
export interface RequestOptions {
  /** `GET` unless there is a body, `POST` if there is one. */
  method?: string | undefined;
  /** The host sets `host`, `content-length` and what belongs to the connection. */
  headers?: Record<string, string> | Iterable<readonly [string, string | Uint8Array]> | undefined;
  body?: string | ArrayBuffer | ArrayBufferView | undefined;
  /** A body of JSON, which is also said in `content-type`. */
  json?: unknown;
  /** How many redirects are followed at most, each of which needs a grant of its own; 0 gives the redirect itself. */
  redirects?: number | undefined;
  /** Cut to the host's limit (default 60 s). */
  timeoutMs?: number | undefined;
}

/** Gets what is at a URL: `request` by another name. */
export function get(url: string, options?: RequestOptions): Response {
  return request(url, options);
}

/**
 * Makes a request and waits for the whole response. Needs `net.fetch` on the URL.
 *
 * Throws `timeout`, `too-large` over the host's limit (default 16 MiB), and `internal-error` if nobody answers.
 *
 * ```ts
 * const created = net.request("https://api.example.com/notes", { json: { text: "kept" } }).successful();
 * ```
 */
export function request(url: string, options?: RequestOptions): Response {
  const request = outgoing(url, options);
  return new Response(host(() => hostFetch(request)));
}

/** Makes a request, and goes on meanwhile. Throws what `request` throws and is known at once. */
export function start(url: string, options?: RequestOptions): Pending<Response> {
  const request = outgoing(url, options);
  return new Pending(
    host(() => hostStart(request)),
    (call) => new Response(hostFinish(call)),
  );
}

/** Makes a request and reads the response as it comes. Throws what `request` throws, but for `too-large`. */
export function stream(url: string, options?: RequestOptions): ResponseStream {
  const request = outgoing(url, options);
  return new ResponseStream(host(() => hostStartStream(request)));
}

function outgoing(url: string, options: RequestOptions = {}): HostRequest {
  const given = options.headers ?? {};
  const list = Symbol.iterator in given ? [...given] : Object.entries(given);
  const headers = list.map(([name, value]): [string, Uint8Array] => [text(name, "headers"), bytes(value, name)]);
  const isJson = options.json !== undefined;
  if (isJson) headers.push(["content-type", bytes("application/json", "headers")]);
  const body = isJson ? json(options.json, "json") : (options.body ?? "");
  const hasBody = isJson || options.body !== undefined;
  return {
    method: text(options.method ?? (hasBody ? "POST" : "GET"), "method"),
    url: text(url, "url"),
    headers,
    body: bytes(body, "body"),
    redirects: u32(options.redirects ?? REDIRECTS, "redirects"),
    timeoutMs: options.timeoutMs === undefined ? undefined : u64(options.timeoutMs, "timeoutMs"),
  };
}

/** The headers of a response, by name; upper and lower case are one. */
export class Headers implements Iterable<[string, string]> {
  readonly #list: [string, Uint8Array][];

  /** @internal */
  constructor(list: [string, Uint8Array][]) {
    this.#list = list;
  }

  /** The first value of a header. */
  get(name: string): string | undefined {
    return this.getAll(name)[0];
  }

  /** Every value of a header, in the server's order. */
  getAll(name: string): string[] {
    return [...this].filter(([known]) => known.toLowerCase() === name.toLowerCase()).map(([, value]) => value);
  }

  has(name: string): boolean {
    return this.get(name) !== undefined;
  }

  /** Names and values as the server sent them; a value that is not UTF-8 is read as Latin-1. */
  *[Symbol.iterator](): Generator<[string, string], void> {
    for (const [name, value] of this.#list) yield [name, decode(value) ?? latin1(value)];
  }
}

/** What came back. */
export class Response {
  /** Such as 200. */
  readonly status: number;
  /** Where it came from, after redirects. */
  readonly url: string;
  readonly headers: Headers;
  /** The body; empty in the `head` of a stream. */
  readonly body: Uint8Array;

  /** @internal */
  constructor(response: HostResponse) {
    this.status = response.status;
    this.url = response.url;
    this.headers = new Headers(response.headers);
    this.body = response.body;
  }

  /** Whether the status is one of success, 200 to 299. */
  get ok(): boolean {
    return this.status >= 200 && this.status < 300;
  }

  /** Gives the response itself, or throws `internal-error` if its status is not one of success. */
  successful(): this {
    if (!this.ok) throw new LeaseholdError("internal-error", `${this.url} answered ${this.status}`);
    return this;
  }

  /** Reads the body as UTF-8. Throws `invalid-request` if it is something else. */
  text(): string {
    const contents = decode(this.body);
    if (contents === undefined) throw new LeaseholdError("invalid-request", `${this.url} is not UTF-8`);
    return contents;
  }

  /** Reads the body as JSON. Throws `invalid-request` if it is something else. */
  json<T = unknown>(): T {
    const contents = this.text();
    try {
      return JSON.parse(contents) as T;
    } catch (cause) {
      throw new LeaseholdError("invalid-request", `${this.url} is not JSON: ${(cause as Error).message}`, { cause });
    }
  }
}

/** A response that is read as it comes, in parts of the body. Dropping it closes the connection. */
export class ResponseStream extends Stream<Uint8Array> {
  #head: Response | undefined;

  /** Waits for everything but the body. Throws `internal-error` if nobody answers, `timeout`. */
  head(): Response {
    this.#head ??= new Response(host(() => hostHead(this.call)));
    return this.#head;
  }

  /** @internal */
  protected override nextPart(call: PendingCall): Uint8Array | undefined {
    this.head();
    return hostNext(call) ?? undefined;
  }

  /** @internal */
  protected override close(call: PendingCall): void {
    call[Symbol.dispose]();
  }
}
