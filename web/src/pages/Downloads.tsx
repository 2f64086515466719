import {
  Alert,
  Anchor,
  Badge,
  Button,
  Card,
  Group,
  Progress,
  Skeleton,
  Stack,
  Table,
  Text,
  Title,
} from "@mantine/core";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { CircleCheck, CircleX, RotateCcw, ShieldCheck, Trash2, X } from "lucide-react";
import { useState } from "react";
import { useTranslation } from "react-i18next";
import { Link } from "react-router";
import { api, data, type Schemas } from "../api/client";
import { usePull, usePulls } from "../api/pulls";
import { useZoo } from "../api/queries";
import { Confirm } from "../components/Confirm";
import { Empty } from "../components/Empty";
import { DiagnosisView, ErrorView } from "../components/Failure";
import { Files } from "../components/LaunchProgress";
import { NextStepButton } from "../components/NextStep";
import { PageHeader } from "../components/PageHeader";
import { bytes, duration, parameters, percent } from "../lib/format";

type Pull = Schemas["Pull"];
type Row = Schemas["CacheRow"];

const COLORS = { downloading: "blue", done: "green", failed: "red", cancelled: "gray" } as const;

/** What comes, and what is on the disk. */
export default function Downloads() {
  const { t } = useTranslation();
  const zoo = useZoo();
  return (
    <>
      <PageHeader
        title={t("downloads.title")}
        text={zoo.data && t("downloads.free", { free: bytes(zoo.data.disk_free_bytes) })}
      />
      <Stack gap="xl">
        <Pulls />
        <Cached />
        <Repositories />
      </Stack>
    </>
  );
}

function Pulls() {
  const { t } = useTranslation();
  const pulls = usePulls();
  return (
    <section aria-labelledby="pulls">
      <Title order={2} size="h4" mb="sm" id="pulls">
        {t("downloads.pulls")}
      </Title>
      {pulls.isError && <ErrorView error={pulls.error} retry={() => pulls.refetch()} />}
      {pulls.data?.length === 0 && (
        <Text size="sm" c="dimmed">
          {t("downloads.noPulls")}
        </Text>
      )}
      <Stack>
        {[...(pulls.data ?? [])].reverse().map((pull) => (
          <PullCard key={pull.id} pull={pull} />
        ))}
      </Stack>
    </section>
  );
}

function PullCard({ pull }: { pull: Pull }) {
  const { t } = useTranslation();
  const client = useQueryClient();
  const again = usePull();
  const cancel = useMutation({
    mutationFn: () => data(api.DELETE("/v1/pulls/{id}", { params: { path: { id: pull.id } } })),
    onSettled: () => client.invalidateQueries({ queryKey: ["pulls"] }),
  });
  const share = pull.total_bytes ? pull.came_bytes / pull.total_bytes : 0;
  return (
    <Card withBorder padding="sm" data-pull={pull.state}>
      <Stack gap="xs">
        <Group justify="space-between" gap="xs">
          <Group gap="xs">
            <Text fw={600} className="wrap">
              {pull.model_name}
            </Text>
            <Text size="sm" c="dimmed">
              {parameters(pull.model_size_in_billions)} {pull.model_format} {pull.quantization} ·{" "}
              {pull.model_hub}
            </Text>
            <Badge variant="light" color={COLORS[pull.state]} tt="none">
              {t(`downloads.state.${pull.state}`)}
            </Badge>
          </Group>
          {pull.state === "downloading" ? (
            <Button
              size="xs"
              variant="light"
              color="red"
              leftSection={<X size={14} aria-hidden />}
              loading={cancel.isPending}
              onClick={() => cancel.mutate()}
            >
              {t("downloads.cancel")}
            </Button>
          ) : (
            pull.state !== "done" && (
              <Button
                size="xs"
                variant="default"
                leftSection={<RotateCcw size={14} aria-hidden />}
                loading={again.isPending}
                onClick={() =>
                  again.mutate({
                    model_name: pull.model_name,
                    model_format: pull.model_format,
                    quantization: pull.quantization,
                    model_size_in_billions: pull.model_size_in_billions,
                    download_hub: pull.model_hub,
                  })
                }
              >
                {t("downloads.resume")}
              </Button>
            )
          )}
        </Group>
        {pull.state === "downloading" && (
          <>
            <Progress value={100 * share} animated aria-label={pull.model_name} />
            <Text size="xs" c="dimmed">
              {bytes(pull.came_bytes)} / {bytes(pull.total_bytes)} · {percent(share)}
              {pull.bytes_per_second ? ` · ${bytes(pull.bytes_per_second)}/s` : ""}
              {pull.seconds_left
                ? ` · ${t("progress.left", { time: duration(pull.seconds_left) })}`
                : ""}
              {pull.note ? ` · ${pull.note}` : ""}
            </Text>
            <Files files={pull.download_files} />
          </>
        )}
        {pull.state === "cancelled" && (
          <Text size="sm" c="dimmed">
            {t("downloads.kept", { size: bytes(pull.came_bytes) })}
          </Text>
        )}
        {pull.path && (
          <Text size="xs" c="dimmed" className="wrap mono">
            {pull.path}
          </Text>
        )}
        {pull.diagnosis && (
          <DiagnosisView diagnosis={pull.diagnosis}>
            <NextStepButton command={pull.diagnosis.next_command} />
          </DiagnosisView>
        )}
        {cancel.isError && <ErrorView error={cancel.error} />}
      </Stack>
    </Card>
  );
}

