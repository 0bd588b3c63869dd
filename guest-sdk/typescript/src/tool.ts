/** Tools the operator has registered: `tool.call` (ARCP §9.2). */

import {
  call as hostCall,
  finish as hostFinish,
  list as hostList,
  start as hostStart,
} from "leasehold:agent/tool@0.1.0";

import { Pending } from "./calls.js";
import { json, text } from "./check.js";
import { host } from "./error.js";

/** A tool, as `list` gives it. */
export interface Tool {
  /** Such as `search.web`. */
  name: string;
  description: string;
  /** The JSON Schema of its arguments. */
  inputSchema: unknown;
  /** The JSON Schema of its result, if it has one. */
  outputSchema?: unknown;
}

/** Gives the tools that this lease covers, by name. Needs no grant. */
export function list(): Tool[] {
  return host(() => hostList()).map(({ name, description, inputSchema, outputSchema }) => {
    const tool: Tool = { name, description, inputSchema: JSON.parse(inputSchema) };
    if (outputSchema !== undefined && outputSchema !== null) tool.outputSchema = JSON.parse(outputSchema);
    return tool;
  });
}

/**
 * Calls a tool. Needs `tool.call` on `name`.
 *
 * Throws `permission-denied`, `not-found`; `invalid-request` if the arguments do not fit the tool's schema;
 * `budget-exhausted` if its price is more than what is left; `internal-error` in the tool's own words if it fails;
 * `timeout`. The type of the result is taken on trust.
 */
export function call<T = unknown>(name: string, values: object): T {
  return JSON.parse(host(() => hostCall(text(name, "name"), json(values, "values")))) as T;
}

/** Starts a call of a tool, and goes on meanwhile. Throws what `call` throws and is known at once. */
export function start<T = unknown>(name: string, values: object): Pending<T> {
  const call = host(() => hostStart(text(name, "name"), json(values, "values")));
  return new Pending(call, (call) => JSON.parse(hostFinish(call)) as T);
}
