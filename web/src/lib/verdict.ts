import type { Schemas } from "../api/client";

/** Estimates' verdicts as keys of the texts. */
export function verdict(text: Schemas["EstimateRow"]["verdict"]) {
  return (
    {
      fits: "fits",
      "fits once other programs give memory back": "later",
      "too large: runs from the disk, slowly": "slow",
      "too large": "large",
    } as const
  )[text];
}
