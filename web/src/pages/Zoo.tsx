import {
  Anchor,
  Badge,
  Button,
  Card,
  Chip,
  Collapse,
  Group,
  MultiSelect,
  SegmentedControl,
  Skeleton,
  Stack,
  Text,
  TextInput,
  Title,
  UnstyledButton,
} from "@mantine/core";
import { useDebouncedValue, useDisclosure } from "@mantine/hooks";
import { Filter, Rocket, Search } from "lucide-react";
import { memo, useEffect, useMemo, useState } from "react";
import { useTranslation } from "react-i18next";
import { Link, NavigationType, useNavigate, useNavigationType } from "react-router";
import type { Schemas } from "../api/client";
import { useZoo, type ZooFilters } from "../api/queries";
import { Empty } from "../components/Empty";
import { ErrorView } from "../components/Failure";
import { PageHeader } from "../components/PageHeader";
import { Rows } from "../components/Rows";
import { bytes, parameters, tokens } from "../lib/format";
import { launchPath, modelPath } from "../lib/paths";
import { useQueryState } from "../lib/query";

type Model = Schemas["ZooModel"];

const TYPING_MS = 120;
const ROW_HEIGHT = 45;
const ORDER = new Intl.Collator("en", { numeric: true });
const LISTS = ["ability", "type", "format", "engine", "language"] as const;
/** What names a model that no spec names. Which prefixes there are, the gateway knows. */
const REFERENCE = /^([a-z][a-z0-9]{1,15}:\S+\/|\/)/i;

/** The catalogue. */
export default function Zoo() {
  const { t } = useTranslation();
  const navigate = useNavigate();
  const { query, change } = useQueryState();
  const [typed, setTyped] = useState(query.get("q") ?? "");
  const [words] = useDebouncedValue(typed, TYPING_MS);
  const linked = query.get("q") ?? "";
  const came = useNavigationType();
  // The back button, or a link, leads to other words. What is typed replaces the address, which
  // may come later than the next letter: that must not be undone.
  useEffect(() => {
    if (came !== NavigationType.Replace) setTyped(linked);
  }, [came, linked]);
  const [opened, { toggle }] = useDisclosure(LISTS.some((name) => query.has(name)));
  const filters: ZooFilters = {};
  if (words.trim()) filters.q = words.trim();
  for (const name of LISTS) if (query.has(name)) filters[name] = query.getAll(name);
  const size = query.get("size") ?? "";
  if (SIZE.test(size)) filters.size = size;
  if (query.has("fits")) filters.fits = true;
  const all = useZoo();
  const found = useZoo(filters);
  const cached = query.has("cached");
  const isSearch = words.trim() !== "";
  // What words find comes in the order of how well it fits.
  const models = useMemo(() => {
    const those = (found.data?.models ?? []).filter((model) => !cached || model.cached);
    return isSearch ? those : those.sort((a, b) => ORDER.compare(a.name, b.name));
  }, [found.data, cached, isSearch]);
  const view = query.get("view") === "table" ? "table" : "cards";
  const active = LISTS.filter((name) => query.has(name)).length + (size ? 1 : 0);
  const isReference = REFERENCE.test(typed.trim());

  const type = (text: string) => {
    setTyped(text);
    change({ q: text.trim() });
  };
  const clear = () => {
    setTyped("");
    change({ q: null, size: null, fits: null, cached: null, ...none() });
  };
  return (
    <>
      <PageHeader
        title={t("zoo.title")}
        text={
          found.data &&
          t("zoo.free", {
            free: bytes(found.data.memory_free_bytes),
            total: bytes(found.data.memory_total_bytes),
            disk: bytes(found.data.disk_free_bytes),
          })
        }
      />
      <Stack gap="sm" mb="md">
        <Group gap="xs" align="flex-end">
          <TextInput
            style={{ flex: "1 1 14rem" }}
            leftSection={<Search size={16} aria-hidden />}
            placeholder={t("zoo.searchHint")}
            aria-label={t("zoo.search")}
            type="search"
            value={typed}
            onChange={(event) => type(event.currentTarget.value)}
            onKeyDown={(event) => {
              if (event.key === "Enter" && isReference) navigate(modelPath(typed.trim()));
            }}
          />
          <Button
            variant="default"
            leftSection={<Filter size={16} aria-hidden />}
            onClick={toggle}
            aria-expanded={opened}
          >
            {t("zoo.filters")}
            {active > 0 && (
              <Badge ml={6} size="sm" circle color="paddock">
                {active}
              </Badge>
            )}
          </Button>
          <SegmentedControl
            aria-label={t("zoo.view")}
            value={view}
            onChange={(next) => change({ view: next === "table" ? "table" : null })}
            data={[
              { value: "cards", label: t("zoo.cards") },
              { value: "table", label: t("zoo.table") },
            ]}
          />
        </Group>
        <Group gap="xs">
          <Chip size="xs" checked={query.has("fits")} onChange={(on) => change({ fits: on })}>
            {t("zoo.fits")}
          </Chip>
          <Chip size="xs" checked={cached} onChange={(on) => change({ cached: on })}>
            {t("zoo.cached")}
          </Chip>
          <Text size="sm" c="dimmed" role="status">
            {found.data && t("zoo.found", { count: models.length })}
          </Text>
        </Group>
        <Collapse expanded={opened}>
          <Group gap="xs" align="flex-start">
            {LISTS.map((name) => (
              <MultiSelect
                key={name}
                style={{ flex: "1 1 12rem" }}
                size="sm"
                label={t(`zoo.filter.${name}`)}
                data={choices(all.data?.models ?? [], name)}
                value={query.getAll(name)}
                onChange={(values) => change({ [name]: values })}
                searchable
                clearable
              />
            ))}
            <TextInput
              style={{ flex: "1 1 12rem" }}
              size="sm"
              label={t("zoo.filter.size")}
              placeholder="..8"
              value={size}
              error={size && !SIZE.test(size) ? t("zoo.filter.sizeWrong") : undefined}
              onChange={(event) => change({ size: event.currentTarget.value })}
            />
          </Group>
        </Collapse>
      </Stack>
      {isReference && (
        <Card withBorder mb="md">
          <Group justify="space-between">
            <Text className="wrap">{t("zoo.reference", { reference: typed.trim() })}</Text>
            <Button component={Link} to={modelPath(typed.trim())}>
              {t("zoo.look")}
            </Button>
          </Group>
        </Card>
      )}
      {found.isError && <ErrorView error={found.error} retry={() => found.refetch()} />}
      {found.isPending && <Skeleton h={300} />}
      {found.data && models.length === 0 && !isReference && (
        <Empty title={t("zoo.none")}>
          <Stack align="center">
            {t("zoo.noneText")}
            <Button variant="default" onClick={clear}>
              {t("zoo.clear")}
            </Button>
          </Stack>
        </Empty>
      )}
      {models.length > 0 && view === "table" && <TableHead />}
      {models.length > 0 && (
        <Rows
          key={view}
          items={models}
          width={view === "cards" ? 300 : 100_000}
          height={view === "cards" ? 186 : ROW_HEIGHT}
          gap={view === "cards" ? 12 : 0}
          label={t("zoo.title")}
          id={(model) => model.name}
          Item={view === "cards" ? ModelCard : ModelRow}
        />
      )}
    </>
  );
}

