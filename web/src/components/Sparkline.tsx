import { Box, Text } from "@mantine/core";
import { lazy, type ReactNode, Suspense } from "react";

const Area = lazy(() => import("./charts").then((found) => ({ default: found.AreaChart })));

/** A figure with its last two minutes; a moment without one is passed over. */
export function Figure(props: {
  name: string;
  value: ReactNode;
  data: readonly (number | null)[];
  color: string;
}) {
  const values = props.data.filter((one): one is number => one !== null);
  return (
    <Box style={{ minWidth: 0 }}>
      <Text size="xs" c="dimmed">
        {props.name}
      </Text>
      <Text size="sm" fw={600} component="div">
        {props.value}
      </Text>
      <Box h={28} aria-hidden>
        {values.length > 1 && (
          <Suspense>
            <Area
              h={28}
              data={values.map((value) => ({ value }))}
              dataKey="value"
              series={[{ name: "value", color: props.color }]}
              curveType="linear"
              strokeWidth={1.5}
              fillOpacity={0.25}
              withXAxis={false}
              withYAxis={false}
              withDots={false}
              withTooltip={false}
              gridAxis="none"
              // The figure itself says it: a picture in hidden parts must not take the focus.
              areaChartProps={{ accessibilityLayer: false }}
            />
          </Suspense>
        )}
      </Box>
    </Box>
  );
}
