import { Group, Stack, Text, Title } from "@mantine/core";
import { type ReactNode, useEffect } from "react";

/** A page's title, which the window gets too, and what stands beside it. */
export function PageHeader(props: { title: string; text?: ReactNode; children?: ReactNode }) {
  const { title } = props;
  useEffect(() => {
    document.title = `${title} · Paddock`;
  }, [title]);
  return (
    <Group justify="space-between" align="flex-start" mb="md" gap="sm">
      <Stack gap={2} style={{ minWidth: 0, flex: "1 1 16rem" }}>
        <Title order={1} size="h3" className="wrap">
          {title}
        </Title>
        {props.text && (
          <Text component="div" c="dimmed" size="sm">
            {props.text}
          </Text>
        )}
      </Stack>
      {props.children && <Group gap="xs">{props.children}</Group>}
    </Group>
  );
}
