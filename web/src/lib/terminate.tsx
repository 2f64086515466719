import { Button, Group, Text } from "@mantine/core";
import { notifications } from "@mantine/notifications";
import { type QueryClient, useQueryClient } from "@tanstack/react-query";
import { useCallback } from "react";
import { useTranslation } from "react-i18next";
import { asApiError, request } from "../api/client";
import { Store, useStore } from "./store";

/** How long a model lives on after it was told to end: time to think again. */
export const UNDO_MS = 5000;

const ending = new Store<readonly string[]>([]);
const timers = new Map<string, ReturnType<typeof setTimeout>>();

/** The ids of models that will be ended unless that is undone. */
export function useEnding(): readonly string[] {
  return useStore(ending);
}

/** Lets a model live on. */
export function undo(uid: string): void {
  clearTimeout(timers.get(uid));
  timers.delete(uid);
  ending.set(ending.get().filter((one) => one !== uid));
  notifications.hide(note(uid));
}

const note = (uid: string) => `terminate-${uid}`;

/** Tells the gateway; also of a page that is being left, which hears no answer. */
function end(uid: string): Promise<unknown> {
  undo(uid);
  const path = `/v1/models/${encodeURIComponent(uid)}`;
  return request(path, { method: "DELETE", keepalive: true });
}

// Whoever closes the page has not thought again.
window.addEventListener("pagehide", () => {
  for (const uid of ending.get()) end(uid).catch(() => {});
});

type Translate = ReturnType<typeof useTranslation>["t"];

async function endAndTell(uid: string, client: QueryClient, t: Translate): Promise<void> {
  try {
    await end(uid);
  } catch (error) {
    notifications.show({
      color: "red",
      title: t("terminate.failed", { model: uid }),
      message: asApiError(error).message,
    });
  }
  void client.invalidateQueries({ queryKey: ["models"] });
}

/** Ends a model after a moment in which it can be undone. */
export function useTerminate(): (uid: string) => void {
  const { t } = useTranslation();
  const client = useQueryClient();
  return useCallback(
    (uid: string) => {
      if (timers.has(uid)) return;
      timers.set(
        uid,
        setTimeout(() => void endAndTell(uid, client, t), UNDO_MS),
      );
      ending.set([...ending.get(), uid]);
      notifications.show({
        id: note(uid),
        autoClose: UNDO_MS,
        withCloseButton: false,
        color: "yellow",
        message: (
          <Group justify="space-between" wrap="nowrap">
            <Text size="sm">{t("terminate.soon", { model: uid })}</Text>
            <Button size="compact-sm" variant="default" onClick={() => undo(uid)}>
              {t("terminate.undo")}
            </Button>
          </Group>
        ),
      });
    },
    [client, t],
  );
}
