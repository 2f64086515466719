import { Code, Text } from "@mantine/core";
import { useEffect, useState } from "react";
import { useTranslation } from "react-i18next";
import type { Schemas } from "../api/client";
import { countdown, secondsLeft } from "../lib/restarts";
import { cause } from "./Failure";

const TICK_MS = 250;

type Replica = Schemas["InstanceReplica"];

/** How often something was started again, why the last time, and how long until the next try. */
export function Restarts(props: { restarts: number; replica: Replica | undefined }) {
  const { t } = useTranslation();
  const { restarts, replica } = props;
  // Of one that is not started again, the diagnosis is shown in full.
  const failure = replica?.model_state === "failed" ? null : (replica?.last_failure ?? null);
  if (restarts === 0 && failure === null) return null;
  return (
    <div data-testid="restarts">
      <Text size="sm" c="dimmed" className="wrap">
        {restarts > 0 && t("restarts.count", { count: restarts })}
        {failure && (
          <>
            {restarts > 0 && " · "}
            {t("restarts.last", { cause: cause(t, failure.cause) })}: {failure.message}
          </>
        )}
        {typeof replica?.next_try_at === "number" && (
          <>
            {" · "}
            <Countdown until={replica.next_try_at} />
          </>
        )}
      </Text>
      {failure?.lines && failure.lines.length > 0 && (
        <details>
          <Text component="summary" size="sm" c="dimmed">
            {t("diagnosis.lines")}
          </Text>
          <Code block className="wrap" style={{ whiteSpace: "pre-wrap" }}>
            {failure.lines.join("\n")}
          </Code>
        </details>
      )}
    </div>
  );
}

function Countdown({ until }: { until: number }) {
  const { t } = useTranslation();
  const [now, setNow] = useState(Date.now);
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), TICK_MS);
    return () => clearInterval(timer);
  }, []);
  const left = secondsLeft(until, now);
  return left > 0 ? t("restarts.next", { time: countdown(left) }) : t("restarts.now");
}
