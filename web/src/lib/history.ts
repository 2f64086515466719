import type { Choice, Run } from "../api/inference";
import type { Mode, Sampling } from "./sampling";
import { Store } from "./store";

/** One message of a conversation. */
export interface Turn {
  role: "user" | "assistant";
  content: string;
}

/** What was asked, of whom, and what they said: enough to go on from there. */
export interface Entry {
  id: string;
  at: number;
  mode: Mode;
  models: string[];
  system: string;
  sampling: Sampling;
  prompt: string;
  /** Each model's conversation before this prompt. */
  turns: Record<string, Turn[]>;
  answers: Record<string, Pick<Choice, "text"> & Pick<Run, "state">>;
}

const STORED = "paddock.history";
const KEPT = 50;

function read(): readonly Entry[] {
  try {
    const found: unknown = JSON.parse(localStorage.getItem(STORED) ?? "[]");
    return Array.isArray(found) ? (found as Entry[]) : [];
  } catch {
    return [];
  }
}

export const history = new Store<readonly Entry[]>(read());

/** Keeps the newest entries; where the browser's room is full, fewer. */
function write(entries: readonly Entry[]): void {
  history.set(entries);
  for (let count = entries.length; count >= 0; count = Math.floor(count / 2)) {
    try {
      localStorage.setItem(STORED, JSON.stringify(entries.slice(0, count)));
      return;
    } catch {
      if (count === 0) return;
    }
  }
}

export function remember(entry: Entry): void {
  const others = history.get().filter((one) => one.id !== entry.id);
  write([entry, ...others].slice(0, KEPT));
}

export function forget(id?: string): void {
  write(id === undefined ? [] : history.get().filter((one) => one.id !== id));
}
