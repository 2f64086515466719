import { Alert, Button, Code, Stack } from "@mantine/core";
import { useTranslation } from "react-i18next";
import { useRouteError } from "react-router";

/** What is shown where a page's own code has failed. */
export function Crash() {
  const { t } = useTranslation();
  const error = useRouteError();
  return (
    <Alert color="red" title={t("crash.title")} m="md" role="alert">
      <Stack align="flex-start">
        {t("crash.text")}
        <Code block>{error instanceof Error ? error.message : String(error)}</Code>
        <Button onClick={() => window.location.reload()}>{t("crash.reload")}</Button>
      </Stack>
    </Alert>
  );
}
