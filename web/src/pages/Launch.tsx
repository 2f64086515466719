import {
  Accordion,
  Anchor,
  Box,
  Button,
  Card,
  Grid,
  Group,
  LoadingOverlay,
  NumberInput,
  Select,
  SimpleGrid,
  Skeleton,
  Stack,
  Text,
  TextInput,
  Title,
} from "@mantine/core";
import { useDebouncedValue } from "@mantine/hooks";
import { keepPreviousData, useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Rocket } from "lucide-react";
import { useTranslation } from "react-i18next";
import { Link, useNavigate, useParams } from "react-router";
import { api, asApiError, data, type Plan, type Schemas } from "../api/client";
import { useEngines, useNodes, useZooModel } from "../api/queries";
import { Command } from "../components/Command";
import { ErrorView } from "../components/Failure";
import { OptionsForm, type OptionsSchema } from "../components/OptionsForm";
import { PageHeader } from "../components/PageHeader";
import { PlanView } from "../components/PlanView";
import { bytes, parameters, tokens } from "../lib/format";
import { engineOptions, FIELDS, launchBody, launchCommand, limits } from "../lib/launch";
import { modelPath, runningPath } from "../lib/paths";
import { useQueryState } from "../lib/query";

const TYPING_MS = 250;
const LAUNCH = ["launch"];
const NO_ROOM = 507;

/** Says what to launch, with the plan beside it. */
export default function LaunchPage() {
  const { t } = useTranslation();
  const name = useParams()["*"] ?? "";
  const navigate = useNavigate();
  const client = useQueryClient();
  const { query, change } = useQueryState();
  const model = useZooModel(name);
  const body = launchBody(name, query);
  const [settledBody] = useDebouncedValue(JSON.stringify(body), TYPING_MS);
  const isNewer = JSON.stringify(body) !== settledBody;
  const plan = useQuery({
    queryKey: ["plan", settledBody],
    queryFn: ({ signal }) =>
      data(api.POST("/v1/plan", { body: JSON.parse(settledBody), signal })) as Promise<Plan>,
    placeholderData: keepPreviousData,
    retry: false,
    // What is free changes.
    refetchInterval: 15_000,
  });
  const launch = useMutation({
    mutationKey: LAUNCH,
    mutationFn: () =>
      data(api.POST("/v1/models", { params: { query: { wait_ready: false } }, body })),
    onSuccess: async (launched) => {
      // Its page would say that it is not launched.
      await client.invalidateQueries({ queryKey: ["models"] });
      navigate(runningPath(launched.model_uid));
    },
  });
  const engines = useEngines();
  const engineName = query.get("model_engine") ?? plan.data?.engine;
  const engine = engines.data?.find((one) => one.name.toLowerCase() === engineName?.toLowerCase());
  const set = (field: string) => (value: string | number | null) =>
    change({ [field]: value === null ? null : String(value) });

  if (model.isError) {
    return (
      <>
        <PageHeader title={t("launch.title", { model: name })} />
        <ErrorView error={model.error} retry={() => model.refetch()} />
      </>
    );
  }
  return (
    <>
      <PageHeader
        title={t("launch.title", { model: model.data?.name ?? name })}
        text={
          <Anchor component={Link} to={modelPath(name)} size="sm">
            {t("launch.about")}
          </Anchor>
        }
      />
      <Grid gap="lg">
        <Grid.Col span={{ base: 12, md: 6 }}>
          {model.data ? (
            <Stack>
              <Wanted
                model={model.data}
                plan={plan.data}
                engine={engine}
                query={query}
                set={set}
                change={change}
              />
              {engine && <EngineOptions engine={engine} plan={plan.data} query={query} set={set} />}
              <Keeping query={query} set={set} />
              <div>
                <Text size="sm" c="dimmed" mb={4}>
                  {t("model.command")}
                </Text>
                <Command value={launchCommand(body)} />
              </div>
            </Stack>
          ) : (
            <Skeleton h={400} />
          )}
        </Grid.Col>
        <Grid.Col span={{ base: 12, md: 6 }}>
          <Card withBorder pos="sticky" top={68} component="section" aria-label={t("launch.plan")}>
            <Group justify="space-between" mb="sm">
              <Title order={2} size="h5">
                {t("launch.plan")}
              </Title>
              <Button
                leftSection={<Rocket size={16} aria-hidden />}
                loading={launch.isPending}
                // What is launched is what the plan shows.
                disabled={
                  !plan.isSuccess || plan.isPlaceholderData || isNewer || !!plan.data.install
                }
                // Of two quick clicks the second comes before the button is drawn as busy.
                onClick={() => client.isMutating({ mutationKey: LAUNCH }) || launch.mutate()}
              >
                {t("launch.launch")}
              </Button>
            </Group>
            {launch.isError && (
              <Box mb="sm">
                <ErrorView error={launch.error} />
              </Box>
            )}
            <Box pos="relative" aria-live="polite" aria-busy={plan.isFetching}>
              <LoadingOverlay visible={plan.isPlaceholderData} overlayProps={{ blur: 1 }} />
              {plan.isError ? (
                <Stack>
                  <ErrorView error={plan.error} retry={() => plan.refetch()} />
                  <Alternatives model={name} error={plan.error} change={change} />
                </Stack>
              ) : plan.data ? (
                <Stack>
                  {plan.data.install && (
                    <Anchor
                      component={Link}
                      to={`/cluster?install=${encodeURIComponent(plan.data.engine)}`}
                    >
                      {t("model.install", { engine: plan.data.engine })}
                    </Anchor>
                  )}
                  <PlanView plan={plan.data} diskFree={model.data?.disk_free_bytes} />
                </Stack>
              ) : (
                <Skeleton h={280} />
              )}
            </Box>
          </Card>
        </Grid.Col>
      </Grid>
    </>
  );
}

