/**
 * What an agent tells those who watch its job (ARCP §8.2). Needs no grant.
 *
 * `console.log`, `console.warn` and their like are the same as the functions of their levels here.
 */

import {
  artifactRef as hostArtifactRef,
  log as hostLog,
  progress as hostProgress,
  status as hostStatus,
  thought as hostThought,
  vendor as hostVendor,
  type Level,
} from "leasehold:agent/events@0.1.0";

import { json, optionalText, text, u64 } from "./check.js";
import { host } from "./error.js";

export type { Level };

/** Logs at a level. Texts are cut at the host's limit (default 16 KiB), with a mark at the cut. */
export function log(level: Level, message: string): void {
  hostLog(level, text(message, "message"));
}

/** Logs what helps to find a fault. */
export function debug(message: string): void {
  log("debug", message);
}

/** Logs what went as it should. */
export function info(message: string): void {
  log("info", message);
}

/** Logs what the agent can cope with and people may want to know. */
export function warn(message: string): void {
  log("warn", message);
}

/** Logs what the agent cannot cope with. */
export function error(message: string): void {
  log("error", message);
}

/** Tells the reasoning that explains what comes next. */
export function thought(message: string): void {
  hostThought(text(message, "message"));
}

/**
 * Tells that the job has entered a phase.
 *
 * Throws `invalid-request` for the host's own phases `back_pressure`, `credential_rotated` and `lease_expired`.
 */
export function status(phase: string, message?: string): void {
  host(() => hostStatus(text(phase, "phase"), optionalText(message, "message")));
}

/** What a progress report may say beside its figure. */
export interface ProgressOptions {
  /** How far there is to go; without it the end is not known. */
  total?: number | undefined;
  /** What is counted. */
  units?: string | undefined;
  /** What the agent is at. */
  message?: string | undefined;
}

/** Tells how far the job has come (ARCP §8.2.1). Throws `invalid-request` if `current` is over `total`. */
export function progress(current: number, options: ProgressOptions = {}): void {
  const total = options.total === undefined ? undefined : u64(options.total, "total");
  const [units, message] = [optionalText(options.units, "units"), optionalText(options.message, "message")];
  host(() => hostProgress(u64(current, "current"), total, units, message));
}

/** What may be said of an artifact beside where and what it is. */
export interface ArtifactOptions {
  byteSize?: number | undefined;
  /** 64 hexadecimal digits. */
  sha256?: string | undefined;
}

/** Tells that something was made and can be found at `uri`. Throws `invalid-request` if a part is malformed. */
export function artifact(uri: string, contentType: string, options: ArtifactOptions = {}): void {
  const reference = {
    uri: text(uri, "uri"),
    contentType: text(contentType, "contentType"),
    byteSize: options.byteSize === undefined ? undefined : u64(options.byteSize, "byteSize"),
    sha256: optionalText(options.sha256, "sha256"),
  };
  host(() => hostArtifactRef(reference));
}

/**
 * Emits an event of the agent's own kind, `x-vendor.<vendor>.<name>`, whose body is an object.
 *
 * Throws `invalid-request` for another kind or a body that is no object.
 */
export function vendor(kind: string, body: object): void {
  host(() => hostVendor(text(kind, "kind"), json(body, "body")));
}
