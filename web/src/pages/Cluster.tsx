import {
  Alert,
  Anchor,
  Badge,
  Button,
  Card,
  Code,
  Group,
  List,
  Loader,
  Progress,
  Select,
  SimpleGrid,
  Skeleton,
  Stack,
  Text,
  Title,
} from "@mantine/core";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Download, RotateCcw, Trash2, X } from "lucide-react";
import { useState } from "react";
import { useTranslation } from "react-i18next";
import { Link } from "react-router";
import { api, data, type Schemas } from "../api/client";
import { useEngines, useNodes } from "../api/queries";
import { Dialog } from "../components/Dialog";
import { ErrorView } from "../components/Failure";
import { PageHeader } from "../components/PageHeader";
import { StateBadge } from "../components/StateBadge";
import { bytes, moment, percent } from "../lib/format";
import { runningPath } from "../lib/paths";
import { useQueryState } from "../lib/query";

type Node = Schemas["NodeFacts"];
type Engine = Schemas["Engine"];
type Environment = Schemas["EngineEnvironment"];

const RUNNING_MS = 700;
const IDLE_MS = 15_000;

/** The machines, and the engines on them. */
export default function Cluster() {
  const { t } = useTranslation();
  const nodes = useNodes();
  return (
    <>
      <PageHeader title={t("cluster.title")} text={t("cluster.text")} />
      <Stack gap="xl">
        <section aria-labelledby="nodes">
          <Title order={2} size="h4" mb="sm" id="nodes">
            {t("cluster.nodes")}
          </Title>
          {nodes.isPending && <Skeleton h={180} />}
          {nodes.isError && <ErrorView error={nodes.error} retry={() => nodes.refetch()} />}
          <SimpleGrid cols={{ base: 1, md: 2 }}>
            {nodes.data?.map((node) => (
              <NodeCard key={node.node} node={node} />
            ))}
          </SimpleGrid>
        </section>
        <Engines />
      </Stack>
    </>
  );
}

function NodeCard({ node }: { node: Node }) {
  const { t } = useTranslation();
  const used = node.memory_total_bytes - node.memory_free_bytes;
  return (
    <Card withBorder padding="sm" data-node={node.name}>
      <Stack gap="xs">
        <Group gap="xs">
          <Title order={3} size="h5" className="wrap">
            {node.name}
          </Title>
          <Text size="sm" c="dimmed">
            {node.address}
          </Text>
          {node.gateway && (
            <Badge variant="light" color="paddock" tt="none">
              {t("cluster.gateway")}
            </Badge>
          )}
        </Group>
        <Meter
          name={t("cluster.memory")}
          value={used / node.memory_total_bytes}
          text={t("cluster.of", {
            used: bytes(used),
            total: bytes(node.memory_total_bytes),
            free: bytes(node.memory_free_bytes),
          })}
        />
        <Meter
          name={t("cluster.cpu")}
          value={node.cpu_use}
          text={
            node.cpu_use === null
              ? t("cluster.cpus", { count: node.cpus })
              : `${percent(node.cpu_use)} · ${t("cluster.cpus", { count: node.cpus })}`
          }
        />
        <Meter
          name={t("cluster.disk")}
          value={
            node.disk_total_bytes === null ? null : 1 - node.disk_free_bytes / node.disk_total_bytes
          }
          text={t("cluster.diskFree", { free: bytes(node.disk_free_bytes) })}
        />
        {node.gpus.map((gpu) => (
          <Meter
            key={gpu.index}
            name={`GPU ${gpu.index}: ${gpu.name}`}
            value={1 - gpu.memory_free_bytes / gpu.memory_total_bytes}
            text={t("cluster.of", {
              used: bytes(gpu.memory_total_bytes - gpu.memory_free_bytes),
              total: bytes(gpu.memory_total_bytes),
              free: bytes(gpu.memory_free_bytes),
            })}
          />
        ))}
        {node.gpus.length === 0 && (
          <Text size="sm" c="dimmed">
            {t("cluster.noGpu")}
          </Text>
        )}
        <Text size="sm" fw={600}>
          {t("cluster.replicas")}
        </Text>
        {node.replicas.length === 0 ? (
          <Text size="sm" c="dimmed">
            {t("cluster.nothing")}
          </Text>
        ) : (
          <Stack gap={4}>
            {node.replicas.map((one) => (
              <Group key={one.replica_uid} gap="xs">
                <Anchor component={Link} to={runningPath(one.model_uid)} size="sm" className="wrap">
                  {one.replica_uid}
                </Anchor>
                <StateBadge state={one.state} />
              </Group>
            ))}
          </Stack>
        )}
        {!node.gateway && <NodeEngines node={node} />}
      </Stack>
    </Card>
  );
}

