import { describe, expect, it } from "vitest";
import { extended } from "../../src/api/figures";
import { between, countReplicas, parseMetrics } from "../../src/api/metrics";
import { together } from "../../src/lib/together";

const TEXT = `# HELP paddock_requests_total Requests
paddock_completion_tokens_total{model="m",replica="m-rep0",route="/v1/completions"} 5.0
paddock_completion_tokens_total{model="m",replica="m-rep0",route="/v1/chat/completions"} 7.0
paddock_time_to_first_token_seconds_sum{model="m",replica="m-rep0",route="x"} 0.5
paddock_time_to_first_token_seconds_count{model="m",replica="m-rep0",route="x"} 2.0
paddock_requests_in_flight{model="m",replica="m-rep0"} 3.0
paddock_replica_memory_bytes{model="m",replica="m-rep0"} 6.4e+07
process_cpu_seconds_total 1.5
odd{label="a \\"b\\" \\\\ c"} +Inf
`;

describe("metrics", () => {
  it("reads names, labels with escapes, and values", () => {
    const samples = parseMetrics(TEXT);
    expect(samples).toHaveLength(8);
    expect(samples.at(-1)?.labels).toEqual({ label: 'a "b" \\ c' });
    expect(samples.find((one) => one.name === "process_cpu_seconds_total")?.value).toBe(1.5);
  });

  it("adds up a replica's routes", () => {
    const counted = countReplicas(parseMetrics(TEXT), 10)["m-rep0"];
    expect(counted).toMatchObject({
      at: 10,
      completionTokens: 12,
      firstTokens: 2,
      inFlight: 3,
      memoryBytes: 6.4e7,
    });
  });

  it("tells rates and means of the time between two counts", () => {
    const before = {
      at: 10,
      completionTokens: 10,
      requests: 1,
      firstTokenSeconds: 1,
      firstTokens: 1,
    };
    const now = { at: 12, completionTokens: 30, requests: 3, firstTokenSeconds: 2, firstTokens: 3 };
    const rest = { inFlight: 1, memoryBytes: null, gpuBytes: null };
    expect(between({ ...before, ...rest }, { ...now, ...rest })).toEqual({
      at: 12,
      tokensPerSecond: 10,
      firstTokenSeconds: 0.5,
      inFlight: 1,
      memoryBytes: null,
    });
    expect(between({ ...now, ...rest }, { ...before, ...rest, at: 13 })).toBeNull();
    const fewer = { ...now, ...rest, at: 14, completionTokens: 29 };
    expect(between({ ...now, ...rest }, fewer)?.tokensPerSecond).toBe(0);
  });

  it("shows the memory of GPUs in the place of the host's", () => {
    const gpu = `paddock_replica_gpu_memory_bytes{model="m",replica="m-rep0"} 3e+10\n`;
    const [before, now] = [1, 2].map((at) => countReplicas(parseMetrics(TEXT + gpu), at)["m-rep0"]);
    expect(now?.memoryBytes).toBe(6.4e7);
    expect(before && now && between(before, now)?.memoryBytes).toBe(3e10);
  });

  it("begins anew where a replica's counters do", () => {
    const count = (at: number, completionTokens: number) => ({
      "m-rep0": {
        ...{
          at,
          completionTokens,
          requests: completionTokens,
          firstTokenSeconds: 0,
          firstTokens: 0,
        },
        ...{ inFlight: 0, memoryBytes: null, gpuBytes: null },
      },
    });
    const first = extended({}, {}, count(0, 100));
    const second = extended(first, count(0, 100), count(2, 120));
    expect(second["m-rep0"]?.map((one) => one.tokensPerSecond)).toEqual([10]);
    expect(extended(second, count(2, 120), count(4, 5))["m-rep0"]).toEqual([]);
  });

  it("adds the replicas of a model up", () => {
    const one = { at: 1, tokensPerSecond: 5, firstTokenSeconds: 0.2, inFlight: 1, memoryBytes: 10 };
    const other = { ...one, firstTokenSeconds: 0.4, memoryBytes: null };
    expect(together({ a: [one], b: [other], c: [one] }, ["a", "b"])).toEqual([
      { at: 1, tokensPerSecond: 10, firstTokenSeconds: 0.4, inFlight: 2, memoryBytes: 10 },
    ]);
  });
});
