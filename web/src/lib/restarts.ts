import type { Schemas } from "../api/client";
import { duration } from "./format";

type Replica = Pick<
  Schemas["InstanceReplica"],
  "model_state" | "restarts" | "last_failure" | "next_try_at"
>;

/** The replica of a model whose failure matters now: the next to be started, else one that failed. */
export function troubled<T extends Replica>(replicas: readonly T[]): T | undefined {
  const waiting = replicas.filter((one) => one.next_try_at !== null);
  const [soonest] = waiting.sort((a, b) => Number(a.next_try_at) - Number(b.next_try_at));
  return soonest ?? replicas.find((one) => one.last_failure !== null);
}

/** Whole seconds from now, in milliseconds, until a moment in seconds; 0 once it has passed. */
export function secondsLeft(at: number, now: number): number {
  return Math.max(0, Math.ceil(at - now / 1000));
}

/** Seconds that count down: whole ones, in larger units from a minute on. */
export function countdown(seconds: number): string {
  return seconds < 60 ? `${seconds} s` : duration(seconds);
}

/** Whether requests go to a model or replica in this state. */
export function answers(state: Schemas["InstanceReplica"]["model_state"]): boolean {
  return state === "ready" || state === "unreachable";
}