const SIZE =
  /^\d{1,5}([._]\d{1,4})?[bB]?$|^(\d{1,5}([._]\d{1,4})?[bB]?)?\.\.(\d{1,5}([._]\d{1,4})?[bB]?)?$/;

function none(): Record<(typeof LISTS)[number], null> {
  return { ability: null, type: null, format: null, engine: null, language: null };
}

function choices(models: readonly Model[], name: (typeof LISTS)[number]): string[] {
  const of = {
    ability: (model: Model) => model.abilities,
    type: (model: Model) => [model.type],
    format: (model: Model) => model.formats,
    engine: (model: Model) => model.engines,
    language: (model: Model) => model.languages,
  }[name];
  return [...new Set(models.flatMap((model) => of(model) as string[]))].sort();
}

const ModelCard = memo(function ModelCard({ item: model }: { item: Model }) {
  const { t } = useTranslation();
  return (
    <Card withBorder padding="sm" h="100%" data-name={model.name}>
      <Stack gap={6} h="100%">
        <Title order={2} size="h5" className="wrap">
          <Anchor component={Link} to={modelPath(model.name)} inherit>
            {model.name}
          </Anchor>
        </Title>
        <Text size="sm" c="dimmed" lineClamp={2}>
          {model.description}
        </Text>
        <Group gap={4}>
          {model.type !== "LLM" && <Tag>{model.type}</Tag>}
          {model.abilities.map((one) => (
            <Tag key={one}>{one}</Tag>
          ))}
        </Group>
        <Text size="xs" c="dimmed" className="wrap">
          {model.sizes.map(parameters).join(", ")} · {model.formats.join(", ")} ·{" "}
          {t("zoo.context", { tokens: tokens(model.context_length) })}
        </Text>
        <Group justify="space-between" mt="auto" gap="xs">
          <Standing model={model} />
          <Button
            component={Link}
            to={launchPath(model.name)}
            size="compact-sm"
            variant="light"
            leftSection={<Rocket size={14} aria-hidden />}
            aria-label={t("zoo.launchLabel", { model: model.name })}
          >
            {t("zoo.launch")}
          </Button>
        </Group>
      </Stack>
    </Card>
  );
});

