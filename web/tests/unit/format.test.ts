import { describe, expect, it } from "vitest";
import {
  bytes,
  duration,
  parameters,
  percent,
  probability,
  rate,
  tokens,
} from "../../src/lib/format";

describe("format", () => {
  it("writes sizes in decimal units with three digits", () => {
    expect([0, 999, 1000, 2_622_400, 26_440_000_000, 999_500].map(bytes)).toEqual([
      "0 B",
      "999 B",
      "1.00 kB",
      "2.62 MB",
      "26.4 GB",
      "1.00 MB",
    ]);
    expect(bytes(null)).toBe("–");
  });

  it("says 100 % only where all is there", () => {
    expect([0, 0.5, 0.9999, 1, 1.2].map(percent)).toEqual([
      "0 %",
      "50 %",
      "99 %",
      "100 %",
      "100 %",
    ]);
  });

  it("writes log probabilities as percent", () => {
    expect([0, -0.5, -3, -20].map(probability)).toEqual([
      "100.0 %",
      "60.7 %",
      "4.98 %",
      "< 0.01 %",
    ]);
  });

  it("writes times as a person says them", () => {
    expect([0.0123, 4, 42, 60, 200, 7500, 180_000].map(duration)).toEqual([
      "12 ms",
      "4.0 s",
      "42 s",
      "1 min",
      "3 min 20 s",
      "2 h 5 min",
      "2 d 2 h",
    ]);
    expect(duration(null)).toBe("–");
    expect(duration(Number.NaN)).toBe("–");
  });

  it("writes parameters and contexts as the field does", () => {
    expect(["46_7", "0_004", "7", 141].map(parameters)).toEqual(["46.7B", "4M", "7B", "141B"]);
    expect([32768, 2048, 1000, 0].map(tokens)).toEqual(["32k", "2k", "1,000", "–"]);
    expect([12.345, 4327.4, null].map(rate)).toEqual(["12.3", "4,327", "–"]);
  });
});
