/** Values as text for people: what `console` prints. */

const DEPTH_MAX = 4;
const ITEMS_MAX = 100;

/** Joins values as `console.log` does: texts as they are, the rest as it looks, `%s`, `%d` and their like filled in. */
export function format(values: unknown[]): string {
  const [first, ...rest] = values;
  const texts: string[] = [];
  if (typeof first === "string") {
    texts.push(
      first.replace(/%([sdifjoOc%])/g, (all, letter: string) => {
        if (letter === "%") return "%";
        if (rest.length === 0) return all;
        const value = rest.shift();
        switch (letter) {
          case "s":
            return typeof value === "string" ? value : inspect(value);
          case "d":
            return String(Number(value));
          case "i":
            return String(Math.trunc(Number(value)));
          case "f":
            return String(Number.parseFloat(String(value)));
          case "j":
            return JSON.stringify(value) ?? "undefined";
          case "c":
            return "";
          default:
            return inspect(value);
        }
      }),
    );
  } else if (values.length > 0) {
    texts.push(inspect(first));
  }
  for (const value of rest) texts.push(typeof value === "string" ? value : inspect(value));
  return texts.join(" ");
}

/** Gives the name, the message and the stack of an error, and of what caused it. */
export function describe(error: unknown): string {
  if (!(error instanceof Error)) return inspect(error);
  const head = error.message === "" ? error.name : `${error.name}: ${error.message}`;
  // Some engines begin the stack with the head, some do not.
  const stack = error.stack?.startsWith(error.name) ? error.stack.slice(error.stack.indexOf("\n") + 1) : error.stack;
  const text = stack?.trim() ? `${head}\n${stack.trimEnd()}` : head;
  return error.cause === undefined ? text : `${text}\ncaused by ${describe(error.cause)}`;
}

/** Shows a value as it would be written in a program, as far as that goes. */
export function inspect(value: unknown, within: unknown[] = []): string {
  switch (typeof value) {
    case "string":
      return within.length === 0 ? value : JSON.stringify(value);
    case "bigint":
      return `${value}n`;
    case "function":
      return value.name ? `[function ${value.name}]` : "[function]";
    case "object":
      break;
    default:
      return String(value);
  }
  if (value === null) return "null";
  if (value instanceof Error) return describe(value);
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? "Invalid Date" : value.toISOString();
  if (value instanceof RegExp) return String(value);
  if (within.includes(value)) return "[circular]";
  const constructor: string = value.constructor?.name ?? "";
  const name = constructor === "Object" ? "" : constructor;
  const inner = [...within, value];
  const list = (items: string[], count: number) =>
    (count > ITEMS_MAX ? [...items, `… ${count - ITEMS_MAX} more`] : items).join(", ");
  if (within.length >= DEPTH_MAX) return Array.isArray(value) ? "[…]" : `${name && `${name} `}{…}`;
  if (Array.isArray(value)) {
    return `[${list(
      value.slice(0, ITEMS_MAX).map((item) => inspect(item, inner)),
      value.length,
    )}]`;
  }
  if (ArrayBuffer.isView(value) && !(value instanceof DataView)) {
    const array = value as unknown as { length: number; slice(from: number, to: number): Iterable<unknown> };
    return `${name}(${array.length}) [${list([...array.slice(0, ITEMS_MAX)].map(String), array.length)}]`;
  }
  if (value instanceof Map) {
    const items = [...value]
      .slice(0, ITEMS_MAX)
      .map(([key, item]) => `${inspect(key, inner)} => ${inspect(item, inner)}`);
    return `Map(${value.size}) {${list(items, value.size)}}`;
  }
  if (value instanceof Set) {
    const items = [...value].slice(0, ITEMS_MAX).map((item) => inspect(item, inner));
    return `Set(${value.size}) {${list(items, value.size)}}`;
  }
  const keys = Object.keys(value);
  const items = keys.slice(0, ITEMS_MAX).map((key) => {
    const label = /^[\w$]+$/.test(key) ? key : JSON.stringify(key);
    return `${label}: ${inspect((value as Record<string, unknown>)[key], inner)}`;
  });
  const body = items.length === 0 ? "{}" : `{ ${list(items, keys.length)} }`;
  return name ? `${name} ${body}` : body;
}
