/** Figures an agent reports, money among them (ARCP §8.2 `metric`, §9.6). Needs no grant. */

import { emit as hostEmit } from "leasehold:agent/metrics@0.1.0";

import { optionalText, text } from "./check.js";
import { host } from "./error.js";

/** What may be said of a figure. */
export interface MetricOptions {
  /** What the value counts: `ms`, `tokens`, `USD`. At most 32 bytes. */
  unit?: string | undefined;
  /** What tells figures of one name apart. At most 16, of at most 64 + 256 bytes. */
  dimensions?: Record<string, string> | undefined;
}

/**
 * Reports one figure: a number, a bigint, or a decimal in plain notation such as `"0.0234"`.
 *
 * Throws `invalid-request` for a value that is no plain decimal, a name under `cost.budget.`, or anything over its
 * limit.
 */
export function metric(name: string, value: number | bigint | string, options: MetricOptions = {}): void {
  const dimensions = Object.entries(options.dimensions ?? {});
  const checked = dimensions.map(([key, value]): [string, string] => [text(key, "dimensions"), text(value, key)]);
  host(() => hostEmit(text(name, "name"), decimal(value), optionalText(options.unit, "unit"), checked));
}

/**
 * Reports money spent: the metric `cost.<name>`, taken off the budget in `currency`.
 *
 * The amount is a text such as `"0.25"`, since a number is seldom the amount that was meant. The cost that exhausts a
 * budget is accepted; the next operation is refused with `budget-exhausted` (ARCP §9.6). Throws `invalid-request` for a
 * negative or malformed amount.
 */
export function cost(name: string, amount: string, currency: string): void {
  metric(`cost.${text(name, "name")}`, text(amount, "amount"), { unit: currency });
}

/** Writes a number without exponent. @internal */
export function decimal(value: number | bigint | string): string {
  if (typeof value === "string") return text(value, "value");
  if (typeof value === "bigint") return String(value);
  if (!Number.isFinite(value)) throw new TypeError(`value: expected a finite number, got ${value}`);
  const written = /^(-?)(\d+)(?:\.(\d+))?e([+-]\d+)$/.exec(String(value));
  if (!written) return String(value);
  const [, sign = "", whole = "", fraction = "", exponent = "0"] = written;
  const digits = whole + fraction;
  const point = whole.length + Number(exponent);
  if (point <= 0) return `${sign}0.${"0".repeat(-point)}${digits}`;
  return sign + digits.padEnd(point, "0").slice(0, point) + (digits.length > point ? `.${digits.slice(point)}` : "");
}
