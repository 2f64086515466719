/** Memory of common cards as their makers state it; GiB there, bytes here. */
export const GPUS = [
  { name: "RTX 4060 (8 GB)", bytes: 8 * 2 ** 30 },
  { name: "RTX 3060 (12 GB)", bytes: 12 * 2 ** 30 },
  { name: "RTX 4080, T4 (16 GB)", bytes: 16 * 2 ** 30 },
  { name: "RTX 4090, L4 (24 GB)", bytes: 24 * 2 ** 30 },
  { name: "RTX 5090 (32 GB)", bytes: 32 * 2 ** 30 },
  { name: "L40S, RTX 6000 Ada (48 GB)", bytes: 48 * 2 ** 30 },
  { name: "A100, H100 (80 GB)", bytes: 80 * 2 ** 30 },
  { name: "H200 (141 GB)", bytes: 141e9 },
] as const;

/** What of a card models can have: drivers, and the fragments that allocators leave, take the rest. */
export const USABLE = 0.92;
const MOST = 8;

/** The smallest card that takes so much; where none does, the fewest of the largest. */
export function fitting(needed: number): { gpu: (typeof GPUS)[number]; count: number } | null {
  const one = GPUS.find((gpu) => needed <= USABLE * gpu.bytes);
  if (one) return { gpu: one, count: 1 };
  const largest = GPUS[GPUS.length - 1] as (typeof GPUS)[number];
  const count = Math.ceil(needed / (USABLE * largest.bytes));
  return count <= MOST ? { gpu: largest, count } : null;
}
