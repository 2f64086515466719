import {
  Accordion,
  Alert,
  Anchor,
  Badge,
  Button,
  Code,
  Group,
  List,
  SimpleGrid,
  Skeleton,
  Stack,
  Table,
  Text,
  Title,
} from "@mantine/core";
import { CircleCheck, CircleX, Download, MemoryStick, Rocket } from "lucide-react";
import { useTranslation } from "react-i18next";
import { Link, useParams } from "react-router";
import type { Schemas } from "../api/client";
import { usePull } from "../api/pulls";
import { useZooModel } from "../api/queries";
import { Command } from "../components/Command";
import { ErrorView } from "../components/Failure";
import { MemoryBar } from "../components/MemoryBar";
import { PageHeader } from "../components/PageHeader";
import { bytes, parameters, tokens } from "../lib/format";
import { launchPath } from "../lib/paths";
import { useQueryState } from "../lib/query";
import { verdict } from "../lib/verdict";

type Page = Schemas["ZooPage"];
type Variant = Schemas["ZooVariant"];

/** One model of the catalogue, or one that a reference names. */
export default function ZooModel() {
  const { t } = useTranslation();
  const name = useParams()["*"] ?? "";
  const found = useZooModel(name);
  if (found.isError) {
    return (
      <>
        <PageHeader title={name} />
        <ErrorView error={found.error} retry={() => found.refetch()} />
      </>
    );
  }
  if (!found.data) {
    return (
      <>
        <PageHeader title={name} text={t("model.looking")} />
        <Skeleton h={300} />
      </>
    );
  }
  const model = found.data;
  return (
    <>
      <PageHeader title={model.name} text={model.description}>
        <Button
          component={Link}
          to={`/memory?model=${encodeURIComponent(model.name)}`}
          variant="default"
          leftSection={<MemoryStick size={16} aria-hidden />}
        >
          {t("model.memory")}
        </Button>
        <Button
          component={Link}
          to={launchPath(model.reference ?? model.name)}
          leftSection={<Rocket size={16} aria-hidden />}
        >
          {t("model.launch")}
        </Button>
      </PageHeader>
      <Stack>
        {Object.entries(model.risks).map(([format, risk]) => (
          <Alert key={format} color="yellow" title={t("model.risk", { format })}>
            {risk}
          </Alert>
        ))}
        <Facts model={model} />
        <div>
          <Text size="sm" c="dimmed" mb={4}>
            {t("model.command")}
          </Text>
          <Command value={model.launch_command} />
        </div>
        <Variants model={model} />
      </Stack>
    </>
  );
}

function Facts({ model }: { model: Page }) {
  const { t } = useTranslation();
  const rows: [string, React.ReactNode][] = [
    [t("model.type"), model.type],
    [t("model.abilities"), model.abilities.join(", ")],
    [t("model.sizes"), model.sizes.map(parameters).join(", ")],
    [t("model.context"), `${tokens(model.context_length)} ${t("model.tokens")}`],
    [t("model.languages"), model.languages.join(", ")],
    [t("model.architecture"), model.architecture],
    [t("model.license"), model.license],
    [t("model.released"), model.released],
    [t("model.aliases"), model.aliases.join(", ")],
    [t("model.homepage"), model.homepage && <Outside url={model.homepage} />],
    [t("model.reference"), model.reference],
    [t("model.commit"), model.commit && <span className="mono wrap">{model.commit}</span>],
  ];
  const notes = [model.notes, ...model.derived_notes].filter(Boolean).join(" ");
  return (
    <SimpleGrid cols={{ base: 1, md: notes ? 2 : 1 }} spacing="xl" verticalSpacing="xs">
      <Table withRowBorders={false} verticalSpacing={3} fz="sm" maw={760} layout="fixed">
        <Table.Tbody>
          {rows.map(([name, value]) =>
            value ? (
              <Table.Tr key={name}>
                <Table.Th w="8rem" c="dimmed" fw={400} pl={0} style={{ verticalAlign: "top" }}>
                  {name}
                </Table.Th>
                <Table.Td className="wrap">{value}</Table.Td>
              </Table.Tr>
            ) : null,
          )}
        </Table.Tbody>
      </Table>
      {notes && (
        <div>
          <Text size="sm" c="dimmed" mb={4}>
            {t("model.notes")}
          </Text>
          <Text size="sm" className="wrap">
            {notes.split("`").map((part, number) =>
              // biome-ignore lint/suspicious/noArrayIndexKey: parts have no ids
              number % 2 ? <Code key={number}>{part}</Code> : part,
            )}
          </Text>
        </div>
      )}
    </SimpleGrid>
  );
}

