import type { QueryClient } from "@tanstack/react-query";
import { createParser } from "eventsource-parser";
import { soon } from "../lib/soon";
import { Store } from "../lib/store";
import { ApiError, request, type Schemas } from "./client";

type ModelEvent = Schemas["ModelEvent"];
type ReplicaEvent = Schemas["ReplicaEvent"];
type LogEvent = Schemas["LogEvent"];

/** Each replica that is on its way or serves, by its id, as the last event told it. */
export type Live = Readonly<Record<string, ReplicaEvent>>;

export type Told =
  | { event: "snapshot"; data: Schemas["Snapshot"] }
  | { event: "model"; data: ModelEvent }
  | { event: "replica" | "progress"; data: ReplicaEvent }
  | { event: "log"; data: LogEvent };

/** What is known after an event. Pure. */
export function heard(live: Live, told: Told): Live {
  switch (told.event) {
    case "snapshot":
      return Object.fromEntries(
        told.data.models.flatMap((model) => model.replicas.map((one) => [one.replica_uid, one])),
      );
    case "replica":
    case "progress": {
      const { [told.data.replica_uid]: _, ...others } = live;
      return told.data.gone ? others : { ...others, [told.data.replica_uid]: told.data };
    }
    case "model":
      if (!told.data.gone) return live;
      return Object.fromEntries(
        Object.entries(live).filter(([, one]) => one.model_uid !== told.data.model_uid),
      );
    case "log":
      return live;
  }
}

interface Reading {
  signal: AbortSignal;
  /** The id of the last event that is known. */
  after?: string;
  opened?: () => void;
  /** How long nothing at all may come before the stream counts as broken. */
  silenceMs?: number;
}

/** Reads a stream of server-sent events; resolves when it ends, rejects where it breaks. */
export async function readEvents(
  path: string,
  hear: (event: { name: string; data: string; id: string }) => void,
  options: Reading,
): Promise<void> {
  const silent = new AbortController();
  const signal = AbortSignal.any([options.signal, silent.signal]);
  let timer: ReturnType<typeof setTimeout> | undefined;
  const listen = () => {
    clearTimeout(timer);
    if (options.silenceMs) timer = setTimeout(() => silent.abort(), options.silenceMs);
  };
  const headers: Record<string, string> = { Accept: "text/event-stream" };
  if (options.after) headers["Last-Event-ID"] = options.after;
  const response = await request(path, { headers, signal });
  options.opened?.();
  if (response.body === null) return;
  const parser = createParser({
    onEvent: (event) =>
      hear({ name: event.event ?? "message", data: event.data, id: event.id ?? "" }),
  });
  listen();
  try {
    for await (const text of response.body.pipeThrough(new TextDecoderStream())) {
      listen();
      parser.feed(text);
    }
  } finally {
    clearTimeout(timer);
  }
}

export const live = new Store<Live>({});
/** Whether the gateway is heard: `lost` once it has not answered. */
export const connection = new Store<"connecting" | "live" | "lost">("connecting");

const FIRST_WAIT_MS = 300;
const LONGEST_WAIT_MS = 5000;
const REFRESH_MS = 150;
/** The gateway sends a comment every 15 s: a machine that slept, or a cut cable, sends none. */
const SILENCE_MS = 40_000;

/** Follows `/v1/events` until the signal; what changes is fetched anew. */
export async function follow(client: QueryClient, signal: AbortSignal): Promise<void> {
  let after = "";
  let wait = FIRST_WAIT_MS;
  const refresh = soon(() => client.invalidateQueries({ queryKey: ["models"] }), REFRESH_MS);
  while (!signal.aborted) {
    try {
      await readEvents(
        "/v1/events",
        ({ name, data, id }) => {
          after = id || after;
          const told = { event: name, data: JSON.parse(data) } as Told;
          live.set(heard(live.get(), told));
          if (told.event !== "progress") refresh();
        },
        {
          signal,
          after,
          silenceMs: SILENCE_MS,
          opened: () => {
            // What was asked before may be of a gateway that is gone.
            if (connection.get() === "lost") void client.invalidateQueries();
            connection.set("live");
            wait = FIRST_WAIT_MS;
          },
        },
      );
    } catch (error) {
      if (signal.aborted) return;
      // Signing in starts anew; a gateway that answers is not lost.
      if (error instanceof ApiError && [401, 403].includes(error.status)) return;
    }
    if (signal.aborted) return;
    connection.set("lost");
    await new Promise((resolve) => setTimeout(resolve, wait));
    wait = Math.min(wait * 2, LONGEST_WAIT_MS);
  }
}
