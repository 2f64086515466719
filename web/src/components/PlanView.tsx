import { Alert, Divider, List, Stack, Table, Text } from "@mantine/core";
import { CircleCheck, TriangleAlert } from "lucide-react";
import { useTranslation } from "react-i18next";
import type { Plan } from "../api/client";
import { bytes, parameters, tokens } from "../lib/format";
import { MemoryBar } from "./MemoryBar";

/** `slots 4: up to 4, while …`: the first word, which says what the reason is of, in our language. */
function reason(t: ReturnType<typeof useTranslation>["t"], text: string): string {
  return text.replace(/^\w+/, (kind) =>
    t(`plan.kinds.${kind as "variant"}`, { defaultValue: kind }),
  );
}

/** What a launch will do: memory by part, download, disk, and the reasons. */
export function PlanView({ plan, diskFree }: { plan: Plan; diskFree?: number }) {
  const { t, i18n } = useTranslation();
  const { weights, memory } = plan;
  const about = weights.size_known ? "" : "≈ ";
  return (
    <Stack gap="sm" data-testid="plan">
      <MemoryBar
        parts={memory}
        room={memory.free_bytes}
        roomText={
          memory.gpus
            ? t("plan.freeGpu", { free: bytes(memory.free_bytes), node: plan.node_name })
            : t("plan.free", { free: bytes(memory.free_bytes), node: plan.node_name })
        }
      />
      {memory.fits ? (
        <Alert role="note" color="green" p="xs" icon={<CircleCheck size={18} />}>
          {t("plan.fits", { node: plan.node_name })}
        </Alert>
      ) : (
        <Alert role="note" color="yellow" p="xs" icon={<TriangleAlert size={18} />}>
          {plan.warnings.length ? plan.warnings.join("; ") : t("plan.tight")}
        </Alert>
      )}
      {memory.fits &&
        plan.warnings.map((one) => (
          <Alert role="note" color="yellow" p="xs" icon={<TriangleAlert size={18} />} key={one}>
            {one}
          </Alert>
        ))}
      <Table withRowBorders={false} verticalSpacing={2} fz="sm" layout="fixed">
        <Table.Tbody>
          <Row name={t("plan.figures")}>
            {t(`plan.figuresBy.${memory.source}`, {
              when: new Date(memory.at * 1000).toLocaleDateString(i18n.language),
              where: memory.machine ? ` (${memory.machine})` : "",
            })}
          </Row>
          {plan.expected?.tokens_per_second != null && (
            <Row name={t("plan.speed")}>
              {plan.expected.source === "formula" && "≈ "}
              {t("plan.speedText", { rate: Math.round(plan.expected.tokens_per_second) })}
            </Row>
          )}
          <Row name={t("plan.variant")}>
            {parameters(plan.size)} {plan.format} {plan.quantization}
          </Row>
          <Row name={t("plan.engine")}>
            {plan.engine} <Dim>{plan.engine_version}</Dim>
          </Row>
          <Row name={t("plan.context")}>
            {t("plan.contextText", { tokens: tokens(plan.context_length), count: plan.slots })}
          </Row>
          <Row name={t("plan.replicas")}>
            {plan.replicas} × {plan.node_name}
          </Row>
          {plan.gpus.length > 0 && (
            <Row name={t("plan.gpus")}>
              {plan.gpus.map((group, replica) => (
                // biome-ignore lint/suspicious/noArrayIndexKey: a replica is known by its number
                <div key={replica}>
                  {group
                    .map((gpu) => `${gpu.index}: ${gpu.name} (${bytes(gpu.free_bytes)})`)
                    .join(", ")}
                </div>
              ))}
              {memory.offload_bytes > 0 && t("plan.offload", { size: bytes(memory.offload_bytes) })}
            </Row>
          )}
          <Row name={t("plan.download")}>
            {weights.here
              ? t("plan.here", { size: bytes(weights.size_bytes) })
              : weights.size_bytes
                ? t("plan.fetch", { size: about + bytes(weights.size_bytes), hub: weights.hub })
                : t("plan.fetchUnknown", { hub: weights.hub })}
            {!weights.here && diskFree !== undefined && (
              <>
                {" "}
                <Dim>{t("plan.disk", { free: bytes(diskFree) })}</Dim>
              </>
            )}
          </Row>
          <Row name={t("plan.source")}>
            {weights.id}
            {weights.revision ? ` @ ${weights.revision.slice(0, 12)}` : ""}
          </Row>
        </Table.Tbody>
      </Table>
      <Divider />
      <div>
        <Text size="sm" fw={600}>
          {t("plan.reasons")}
        </Text>
        <List size="sm">
          {plan.reasons.map((one) => (
            <List.Item key={one} className="wrap">
              {reason(t, one)}
            </List.Item>
          ))}
        </List>
      </div>
      {Object.keys(plan.refused).length > 0 && (
        <div>
          <Text size="sm" fw={600}>
            {t("plan.refused")}
          </Text>
          <List size="sm">
            {Object.entries(plan.refused).map(([engine, why]) => (
              <List.Item key={engine} className="wrap">
                {engine}: {why}
              </List.Item>
            ))}
          </List>
        </div>
      )}
    </Stack>
  );
}

function Row({ name, children }: { name: string; children: React.ReactNode }) {
  return (
    <Table.Tr>
      <Table.Th w="6.5rem" pl={0} c="dimmed" fw={400} ta="left" style={{ verticalAlign: "top" }}>
        {name}
      </Table.Th>
      <Table.Td className="wrap">{children}</Table.Td>
    </Table.Tr>
  );
}

function Dim({ children }: { children: React.ReactNode }) {
  return (
    <Text span size="sm" c="dimmed">
      {children}
    </Text>
  );
}