function Outside({ url }: { url: string }) {
  if (!/^https?:\/\//.test(url)) return url;
  return (
    <Anchor href={url} target="_blank" rel="noreferrer noopener" size="sm">
      {url}
    </Anchor>
  );
}

function Variants({ model }: { model: Page }) {
  const { t } = useTranslation();
  const { query, change } = useQueryState();
  const groups = grouped(model.variants);
  return (
    <Stack gap="md">
      {[...groups].map(([format, variants]) => (
        <section key={format} aria-label={format}>
          <Title order={2} size="h5" mb={6}>
            {format}
          </Title>
          <Accordion
            variant="separated"
            chevronPosition="left"
            multiple
            value={query.getAll("variant")}
            onChange={(open) => change({ variant: open })}
          >
            {variants.map((variant) => (
              <Accordion.Item key={id(variant)} value={id(variant)}>
                <Accordion.Control>
                  <Group justify="space-between" gap="4px 12px">
                    <Group gap="xs">
                      <Text fw={600}>
                        {variant.quantization === "none"
                          ? t("model.unquantized")
                          : variant.quantization}
                      </Text>
                      <Text size="sm" c="dimmed">
                        {parameters(variant.model_size_in_billions)} ·{" "}
                        {variant.size_from === "reckoned" ? "≈ " : ""}
                        {bytes(variant.size_bytes)}
                      </Text>
                      {model.recommended.includes(variant.quantization) && (
                        <Badge size="sm" variant="light" color="paddock" tt="none">
                          {t("model.recommended")}
                        </Badge>
                      )}
                    </Group>
                    <Group gap={4}>
                      <VariantStanding variant={variant} />
                    </Group>
                  </Group>
                </Accordion.Control>
                <Accordion.Panel>
                  <VariantDetails model={model} variant={variant} />
                </Accordion.Panel>
              </Accordion.Item>
            ))}
          </Accordion>
        </section>
      ))}
    </Stack>
  );
}

const id = (variant: Variant) =>
  `${variant.model_size_in_billions}-${variant.model_format}-${variant.quantization}`;

function grouped(variants: readonly Variant[]): Map<string, Variant[]> {
  const groups = new Map<string, Variant[]>();
  for (const one of variants) {
    groups.set(one.model_format, [...(groups.get(one.model_format) ?? []), one]);
  }
  return groups;
}

function VariantStanding({ variant }: { variant: Variant }) {
  const { t } = useTranslation();
  const served = Object.values(variant.engines).includes(null);
  return (
    <>
      {variant.cached && (
        <Badge size="sm" variant="light" color="blue" tt="none">
          {t("zoo.cachedBadge")}
        </Badge>
      )}
      {variant.fits ? (
        <Badge size="sm" variant="light" color="green" tt="none">
          {t("model.fits")}
        </Badge>
      ) : (
        <Badge size="sm" variant="light" color={served ? "yellow" : "gray"} tt="none">
          {served ? t(`verdict.${verdict(variant.estimate.verdict)}`) : t("zoo.noEngine")}
        </Badge>
      )}
    </>
  );
}

function VariantDetails({ model, variant }: { model: Page; variant: Variant }) {
  const { t } = useTranslation();
  const pull = usePull();
  const name = model.reference ?? model.name;
  const wanted = {
    model_format: variant.model_format,
    quantization: variant.quantization,
    model_size_in_billions: variant.model_size_in_billions,
  };
  return (
    <Stack gap="sm">
      <Group gap="xs">
        <Button
          component={Link}
          to={launchPath(name, wanted)}
          size="xs"
          leftSection={<Rocket size={14} aria-hidden />}
        >
          {t("model.launchThis")}
        </Button>
        {!variant.cached && (
          <Button
            size="xs"
            variant="default"
            leftSection={<Download size={14} aria-hidden />}
            loading={pull.isPending}
            onClick={() => pull.mutate({ model_name: name, ...wanted })}
          >
            {t("model.download", { size: bytes(variant.size_bytes) })}
          </Button>
        )}
      </Group>
      <MemoryBar
        parts={variant.estimate}
        room={model.memory_free_bytes}
        roomText={t("model.free", {
          free: bytes(model.memory_free_bytes),
          node: model.node_name,
          tokens: tokens(variant.estimate.context_length),
        })}
      />
      <div>
        <Text size="sm" fw={600}>
          {t("model.engines")}
        </Text>
        <Stack gap={2}>
          {Object.entries(variant.engines).map(([engine, why]) => (
            <Group key={engine} gap={6} wrap="nowrap" align="flex-start">
              {why === null ? (
                <CircleCheck size={16} color="var(--mantine-color-green-7)" aria-hidden />
              ) : (
                <CircleX size={16} color="var(--mantine-color-dimmed)" aria-hidden />
              )}
              <Text size="sm" className="wrap">
                <b>{engine}</b>: {why ?? t("model.serves")}
              </Text>
            </Group>
          ))}
        </Stack>
        {variant.installs.map((one) => (
          <Anchor
            key={one.engine}
            component={Link}
            to={`/cluster?install=${encodeURIComponent(one.engine)}`}
            size="sm"
            mr="sm"
          >
            {t("model.install", { engine: one.engine })}
          </Anchor>
        ))}
      </div>
      <div>
        <Text size="sm" fw={600}>
          {t("model.sources")}
        </Text>
        <List size="sm">
          {variant.sources.map((source) => (
            <List.Item key={`${source.hub}${source.id}`} className="wrap">
              {source.hub}: {source.id}
              {source.revision ? ` @ ${source.revision}` : ""}
              {source.file ? ` · ${source.file}` : ""}
              {source.cached ? ` · ${t("zoo.cachedBadge")}` : ""}
            </List.Item>
          ))}
        </List>
      </div>
      {variant.files && (
        <div>
          <Text size="sm" fw={600}>
            {t("model.files")}
          </Text>
          <List size="sm">
            {variant.files.map((file) => (
              <List.Item key={file.name} className="wrap">
                {file.name} {file.size_bytes === null ? "" : `(${bytes(file.size_bytes)})`}
              </List.Item>
            ))}
          </List>
        </div>
      )}
      <Command value={variant.launch_command} />
    </Stack>
  );
}
