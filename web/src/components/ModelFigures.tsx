import { Group, Text } from "@mantine/core";
import { useTranslation } from "react-i18next";
import type { Instance } from "../api/client";
import { type History, useFigures } from "../api/figures";
import type { Figures } from "../api/metrics";
import { bytes, duration, rate } from "../lib/format";
import { Figure } from "./Sparkline";

/** Figures of several replicas as one: rates and sizes are added, waits are the longest. */
export function together(history: History, replicas: readonly string[]): Figures[] {
  const moments = new Map<number, Figures>();
  for (const replica of replicas) {
    for (const one of history[replica] ?? []) {
      const known = moments.get(one.at);
      moments.set(
        one.at,
        known
          ? {
              at: one.at,
              tokensPerSecond: known.tokensPerSecond + one.tokensPerSecond,
              firstTokenSeconds:
                known.firstTokenSeconds === null
                  ? one.firstTokenSeconds
                  : Math.max(known.firstTokenSeconds, one.firstTokenSeconds ?? 0),
              inFlight: known.inFlight + one.inFlight,
              memoryBytes:
                known.memoryBytes === null && one.memoryBytes === null
                  ? null
                  : (known.memoryBytes ?? 0) + (one.memoryBytes ?? 0),
            }
          : one,
      );
    }
  }
  return [...moments.values()].sort((a, b) => a.at - b.at);
}

/** What a model does now, and in the last two minutes. */
export function ModelFigures({ model, replica }: { model: Instance; replica?: string }) {
  const { t } = useTranslation();
  const history = useFigures();
  const replicas = replica ? [replica] : model.replica_statuses.map((one) => one.replica_uid);
  const found = together(history, replicas);
  const last = found.at(-1);
  const first = [...found].reverse().find((one) => one.firstTokenSeconds !== null);
  const { memory } = model.plan;
  const planned = replica ? memory.total_bytes : memory.needed_bytes;
  return (
    <Group gap="8px 24px" align="flex-start">
      <Figure
        name={t("figures.tokens")}
        value={`${rate(last?.tokensPerSecond)} /s`}
        data={found.map((one) => one.tokensPerSecond)}
        color="teal.6"
      />
      <Figure
        name={t("figures.firstToken")}
        value={duration(first?.firstTokenSeconds)}
        data={found.map((one) => one.firstTokenSeconds)}
        color="blue.6"
      />
      <Figure
        name={t("figures.inFlight")}
        value={String(last?.inFlight ?? "–")}
        data={found.map((one) => one.inFlight)}
        color="grape.6"
      />
      <div style={{ flex: "1 1 9rem" }}>
        <Text size="xs" c="dimmed">
          {t("figures.memory")}
        </Text>
        <Text size="sm" fw={600}>
          {bytes(last?.memoryBytes)}
          <Text span size="sm" fw={400} c="dimmed">
            {" "}
            {t("figures.planned", { size: bytes(planned) })}
          </Text>
        </Text>
      </div>
    </Group>
  );
}
