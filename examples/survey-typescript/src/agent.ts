// Uses everything an agent can touch, once, and tells what it saw.

import { agent, LeaseholdError, shape } from "@leasehold/agent";
import * as calls from "@leasehold/agent/calls";
import * as delegate from "@leasehold/agent/delegate";
import * as events from "@leasehold/agent/events";
import * as fs from "@leasehold/agent/fs";
import * as job from "@leasehold/agent/job";
import * as metrics from "@leasehold/agent/metrics";
import * as model from "@leasehold/agent/model";
import * as net from "@leasehold/agent/net";
import * as output from "@leasehold/agent/output";
import * as tool from "@leasehold/agent/tool";

const NOTES = "/workspace/notes.md";
const OUTBOX = "/outbox/survey.txt";
const MODEL = "tier-fast/small";

const Input = shape.object({
  url: shape.optional(shape.string()),
  wait: shape.optional(shape.boolean()),
});

export default agent(Input, async ({ url, wait }) => {
  if (wait) return waitForTheEnd();
  if (url === undefined) throw new LeaseholdError("invalid-request", "input: url: missing");
  console.log("survey begins");
  files();
  await services(url);
  await delegation();
  money(url);
  return end();
});

/** Runs until it is asked to stop. */
function waitForTheEnd(): never {
  events.status("waiting");
  try {
    // Each round looks whether it is asked to cancel, and throws once it is.
    for (;;) job.sleep(20);
  } catch {
    console.log("cancellation noticed");
  }
  throw new LeaseholdError("cancelled", "stopped as asked");
}

function files(): void {
  events.status("files", "what the lease shows");
  const letters = fs.list("/workspace/letters").map((entry) => entry.name);
  console.log(`letters: ${letters.join(", ")}`);
  const notes = fs.stat(NOTES);
  console.log(`notes.md: ${notes.kind}, ${notes.size} bytes`);
  console.log(`notes.md: ${fs.readText(NOTES).split("\n").length - 1} lines`);
  console.log(`from 2: ${new TextDecoder().decode(fs.readRange(NOTES, 2, 5))}`);

  fs.write(OUTBOX, "first\n");
  fs.append(OUTBOX, "second\n");
  const { length } = fs.read(OUTBOX);
  console.log(`outbox: ${length} bytes`);
  fs.createDir("/outbox/made");
  fs.remove("/outbox/made");
  console.log("made and removed");
  events.artifact(`file://${OUTBOX}`, "text/plain", { byteSize: length });

  console.warn(`denied: ${refusal(() => fs.read("/private/key.txt"))}`);
  console.log(`missing: ${refusal(() => fs.read("/workspace/missing.md"))}`);
  events.progress(1, { total: 4, units: "steps", message: "files" });
}

async function services(url: string): Promise<void> {
  events.status("services");
  events.thought("the operator offers tools and models");
  console.log(
    `tools: ${tool
      .list()
      .map((tool) => tool.name)
      .join(", ")}`,
  );
  console.log(`upper: ${tool.call<{ text: string }>("upper", { text: "lease" }).text}`);
  console.warn(`refused: ${refusal(() => tool.call("upper", {}))}`);

  const page = net.get(`${url}/page`, { headers: { "x-survey": "yes" } });
  console.log(`page: ${page.status}, ${page.text()}`);
  console.log(`echo: ${net.request(`${url}/echo`, { json: { n: 1 } }).json<{ n: number }>().n}`);
  console.log(`missing page: ${net.get(`${url}/missing`).status}`);

  const [slow, fast] = [net.start(`${url}/slow`), net.start(`${url}/fast`)];
  console.log(`first: ${calls.waitAny([slow, fast])}`);
  console.log(`fast: ${(await fast).text()}`);
  net.get(`${url}/release`);
  console.log(`slow: ${(await slow).text()}`);
  {
    using never = net.start(`${url}/never`);
    const first = calls.waitAny([never], { timeoutMs: 20 });
    console.log(`in time: ${first === undefined ? "no" : "yes"}`);
  }
  let bytes = 0;
  for await (const part of net.stream(`${url}/parts`)) bytes += part.length;
  console.log(`parts: ${bytes} bytes`);

  console.log(`models: ${model.list().join(", ")}`);
  const { choices } = model.complete(MODEL, question("say lease"));
  console.log(`model: ${choices[0]?.message.content}`);
  const words = [...model.stream(MODEL, question("say it in parts")).texts()];
  console.log(`streamed: ${words.join("").trimEnd()}`);
  events.progress(2, { total: 4, units: "steps", message: "services" });
}

function question(content: string): model.Request {
  return { messages: [{ role: "user", content }], max_tokens: 16 };
}

async function delegation(): Promise<void> {
  events.status("delegation");
  const lease = { "cost.budget": ["USD:0.10"] };
  const told = delegate.run<{ from: string }>("echo", { input: { from: "survey" }, lease });
  console.log(`echo: ${told.from}`);
  const started = delegate.start<{ from: string }>("echo", { input: { from: "start" }, lease });
  calls.waitAny([started]);
  console.log(`started: ${started.finish().from}`);
  console.warn(`refused: ${refusal(() => delegate.run("echo", { lease: { "fs.read": ["/**"] } }))}`);
  console.warn(`refused: ${refusal(() => delegate.run("nobody"))}`);
  events.progress(3, { total: 4, units: "steps", message: "delegation" });
}

function money(url: string): void {
  events.status("money");
  metrics.metric("survey.steps", 3, { unit: "steps", dimensions: { kind: "done" } });
  console.log(`held: ${net.get(`${url}/hold`).text()}`);
  metrics.cost("inference", "0.25", "USD");
  console.log(`budget: ${Number(job.budget()["USD"]) < 0.76 ? "less" : "more"}`);
  metrics.cost("inference", "5", "USD");
  console.warn(`refused: ${refusal(() => fs.read(NOTES))}`);
}

function end(): string {
  events.vendor("x-vendor.leasehold.survey", { steps: 26 });
  console.log("printed");
  events.progress(4, { total: 4, units: "steps", message: "money" });
  for (const line of ["one\n", "two\n", "three\n"]) output.writeText(line);
  output.finish();
  return "survey complete";
}

/** Gives the code with which something is refused. */
function refusal(act: () => unknown): string {
  try {
    act();
    return "nothing";
  } catch (error) {
    if (error instanceof LeaseholdError) return error.code;
    throw error;
  }
}
