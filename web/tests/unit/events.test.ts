import { afterEach, describe, expect, it, vi } from "vitest";
import { heard, type Live, readEvents, type Told } from "../../src/api/events";

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

describe("a stream of events", () => {
  afterEach(() => {
    vi.unstubAllGlobals();
    vi.useRealTimers();
  });

  /** A gateway that sends these pieces, and then nothing more, until it is left. */
  function gateway(...pieces: string[]) {
    vi.stubGlobal("fetch", async (_: string, { signal }: RequestInit) => {
      const body = new ReadableStream({
        start(controller) {
          for (const piece of pieces) controller.enqueue(new TextEncoder().encode(piece));
          signal?.addEventListener("abort", () => controller.error(signal.reason));
        },
      });
      return new Response(body);
    });
  }

  it("puts events together however they are cut", async () => {
    gateway("id: 1\nevent: mod", 'el\ndata: {"a"', ": 1}\n\n: keep-alive\n\n");
    const leaving = new AbortController();
    const told = await new Promise((resolve) => {
      void readEvents("/v1/events", resolve, { signal: leaving.signal }).catch(() => undefined);
    });
    leaving.abort();
    expect(told).toEqual({ name: "model", data: '{"a": 1}', id: "1" });
  });

  it("is broken once nothing has come for too long", async () => {
    vi.useFakeTimers();
    gateway(": keep-alive\n\n");
    const reading = readEvents("/v1/events", () => undefined, {
      signal: new AbortController().signal,
      silenceMs: 40_000,
    });
    const ended = expect(reading).rejects.toThrow();
    await vi.advanceTimersByTimeAsync(40_001);
    await ended;
  });
});
