/** One series of Prometheus' text: its name, its labels and its value. */
export interface Sample {
  name: string;
  labels: Record<string, string>;
  value: number;
}

const LINE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$/;
const LABEL = /([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"/g;

/** Reads Prometheus' text format; what is not a sample is passed over. */
export function parseMetrics(text: string): Sample[] {
  const found: Sample[] = [];
  for (const line of text.split("\n")) {
    const parts = LINE.exec(line);
    if (!parts || line.startsWith("#")) continue;
    const labels: Record<string, string> = {};
    for (const [, label, value] of (parts[2] ?? "").matchAll(LABEL)) {
      labels[label as string] = (value as string).replace(/\\(.)/g, (_, c) =>
        c === "n" ? "\n" : c,
      );
    }
    found.push({ name: parts[1] as string, labels, value: Number(parts[3]) });
  }
  return found;
}

/** What a replica has done until a moment; the counters only ever grow. */
export interface Counted {
  at: number;
  completionTokens: number;
  requests: number;
  firstTokenSeconds: number;
  firstTokens: number;
  inFlight: number;
  /** Of the host's memory, and of the memory of GPUs; null where nothing was told. */
  memoryBytes: number | null;
  gpuBytes: number | null;
}

const FIELDS: Record<string, keyof Counted> = {
  paddock_completion_tokens_total: "completionTokens",
  // Of requests that still run; at their end they are in the counter.
  paddock_running_completion_tokens: "completionTokens",
  paddock_requests_total: "requests",
  paddock_time_to_first_token_seconds_sum: "firstTokenSeconds",
  paddock_time_to_first_token_seconds_count: "firstTokens",
  paddock_requests_in_flight: "inFlight",
  paddock_replica_memory_bytes: "memoryBytes",
  paddock_replica_gpu_memory_bytes: "gpuBytes",
};

/** Every replica's counts by its id; `at` is in seconds. */
export function countReplicas(samples: Sample[], at: number): Record<string, Counted> {
  const found: Record<string, Counted> = {};
  for (const { name, labels, value } of samples) {
    const field = FIELDS[name];
    const replica = labels.replica;
    if (!field || !replica) continue;
    found[replica] ??= {
      at,
      completionTokens: 0,
      requests: 0,
      firstTokenSeconds: 0,
      firstTokens: 0,
      inFlight: 0,
      memoryBytes: null,
      gpuBytes: null,
    };
    const one = found[replica];
    one[field] = (one[field] ?? 0) + value;
  }
  return found;
}

/** What happened between two moments: rates, and means over the requests that began to answer. */
export interface Figures {
  at: number;
  tokensPerSecond: number;
  /** Seconds; null where no request has begun to answer. */
  firstTokenSeconds: number | null;
  inFlight: number;
  /** Of the memory that plans count for it: that of GPUs, where it computes on some. */
  memoryBytes: number | null;
}

/** The figures of the time between two counts; null where the counters have begun anew. */
export function between(before: Counted, now: Counted): Figures | null {
  const seconds = now.at - before.at;
  const begun = now.firstTokens - before.firstTokens;
  if (seconds <= 0 || begun < 0 || now.requests < before.requests) return null;
  // An engine may count a little less at a request's end than events came.
  const made = Math.max(0, now.completionTokens - before.completionTokens);
  return {
    at: now.at,
    tokensPerSecond: made / seconds,
    firstTokenSeconds: begun ? (now.firstTokenSeconds - before.firstTokenSeconds) / begun : null,
    inFlight: now.inFlight,
    memoryBytes: now.gpuBytes ?? now.memoryBytes,
  };
}
