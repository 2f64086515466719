import type { History } from "../api/figures";
import type { Figures } from "../api/metrics";

/** Figures of several replicas as one: rates and sizes are added, waits are the longest. */
export function together(history: History, replicas: readonly string[]): Figures[] {
  const moments = new Map<number, Figures>();
  for (const replica of replicas) {
    for (const one of history[replica] ?? []) {
      const known = moments.get(one.at);
      moments.set(
        one.at,
        known
          ? {
              at: one.at,
              tokensPerSecond: known.tokensPerSecond + one.tokensPerSecond,
              firstTokenSeconds:
                known.firstTokenSeconds === null
                  ? one.firstTokenSeconds
                  : Math.max(known.firstTokenSeconds, one.firstTokenSeconds ?? 0),
              inFlight: known.inFlight + one.inFlight,
              memoryBytes:
                known.memoryBytes === null && one.memoryBytes === null
                  ? null
                  : (known.memoryBytes ?? 0) + (one.memoryBytes ?? 0),
            }
          : one,
      );
    }
  }
  return [...moments.values()].sort((a, b) => a.at - b.at);
}
