import { useQuery } from "@tanstack/react-query";
import { Store, useStore } from "../lib/store";
import { request } from "./client";
import { between, type Counted, countReplicas, type Figures, parseMetrics } from "./metrics";

const EVERY_MS = 2000;
/** Figures are of what lies between two readings: the second comes soon. */
const SECOND_MS = 500;
/** Two minutes. */
const KEPT = 60;

/** Each replica's figures by its id, the oldest first. */
export type History = Readonly<Record<string, readonly Figures[]>>;

const history = new Store<History>({});
let last: Record<string, Counted> = {};

/** Adds what has happened since the last counts. Pure. */
export function extended(
  known: History,
  before: Record<string, Counted>,
  now: Record<string, Counted>,
): History {
  const next: Record<string, readonly Figures[]> = {};
  for (const [replica, counted] of Object.entries(now)) {
    const earlier = before[replica];
    const figures = earlier ? between(earlier, counted) : null;
    const kept = known[replica] ?? [];
    next[replica] = figures ? [...kept, figures].slice(-KEPT) : earlier ? [] : kept;
  }
  return next;
}

/** What replicas do, measured every two seconds while a component asks. */
export function useFigures(): History {
  useQuery({
    queryKey: ["metrics"],
    queryFn: async () => {
      const text = await (await request("/metrics")).text();
      const now = countReplicas(parseMetrics(text), Date.now() / 1000);
      history.set(extended(history.get(), last, now));
      last = now;
      return now;
    },
    refetchInterval: ({ state }) => (state.dataUpdateCount < 2 ? SECOND_MS : EVERY_MS),
    staleTime: 0,
    gcTime: 0,
  });
  return useStore(history);
}
