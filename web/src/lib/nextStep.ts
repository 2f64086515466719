import { LAUNCH_FIELDS } from "../api/launchFields";

/** Where in the dashboard a suggested command is done. */
export interface NextStep {
  kind: "launch" | "install" | "running" | "downloads" | "logs" | "keys" | "memory";
  path: string;
}

/** The words of a command line, as a POSIX shell splits what Paddock has quoted. */
export function words(line: string): string[] {
  const found: string[] = [];
  let word = "";
  let inWord = false;
  for (let at = 0; at < line.length; at += 1) {
    const char = line[at] as string;
    if (char === "'" || char === '"') {
      const end = line.indexOf(char, at + 1);
      const stop = end < 0 ? line.length : end;
      word += line.slice(at + 1, stop);
      at = stop;
      inWord = true;
    } else if (char === "\\") {
      at += 1;
      word += line[at] ?? "";
      inWord = true;
    } else if (/\s/.test(char)) {
      if (inWord) found.push(word);
      word = "";
      inWord = false;
    } else {
      word += char;
      inWord = true;
    }
  }
  if (inWord) found.push(word);
  return found;
}

const FLAGS = new Set([
  ...LAUNCH_FIELDS.filter((field) => field.type === "flag").flatMap((field) => field.flags),
  ...["--locked", "--force", "--replace", "--dry-run", "--json"],
]);
const KEYS: Record<string, string> = {
  ...Object.fromEntries(
    LAUNCH_FIELDS.flatMap((field) => field.flags.map((flag) => [flag, field.key])),
  ),
  "-e": "endpoint",
};

/** Options and arguments of a `paddock` command; options by the names that REST gives them. */
export function parseCommand(line: string) {
  const [program, ...rest] = words(line);
  if (program !== "paddock") return null;
  const options: Record<string, string> = {};
  const others: string[] = [];
  for (let at = 0; at < rest.length; at += 1) {
    const word = rest[at] as string;
    if (!word.startsWith("-")) {
      others.push(word);
      continue;
    }
    const [flag, inline] = word.split("=", 2) as [string, string | undefined];
    const name = KEYS[flag] ?? flag.replace(/^--?/, "").replaceAll("-", "_");
    const next = rest[at + 1];
    if (inline !== undefined) options[name] = inline;
    else if (FLAGS.has(flag) || next === undefined || next.startsWith("--")) options[name] = "true";
    else {
      options[name] = next;
      at += 1;
    }
  }
  return { command: others[0] ?? "", arguments: others.slice(1), options };
}

/** The page on which a suggested command can be done by hand; null: only a terminal can. */
export function nextStep(line: string): NextStep | null {
  const parsed = parseCommand(line);
  if (!parsed) return null;
  const { command, options } = parsed;
  const [first, second] = parsed.arguments;
  const model = options.model_name ?? first;
  switch (command) {
    case "launch": {
      if (!model) return null;
      const { model_name: _, ...wanted } = options;
      const query = new URLSearchParams(wanted).toString();
      return { kind: "launch", path: `/launch/${encodeURI(model)}${query ? `?${query}` : ""}` };
    }
    case "engine":
      return first === "install" && second
        ? { kind: "install", path: `/cluster?install=${encodeURIComponent(second)}` }
        : null;
    case "terminate":
    case "list": {
      const uid = options.model_uid;
      return { kind: "running", path: uid ? `/running/${encodeURI(uid)}` : "/running" };
    }
    case "logs": {
      const uid = options.model_uid ?? first;
      return uid ? { kind: "logs", path: `/running/${encodeURI(uid)}?tab=log` } : null;
    }
    case "pull":
    case "cache":
      return { kind: "downloads", path: "/downloads" };
    case "estimate":
      return model ? { kind: "memory", path: `/memory?model=${encodeURIComponent(model)}` } : null;
    case "keys":
      return { kind: "keys", path: "/keys" };
    default:
      return null;
  }
}
