import { Button } from "@mantine/core";
import { Trash2, Undo2 } from "lucide-react";
import { useTranslation } from "react-i18next";
import type { Instance } from "../api/client";
import { undo, useEnding, useTerminate } from "../lib/terminate";
import { isComing } from "./LaunchProgress";

/** Ends a model, or calls its launch off; for a moment the way back stands beside it. */
export function Terminate({ model, size }: { model: Instance; size?: "xs" }) {
  const { t } = useTranslation();
  const terminate = useTerminate();
  const uid = model.model_uid;
  const ending = useEnding().includes(uid);
  const icon = size === "xs" ? 14 : 16;
  return (
    <>
      <Button
        size={size}
        variant="light"
        color="red"
        leftSection={<Trash2 size={icon} aria-hidden />}
        disabled={model.state === "stopping"}
        // It keeps the focus, so that the next press of Tab leads to what undoes it.
        data-disabled={ending || undefined}
        aria-disabled={ending || undefined}
        onClick={() => !ending && terminate(uid)}
        aria-label={size && t("terminate.label", { model: uid })}
      >
        {isComing(model) ? t("terminate.cancel") : t("terminate.action")}
      </Button>
      {ending && (
        <Button
          size={size}
          variant="default"
          leftSection={<Undo2 size={icon} aria-hidden />}
          onClick={() => undo(uid)}
          aria-label={t("terminate.undoLabel", { model: uid })}
        >
          {t("terminate.undo")}
        </Button>
      )}
    </>
  );
}