type Engine = NonNullable<ReturnType<typeof useEngines>["data"]>[number];
type Setter = (field: string) => (value: string | number | null) => void;
type Change = ReturnType<typeof useQueryState>["change"];

function Wanted(props: {
  model: Schemas["ZooPage"];
  plan: Plan | undefined;
  engine: Engine | undefined;
  query: URLSearchParams;
  set: Setter;
  change: Change;
}) {
  const { t } = useTranslation();
  const { model, query, set, change } = props;
  const nodes = useNodes();
  const hasSlots =
    !props.engine || query.has("n_parallel") || "n_parallel" in options(props.engine);
  const size = query.get("model_size_in_billions");
  const format = query.get("model_format");
  const quantization = query.get("quantization");
  const engine = query.get("model_engine");
  const sized = model.variants.filter((one) => !size || one.model_size_in_billions === size);
  const formatted = sized.filter((one) => !format || one.model_format === format);
  const chosen = formatted.filter((one) => !quantization || one.quantization === quantization);
  const engines = new Map<string, string | null>();
  for (const variant of chosen) {
    for (const [one, why] of Object.entries(variant.engines)) {
      if (engines.get(one) !== null) engines.set(one, why);
    }
  }
  const hubs = [...new Set(chosen.flatMap((one) => one.sources.map((source) => source.hub)))];
  return (
    <SimpleGrid cols={{ base: 1, xs: 2 }} spacing="sm">
      {model.sizes.length > 1 && (
        <Select
          label={t("launch.size")}
          placeholder={t("launch.any")}
          data={model.sizes.map((one) => ({ value: one, label: parameters(one) }))}
          value={size}
          onChange={(value) =>
            change({ model_size_in_billions: value, model_format: null, quantization: null })
          }
          clearable
        />
      )}
      <Select
        label={t("launch.format")}
        placeholder={t("launch.any")}
        data={[...new Set(sized.map((one) => one.model_format))]}
        value={format}
        onChange={(value) => change({ model_format: value, quantization: null })}
        clearable
      />
      <Select
        label={t("launch.quantization")}
        placeholder={t("launch.any")}
        data={quantizations(formatted)}
        value={quantization}
        onChange={set("quantization")}
        searchable
        clearable
      />
      <Select
        label={t("launch.engine")}
        placeholder={t("launch.any")}
        data={[...engines].map(([one, why]) => ({
          value: one,
          label: why === null ? one : `${one} (${t("launch.cannot")})`,
        }))}
        value={engine}
        onChange={set("model_engine")}
        clearable
      />
      <NumberInput
        label={t("launch.context")}
        placeholder={t("launch.contextHint", { most: tokens(model.context_length) })}
        value={query.get("context_length") ?? query.get("n_ctx") ?? ""}
        onChange={(value) => change({ context_length: String(value), n_ctx: null })}
        min={1}
        max={model.context_length}
        allowDecimal={false}
        step={1024}
      />
      {hasSlots && (
        <NumberInput
          label={t("launch.slots")}
          placeholder={props.plan ? String(props.plan.slots) : t("launch.slotsHint")}
          value={query.get("n_parallel") ?? ""}
          onChange={set("n_parallel")}
          min={1}
          allowDecimal={false}
        />
      )}
      <NumberInput
        label={t("launch.replicas")}
        placeholder="1"
        value={query.get("replica") ?? ""}
        onChange={set("replica")}
        {...limits("replica")}
        allowDecimal={false}
      />
      {hubs.length > 1 && (
        <Select
          label={t("launch.hub")}
          placeholder={t("launch.hubHint")}
          data={hubs}
          value={query.get("download_hub")}
          onChange={set("download_hub")}
          clearable
        />
      )}
      {(nodes.data?.length ?? 0) > 1 && (
        <Select
          label={t("launch.node")}
          placeholder={t("launch.nodeHint")}
          data={nodes.data?.map((one) => ({ value: one.name, label: one.name }))}
          value={query.get("node")}
          onChange={set("node")}
          clearable
        />
      )}
      {nodes.data?.some((one) => one.gpus.length > 0) && (
        <TextInput
          label={t("launch.gpus")}
          placeholder="0,1"
          value={query.get("gpu_idx") ?? ""}
          onChange={(event) => set("gpu_idx")(event.currentTarget.value)}
        />
      )}
      <TextInput
        label={t("launch.path")}
        placeholder={t("launch.pathHint")}
        value={query.get("model_path") ?? ""}
        onChange={(event) => set("model_path")(event.currentTarget.value)}
      />
      <TextInput
        label={t("launch.uid")}
        placeholder={model.name}
        value={query.get("model_uid") ?? ""}
        onChange={(event) => set("model_uid")(event.currentTarget.value)}
      />
    </SimpleGrid>
  );
}

