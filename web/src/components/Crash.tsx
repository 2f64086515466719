import { Alert, Button, Code, Stack } from "@mantine/core";
import { useEffect } from "react";
import { useTranslation } from "react-i18next";
import { useRouteError } from "react-router";
import { BASE } from "../api/client";
import { connection } from "../api/events";
import { useStore } from "../lib/store";

/** What is shown where a page's own code has failed, or did not come. */
export function Crash() {
  const { t } = useTranslation();
  const error = useRouteError();
  const message = error instanceof Error ? error.message : String(error);
  const isAway = AWAY.test(message);
  usePageAgain(isAway);
  return (
    <Alert color="red" title={isAway ? t("crash.awayTitle") : t("crash.title")} m="md" role="alert">
      <Stack align="flex-start">
        {isAway ? t("crash.away") : t("crash.text")}
        <Code block className="wrap" style={{ whiteSpace: "pre-wrap" }}>
          {message}
        </Code>
        <Button onClick={() => window.location.reload()}>{t("crash.reload")}</Button>
      </Stack>
    </Alert>
  );
}

/** How browsers say that a page's file could not be fetched. */
const AWAY = /dynamically imported module|importing a module script|preload CSS/i;
const RELOADED = "paddock.reloaded";
const AGAIN_MS = 10_000;

/** Loads the page anew once the gateway answers: it was away, or has another build since. */
function usePageAgain(isAway: boolean) {
  const state = useStore(connection);
  useEffect(() => {
    if (!isAway || state !== "live") return;
    const leaving = new AbortController();
    const reload = () => {
      // Where that does not help it must not go on for ever.
      if (Date.now() - Number(sessionStorage.getItem(RELOADED)) < AGAIN_MS) return;
      sessionStorage.setItem(RELOADED, String(Date.now()));
      window.location.reload();
    };
    // The loss of the gateway may not have been noticed yet.
    fetch(`${BASE}/healthz`, { signal: leaving.signal }).then(
      (answer) => answer.ok && reload(),
      () => {},
    );
    return () => leaving.abort();
  }, [isAway, state]);
}
