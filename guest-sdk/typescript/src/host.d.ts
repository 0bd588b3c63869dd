// Generated from wit/ by tools/host-types.mjs; do not change it by hand.
//
// What an agent's component imports, as the component toolchain hands it to JavaScript. A `result` is its value, or
// an error with the contract's record as `payload`. The modules of this package are the pleasant way to all of it.

declare module "leasehold:agent/types@0.1.0" {
  export type Json = string;
  export type Timestamp = string;
  export type Decimal = string;
  export type ErrorCode =
    | "permission-denied"
    | "lease-subset-violation"
    | "lease-expired"
    | "budget-exhausted"
    | "job-not-found"
    | "agent-not-available"
    | "agent-version-not-available"
    | "cancelled"
    | "timeout"
    | "invalid-request"
    | "internal-error"
    | "not-found"
    | "already-exists"
    | "not-a-directory"
    | "not-a-file"
    | "not-empty"
    | "too-large"
    | "unknown-outcome";
  export interface Error {
    code: ErrorCode;
    message: string;
  }
}

declare module "leasehold:agent/calls@0.1.0" {
  import type { Error } from "leasehold:agent/types@0.1.0";
  export interface PendingCall {
    callId(): string;
    [Symbol.dispose](): void;
  }
  export function waitAny(calls: PendingCall[], timeoutMs: number | null | undefined): number | null | undefined;
}

declare module "leasehold:agent/fs@0.1.0" {
  import type { Error, Timestamp } from "leasehold:agent/types@0.1.0";
  export type Kind = "file" | "directory" | "other";
  export interface Metadata {
    kind: Kind;
    size: number;
    modified: Timestamp;
  }
  export interface Entry {
    name: string;
    kind: Kind;
    size: number;
  }
  export function read(path: string): Uint8Array;
  export function readRange(path: string, offset: number, length: number): Uint8Array;
  export function list(path: string): Entry[];
  export function stat(path: string): Metadata;
  export function write(path: string, contents: Uint8Array): void;
  export function append(path: string, contents: Uint8Array): void;
  export function createDir(path: string): void;
  export function remove(path: string): void;
}

declare module "leasehold:agent/net@0.1.0" {
  import type { Error } from "leasehold:agent/types@0.1.0";
  import type { PendingCall } from "leasehold:agent/calls@0.1.0";
  export type Header = [string, Uint8Array];
  export interface Request {
    method: string;
    url: string;
    headers: Header[];
    body: Uint8Array;
    redirects: number;
    timeoutMs: number | null | undefined;
  }
  export interface Response {
    status: number;
    url: string;
    headers: Header[];
    body: Uint8Array;
  }
  export function fetch(request: Request): Response;
  export function start(request: Request): PendingCall;
  export function finish(call: PendingCall): Response;
  export function startStream(request: Request): PendingCall;
  export function head(call: PendingCall): Response;
  export function next(call: PendingCall): Uint8Array | null | undefined;
}

declare module "leasehold:agent/tool@0.1.0" {
  import type { Error, Json } from "leasehold:agent/types@0.1.0";
  import type { PendingCall } from "leasehold:agent/calls@0.1.0";
  export interface Description {
    name: string;
    description: string;
    inputSchema: Json;
    outputSchema: Json | null | undefined;
  }
  export function list(): Description[];
  export function call(name: string, arguments: Json): Json;
  export function start(name: string, arguments: Json): PendingCall;
  export function finish(call: PendingCall): Json;
}

declare module "leasehold:agent/model@0.1.0" {
  import type { Error, Json } from "leasehold:agent/types@0.1.0";
  import type { PendingCall } from "leasehold:agent/calls@0.1.0";
  export function list(): string[];
  export function complete(model: string, request: Json): Json;
  export function start(model: string, request: Json): PendingCall;
  export function finish(call: PendingCall): Json;
  export function startStream(model: string, request: Json): PendingCall;
  export function next(call: PendingCall): Json | null | undefined;
}

declare module "leasehold:agent/delegate@0.1.0" {
  import type { Error, Json, Timestamp } from "leasehold:agent/types@0.1.0";
  import type { PendingCall } from "leasehold:agent/calls@0.1.0";
  export interface Task {
    agent: string;
    input: Json;
    lease: [string, string[]][];
    expiresAt: Timestamp | null | undefined;
    maxRuntimeSec: number | null | undefined;
  }
  export function run(task: Task): Json;
  export function start(task: Task): PendingCall;
  export function startStream(task: Task): PendingCall;
  export function finish(call: PendingCall): Json;
  export function jobId(call: PendingCall): string;
  export function nextEvent(call: PendingCall): Json | null | undefined;
}

declare module "leasehold:agent/metrics@0.1.0" {
  import type { Error, Decimal } from "leasehold:agent/types@0.1.0";
  export function emit(
    name: string,
    value: Decimal,
    unit: string | null | undefined,
    dimensions: [string, string][],
  ): void;
}

declare module "leasehold:agent/events@0.1.0" {
  import type { Error, Json } from "leasehold:agent/types@0.1.0";
  export type Level = "debug" | "info" | "warn" | "error";
  export interface Reference {
    uri: string;
    contentType: string;
    byteSize: number | null | undefined;
    sha256: string | null | undefined;
  }
  export function log(level: Level, message: string): void;
  export function thought(text: string): void;
  export function status(phase: string, message: string | null | undefined): void;
  export function progress(
    current: number,
    total: number | null | undefined,
    units: string | null | undefined,
    message: string | null | undefined,
  ): void;
  export function artifactRef(artifact: Reference): void;
  export function vendor(kind: string, body: Json): void;
}

declare module "leasehold:agent/output@0.1.0" {
  import type { Error } from "leasehold:agent/types@0.1.0";
  export function writeText(text: string): void;
  export function writeBytes(bytes: Uint8Array): void;
  export function finish(): void;
}

declare module "leasehold:agent/job@0.1.0" {
  import type { Timestamp, Decimal } from "leasehold:agent/types@0.1.0";
  export function id(): string;
  export function agent(): string;
  export function traceId(): string;
  export function expiresAt(): Timestamp | null | undefined;
  export function budget(): [string, Decimal][];
  export function grants(namespace: string): string[];
  export function cancelRequested(): boolean;
}

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
