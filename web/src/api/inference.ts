import { createParser } from "eventsource-parser";
import { type Logprobs, type Token, tokensOf } from "../lib/logprobs";
import { ApiError, asApiError, request } from "./client";

export interface ToolCall {
  name: string;
  arguments: string;
}

/** One of a request's answers; with `n` there are several. */
export interface Choice {
  text: string;
  reasoning: string;
  tools: ToolCall[];
  /** Those of the text, where log probabilities were asked for. */
  tokens: Token[];
  finish: string | null;
}

/** One request to one model, as far as it has come. Times are milliseconds of the page's clock. */
export interface Run {
  state: "running" | "done" | "stopped" | "failed";
  choices: [Choice, ...Choice[]];
  began: number;
  first: number | null;
  ended: number | null;
  /** Pieces of all answers: tokens, where the engine does not count them. */
  pieces: number;
  /** In how many reads they came. */
  reads: number;
  promptTokens: number | null;
  completionTokens: number | null;
  /** The gateway's own account, in milliseconds: `queue`, `gateway`, `engine`. */
  timing: Record<string, number>;
  error: ApiError | null;
}

export type Route = "/v1/completions" | "/v1/chat/completions";

const SILENT: Choice = { text: "", reasoning: "", tools: [], tokens: [], finish: null };

export function begun(now: number): Run {
  return {
    state: "running",
    choices: [SILENT],
    began: now,
    first: null,
    ended: null,
    pieces: 0,
    reads: 0,
    promptTokens: null,
    completionTokens: null,
    timing: {},
    error: null,
  };
}

interface Piece {
  index?: number;
  text?: string;
  delta?: {
    content?: string | null;
    reasoning_content?: string | null;
    tool_calls?: { index: number; function?: { name?: string; arguments?: string } }[];
  };
  logprobs?: Logprobs | null;
  finish_reason?: string | null;
}

interface Chunk {
  choices?: Piece[];
  usage?: { prompt_tokens?: number; completion_tokens?: number } | null;
  error?: { message?: string };
}

/** The run after one event of its stream. Pure. */
export function advanced(run: Run, chunk: Chunk, now: number): Run {
  if (chunk.error) {
    const error = new ApiError(500, String(chunk.error.message), chunk.error);
    return { ...run, state: "failed", error };
  }
  const next = { ...run, choices: [...run.choices] as Run["choices"] };
  for (const piece of chunk.choices ?? []) {
    const at = piece.index ?? 0;
    while (next.choices.length <= at) next.choices.push(SILENT);
    next.choices[at] = grown(next.choices[at] as Choice, piece);
    if (saysSomething(piece)) {
      next.first ??= now;
      next.pieces += 1;
    }
  }
  if (chunk.usage) {
    next.promptTokens = chunk.usage.prompt_tokens ?? null;
    next.completionTokens = chunk.usage.completion_tokens ?? null;
  }
  return next;
}

function saysSomething({ text, delta }: Piece): boolean {
  return Boolean(text || delta?.content || delta?.reasoning_content || delta?.tool_calls?.length);
}

function grown(choice: Choice, piece: Piece): Choice {
  const tools = [...choice.tools];
  for (const call of piece.delta?.tool_calls ?? []) {
    const known = tools[call.index] ?? { name: "", arguments: "" };
    tools[call.index] = {
      name: known.name + (call.function?.name ?? ""),
      arguments: known.arguments + (call.function?.arguments ?? ""),
    };
  }
  return {
    text: choice.text + (piece.text ?? piece.delta?.content ?? ""),
    reasoning: choice.reasoning + (piece.delta?.reasoning_content ?? ""),
    tools,
    tokens: [...choice.tokens, ...tokensOf(piece.logprobs)],
    finish: piece.finish_reason ?? choice.finish,
  };
}

/** Reads `queue;dur=0.02, gateway;dur=0.64`. */
export function parseServerTiming(header: string | null): Record<string, number> {
  const found: Record<string, number> = {};
  for (const part of (header ?? "").split(",")) {
    const match = /^\s*([\w-]+)\s*;\s*dur=([\d.]+)/.exec(part);
    if (match) found[match[1] as string] = Number(match[2]);
  }
  return found;
}

const FEW_READS = 4;

/** Tokens of the answer a second, from the first to the last; null where there are too few.
 *
 * What came at once was not made at once: then the whole time counts, which tells too little rather
 * than too much.
 */
export function speed(run: Run, now: number): number | null {
  const count = run.completionTokens ?? run.pieces;
  if (run.first === null || count < 2) return null;
  const end = run.ended ?? now;
  if (run.reads < FEW_READS) return end > run.began ? (1000 * count) / (end - run.began) : null;
  return end > run.first ? (1000 * (count - 1)) / (end - run.first) : null;
}

/** Sends a request and shows the run as it comes; never rejects: what is wrong stands in the run. */
export async function generate(
  route: Route,
  body: Record<string, unknown>,
  signal: AbortSignal,
  show: (run: Run) => void,
): Promise<Run> {
  let run = begun(performance.now());
  const end = (state: Run["state"], error: ApiError | null = null) => {
    run = { ...run, state, error, ended: performance.now() };
    show(run);
    return run;
  };
  show(run);
  try {
    const response = await request(route, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }),
      signal,
    });
    run = { ...run, timing: parseServerTiming(response.headers.get("server-timing")) };
    const parser = createParser({
      onEvent: ({ data }) => {
        if (data !== "[DONE]") run = advanced(run, JSON.parse(data), performance.now());
      },
    });
    if (response.body) {
      for await (const text of response.body.pipeThrough(new TextDecoderStream())) {
        const before = run.pieces;
        parser.feed(text);
        if (run.pieces > before) run = { ...run, reads: run.reads + 1 };
        show(run);
      }
    }
    return run.error ? end("failed", run.error) : end("done");
  } catch (error) {
    return signal.aborted ? end("stopped") : end("failed", asApiError(error));
  }
}
