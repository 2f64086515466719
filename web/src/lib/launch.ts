import type { Launch } from "../api/client";

/** Fields of a launch that the page asks for; what else stands in its address is an engine option.
 *
 * `n_ctx` and `n_parallel` are context and slots, options that engines share by these names.
 */
export const FIELDS: readonly string[] = [
  "model_uid",
  "model_size_in_billions",
  "model_format",
  "quantization",
  "model_engine",
  "context_length",
  "n_ctx",
  "n_parallel",
  "model_path",
  "replica",
  "node",
  "download_hub",
  "gpu_idx",
  "n_gpu",
  "trust",
  "offline",
  "restart",
  "restart_tries",
  "silence_seconds",
];

const NUMBERS = new Set<string>([
  "context_length",
  "n_ctx",
  "n_parallel",
  "replica",
  "restart_tries",
  "silence_seconds",
]);
const FLAGS = new Set<string>(["offline"]);
const OTHERS = new Set<string>(["endpoint", "json"]);

/** The launch that an address stands for: `#/launch/NAME?quantization=Q4_K_M&n_threads=2`. */
export function launchBody(name: string, query: URLSearchParams): Launch {
  const body: Record<string, unknown> = { model_name: name };
  for (const [field, text] of query) {
    if (text === "" || OTHERS.has(field)) continue;
    if (NUMBERS.has(field)) body[field] = /^\d+(\.\d+)?$/.test(text) ? Number(text) : text;
    else if (FLAGS.has(field)) body[field] = text !== "false";
    else body[field] = text;
  }
  return body as Launch;
}

/** The engine options of an address, by name. */
export function engineOptions(query: URLSearchParams): Record<string, string> {
  const known = new Set([...FIELDS, ...OTHERS]);
  return Object.fromEntries([...query].filter(([name, text]) => !known.has(name) && text !== ""));
}

/** The command that does the same. */
export function launchCommand(body: Launch): string {
  const { model_name, ...rest } = body as Launch & Record<string, unknown>;
  const parts = ["paddock", "launch", "--model-name", quoted(model_name)];
  for (const [name, value] of Object.entries(rest)) {
    if (value === null || value === undefined) continue;
    const flag = `--${name.replaceAll("_", "-")}`;
    if (value === true) parts.push(flag);
    else parts.push(flag, quoted(String(value)));
  }
  return parts.join(" ");
}

/** A word as a POSIX shell takes it. */
export function quoted(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'"'"'`)}'`;
}
