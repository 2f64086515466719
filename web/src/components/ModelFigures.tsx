import { SimpleGrid, Text } from "@mantine/core";
import { useTranslation } from "react-i18next";
import type { Instance } from "../api/client";
import { useFigures } from "../api/figures";
import { bytes, duration, rate } from "../lib/format";
import { together } from "../lib/together";
import { Figure } from "./Sparkline";

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
    <SimpleGrid cols={{ base: 2, md: 4 }} spacing="lg" verticalSpacing="xs">
      <Figure
        name={t("figures.tokens")}
        value={rate(last?.tokensPerSecond)}
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
        value={last?.inFlight ?? "–"}
        data={found.map((one) => one.inFlight)}
        color="grape.6"
      />
      <Figure
        name={t("figures.memory")}
        value={
          <>
            {bytes(last?.memoryBytes)}{" "}
            <Text span size="sm" fw={400} c="dimmed">
              {t("figures.planned", { size: bytes(planned) })}
            </Text>
          </>
        }
        data={found.map((one) => one.memoryBytes)}
        color="orange.6"
      />
    </SimpleGrid>
  );
}
