/** Handing part of the job to another agent: `agent.delegate` (ARCP §9.4, §10). */

import {
  finish as hostFinish,
  jobId as hostJobId,
  nextEvent as hostNextEvent,
  run as hostRun,
  start as hostStart,
  startStream as hostStartStream,
  type Task as HostTask,
} from "leasehold:agent/delegate@0.1.0";
import type { PendingCall } from "leasehold:agent/calls@0.1.0";

import { Pending, Stream } from "./calls.js";
import { json, optionalText, text, u32 } from "./check.js";
import { host } from "./error.js";

/** What another agent is to do, and with what. */
export interface Task {
  /** Its input; `null` if there is none. */
  input?: unknown;
  /**
   * The patterns of each namespace, as in `lease_request`: `{ "fs.read": ["/workspace/**"] }`.
   *
   * What is not named is not granted; a `cost.budget` that is not named is all that is left of this job's.
   */
  lease?: Record<string, readonly string[]> | undefined;
  /** Ends the other agent's lease earlier than this job's own (ARCP §9.5). */
  expiresAt?: Date | string | undefined;
  /** Ends the other job if it runs for longer: whole seconds, at least one. */
  maxRuntimeSec?: number | undefined;
}

/** One event of another agent's job (ARCP §8.2). */
export interface ChildEvent {
  /** Such as `log` or `progress`. */
  kind: string;
  /** When, as RFC 3339. */
  ts: string;
  body: unknown;
}

/**
 * Has `agent`, `name` or `name@version`, do a task, and waits for its result. Needs `agent.delegate` on the agent.
 *
 * Throws `lease-subset-violation` if the task asks for more than this job may, `permission-denied`,
 * `agent-not-available`, `budget-exhausted`; or the error with which the other job ended.
 *
 * ```ts
 * const report = delegate.run<string>("summarize-files", {
 *   input: { path: "/workspace/letters" },
 *   lease: { "fs.read": ["/workspace/letters/**"], "cost.budget": ["USD:0.50"] },
 * });
 * ```
 */
export function run<T = unknown>(agent: string, task?: Task): T {
  const begun = outgoing(agent, task);
  return JSON.parse(host(() => hostRun(begun))) as T;
}

/** Starts a task, and goes on meanwhile. Throws what `run` throws and is known at once. */
export function start<T = unknown>(agent: string, task?: Task): Pending<T> {
  const begun = outgoing(agent, task);
  return new Pending(
    host(() => hostStart(begun)),
    (call) => JSON.parse(hostFinish(call)) as T,
  );
}

/** Starts a task and watches it: the events of the other job come in. */
export function watch<T = unknown>(agent: string, task?: Task): Watched<T> {
  const begun = outgoing(agent, task);
  return new Watched<T>(host(() => hostStartStream(begun)));
}

function outgoing(agent: string, task: Task = {}): HostTask {
  const lease = Object.entries(task.lease ?? {}).map(([namespace, patterns]): [string, string[]] => {
    return [text(namespace, "lease"), [...patterns].map((pattern) => text(pattern, namespace))];
  });
  const at = task.expiresAt instanceof Date ? task.expiresAt.toISOString() : task.expiresAt;
  return {
    agent: text(agent, "agent"),
    input: json(task.input, "input"),
    lease,
    expiresAt: optionalText(at, "expiresAt"),
    maxRuntimeSec: task.maxRuntimeSec === undefined ? undefined : u32(task.maxRuntimeSec, "maxRuntimeSec"),
  };
}

/** A task under way that is watched: its events, and then its result. Dropping it cancels the other job. */
export class Watched<T> extends Stream<ChildEvent, T> {
  /** The id of the job that does it. */
  jobId(): string {
    return host(() => hostJobId(this.call));
  }

  /** Waits for the result. Throws the error with which the other job ended. */
  finish(): T {
    return this.outcome();
  }

  /** @internal */
  protected override nextPart(call: PendingCall): ChildEvent | undefined {
    const event = hostNextEvent(call);
    return event === undefined || event === null ? undefined : (JSON.parse(event) as ChildEvent);
  }

  /** @internal */
  protected override close(call: PendingCall): T {
    return JSON.parse(hostFinish(call)) as T;
  }
}