/** Another machine's engines: they are installed there, and not from here. */
function NodeEngines({ node }: { node: Node }) {
  return (
    <List size="sm">
      {Object.entries(node.engines).map(([name, one]) => (
        <List.Item key={name} className="wrap">
          {name}: {one.version ?? one.reason}
        </List.Item>
      ))}
    </List>
  );
}

function Meter(props: { name: string; value: number | null; text: string }) {
  return (
    <div>
      <Group justify="space-between" gap="xs">
        <Text size="sm">{props.name}</Text>
        <Text size="sm" c="dimmed">
          {props.text}
        </Text>
      </Group>
      {props.value !== null && (
        <Progress
          size="sm"
          value={100 * props.value}
          color={props.value > 0.9 ? "red.7" : "paddock"}
          aria-label={props.name}
        />
      )}
    </div>
  );
}

function useEnvironments() {
  return useQuery({
    queryKey: ["environments"],
    queryFn: async () => (await data(api.GET("/v1/environments"))).environments,
    refetchInterval: ({ state }) =>
      state.data?.some((one) => one.state === "installing") ? RUNNING_MS : IDLE_MS,
  });
}

function Engines() {
  const { t } = useTranslation();
  const { query, change } = useQueryState();
  const environments = useEnvironments();
  const installing = (environments.data ?? []).filter((one) => one.state === "installing").length;
  const engines = useEngines(installing);
  const asked = query.get("install")?.toLowerCase();
  const wanted = engines.data?.find((one) => one.installable && one.name.toLowerCase() === asked);
  return (
    <section aria-labelledby="engines">
      <Title order={2} size="h4" mb="sm" id="engines">
        {t("cluster.engines")}
      </Title>
      {engines.isPending && <Skeleton h={180} />}
      {engines.isError && <ErrorView error={engines.error} retry={() => engines.refetch()} />}
      <Stack>
        {engines.data?.map((engine) => (
          <EngineCard
            key={engine.name}
            engine={engine}
            environment={environments.data?.find((one) => one.engine === engine.name.toLowerCase())}
            install={() => change({ install: engine.name.toLowerCase() }, { replace: false })}
          />
        ))}
      </Stack>
      {wanted && <Install engine={wanted} close={() => change({ install: null })} />}
    </section>
  );
}

