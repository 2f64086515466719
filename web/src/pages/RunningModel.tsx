import {
  ActionIcon,
  Anchor,
  Button,
  Card,
  Group,
  Skeleton,
  Stack,
  Table,
  Tabs,
  Text,
  Tooltip,
} from "@mantine/core";
import { notifications } from "@mantine/notifications";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { MessagesSquare, Plus, Trash2 } from "lucide-react";
import { useTranslation } from "react-i18next";
import { Link, useParams, useSearchParams } from "react-router";
import { api, asApiError, data, type Instance } from "../api/client";
import { live } from "../api/events";
import { useInstance } from "../api/queries";
import { Empty } from "../components/Empty";
import { DiagnosisView, ErrorView } from "../components/Failure";
import { isComing, LaunchProgress } from "../components/LaunchProgress";
import { LogView } from "../components/LogView";
import { ModelFigures } from "../components/ModelFigures";
import { NextStepButton } from "../components/NextStep";
import { PageHeader } from "../components/PageHeader";
import { PlanView } from "../components/PlanView";
import { Restarts } from "../components/Restarts";
import { StateBadge } from "../components/StateBadge";
import { Terminate } from "../components/Terminate";
import { moment } from "../lib/format";
import { modelPath } from "../lib/paths";
import { answers } from "../lib/restarts";
import { useStore } from "../lib/store";
import { useEnding } from "../lib/terminate";

const ADD = ["replicas", "add"];
const TABS = ["replicas", "log", "events", "plan"] as const;

/** One launched model. */
export default function RunningModel() {
  const { t } = useTranslation();
  const uid = useParams()["*"] ?? "";
  const [query, setQuery] = useSearchParams();
  const found = useInstance(uid);
  const model = found.data;
  const ending = useEnding().includes(uid);

  if (found.isError) return <ErrorView error={found.error} retry={() => found.refetch()} />;
  if (model === undefined) return <Skeleton h={300} />;
  if (model === null) {
    return (
      <>
        <PageHeader title={uid} />
        <Empty title={t("running.gone", { model: uid })}>
          <Anchor component={Link} to="/running">
            {t("running.back")}
          </Anchor>
        </Empty>
      </>
    );
  }
  const tab = TABS.find((one) => one === query.get("tab")) ?? "replicas";
  return (
    <>
      <PageHeader
        title={uid}
        text={
          <Group gap="xs">
            <StateBadge state={model.state} />
            {ending && t("terminate.ending")}
            <Anchor component={Link} to={modelPath(model.model_name)} size="sm">
              {model.model_name}
            </Anchor>
          </Group>
        }
      >
        {answers(model.state) && model.plan.type === "LLM" && (
          <Button
            component={Link}
            to={`/playground?models=${encodeURIComponent(uid)}`}
            leftSection={<MessagesSquare size={16} aria-hidden />}
          >
            {t("running.try")}
          </Button>
        )}
        <Terminate model={model} />
      </PageHeader>
      <Stack>
        {isComing(model) && <LaunchProgress model={model} />}
        {model.diagnosis && (
          <DiagnosisView diagnosis={model.diagnosis}>
            <NextStepButton command={model.diagnosis.next_command} />
          </DiagnosisView>
        )}
        {answers(model.state) && (
          <Card withBorder>
            <ModelFigures model={model} />
          </Card>
        )}
        <Tabs
          value={tab}
          onChange={(next) => setQuery({ tab: next ?? "replicas" }, { replace: true })}
          keepMounted={false}
        >
          <Tabs.List mb="sm">
            {TABS.map((one) => (
              <Tabs.Tab key={one} value={one}>
                {t(`running.tabs.${one}`)}
              </Tabs.Tab>
            ))}
          </Tabs.List>
          <Tabs.Panel value="replicas">
            <Replicas model={model} />
          </Tabs.Panel>
          <Tabs.Panel value="log">
            <LogView uid={uid} />
          </Tabs.Panel>
          <Tabs.Panel value="events">
            <Events uid={uid} />
          </Tabs.Panel>
          <Tabs.Panel value="plan">
            <PlanView plan={model.plan} />
          </Tabs.Panel>
        </Tabs>
      </Stack>
    </>
  );
}

