import { Box, Group, Progress, Stack, Text, VisuallyHidden } from "@mantine/core";
import { useTranslation } from "react-i18next";
import { bytes } from "../lib/format";

export interface Parts {
  weights_bytes: number;
  cache_bytes: number;
  overhead_bytes: number;
  replicas?: number;
  /** The weights are mapped from their file, and replicas share them. */
  paged?: boolean;
}

export const PART_COLORS = { weights: "blue.7", cache: "grape.6", overhead: "orange.6" } as const;
const NAMES = ["weights", "cache", "overhead"] as const;

/** Memory by part, against what there is: `room` is free (or total) bytes of the device. */
export function MemoryBar(props: { parts: Parts; room: number; roomText: string }) {
  const { t } = useTranslation();
  const { parts, room } = props;
  const copies = parts.replicas ?? 1;
  const sizes = {
    weights: parts.weights_bytes * (parts.paged ? 1 : copies),
    cache: parts.cache_bytes * copies,
    overhead: parts.overhead_bytes * copies,
  };
  const total = sizes.weights + sizes.cache + sizes.overhead;
  const scale = Math.max(total, room) || 1;
  const over = total > room;
  return (
    <Stack gap={6}>
      <Box pos="relative">
        <Progress.Root size={18} radius="sm" aria-hidden>
          {NAMES.map((name) => (
            <Progress.Section
              key={name}
              value={(100 * sizes[name]) / scale}
              color={PART_COLORS[name]}
              withAria={false}
            />
          ))}
        </Progress.Root>
        {over && (
          <Box
            pos="absolute"
            top={-3}
            bottom={-3}
            w={2}
            bg="red.7"
            style={{ left: `${(100 * room) / scale}%` }}
            aria-hidden
          />
        )}
      </Box>
      <Group gap="2px 16px">
        {NAMES.map((name) => (
          <Group gap={6} key={name} wrap="nowrap">
            <Box w={10} h={10} bg={PART_COLORS[name]} style={{ borderRadius: 2 }} aria-hidden />
            <Text size="xs">
              {t(`memory.${name}`)} {bytes(sizes[name])}
            </Text>
          </Group>
        ))}
      </Group>
      <Text size="sm" fw={600} c={over ? "var(--mantine-color-error)" : undefined}>
        {bytes(total)} <VisuallyHidden>{t("memory.needed")}</VisuallyHidden>
        <Text span size="sm" fw={400} c="dimmed">
          {props.roomText}
        </Text>
      </Text>
    </Stack>
  );
}
