import { Button, Group, Text } from "@mantine/core";
import { notifications } from "@mantine/notifications";
import { useQueryClient } from "@tanstack/react-query";
import { useCallback } from "react";
import { useTranslation } from "react-i18next";
import { api, asApiError } from "../api/client";
import { Store, useStore } from "./store";

/** How long a model lives on after it was told to end: time to think again. */
export const UNDO_MS = 5000;

const ending = new Store<readonly string[]>([]);

/** The ids of models that will be ended unless that is undone. */
export function useEnding(): readonly string[] {
  return useStore(ending);
}

/** Ends a model after a moment in which it can be undone. */
export function useTerminate(): (uid: string) => void {
  const { t } = useTranslation();
  const client = useQueryClient();
  return useCallback(
    (uid: string) => {
      if (ending.get().includes(uid)) return;
      const note = `terminate-${uid}`;
      const done = () => {
        clearTimeout(timer);
        ending.set(ending.get().filter((one) => one !== uid));
        notifications.hide(note);
      };
      const timer = setTimeout(async () => {
        done();
        try {
          await api.DELETE("/v1/models/{uid}", { params: { path: { uid } } });
        } catch (error) {
          notifications.show({
            color: "red",
            title: t("terminate.failed", { model: uid }),
            message: asApiError(error).message,
          });
        }
        void client.invalidateQueries({ queryKey: ["models"] });
      }, UNDO_MS);
      ending.set([...ending.get(), uid]);
      notifications.show({
        id: note,
        autoClose: UNDO_MS,
        withCloseButton: false,
        color: "yellow",
        message: (
          <Group justify="space-between" wrap="nowrap">
            <Text size="sm">{t("terminate.soon", { model: uid })}</Text>
            <Button size="compact-sm" variant="default" onClick={done}>
              {t("terminate.undo")}
            </Button>
          </Group>
        ),
      });
    },
    [client, t],
  );
}