function Cached() {
  const { t } = useTranslation();
  const pulls = usePulls();
  // A pull that has ended has changed what is on the disk.
  const ended = (pulls.data ?? []).filter((one) => one.state !== "downloading").length;
  const cached = useQuery({
    queryKey: ["cache", "models", ended],
    queryFn: async () => (await data(api.GET("/v1/cache/models"))).list,
  });
  const [removing, setRemoving] = useState<Row | null>(null);
  const models = new Map<string, Row[]>();
  for (const row of cached.data ?? []) {
    models.set(row.model_name, [...(models.get(row.model_name) ?? []), row]);
  }
  return (
    <section aria-labelledby="cached">
      <Title order={2} size="h4" mb="sm" id="cached">
        {t("downloads.cached")}
      </Title>
      {cached.isPending && <Skeleton h={120} />}
      {cached.isError && <ErrorView error={cached.error} retry={() => cached.refetch()} />}
      {cached.data?.length === 0 && (
        <Empty title={t("downloads.empty")}>
          {t("downloads.emptyText")}{" "}
          <Anchor component={Link} to="/">
            {t("downloads.models")}
          </Anchor>
        </Empty>
      )}
      <Stack>
        {[...models].map(([name, rows]) => (
          <Card key={name} withBorder padding="sm" data-cached={name}>
            <Group justify="space-between" mb="xs">
              <Title order={3} size="h6" className="wrap">
                {name}
              </Title>
              <Text size="sm" c="dimmed">
                {bytes(rows.reduce((sum, row) => sum + row.size_bytes, 0))}
              </Text>
            </Group>
            <Stack gap="xs">
              {rows.map((row) => (
                <CachedRow key={row.model_version} row={row} remove={() => setRemoving(row)} />
              ))}
            </Stack>
          </Card>
        ))}
      </Stack>
      {removing && <Remove row={removing} close={() => setRemoving(null)} />}
    </section>
  );
}