const CELLS = {
  name: { style: { flex: "2 1 10rem", minWidth: 0 } },
  sizes: { style: { flex: "1 1 5rem", minWidth: 0 }, visibleFrom: "xs" },
  formats: { style: { flex: "2 1 8rem", minWidth: 0 }, visibleFrom: "md" },
  abilities: { style: { flex: "2 1 8rem", minWidth: 0 }, visibleFrom: "md" },
  context: { style: { flex: "0 0 4.5rem" }, visibleFrom: "sm" },
  standing: { style: { flex: "0 0 9rem" }, visibleFrom: "sm" },
  launch: { style: { flex: "0 0 3.5rem" } },
} as const;

/** What the columns of the table are. */
function TableHead() {
  const { t } = useTranslation();
  const cell = { size: "xs", c: "dimmed", truncate: true } as const;
  return (
    <Group wrap="nowrap" gap="sm" px="xs" pb={4} aria-hidden>
      <Text {...cell} {...CELLS.name}>
        {t("calculator.model")}
      </Text>
      <Text {...cell} {...CELLS.sizes}>
        {t("model.sizes")}
      </Text>
      <Text {...cell} {...CELLS.formats}>
        {t("model.formats")}
      </Text>
      <Text {...cell} {...CELLS.abilities}>
        {t("model.abilities")}
      </Text>
      <Text {...cell} {...CELLS.context}>
        {t("model.context")}
      </Text>
      <Text {...cell} {...CELLS.standing}>
        {t("zoo.here")}
      </Text>
      <Text {...cell} {...CELLS.launch} />
    </Group>
  );
}

const ModelRow = memo(function ModelRow({ item: model }: { item: Model }) {
  const { t } = useTranslation();
  return (
    <Group
      wrap="nowrap"
      gap="sm"
      px="xs"
      mih={ROW_HEIGHT}
      style={{ borderBottom: "1px solid var(--mantine-color-default-border)" }}
      data-name={model.name}
    >
      <Anchor component={Link} to={modelPath(model.name)} {...CELLS.name} className="wrap">
        {model.name}
      </Anchor>
      <Text size="sm" {...CELLS.sizes} truncate>
        {model.sizes.map(parameters).join(", ")}
      </Text>
      <Text size="sm" {...CELLS.formats} truncate>
        {model.formats.join(", ")}
      </Text>
      <Text size="sm" {...CELLS.abilities} truncate>
        {model.abilities.join(", ")}
      </Text>
      <Text size="sm" {...CELLS.context}>
        {tokens(model.context_length)}
      </Text>
      <Group {...CELLS.standing}>
        <Standing model={model} />
      </Group>
      <UnstyledButton
        component={Link}
        to={launchPath(model.name)}
        aria-label={t("zoo.launchLabel", { model: model.name })}
        c="var(--mantine-color-anchor)"
        fz="sm"
        {...CELLS.launch}
      >
        {t("zoo.launch")}
      </UnstyledButton>
    </Group>
  );
});

/** Whether the model can be served here, and how large it is then. */
function Standing({ model }: { model: Model }) {
  const { t } = useTranslation();
  const size = model.fits ?? model.here;
  return (
    <Group gap={4}>
      {model.fits ? (
        <Badge variant="light" color="green" tt="none">
          {t("zoo.fitsBadge", { size: bytes(size?.size_bytes) })}
        </Badge>
      ) : (
        <Badge variant="light" color={model.here ? "yellow" : "gray"} tt="none">
          {model.here ? t("zoo.tooLarge", { size: bytes(size?.size_bytes) }) : t("zoo.noEngine")}
        </Badge>
      )}
      {model.cached && (
        <Badge variant="light" color="blue" tt="none">
          {t("zoo.cachedBadge")}
        </Badge>
      )}
      {!model.builtin && (
        <Badge variant="light" color="grape" tt="none">
          {t("zoo.own")}
        </Badge>
      )}
    </Group>
  );
}

function Tag({ children }: { children: string }) {
  return (
    <Badge size="sm" variant="default" tt="none" fw={500}>
      {children}
    </Badge>
  );
}