function EngineCard(props: {
  engine: Engine;
  environment: Environment | undefined;
  install: () => void;
}) {
  const { t, i18n } = useTranslation();
  const client = useQueryClient();
  const { engine, environment } = props;
  const settled = () => {
    for (const key of ["environments", "engines", "zoo", "plan"]) {
      void client.invalidateQueries({ queryKey: [key] });
    }
  };
  const path = { path: { engine: engine.name } };
  const cancel = useMutation({
    mutationFn: () => data(api.POST("/v1/environments/{engine}/cancel", { params: path })),
    onSettled: settled,
  });
  const remove = useMutation({
    mutationFn: () => data(api.DELETE("/v1/environments/{engine}", { params: path })),
    onSettled: settled,
  });
  const comes = environment?.state === "installing";
  return (
    <Card withBorder padding="sm" data-engine={engine.name} data-state={environment?.state}>
      <Stack gap="xs">
        <Group justify="space-between" gap="xs">
          <div style={{ minWidth: 0, flex: "1 1 14rem" }}>
            <Group gap="xs">
              <Title order={3} size="h5">
                {engine.name}
              </Title>
              <Badge variant="light" color={engine.installed ? "green" : "gray"} tt="none">
                {engine.installed ? t("cluster.installed") : t("cluster.missing")}
              </Badge>
              {environment?.current === false && (
                <Badge variant="light" color="yellow" tt="none">
                  {t("cluster.outdated")}
                </Badge>
              )}
            </Group>
            <Text size="sm" c="dimmed" className="wrap">
              {[
                engine.version,
                engine.formats.join(", "),
                engine.types.join(", "),
                environment?.accelerator,
                environment?.size_bytes ? bytes(environment.size_bytes) : null,
                environment?.made_at
                  ? t("keys.created", { time: moment(environment.made_at, i18n.language) })
                  : null,
              ]
                .filter(Boolean)
                .join(" · ")}
            </Text>
            {!engine.installed && engine.reason && (
              <Text size="sm" className="wrap">
                {engine.reason}
              </Text>
            )}
          </div>
          {engine.installable && (
            <Group gap="xs">
              {comes ? (
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
                <Button
                  size="xs"
                  variant={engine.installed ? "default" : "filled"}
                  leftSection={
                    engine.installed ? (
                      <RotateCcw size={14} aria-hidden />
                    ) : (
                      <Download size={14} aria-hidden />
                    )
                  }
                  onClick={props.install}
                  aria-label={t("cluster.installLabel", { engine: engine.name })}
                >
                  {engine.installed ? t("cluster.renew") : t("cluster.install")}
                </Button>
              )}
              {engine.environment && !comes && (
                <Button
                  size="xs"
                  variant="light"
                  color="red"
                  leftSection={<Trash2 size={14} aria-hidden />}
                  loading={remove.isPending}
                  onClick={() => remove.mutate()}
                  aria-label={t("cluster.removeLabel", { engine: engine.name })}
                >
                  {t("downloads.remove")}
                </Button>
              )}
            </Group>
          )}
        </Group>
        {comes && (
          <Group gap="xs" wrap="nowrap" role="status">
            <Loader size="xs" aria-hidden />
            <Text size="sm" className="wrap">
              {environment.note || t("cluster.begins")}
            </Text>
          </Group>
        )}
        {environment?.state === "failed" && (
          <Alert color="red" title={t("cluster.failed")} role="alert">
            <Text size="sm" mb="xs">
              {t("cluster.unchanged")}
            </Text>
            <Code block className="wrap" style={{ whiteSpace: "pre-wrap" }}>
              {environment.lines.join("\n")}
            </Code>
          </Alert>
        )}
        {remove.isError && <ErrorView error={remove.error} />}
        {cancel.isError && <ErrorView error={cancel.error} />}
      </Stack>
    </Card>
  );
}

/** Says what an install does before it begins. */
function Install({ engine, close }: { engine: Engine; close: () => void }) {
  const { t } = useTranslation();
  const client = useQueryClient();
  const [accelerator, setAccelerator] = useState<string | null>(null);
  const install = useMutation({
    mutationFn: () =>
      data(
        api.POST("/v1/environments/{engine}", {
          params: { path: { engine: engine.name } },
          body: {
            accelerator: (accelerator as "cpu" | "cuda" | null) ?? null,
            force: engine.installed,
          },
        }),
      ),
    onSuccess: () => {
      void client.invalidateQueries({ queryKey: ["environments"] });
      close();
    },
  });
  return (
    <Dialog title={t("cluster.installLabel", { engine: engine.name })} close={close}>
      <Stack>
        <Text size="sm">{t("cluster.installText", { engine: engine.name })}</Text>
        <Select
          label={t("cluster.accelerator")}
          placeholder={t("cluster.detected")}
          data={[
            { value: "cpu", label: "CPU" },
            { value: "cuda", label: "CUDA" },
          ]}
          value={accelerator}
          onChange={setAccelerator}
          clearable
        />
        {install.isError && <ErrorView error={install.error} />}
        <Group justify="flex-end">
          <Button variant="default" onClick={close}>
            {t("keys.cancel")}
          </Button>
          <Button loading={install.isPending} onClick={() => install.mutate()}>
            {t("cluster.install")}
          </Button>
        </Group>
      </Stack>
    </Dialog>
  );
}