function CachedRow({ row, remove }: { row: Row; remove: () => void }) {
  const { t } = useTranslation();
  const verify = useMutation({
    mutationFn: () =>
      data(
        api.POST("/v1/cache/models/verify", {
          params: { query: { model_version: row.model_version } },
        }),
      ),
  });
  const files = verify.data?.files ?? [];
  const bundled = row.model_hub === "local";
  return (
    <div>
      <Group justify="space-between" gap="xs">
        <Text size="sm" className="wrap" style={{ flex: "1 1 12rem" }}>
          {parameters(row.model_size_in_billions)} {row.model_format} <b>{row.quantization}</b> ·{" "}
          {bytes(row.size_bytes)} ·{" "}
          <Text span size="sm" c="dimmed">
            {bundled ? t("downloads.bundled") : `${row.model_hub}: ${row.source}`}
          </Text>
        </Text>
        <Group gap="xs">
          <Button
            size="compact-sm"
            variant="default"
            leftSection={<ShieldCheck size={14} aria-hidden />}
            loading={verify.isPending}
            onClick={() => verify.mutate()}
          >
            {t("downloads.verify")}
          </Button>
          {!bundled && (
            <Button
              size="compact-sm"
              variant="light"
              color="red"
              leftSection={<Trash2 size={14} aria-hidden />}
              onClick={remove}
            >
              {t("downloads.remove")}
            </Button>
          )}
        </Group>
      </Group>
      {verify.isError && <ErrorView error={verify.error} />}
      {files.length > 0 && (
        <Stack gap={2} mt={4} role="status">
          {files.map((file) => (
            <Group key={file.path} gap={6} wrap="nowrap" align="flex-start">
              {file.whole === false ? (
                <CircleX size={16} color="var(--mantine-color-error)" aria-hidden />
              ) : (
                <CircleCheck size={16} color="var(--mantine-color-green-7)" aria-hidden />
              )}
              <Text size="xs" className="wrap">
                {file.path.split("/").at(-1)}:{" "}
                {t(
                  `downloads.whole.${file.whole === null ? "unknown" : file.whole ? "yes" : "no"}`,
                )}
                <Text span size="xs" c="dimmed" className="mono">
                  {" "}
                  {file.digest.slice(0, 16)}
                </Text>
              </Text>
            </Group>
          ))}
        </Stack>
      )}
    </div>
  );
}

/** Shows what would be deleted before it is. */
function Remove({ row, close }: { row: Row; close: () => void }) {
  const { t } = useTranslation();
  const client = useQueryClient();
  const query = { model_version: row.model_version };
  const files = useQuery({
    queryKey: ["cache", "files", row.model_version],
    queryFn: () => data(api.GET("/v1/cache/models/files", { params: { query } })),
    staleTime: 0,
  });
  const remove = useMutation({
    mutationFn: () => data(api.DELETE("/v1/cache/models", { params: { query } })),
    onSuccess: () => {
      void client.invalidateQueries({ queryKey: ["cache"] });
      void client.invalidateQueries({ queryKey: ["zoo"] });
      close();
    },
  });
  return (
    <Confirm
      title={t("downloads.removeTitle", { model: row.model_name, quantization: row.quantization })}
      text={t("downloads.removeText", { size: bytes(row.size_bytes) })}
      keep={t("downloads.keep")}
      lose={t("downloads.removeNow")}
      work={remove}
      close={close}
    >
      {files.isError && <ErrorView error={files.error} />}
      <div className="log" style={{ maxHeight: 200 }}>
        {(files.data?.paths ?? []).join("\n")}
      </div>
    </Confirm>
  );
}

function Repositories() {
  const { t } = useTranslation();
  const found = useQuery({
    queryKey: ["cache", "repositories"],
    queryFn: async () => (await data(api.GET("/v1/cache/repositories"))).list,
  });
  if (found.isError) return <ErrorView error={found.error} />;
  if (!found.data?.length) return null;
  const parts = found.data.reduce((sum, one) => sum + one.part_bytes, 0);
  return (
    <section aria-labelledby="repositories">
      <Title order={2} size="h4" mb="sm" id="repositories">
        {t("downloads.repositories")}
      </Title>
      {parts > 0 && (
        <Alert color="yellow" mb="sm">
          {t("downloads.parts", { size: bytes(parts) })}
        </Alert>
      )}
      <div className="scroll-x">
        <Table fz="sm" aria-labelledby="repositories">
          <Table.Thead>
            <Table.Tr>
              <Table.Th>{t("downloads.repository")}</Table.Th>
              <Table.Th>{t("downloads.hub")}</Table.Th>
              <Table.Th ta="right">{t("downloads.size")}</Table.Th>
              <Table.Th ta="right">{t("downloads.unfinished")}</Table.Th>
            </Table.Tr>
          </Table.Thead>
          <Table.Tbody>
            {found.data.map((one) => (
              <Table.Tr key={`${one.hub}${one.id}`}>
                <Table.Td className="wrap">{one.id}</Table.Td>
                <Table.Td>{one.hub}</Table.Td>
                <Table.Td ta="right">{bytes(one.size_bytes)}</Table.Td>
                <Table.Td ta="right">{one.part_bytes ? bytes(one.part_bytes) : "–"}</Table.Td>
              </Table.Tr>
            ))}
          </Table.Tbody>
        </Table>
      </div>
    </section>
  );
}