/** Each quantization once, with the size of its weights. */
function quantizations(variants: readonly Schemas["ZooVariant"][]) {
  const found = new Map<string, string>();
  for (const one of variants) {
    const sizes = `${bytes(one.size_bytes)}${one.cached ? " ✓" : ""}`;
    if (!found.has(one.quantization)) found.set(one.quantization, sizes);
  }
  return [...found].map(([value, size]) => ({ value, label: `${value} · ${size}` }));
}

function options(engine: Engine): NonNullable<OptionsSchema["properties"]> {
  return (engine.options as OptionsSchema).properties ?? {};
}

function EngineOptions(props: {
  engine: Engine;
  plan: Plan | undefined;
  query: URLSearchParams;
  set: Setter;
}) {
  const { t } = useTranslation();
  const { engine } = props;
  const given = engineOptions(props.query);
  const own = Object.entries(options(engine)).filter(([name]) => !FIELDS.includes(name));
  const count = Object.keys(given).length;
  return (
    <Accordion variant="contained" defaultValue={count ? "options" : null}>
      <Accordion.Item value="options">
        <Accordion.Control>
          {t("launch.options", { engine: engine.name })}
          {count > 0 && ` · ${count}`}
        </Accordion.Control>
        <Accordion.Panel>
          <OptionsForm
            schema={{ ...engine.options, properties: Object.fromEntries(own) }}
            values={given}
            settled={props.plan && props.plan.engine === engine.name ? props.plan.options : {}}
            change={(option, value) => props.set(option)(value || null)}
          />
        </Accordion.Panel>
      </Accordion.Item>
    </Accordion>
  );
}

