import {
  Card,
  Group,
  NumberInput,
  SegmentedControl,
  Select,
  SimpleGrid,
  Skeleton,
  Stack,
  Table,
  Text,
} from "@mantine/core";
import { useDebouncedValue } from "@mantine/hooks";
import { keepPreviousData, useQuery } from "@tanstack/react-query";
import { lazy, Suspense } from "react";
import { useTranslation } from "react-i18next";
import { api, data, type Schemas } from "../api/client";
import { useZoo, useZooModel } from "../api/queries";
import { Empty } from "../components/Empty";
import { ErrorView } from "../components/Failure";
import { PART_COLORS } from "../components/MemoryBar";
import { PageHeader } from "../components/PageHeader";
import { bytes, parameters, tokens } from "../lib/format";
import { fitting, GPUS } from "../lib/gpus";
import { useQueryState } from "../lib/query";
import { verdict } from "../lib/verdict";

const BarChart = lazy(() =>
  import("../components/charts").then((found) => ({ default: found.BarChart })),
);

type Row = Schemas["EstimateRow"];

const TYPING_MS = 250;
const GB = 1e9;

/** What models take, against what this machine and common GPUs have. */
export default function Memory() {
  const { t } = useTranslation();
  const { query, change } = useQueryState();
  const zoo = useZoo();
  const name = query.get("model") ?? "tiny-mixtral";
  const model = useZooModel(name);
  const format = query.get("format");
  const size = query.get("size");
  const by = query.get("by") === "context" ? "context" : "quantization";
  const [context] = useDebouncedValue(query.get("context") ?? "", TYPING_MS);
  const [slots] = useDebouncedValue(query.get("slots") ?? "1", TYPING_MS);
  const quantization = query.get("quantization");
  const most = model.data?.context_length ?? 0;
  const contexts = by === "context" ? steps(most) : [Number(context) || Math.min(4096, most)];
  const asked = {
    model_name: name,
    model_format: format ?? undefined,
    model_size_in_billions: size ?? undefined,
    quantization: by === "context" ? (quantization ?? undefined) : undefined,
    context_length: contexts,
    slots: Number(slots) || 1,
  };
  const estimate = useQuery({
    queryKey: ["estimate", asked],
    queryFn: ({ signal }) => data(api.GET("/v1/estimate", { params: { query: asked }, signal })),
    placeholderData: keepPreviousData,
    enabled: most > 0,
    retry: false,
  });
  const formats = [...new Set(model.data?.variants.map((one) => one.model_format))];
  const quantizations = [
    ...new Set(
      model.data?.variants
        .filter((one) => !format || one.model_format === format)
        .map((one) => one.quantization),
    ),
  ];
  const rows = shown(estimate.data?.rows ?? [], by, quantization);
  return (
    <>
      <PageHeader title={t("calculator.title")} text={t("calculator.text")} />
      <Stack>
        <SimpleGrid cols={{ base: 1, xs: 2, md: 4 }} spacing="sm">
          <Select
            label={t("calculator.model")}
            data={[...new Set([...(zoo.data?.models ?? []).map((one) => one.name), name])]}
            value={name}
            onChange={(value) =>
              change({ model: value, format: null, quantization: null, size: null, context: null })
            }
            searchable
            allowDeselect={false}
            limit={50}
          />
          <Select
            label={t("launch.format")}
            placeholder={t("calculator.all")}
            data={formats}
            value={format}
            onChange={(value) => change({ format: value, quantization: null })}
            clearable
          />
          {(model.data?.sizes.length ?? 0) > 1 && (
            <Select
              label={t("launch.size")}
              placeholder={t("calculator.all")}
              data={model.data?.sizes.map((one) => ({ value: one, label: parameters(one) }))}
              value={size}
              onChange={(value) => change({ size: value })}
              clearable
            />
          )}
          <NumberInput
            label={t("calculator.slots")}
            value={query.get("slots") ?? "1"}
            onChange={(value) => change({ slots: String(value) })}
            min={1}
            max={256}
            allowDecimal={false}
          />
          {by === "quantization" ? (
            <NumberInput
              label={t("launch.context")}
              placeholder={String(Math.min(4096, most) || "")}
              value={query.get("context") ?? ""}
              onChange={(value) => change({ context: String(value) })}
              min={1}
              max={most || undefined}
              step={1024}
              allowDecimal={false}
            />
          ) : (
            <Select
              label={t("launch.quantization")}
              data={quantizations}
              value={quantization ?? rows[0]?.quantization ?? null}
              onChange={(value) => change({ quantization: value })}
              allowDeselect={false}
            />
          )}
        </SimpleGrid>
        <SegmentedControl
          aria-label={t("calculator.by")}
          style={{ alignSelf: "flex-start" }}
          value={by}
          onChange={(value) => change({ by: value === "context" ? value : null })}
          data={[
            { value: "quantization", label: t("calculator.byQuantization") },
            { value: "context", label: t("calculator.byContext") },
          ]}
        />
        {(model.error ?? estimate.error) && <ErrorView error={model.error ?? estimate.error} />}
        {(model.isPending || (estimate.isPending && most > 0)) && <Skeleton h={300} />}
        {estimate.data && rows.length === 0 && <Empty title={t("calculator.none")} />}
        {estimate.data && rows.length > 0 && (
          <>
            <Chart rows={rows} by={by} />
            <Numbers rows={rows} by={by} estimate={estimate.data} />
          </>
        )}
      </Stack>
    </>
  );
}

/** Contexts to compare: powers of two up to all that the model has. */
function steps(most: number): number[] {
  const found: number[] = [];
  for (let one = 2048; one < most; one *= 2) found.push(one);
  return [...found, most].slice(-8);
}

