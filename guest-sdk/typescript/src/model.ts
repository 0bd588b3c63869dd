/** Language models the operator offers: `model.use` (ARCP §9.7). */

import {
  complete as hostComplete,
  finish as hostFinish,
  list as hostList,
  next as hostNext,
  start as hostStart,
  startStream as hostStartStream,
} from "leasehold:agent/model@0.1.0";
import type { PendingCall } from "leasehold:agent/calls@0.1.0";

import { Pending, Stream } from "./calls.js";
import { json, text } from "./check.js";
import { LeaseholdError, host } from "./error.js";

/** One message of a conversation. */
export interface Message {
  role: "system" | "developer" | "user" | "assistant" | "tool";
  content: unknown;
  [field: string]: unknown;
}

/** The body of an OpenAI chat completion; `model` and `stream` are the host's. */
export interface Request {
  messages: Message[];
  max_tokens?: number;
  temperature?: number;
  tools?: unknown[];
  [field: string]: unknown;
}

/** A chat completion, as the API gives it. */
export interface Completion {
  choices: {
    message: { role: string; content: string | null; tool_calls?: unknown[]; [field: string]: unknown };
    finish_reason?: string | null;
    [field: string]: unknown;
  }[];
  usage?: { prompt_tokens: number; completion_tokens: number; [field: string]: unknown };
  [field: string]: unknown;
}

/** One part of a completion that comes in parts. */
export interface Chunk {
  choices: { delta: { content?: string | null; [field: string]: unknown }; [field: string]: unknown }[];
  [field: string]: unknown;
}

/** Gives the models that this lease covers, by name. Needs no grant. */
export function list(): string[] {
  return host(() => hostList());
}

/**
 * Asks a model one question and gives its answer's text. Needs `model.use` on `model`.
 *
 * Throws what `complete` throws, and `internal-error` if the answer has no text.
 */
export function ask(model: string, question: string): string {
  const { choices } = complete(model, { messages: [{ role: "user", content: text(question, "question") }] });
  const answer = choices[0]?.message.content;
  if (typeof answer !== "string") throw new LeaseholdError("internal-error", "the model's answer has no text");
  return answer;
}

/**
 * Asks a model. Needs `model.use` on `model`.
 *
 * Throws `permission-denied`, `not-found`; `invalid-request` naming the field; `budget-exhausted` if it might cost more
 * than is left; `internal-error` if the model's provider fails; `timeout`.
 */
export function complete(model: string, request: Request): Completion {
  return JSON.parse(host(() => hostComplete(text(model, "model"), json(request, "request")))) as Completion;
}

/** Starts what `complete` does, and goes on meanwhile. Throws what it throws and is known at once. */
export function start(model: string, request: Request): Pending<Completion> {
  const call = host(() => hostStart(text(model, "model"), json(request, "request")));
  return new Pending(call, (call) => JSON.parse(hostFinish(call)) as Completion);
}

/** Asks a model and takes the answer as it comes. Throws what `complete` throws and is known at once. */
export function stream(model: string, request: Request): CompletionStream {
  return new CompletionStream(host(() => hostStartStream(text(model, "model"), json(request, "request"))));
}

/** An answer that comes in parts. Dropping it gives it up. */
export class CompletionStream extends Stream<Chunk, Completion> {
  /** Gives the words of the answer as they come: `for (const words of answer.texts()) output.writeText(words);`. */
  *texts(): Generator<string, void> {
    for (const chunk of this) {
      const words = chunk.choices[0]?.delta.content;
      if (words) yield words;
    }
  }

  /** Waits for the whole answer, put together from its parts. */
  finish(): Completion {
    return this.outcome();
  }

  /** @internal */
  protected override nextPart(call: PendingCall): Chunk | undefined {
    const chunk = hostNext(call);
    return chunk === undefined || chunk === null ? undefined : (JSON.parse(chunk) as Chunk);
  }

  /** @internal */
  protected override close(call: PendingCall): Completion {
    return JSON.parse(hostFinish(call)) as Completion;
  }
}