/** When a replica that fails is started again. */
function Keeping({ query, set }: { query: URLSearchParams; set: Setter }) {
  const { t } = useTranslation();
  const fields = ["restart", "restart_tries", "silence_seconds", "memory_limit"];
  const count = fields.filter((field) => query.get(field)).length;
  return (
    <Accordion variant="contained" defaultValue={count ? "keeping" : null}>
      <Accordion.Item value="keeping">
        <Accordion.Control>
          {t("launch.keeping")}
          {count > 0 && ` · ${count}`}
        </Accordion.Control>
        <Accordion.Panel>
          <SimpleGrid cols={{ base: 1, xs: 2 }} spacing="sm">
            <Select
              label={t("launch.restart")}
              placeholder={t("launch.restartOnFailure")}
              data={[
                { value: "on-failure", label: t("launch.restartOnFailure") },
                { value: "always", label: t("launch.restartAlways") },
                { value: "never", label: t("launch.restartNever") },
              ]}
              value={query.get("restart")}
              onChange={set("restart")}
              clearable
            />
            <NumberInput
              label={t("launch.tries")}
              placeholder={t("launch.triesHint")}
              value={query.get("restart_tries") ?? ""}
              onChange={set("restart_tries")}
              {...limits("restart_tries")}
              allowDecimal={false}
            />
            <NumberInput
              label={t("launch.silence")}
              placeholder={t("launch.silenceHint")}
              value={query.get("silence_seconds") ?? ""}
              onChange={set("silence_seconds")}
              min={1}
            />
            <TextInput
              label={t("launch.memoryLimit")}
              placeholder={t("launch.memoryLimitHint")}
              value={query.get("memory_limit") ?? ""}
              onChange={(event) => set("memory_limit")(event.currentTarget.value || null)}
            />
          </SimpleGrid>
        </Accordion.Panel>
      </Accordion.Item>
    </Accordion>
  );
}

/** What could be launched in place of what was refused. */
function Alternatives(props: { model: string; error: unknown; change: Change }) {
  const { t } = useTranslation();
  const { model, change } = props;
  const { status, fields } = asApiError(props.error);
  const { alternatives, refused } = fields as {
    alternatives?: string[];
    refused?: Record<string, string>;
  };
  const missing = Object.entries(refused ?? {}).filter(([, why]) => why.includes("engine install"));
  return (
    <Stack gap="xs">
      {status === NO_ROOM && (
        <Anchor component={Link} to={`/memory?model=${encodeURIComponent(model)}`} size="sm">
          {t("launch.compare")}
        </Anchor>
      )}
      {missing.map(([engine]) => (
        <Anchor
          key={engine}
          component={Link}
          to={`/cluster?install=${encodeURIComponent(engine)}`}
          size="sm"
        >
          {t("model.install", { engine })}
        </Anchor>
      ))}
      {alternatives && alternatives.length > 0 && (
        <>
          <Text size="sm">{t("launch.instead")}</Text>
          <Group gap="xs">
            {alternatives.map((one) => {
              const [size, format, quantization] = one.split(" ").slice(-3);
              return (
                <Button
                  key={one}
                  size="compact-sm"
                  variant="default"
                  onClick={() =>
                    change(
                      {
                        model_size_in_billions: size,
                        model_format: format,
                        quantization,
                        model_engine: null,
                      },
                      { replace: false },
                    )
                  }
                >
                  {format} {quantization}
                </Button>
              );
            })}
          </Group>
        </>
      )}
    </Stack>
  );
}
