export type Mode = "chat" | "completion";

/** The playground's fields as they are typed; empty ones are left to the model. */
export interface Sampling {
  max_tokens: string;
  temperature: string;
  top_p: string;
  top_k: string;
  min_p: string;
  seed: string;
  frequency_penalty: string;
  presence_penalty: string;
  repetition_penalty: string;
  n: string;
  logprobs: string;
  ignore_eos: string;
  echo: string;
  stop: string;
  logit_bias: string;
  schema: string;
  tools: string;
  more: string;
}

export const NUMBERS = [
  { name: "max_tokens", min: 0, max: 1_000_000, step: 1 },
  { name: "temperature", min: 0, max: 5, step: 0.1 },
  { name: "top_p", min: 0, max: 1, step: 0.05 },
  { name: "top_k", min: 0, max: 1_000_000, step: 1 },
  { name: "min_p", min: 0, max: 1, step: 0.05 },
  { name: "seed", min: 0, max: 2 ** 31 - 1, step: 1 },
  { name: "frequency_penalty", min: -2, max: 2, step: 0.1 },
  { name: "presence_penalty", min: -2, max: 2, step: 0.1 },
  { name: "repetition_penalty", min: 0, max: 10, step: 0.05 },
  { name: "n", min: 1, max: 128, step: 1, left: "1" },
  { name: "logprobs", min: 0, max: 20, step: 1, left: "–" },
] as const;

export const FLAGS = ["ignore_eos", "echo"] as const;

/** Fields that only one of the routes has. */
const ONLY: Partial<Record<keyof Sampling, Mode>> = { echo: "completion", tools: "chat" };

export function isOf(mode: Mode, field: keyof Sampling): boolean {
  return (ONLY[field] ?? mode) === mode;
}

export const NOTHING: Sampling = {
  max_tokens: "256",
  temperature: "",
  top_p: "",
  top_k: "",
  min_p: "",
  seed: "",
  frequency_penalty: "",
  presence_penalty: "",
  repetition_penalty: "",
  n: "",
  logprobs: "",
  ignore_eos: "",
  echo: "",
  stop: "",
  logit_bias: "",
  schema: "",
  tools: "",
  more: "",
};

/** Fields of a request that are the page's own. */
const OWN = ["model", "messages", "prompt", "stream", "stream_options"];

/** A field whose text is not what it must be; `reason` is the parser's, where it could not be read. */
export class BadField extends Error {
  readonly field: keyof Sampling;

  constructor(field: keyof Sampling, reason: string) {
    super(reason);
    this.field = field;
  }
}

/** The fields of a request. Raises `BadField`. */
export function samplingFields(sampling: Sampling, mode: Mode): Record<string, unknown> {
  const fields: Record<string, unknown> = {};
  const more = parsed("more", sampling) ?? {};
  if (typeof more !== "object" || more === null || Array.isArray(more)) {
    throw new BadField("more", "");
  }
  if (OWN.some((name) => name in more)) throw new BadField("more", "");
  for (const { name } of NUMBERS) {
    const text = sampling[name].trim();
    if (text === "") continue;
    if (!Number.isFinite(Number(text))) throw new BadField(name, text);
    fields[name] = Number(text);
  }
  if (mode === "chat" && fields.logprobs !== undefined) {
    if (fields.logprobs) fields.top_logprobs = fields.logprobs;
    fields.logprobs = true;
  }
  for (const name of FLAGS) if (sampling[name] && isOf(mode, name)) fields[name] = true;
  const stop = stopTexts(sampling.stop);
  if (stop.length) fields.stop = stop;
  const bias = parsed("logit_bias", sampling);
  if (bias !== undefined) fields.logit_bias = bias;
  const schema = parsed("schema", sampling);
  if (schema !== undefined) {
    fields.response_format = { type: "json_schema", json_schema: { name: "answer", schema } };
  }
  const tools = isOf(mode, "tools") ? parsed("tools", sampling) : undefined;
  if (tools !== undefined) {
    if (!Array.isArray(tools)) throw new BadField("tools", "");
    fields.tools = tools;
  }
  return { ...fields, ...more };
}

/** One stop text a line; `\n` stands for a line's end. */
export function stopTexts(text: string): string[] {
  return text
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => line.replaceAll("\\n", "\n"));
}

function parsed(field: "logit_bias" | "schema" | "tools" | "more", sampling: Sampling): unknown {
  const text = sampling[field].trim();
  if (!text) return undefined;
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new BadField(field, error instanceof Error ? error.message : String(error));
  }
}
