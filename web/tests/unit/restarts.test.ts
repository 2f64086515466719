import { describe, expect, it } from "vitest";
import { answers, countdown, secondsLeft, troubled } from "../../src/lib/restarts";

const failure = { cause: "engine_killed" as const, message: "killed by SIGKILL" };

function replica(changes: object = {}) {
  return {
    replica_uid: "m-rep0",
    model_state: "ready" as const,
    restarts: 0,
    last_failure: null,
    next_try_at: null,
    ...changes,
  };
}

describe("restarts of a model", () => {
  it("are told of the replica that is started next, else of one that failed", () => {
    const well = replica();
    const failed = replica({ restarts: 1, last_failure: failure });
    const late = replica({ last_failure: failure, next_try_at: 300 });
    const soon = replica({ last_failure: failure, next_try_at: 200 });
    expect(troubled([well])).toBeUndefined();
    expect(troubled([well, failed])).toBe(failed);
    expect(troubled([failed, late, soon])).toBe(soon);
  });

  it("count down in whole seconds, never below none", () => {
    expect(secondsLeft(101.2, 100_000)).toBe(2);
    expect(secondsLeft(100, 100_000)).toBe(0);
    expect(secondsLeft(90, 100_000)).toBe(0);
    expect(countdown(2)).toBe("2 s");
    expect(countdown(200)).toBe("3 min 20 s");
  });

  it("leave a model that is not heard of to its requests, and not one that hangs", () => {
    expect(["ready", "unreachable"].every((state) => answers(state as "ready"))).toBe(true);
    for (const state of ["unhealthy", "pending", "failed"] as const) {
      expect(answers(state)).toBe(false);
    }
  });
});