function Replicas({ model }: { model: Instance }) {
  const { t, i18n } = useTranslation();
  const client = useQueryClient();
  const heard = useStore(live);
  const uid = model.model_uid;
  const settled = () => client.invalidateQueries({ queryKey: ["models"] });
  const failed = (error: unknown) =>
    notifications.show({
      color: "red",
      title: t("replicas.failed"),
      message: asApiError(error).message,
    });
  const add = useMutation({
    mutationKey: ADD,
    mutationFn: () =>
      data(
        api.POST("/v1/models/{uid}/replicas", {
          params: { path: { uid }, query: { wait_ready: false } },
          body: { replica: 1 },
        }),
      ),
    onSettled: settled,
    onError: failed,
  });
  const remove = useMutation({
    mutationFn: (number: number) =>
      data(
        api.DELETE("/v1/models/{uid}/replicas/{number}", {
          params: { path: { uid, number: String(number) } },
        }),
      ),
    onSettled: settled,
    onError: failed,
  });
  const attached = model.plan.attached !== null;
  return (
    <Stack gap="sm">
      {model.replica_statuses.map((replica) => (
        <Card key={replica.replica_uid} withBorder padding="sm" data-replica={replica.replica_uid}>
          <Group justify="space-between" wrap="nowrap" mb={4}>
            <Group gap="xs">
              <Text fw={600} className="wrap">
                {replica.replica_uid}
              </Text>
              <StateBadge state={replica.model_state} />
              <Text size="xs" c="dimmed">
                {[
                  replica.worker_address,
                  replica.pid ? `pid ${replica.pid}` : "",
                  // 0 while it only waits.
                  replica.created_ts
                    ? t("replicas.since", { time: moment(replica.created_ts, i18n.language) })
                    : "",
                ]
                  .filter(Boolean)
                  .join(" · ")}
              </Text>
            </Group>
            <Tooltip
              label={
                model.replica_statuses.length > 1 ? t("replicas.remove") : t("replicas.lastOne")
              }
            >
              <ActionIcon
                variant="subtle"
                color="red"
                aria-label={t("replicas.removeLabel", { replica: replica.replica_uid })}
                disabled={model.replica_statuses.length < 2 || attached}
                loading={remove.isPending && remove.variables === replica.replica_id}
                onClick={() => remove.mutate(replica.replica_id)}
              >
                <Trash2 size={16} />
              </ActionIcon>
            </Tooltip>
          </Group>
          {answers(replica.model_state) && (
            <ModelFigures model={model} replica={replica.replica_uid} />
          )}
          {replica.model_state !== "ready" && replica.next_try_at === null && (
            <Text size="sm" c="dimmed">
              {heard[replica.replica_uid]?.note || replica.error_message || ""}
            </Text>
          )}
          <Restarts restarts={replica.restarts} replica={replica} />
        </Card>
      ))}
      {!attached && (
        <Button
          variant="default"
          leftSection={<Plus size={16} aria-hidden />}
          onClick={() => client.isMutating({ mutationKey: ADD }) || add.mutate()}
          loading={add.isPending}
          disabled={!answers(model.state)}
          style={{ alignSelf: "flex-start" }}
        >
          {t("replicas.add")}
        </Button>
      )}
    </Stack>
  );
}

function Events({ uid }: { uid: string }) {
  const { t, i18n } = useTranslation();
  const events = useQuery({
    queryKey: ["models", uid, "events"],
    queryFn: () => data(api.GET("/v1/models/{uid}/events", { params: { path: { uid } } })),
  });
  if (events.isError) return <ErrorView error={events.error} />;
  return (
    <div className="scroll-x">
      <Table fz="sm" aria-label={t("running.tabs.events")}>
        <Table.Thead>
          <Table.Tr>
            <Table.Th w="9rem">{t("events.when")}</Table.Th>
            <Table.Th>{t("events.what")}</Table.Th>
          </Table.Tr>
        </Table.Thead>
        <Table.Tbody>
          {[...(events.data ?? [])].reverse().map((event, number) => (
            // biome-ignore lint/suspicious/noArrayIndexKey: events have no ids
            <Table.Tr key={number}>
              <Table.Td style={{ whiteSpace: "nowrap" }}>
                {moment(event.event_ts, i18n.language)}
              </Table.Td>
              <Table.Td
                className="wrap"
                c={event.event_type === "ERROR" ? "var(--mantine-color-error)" : undefined}
              >
                {event.event_content}
              </Table.Td>
            </Table.Tr>
          ))}
        </Table.Tbody>
      </Table>
    </div>
  );
}
