/** From a function to the export the host calls. */

import { log } from "leasehold:agent/events@0.1.0";

import { json } from "./check.js";
import { refusal, type ErrorCode } from "./error.js";
import { describe } from "./inspect.js";
import { settle, takeUnhandled } from "./promise.js";
import { check, type Check } from "./shape.js";

/** What `agent` makes; a module's default export is its agent. */
export class Agent {
  /** From the JSON of the input to that of the result. @internal */
  readonly run: (input: string) => string;

  /** @internal */
  constructor(run: (input: string) => string) {
    this.run = run;
  }
}

type Run<Input, Output> = (input: Input) => Output | PromiseLike<Output>;

/**
 * Makes a function the agent of this component: `export default agent(…)`.
 *
 * The function takes the `input` of `job.submit` and gives the job's result, which has to be something JSON can say;
 * `undefined` becomes `null`. It may be `async`. With a shape, what the client sent is held against it first, and an
 * input that does not fit ends the job with `invalid-request`; without one the type is taken on trust.
 *
 * A `LeaseholdError` that the function throws ends the job with its code and message. Anything else it throws is
 * logged at `error` with its stack, and ends the job with `internal-error`. After `output` was used, return nothing or
 * a `string`: the summary of a streamed result (ARCP §8.4).
 *
 * ```ts
 * const Input = shape.object({ path: shape.string() });
 *
 * export default agent(Input, ({ path }) => ({ lines: fs.readText(path).split("\n").length }));
 * ```
 */
export function agent<Input = unknown, Output = unknown>(run: Run<Input, Output>): Agent;
export function agent<Input, Output>(input: Check<Input>, run: Run<Input, Output>): Agent;
export function agent<Input, Output>(first: Check<Input> | Run<Input, Output>, second?: Run<Input, Output>): Agent {
  const [shape, run] = second ? [first as Check<Input>, second] : [undefined, first as Run<Input, Output>];
  if (typeof run !== "function") throw new TypeError("agent: expected a function that does the job");
  return new Agent((input) => answer(input, shape, run));
}

/** Gives the component's `run` for a module whose default export is an agent. @internal */
export function exported(module: { default?: unknown }): (input: string) => string {
  if (!(module.default instanceof Agent)) {
    throw new TypeError("the agent's module has to say `export default agent(…)`, with `agent` from @leasehold/agent");
  }
  return module.default.run;
}

function answer<Input, Output>(input: string, shape: Check<Input> | undefined, run: Run<Input, Output>): string {
  try {
    const value: unknown = JSON.parse(input);
    return json(settle(run(shape ? check(shape, value) : (value as Input))), "result");
  } catch (error) {
    throw ending(error);
  } finally {
    for (const error of takeUnhandled())
      log("warn", `a promise was rejected unseen: ${describe(error)}`.toWellFormed());
  }
}

/** Gives the record the contract has for a job's error. */
function ending(thrown: unknown): { code: ErrorCode; message: string } {
  const error = refusal(thrown);
  if (error) return { code: error.code, message: error.message.toWellFormed() };
  const advice = hint(thrown);
  log("error", `uncaught ${describe(thrown)}${advice && `\n${advice}`}`.toWellFormed());
  const isPlain = !(thrown instanceof Error);
  const message = isPlain ? `thrown: ${describe(thrown)}` : thrown.name === "Error" ? thrown.message : String(thrown);
  return { code: "internal-error", message: (advice ? `${message} (${advice})` : message).toWellFormed() };
}

/** What there is instead of what an agent does not have. */
const INSTEAD: Record<string, string> = {
  fetch: "net.get and net.request of @leasehold/agent/net",
  XMLHttpRequest: "net.get and net.request of @leasehold/agent/net",
  WebSocket: "net.stream of @leasehold/agent/net",
  process: "the job's input, and @leasehold/agent/job",
  require: "import, which is bundled",
  Buffer: "Uint8Array, TextEncoder and TextDecoder",
  URL: "an npm package that parses URLs, or text",
  URLSearchParams: "encodeURIComponent",
  structuredClone: "JSON.parse(JSON.stringify(value))",
  setImmediate: "queueMicrotask or setTimeout",
  localStorage: "@leasehold/agent/fs",
  Intl: "nothing: the engine knows no locales",
};

function hint(thrown: unknown): string {
  if (!(thrown instanceof ReferenceError)) return "";
  const name = /^'?(\w+)'? is not defined/.exec(thrown.message)?.[1] ?? "";
  return Object.hasOwn(INSTEAD, name) ? `an agent has no ${name}; there is ${INSTEAD[name]}` : "";
}
