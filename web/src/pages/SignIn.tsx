import {
  Alert,
  Button,
  Center,
  Checkbox,
  Code,
  Paper,
  PasswordInput,
  Stack,
  Text,
  Title,
} from "@mantine/core";
import { useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";
import { useTranslation } from "react-i18next";
import { asApiError, BASE, key, keyHeader, signIn } from "../api/client";
import { useStore } from "../lib/store";

/** Asks for an API key; nothing else is shown while the gateway wants one. */
export function SignIn() {
  const { t } = useTranslation();
  const client = useQueryClient();
  const had = useStore(key) !== "";
  const [typed, setTyped] = useState("");
  const [remember, setRemember] = useState(false);
  const [error, setError] = useState(had ? t("signIn.refused") : "");
  const [busy, setBusy] = useState(false);

  const submit = async (event: FormEvent) => {
    event.preventDefault();
    setBusy(true);
    setError("");
    try {
      const response = await fetch(`${BASE}/v1/models`, { headers: keyHeader(typed.trim()) });
      if (response.status === 401) setError(t("signIn.wrong"));
      else {
        client.clear();
        signIn(typed.trim(), remember);
      }
    } catch (cause) {
      setError(t("signIn.unreachable", { reason: asApiError(cause).message }));
    } finally {
      setBusy(false);
    }
  };

  return (
    <Center component="main" mih="100vh" p="md">
      <Paper withBorder p="lg" w="100%" maw={420} component="form" onSubmit={submit}>
        <Stack>
          <Title order={1} size="h3">
            {t("signIn.title")}
          </Title>
          <Text size="sm" c="dimmed">
            {t("signIn.text")} <Code>paddock keys create</Code>
          </Text>
          {error && (
            <Alert color="red" role="alert">
              {error}
            </Alert>
          )}
          <PasswordInput
            label={t("signIn.key")}
            value={typed}
            onChange={(event) => setTyped(event.currentTarget.value)}
            autoComplete="current-password"
            autoFocus
            required
          />
          <Checkbox
            label={t("signIn.remember")}
            checked={remember}
            onChange={(event) => setRemember(event.currentTarget.checked)}
          />
          <Button type="submit" loading={busy} disabled={!typed.trim()}>
            {t("signIn.submit")}
          </Button>
        </Stack>
      </Paper>
    </Center>
  );
}
