import { Box, Group, Text } from "@mantine/core";
import { lazy, Suspense } from "react";

const Line = lazy(() => import("./charts").then((found) => ({ default: found.Sparkline })));

/** A figure with its last two minutes; a moment without one is passed over. */
export function Figure(props: {
  name: string;
  value: string;
  data: readonly (number | null)[];
  color: string;
}) {
  const values = props.data.filter((one): one is number => one !== null);
  return (
    <Box style={{ minWidth: 0, flex: "1 1 8rem" }}>
      <Group justify="space-between" gap={4} wrap="nowrap">
        <Text size="xs" c="dimmed" truncate>
          {props.name}
        </Text>
        <Text size="sm" fw={600} style={{ whiteSpace: "nowrap" }}>
          {props.value}
        </Text>
      </Group>
      <Box h={28} aria-hidden>
        {values.length > 1 && (
          <Suspense>
            <Line
              w="100%"
              h={28}
              data={values}
              color={props.color}
              curveType="linear"
              strokeWidth={1.5}
              fillOpacity={0.25}
            />
          </Suspense>
        )}
      </Box>
    </Box>
  );
}
