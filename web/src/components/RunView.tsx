import { Badge, Box, Code, Group, Progress, Stack, Text } from "@mantine/core";
import { useTranslation } from "react-i18next";
import { type Run, speed } from "../api/inference";
import { duration, rate } from "../lib/format";
import { ErrorView } from "./Failure";

/** An answer as it comes, with its speed and where its time went. */
export function RunView({ run, label }: { run: Run; label: string }) {
  const { t } = useTranslation();
  return (
    <Stack gap="xs" data-run={run.state}>
      {run.reasoning && (
        <Box component="details" open={run.state === "running" && !run.text}>
          <Text component="summary" size="sm" c="dimmed" style={{ cursor: "pointer" }}>
            {t("play.reasoning")}
          </Text>
          <Text size="sm" c="dimmed" style={{ whiteSpace: "pre-wrap" }} className="wrap">
            {run.reasoning}
          </Text>
        </Box>
      )}
      {run.text && (
        <Text
          component="div"
          style={{ whiteSpace: "pre-wrap" }}
          className="wrap"
          aria-label={label}
          data-testid="answer"
        >
          {run.text}
        </Text>
      )}
      {run.tools.map((call, number) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: calls have no ids, and keep their places
        <Code block key={number} className="wrap" style={{ whiteSpace: "pre-wrap" }}>
          {call.name}({call.arguments})
        </Code>
      ))}
      {run.error && <ErrorView error={run.error} />}
      <Timeline run={run} />
    </Stack>
  );
}

/** Where a request's time went: until the first token, and from there on. */
function Timeline({ run }: { run: Run }) {
  const { t } = useTranslation();
  if (run.state === "running" && run.first === null) {
    return (
      <Text size="xs" c="dimmed" role="status">
        {t("play.waiting")}
      </Text>
    );
  }
  const now = run.ended ?? performance.now();
  const whole = Math.max(now - run.began, 0.001);
  const waited = (run.first ?? now) - run.began;
  const perSecond = speed(run, now);
  const timing = Object.entries(run.timing).map(
    ([name, value]) => `${name} ${value.toFixed(1)} ms`,
  );
  return (
    <Stack gap={4} data-testid="timeline">
      <Progress.Root size={6} aria-hidden>
        <Progress.Section value={(100 * waited) / whole} color="gray.5" withAria={false} />
        <Progress.Section value={100 - (100 * waited) / whole} color="teal.6" withAria={false} />
      </Progress.Root>
      <Group gap="4px 12px">
        <Text size="xs" fw={600}>
          {t("play.speed", { rate: rate(perSecond) })}
        </Text>
        <Text size="xs" c="dimmed">
          {t("play.first", { time: duration(waited / 1000) })}
        </Text>
        <Text size="xs" c="dimmed">
          {t("play.whole", { time: duration(whole / 1000) })}
        </Text>
        <Text size="xs" c="dimmed">
          {run.completionTokens === null
            ? t("play.pieces", { count: run.pieces })
            : t("play.tokens", {
                prompt: run.promptTokens ?? "?",
                completion: run.completionTokens,
              })}
        </Text>
        {timing.length > 0 && (
          <Text size="xs" c="dimmed" className="wrap">
            {timing.join(" · ")}
          </Text>
        )}
        {run.state === "stopped" && <Badge size="xs">{t("play.stopped")}</Badge>}
        {run.finish === "length" && (
          <Badge size="xs" color="yellow" variant="light" tt="none">
            {t("play.cut")}
          </Badge>
        )}
      </Group>
    </Stack>
  );
}
