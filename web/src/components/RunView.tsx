import { Badge, Box, Code, Group, Progress, Stack, Text } from "@mantine/core";
import { useTranslation } from "react-i18next";
import { type Choice, type Run, speed } from "../api/inference";
import { duration, rate } from "../lib/format";
import { ErrorView } from "./Failure";
import { TokenTable } from "./TokenTable";

/** The answers as they come, with their speed and where the time went. */
export function RunView({ run, uid }: { run: Run; uid: string }) {
  const { t } = useTranslation();
  const isRunning = run.state === "running";
  return (
    <Stack gap="xs" data-run={run.state}>
      {run.choices.length === 1 ? (
        <ChoiceView
          choice={run.choices[0]}
          isRunning={isRunning}
          label={t("play.answer", { model: uid })}
        />
      ) : (
        run.choices.map((choice, index) => (
          <Box
            // biome-ignore lint/suspicious/noArrayIndexKey: choices are known by their index
            key={index}
            pl="sm"
            style={{ borderLeft: "2px solid var(--mantine-color-default-border)" }}
          >
            <Text size="xs" c="dimmed">
              {t("play.choice", { number: index + 1 })}
            </Text>
            <ChoiceView
              choice={choice}
              isRunning={isRunning}
              label={t("play.choiceOf", { number: index + 1, model: uid })}
            />
          </Box>
        ))
      )}
      {run.error && <ErrorView error={run.error} />}
      <Timeline run={run} />
    </Stack>
  );
}

function ChoiceView(props: { choice: Choice; isRunning: boolean; label: string }) {
  const { t } = useTranslation();
  const { choice } = props;
  return (
    <Stack gap="xs">
      {choice.reasoning && (
        <Box component="details" open={props.isRunning && !choice.text}>
          <Text component="summary" size="sm" c="dimmed" style={{ cursor: "pointer" }}>
            {t("play.reasoning")}
          </Text>
          <Text size="sm" c="dimmed" style={{ whiteSpace: "pre-wrap" }} className="wrap">
            {choice.reasoning}
          </Text>
        </Box>
      )}
      {choice.text && (
        <Text
          component="div"
          style={{ whiteSpace: "pre-wrap" }}
          className="wrap"
          aria-label={props.label}
          data-testid="answer"
        >
          {choice.text}
        </Text>
      )}
      {choice.tools.map((call, number) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: calls have no ids, and keep their places
        <Code block key={number} className="wrap" style={{ whiteSpace: "pre-wrap" }}>
          {call.name}({call.arguments})
        </Code>
      ))}
      {choice.tokens.length > 0 && <TokenTable tokens={choice.tokens} />}
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
  if (run.first === null && run.state === "failed") return null;
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
        {run.choices.some((choice) => choice.finish === "length") && (
          <Badge size="xs" color="yellow" variant="light" tt="none">
            {t("play.cut")}
          </Badge>
        )}
      </Group>
    </Stack>
  );
}
