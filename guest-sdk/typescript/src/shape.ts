/**
 * What an input has to look like, since a program's types are gone when it runs.
 *
 * A shape is any function that gives the value it is given, or throws; or an object that follows
 * [Standard Schema](https://standardschema.dev), as those of zod, valibot and arktype do. The functions here make
 * small ones, whose errors name the field: `input: name: expected a string, got 7`.
 *
 * ```ts
 * const Input = shape.object({ path: shape.string(), limit: shape.optional(shape.integer()) });
 * type Input = shape.Of<typeof Input>;   // { path: string; limit?: number | undefined }
 * ```
 */

import { LeaseholdError } from "./error.js";

/** A function that gives the value, or throws a `Mismatch` (or anything else with a message). */
export type Shape<T> = (value: unknown) => T;

/** The part of Standard Schema that is used here. */
export interface StandardSchema<T> {
  readonly "~standard": {
    readonly validate: (value: unknown) => StandardResult<T> | PromiseLike<StandardResult<T>>;
    readonly types?: { readonly input: unknown; readonly output: T } | undefined;
  };
}

type StandardResult<T> =
  | { readonly value: T; readonly issues?: undefined }
  | {
      readonly issues: readonly {
        readonly message: string;
        readonly path?: readonly (PropertyKey | { key: PropertyKey })[] | undefined;
      }[];
    };

/** Everything `agent` takes as the shape of an input. */
export type Check<T> = Shape<T> | StandardSchema<T>;

/** The type of what a shape lets through. */
export type Of<S> = S extends Shape<infer T> ? T : S extends StandardSchema<infer T> ? T : never;

/** A value is not what the shape says. */
export class Mismatch extends Error {
  override readonly name = "Mismatch";
  /** Where, from the outside in. */
  readonly path: (string | number)[] = [];
}

/** A text. */
export function string(): Shape<string> {
  return (value) => (typeof value === "string" ? value : mismatch("a string", value));
}

/** A number. */
export function number(): Shape<number> {
  return (value) => (typeof value === "number" ? value : mismatch("a number", value));
}

/** A whole number that a program's numbers hold exactly. */
export function integer(): Shape<number> {
  return (value) => (Number.isSafeInteger(value) ? (value as number) : mismatch("a whole number", value));
}

/** True or false. */
export function boolean(): Shape<boolean> {
  return (value) => (typeof value === "boolean" ? value : mismatch("true or false", value));
}

/** One of some values. */
export function oneOf<const T extends string | number | boolean | null>(...values: T[]): Shape<T> {
  return (value) => {
    if (values.includes(value as T)) return value as T;
    return mismatch(values.map((value) => JSON.stringify(value)).join(" or "), value);
  };
}

/** Anything at all. */
export function unknown(): Shape<unknown> {
  return (value) => value;
}

/** What another shape says, or nothing: a field that is missing or `null` is `undefined`. */
export function optional<T>(inner: Shape<T>): Shape<T | undefined> {
  return (value) => (value === undefined || value === null ? undefined : inner(value));
}

/** A list whose items have one shape. */
export function array<T>(item: Shape<T>): Shape<T[]> {
  return (value) => {
    if (!Array.isArray(value)) return mismatch("a list", value);
    return value.map((each, index) => at(index, () => item(each)));
  };
}

/** An object whose keys are free and whose values have one shape. */
export function record<T>(item: Shape<T>): Shape<Record<string, T>> {
  return (value) => {
    const entries = Object.entries(object(value));
    return Object.fromEntries(entries.map(([key, each]) => [key, at(key, () => item(each))]));
  };

  function object(value: unknown): object {
    return isObject(value) ? value : mismatch("an object", value);
  }
}

type Fields = Record<string, Shape<unknown>>;
type Optional<F extends Fields> = { [K in keyof F]: undefined extends Of<F[K]> ? K : never }[keyof F];
type ObjectOf<F extends Fields> = { [K in Exclude<keyof F, Optional<F>>]: Of<F[K]> } & {
  [K in Optional<F>]?: Of<F[K]>;
};

/** An object with these fields. What it has beside them is left out. */
export function object<F extends Fields>(fields: F): Shape<{ [K in keyof ObjectOf<F>]: ObjectOf<F>[K] }> {
  return (value) => {
    if (!isObject(value)) return mismatch("an object", value);
    const found: Record<string, unknown> = {};
    for (const [key, shape] of Object.entries(fields)) {
      const field = at(key, () => shape(Object.hasOwn(value, key) ? value[key] : undefined));
      if (field !== undefined) found[key] = field;
    }
    return found as { [K in keyof ObjectOf<F>]: ObjectOf<F>[K] };
  };
}

/** What another shape says, if it also passes a test: `where(string(), (name) => name !== "", "must not be empty")`. */
export function where<T>(inner: Shape<T>, test: (value: T) => boolean, message: string): Shape<T> {
  return (value) => {
    const result = inner(value);
    if (!test(result)) throw new Mismatch(message);
    return result;
  };
}

/** Holds an input against its shape. @internal */
export function check<T>(shape: Check<T>, value: unknown): T {
  try {
    return "~standard" in shape ? standard(shape, value) : shape(value);
  } catch (error) {
    if (error instanceof LeaseholdError) throw error;
    const path = error instanceof Mismatch ? error.path : [];
    const message = error instanceof Error ? error.message : String(error);
    const field = path
      .map((part) => (typeof part === "number" ? `[${part}]` : `.${part}`))
      .join("")
      .replace(/^\./, "");
    throw new LeaseholdError("invalid-request", `input: ${field && `${field}: `}${message}`, { cause: error });
  }
}

function standard<T>(schema: StandardSchema<T>, value: unknown): T {
  const result = schema["~standard"].validate(value);
  if ("then" in result) throw new TypeError("an input's schema has to answer at once, and this one gave a promise");
  if (!result.issues) return result.value;
  const [issue] = result.issues;
  const error = new Mismatch(issue?.message ?? "does not fit");
  error.path.push(...(issue?.path ?? []).map(key));
  throw error;
}

function key(part: PropertyKey | { key: PropertyKey }): string | number {
  const key = typeof part === "object" ? part.key : part;
  return typeof key === "number" ? key : String(key);
}

function at<T>(key: string | number, act: () => T): T {
  try {
    return act();
  } catch (error) {
    if (error instanceof Mismatch) error.path.unshift(key);
    throw error;
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function mismatch(expected: string, value: unknown): never {
  if (value === undefined) throw new Mismatch(`missing, expected ${expected}`);
  const text = JSON.stringify(value);
  const found = Array.isArray(value)
    ? "a list"
    : isObject(value)
      ? "an object"
      : text.length > 40
        ? "a long text"
        : text;
  throw new Mismatch(`expected ${expected}, got ${found}`);
}
