/** Why something was refused or failed, with the codes of the contract (`wit/types.wit`). */

// Every other module comes by here, and with it the types of what surrounds an agent.
/// <reference path="./globals.d.ts" />
/// <reference path="./host.d.ts" />

/** Every code there is. */
export const ERROR_CODES = [
  "permission-denied",
  "lease-subset-violation",
  "lease-expired",
  "budget-exhausted",
  "job-not-found",
  "agent-not-available",
  "agent-version-not-available",
  "cancelled",
  "timeout",
  "invalid-request",
  "internal-error",
  "not-found",
  "already-exists",
  "not-a-directory",
  "not-a-file",
  "not-empty",
  "too-large",
  "unknown-outcome",
] as const;

/** One of them. */
export type ErrorCode = (typeof ERROR_CODES)[number];

/**
 * A code and a sentence: what the host answers, and what an agent ends its job with.
 *
 * Thrown out of the agent it becomes `job.error` (ARCP §7.3), where clients read the message, so it holds no secret.
 *
 * ```ts
 * try {
 *   fs.readText("/private/key.txt");
 * } catch (error) {
 *   if (!(error instanceof LeaseholdError && error.code === "permission-denied")) throw error;
 *   console.warn("going on without it");
 * }
 * ```
 */
export class LeaseholdError extends Error {
  override readonly name = "LeaseholdError";
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.code = code;
  }

  /**
   * Tells whether the job can do nothing more: cancelled, out of time or out of money.
   *
   * Every further operation would be answered the same way, so an agent that tolerates errors of single files stops
   * at these.
   */
  get endsTheJob(): boolean {
    return this.code === "cancelled" || this.code === "lease-expired" || this.code === "budget-exhausted";
  }

  override toString(): string {
    return `${this.code}: ${this.message}`;
  }
}

/** Calls the host, whose refusals become a `LeaseholdError` with the stack of who called. */
export function host<T>(call: () => T): T {
  try {
    return call();
  } catch (error) {
    throw refusal(error) ?? error;
  }
}

/** Reads a refusal as the component toolchains throw it: an error that carries the contract's record. */
export function refusal(thrown: unknown): LeaseholdError | undefined {
  if (thrown instanceof LeaseholdError) return thrown;
  const { payload } = (thrown ?? {}) as { payload?: { code?: unknown; message?: unknown } };
  if (!ERROR_CODES.includes(payload?.code as ErrorCode)) return undefined;
  return new LeaseholdError(payload?.code as ErrorCode, String(payload?.message));
}
