import { describe, expect, it } from "vitest";
import { heard, type Live, type Told } from "../../src/api/events";

function replica(uid: string, more: object = {}) {
  const model = uid.split("-rep")[0];
  return { replica_uid: uid, model_uid: model, state: "starting", progress: 0.5, ...more };
}

function reduced(live: Live, ...told: object[]): Live {
  return told.reduce<Live>((known, one) => heard(known, one as Told), live);
}

describe("what is known of replicas", () => {
  it("is what a snapshot says, and nothing from before it", () => {
    const known = reduced(
      {},
      { event: "replica", data: replica("old-rep0") },
      {
        event: "snapshot",
        data: { models: [{ replicas: [replica("a-rep0"), replica("a-rep1")] }] },
      },
    );
    expect(Object.keys(known)).toEqual(["a-rep0", "a-rep1"]);
  });

  it("follows each event, and forgets what is gone", () => {
    const known = reduced(
      {},
      { event: "replica", data: replica("a-rep0") },
      { event: "replica", data: replica("b-rep0") },
      { event: "progress", data: replica("a-rep0", { progress: 0.7 }) },
      { event: "replica", data: replica("b-rep0", { gone: true }) },
    );
    expect(known).toEqual({ "a-rep0": replica("a-rep0", { progress: 0.7 }) });
  });

  it("loses a model's replicas with the model, and no others'", () => {
    const known = reduced(
      { "a-rep0": replica("a-rep0") as never, "b-rep0": replica("b-rep0") as never },
      { event: "model", data: { model_uid: "a", gone: true } },
      { event: "model", data: { model_uid: "b", gone: false } },
      { event: "log", data: { model_uid: "b", replica_uid: "b-rep0", line: "x" } },
    );
    expect(Object.keys(known)).toEqual(["b-rep0"]);
  });
});
