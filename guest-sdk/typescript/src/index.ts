/**
 * Writes Leasehold agents in TypeScript and JavaScript.
 *
 * An agent is one function from an input to a result. It is built as a WebAssembly component, and it reaches nothing
 * but what its job's lease grants (ARCP §9). Each interface of the host is a module of its own beside this one,
 * `@leasehold/agent/fs` and so on, so that an agent's component imports what it calls and nothing else.
 */

export { agent, type Agent } from "./agent.js";
export { ERROR_CODES, LeaseholdError, type ErrorCode } from "./error.js";
export * as shape from "./shape.js";
