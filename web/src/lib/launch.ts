import type { Launch } from "../api/client";
import { LAUNCH_FIELDS, type LaunchField } from "../api/launchFields";

/** Options that engines share by these names; the page has fields for them among its own. */
const SHARED = ["n_ctx", "n_parallel"] as const;

/** What the page asks for; what else stands in its address is an option of the engine. */
export const FIELDS: readonly string[] = [
  ...LAUNCH_FIELDS.map((field) => field.key).filter((key) => key !== "model_name"),
  ...SHARED,
];

const BY_KEY = new Map(LAUNCH_FIELDS.map((field) => [field.key, field]));
const NUMBERS = new Set<string>([...keysOf("number"), ...SHARED]);
const FLAGS = new Set<string>(keysOf("flag"));
const OTHERS = new Set<string>(["endpoint", "json"]);

function keysOf(type: LaunchField["type"]): string[] {
  return LAUNCH_FIELDS.filter((field) => field.type === type).map((field) => field.key);
}

/** The range of a field that is a number. */
export function limits(key: string): Pick<LaunchField, "min" | "max"> {
  const { min, max } = BY_KEY.get(key) ?? {};
  return { min, max };
}

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
    if (value === null || value === undefined || value === false) continue;
    const long = BY_KEY.get(name)?.flags.find((flag) => flag.startsWith("--"));
    const flag = long ?? `--${name.replaceAll("_", "-")}`;
    if (value === true) parts.push(flag);
    else parts.push(flag, quoted(String(value)));
  }
  return parts.join(" ");
}

/** A word as a POSIX shell takes it. */
export function quoted(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'"'"'`)}'`;
}
