import { Anchor, Button, Card, Group, Skeleton, Stack, Text, Title } from "@mantine/core";
import { MessagesSquare, ScrollText } from "lucide-react";
import { useTranslation } from "react-i18next";
import { Link } from "react-router";
import type { Instance } from "../api/client";
import { useInstances } from "../api/queries";
import { Empty } from "../components/Empty";
import { DiagnosisView, ErrorView } from "../components/Failure";
import { isComing, LaunchProgress } from "../components/LaunchProgress";
import { ModelFigures } from "../components/ModelFigures";
import { NextStepButton } from "../components/NextStep";
import { PageHeader } from "../components/PageHeader";
import { Restarts } from "../components/Restarts";
import { StateBadge } from "../components/StateBadge";
import { Terminate } from "../components/Terminate";
import { parameters, tokens } from "../lib/format";
import { runningPath } from "../lib/paths";
import { answers, troubled } from "../lib/restarts";
import { useEnding } from "../lib/terminate";

/** Every launched model. */
export default function Running() {
  const { t } = useTranslation();
  const models = useInstances();
  return (
    <>
      <PageHeader title={t("running.title")} text={t("running.text")}>
        <Button component={Link} to="/">
          {t("running.launch")}
        </Button>
      </PageHeader>
      {models.isPending && <Skeleton h={160} />}
      {models.isError && <ErrorView error={models.error} retry={() => models.refetch()} />}
      {models.data?.length === 0 && (
        <Empty title={t("running.none")}>
          {t("running.noneText")}{" "}
          <Anchor component={Link} to="/launch/tiny-mixtral">
            tiny-mixtral
          </Anchor>
        </Empty>
      )}
      <Stack>
        {models.data?.map((model) => (
          <ModelCard key={model.model_uid} model={model} />
        ))}
      </Stack>
    </>
  );
}

function ModelCard({ model }: { model: Instance }) {
  const { t } = useTranslation();
  const ending = useEnding().includes(model.model_uid);
  const { plan } = model;
  const path = runningPath(model.model_uid);
  const talks = answers(model.state) && plan.type === "LLM";
  return (
    <Card withBorder padding="md" data-model={model.model_uid}>
      <Stack gap="sm">
        <Group justify="space-between" align="flex-start" gap="xs">
          <div style={{ minWidth: 0 }}>
            <Group gap="xs">
              <Title order={2} size="h5" className="wrap">
                <Anchor component={Link} to={path} inherit>
                  {model.model_uid}
                </Anchor>
              </Title>
              <StateBadge state={model.state} />
              {ending && (
                <Text size="xs" c="dimmed">
                  {t("terminate.ending")}
                </Text>
              )}
            </Group>
            <Text size="sm" c="dimmed" className="wrap">
              {plan.model} · {parameters(plan.size)} {plan.format} {plan.quantization} ·{" "}
              {plan.engine} · {t("running.where", { count: plan.replicas, node: plan.node_name })}
              {plan.context_length
                ? ` · ${t("running.context", { tokens: tokens(plan.context_length) })}`
                : ""}
            </Text>
          </div>
          <Group gap="xs">
            {talks && (
              <Button
                component={Link}
                to={`/playground?models=${encodeURIComponent(model.model_uid)}`}
                size="xs"
                leftSection={<MessagesSquare size={14} aria-hidden />}
              >
                {t("running.try")}
              </Button>
            )}
            <Button
              component={Link}
              to={`${path}?tab=log`}
              size="xs"
              variant="default"
              leftSection={<ScrollText size={14} aria-hidden />}
            >
              {t("running.log")}
            </Button>
            <Terminate model={model} size="xs" />
          </Group>
        </Group>
        {isComing(model) && <LaunchProgress model={model} />}
        {answers(model.state) && <ModelFigures model={model} />}
        <Restarts restarts={model.restarts} replica={troubled(model.replica_statuses)} />
        {model.diagnosis && (
          <DiagnosisView diagnosis={model.diagnosis}>
            <NextStepButton command={model.diagnosis.next_command} />
          </DiagnosisView>
        )}
      </Stack>
    </Card>
  );
}