/** Of several contexts only one variant is shown, the asked one or the first. */
function shown(rows: readonly Row[], by: string, quantization: string | null): Row[] {
  if (by !== "context") return [...rows];
  const first = rows.find((row) => !quantization || row.quantization === quantization);
  return rows.filter(
    (row) =>
      first &&
      row.quantization === first.quantization &&
      row.format === first.format &&
      row.size === first.size,
  );
}

/** What tells a row from the others: only what differs among them. */
function label(row: Row, rows: readonly Row[], by: string): string {
  const several = (field: "size" | "format") => new Set(rows.map((one) => one[field])).size > 1;
  const parts = [
    several("size") ? parameters(row.size) : "",
    by === "context" ? tokens(row.context_length) : "",
    by !== "context" && row.quantization !== "none" ? row.quantization : "",
    several("format") || row.quantization === "none" ? row.format : "",
  ];
  return parts.filter(Boolean).join(" ");
}

interface Shown {
  rows: Row[];
  by: string;
  estimate: Schemas["Estimate"];
}

function Chart({ rows, by }: Omit<Shown, "estimate">) {
  const { t } = useTranslation();
  // Rows on a GPU have its memory, others the machine's.
  const rooms = [...new Map(rows.map((row) => [row.gpu, row.free_bytes]))];
  const points = rows.map((row) => ({
    name: label(row, rows, by),
    weights: row.weights_bytes / GB,
    cache: row.cache_bytes / GB,
    overhead: row.overhead_bytes / GB,
  }));
  const longest = Math.max(...points.map((one) => one.name.length));
  // The table below says the same to those who cannot see it.
  return (
    <Card withBorder aria-hidden>
      <Suspense fallback={<Skeleton h={260} />}>
        <BarChart
          h={Math.max(180, 34 * points.length + 70)}
          data={points}
          dataKey="name"
          type="stacked"
          orientation="vertical"
          withLegend
          legendProps={{ itemSorter: null }}
          barChartProps={{ accessibilityLayer: false, margin: { top: 20, right: 28 } }}
          gridAxis="x"
          xAxisProps={{ interval: "equidistantPreserveStart" }}
          yAxisProps={{
            width: Math.min(120, 20 + 8 * longest),
            interval: 0,
            tick: { fontSize: 12, width: 200, fill: "currentColor" },
          }}
          valueFormatter={(value) => bytes(value * GB)}
          series={[
            { name: "weights", label: t("memory.weights"), color: PART_COLORS.weights },
            { name: "cache", label: t("memory.cache"), color: PART_COLORS.cache },
            { name: "overhead", label: t("memory.overhead"), color: PART_COLORS.overhead },
          ]}
          referenceLines={rooms.map(([gpu, free]) => ({
            x: free / GB,
            label: gpu
              ? t("calculator.gpuLine", { gpu, free: bytes(free) })
              : t("calculator.freeLine", { free: bytes(free) }),
            color: "red.7",
            labelPosition: "top",
          }))}
        />
      </Suspense>
    </Card>
  );
}

function Numbers({ rows, by, estimate }: Shown) {
  const { t } = useTranslation();
  return (
    <div className="scroll-x">
      <Table
        fz="sm"
        aria-label={t("calculator.title")}
        miw={760}
        striped
        // Numbers keep their units beside them.
        styles={{ td: { whiteSpace: "nowrap" } }}
      >
        <Table.Thead>
          <Table.Tr>
            <Table.Th>{by === "context" ? t("launch.context") : t("launch.quantization")}</Table.Th>
            <Table.Th ta="right">{t("memory.weights")}</Table.Th>
            <Table.Th ta="right">{t("memory.cache")}</Table.Th>
            <Table.Th ta="right">{t("memory.overhead")}</Table.Th>
            <Table.Th ta="right">{t("calculator.total")}</Table.Th>
            <Table.Th>{t("calculator.here", { free: bytes(estimate.memory_free_bytes) })}</Table.Th>
            <Table.Th>{t("calculator.gpus")}</Table.Th>
          </Table.Tr>
        </Table.Thead>
        <Table.Tbody>
          {rows.map((row) => (
            <Table.Tr key={`${row.size}${row.format}${row.quantization}${row.context_length}`}>
              <Table.Th fw={500}>{label(row, rows, by)}</Table.Th>
              <Table.Td ta="right">{bytes(row.weights_bytes)}</Table.Td>
              <Table.Td ta="right">{bytes(row.cache_bytes)}</Table.Td>
              <Table.Td ta="right">{bytes(row.overhead_bytes)}</Table.Td>
              <Table.Td ta="right" fw={600}>
                {bytes(row.total_bytes)}
              </Table.Td>
              <Table.Td>
                {t(`verdict.${verdict(row.verdict)}`)}
                {row.gpu && (
                  <Text size="xs" c="dimmed">
                    {t("calculator.gpuLine", { gpu: row.gpu, free: bytes(row.free_bytes) })}
                  </Text>
                )}
              </Table.Td>
              <Table.Td>{gpuText(t, row.total_bytes)}</Table.Td>
            </Table.Tr>
          ))}
        </Table.Tbody>
      </Table>
      <Group mt="xs">
        <Text size="xs" c="dimmed">
          {t("calculator.note", { gpus: GPUS.map((gpu) => gpu.name).join(", ") })}
        </Text>
      </Group>
    </div>
  );
}

type Translate = ReturnType<typeof useTranslation>["t"];

/** The smallest card that takes it, alone or several of them. */
function gpuText(t: Translate, needed: number): string {
  const found = fitting(needed);
  if (!found) return t("calculator.noGpu");
  return found.count === 1 ? found.gpu.name : `${found.count} × ${found.gpu.name}`;
}
