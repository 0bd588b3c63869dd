/** What an agent may know of its own job, and waiting. Needs no grant. */

import {
  agent as hostAgent,
  budget as hostBudget,
  cancelRequested as hostCancelRequested,
  expiresAt as hostExpiresAt,
  grants as hostGrants,
  id as hostId,
  traceId as hostTraceId,
} from "leasehold:agent/job@0.1.0";

import { text } from "./check.js";
import { after, cancellation, sleepFor } from "./promise.js";

/** How long `sleep` may go on after a cancellation; the host's grace time is longer. */
const NAP_MAX_MS = 1000;

/** The job's id, `job_` and a ULID (ARCP §7.1). */
export function id(): string {
  return hostId();
}

/** The agent as it was resolved at submission, `name@version` (ARCP §7.5). */
export function agent(): string {
  return hostAgent();
}

/** The W3C trace id, 32 hexadecimal digits (ARCP §11). */
export function traceId(): string {
  return hostTraceId();
}

/** The instant at which the lease ends, if it does (ARCP §9.5). */
export function expiresAt(): Date | undefined {
  const at = hostExpiresAt();
  return at === undefined || at === null ? undefined : new Date(at);
}

/**
 * What is left of each currency of the budget, as exact decimals: `{ USD: "0.75" }` (ARCP §9.6).
 *
 * Empty if the lease has no `cost.budget`. What is left may be negative.
 */
export function budget(): Record<string, string> {
  return Object.fromEntries(hostBudget());
}

/** The patterns the lease grants in a namespace such as `fs.read` (ARCP §9.2). */
export function grants(namespace: string): string[] {
  return hostGrants(text(namespace, "namespace"));
}

/**
 * Tells whether cancellation was asked for (ARCP §7.4).
 *
 * Once true it stays true, operations answer `cancelled`, and the job is ended by force after the host's grace time
 * (default 5 s).
 */
export function cancelRequested(): boolean {
  return hostCancelRequested();
}

/** Throws `cancelled` once cancellation was asked for: what a long loop calls. */
export function checkCancelled(): void {
  if (cancelRequested()) throw cancellation();
}

/** Sleeps, and throws `cancelled` within a second once cancellation was asked for. Nothing else runs meanwhile. */
export function sleep(ms: number): void {
  // Time is counted down, not read from a clock: the calls a run makes are then the same when the host replays it.
  for (let left = ms; left > 0; left -= NAP_MAX_MS) {
    sleepFor(Math.min(left, NAP_MAX_MS));
    checkCancelled();
  }
}

/** Promises that so much time has passed: the `sleep` of an `async` function, which lets others go on. */
export function delay(ms: number): Promise<void> {
  return new Promise((resolve, reject) => {
    after(ms, resolve, reject);
  });
}
