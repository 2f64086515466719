import { Stack, Text, Title } from "@mantine/core";
import type { ReactNode } from "react";

/** What a page says where there is nothing: why, and what to do. */
export function Empty({ title, children }: { title: string; children?: ReactNode }) {
  return (
    <Stack align="center" ta="center" py={64} px="md" gap="sm">
      <Title order={2} size="h4" className="wrap">
        {title}
      </Title>
      <Text component="div" c="dimmed" maw={520} className="linked">
        {children}
      </Text>
    </Stack>
  );
}
