import { Badge } from "@mantine/core";
import { useTranslation } from "react-i18next";
import type { Schemas } from "../api/client";

export type State = Schemas["InstanceReplica"]["model_state"];

const COLORS: Record<State, string> = {
  pending: "gray",
  downloading: "blue",
  starting: "blue",
  ready: "green",
  unhealthy: "orange",
  unreachable: "yellow",
  stopping: "yellow",
  stopped: "gray",
  failed: "red",
};

/** The state of a model or a replica. */
export function StateBadge({ state }: { state: State }) {
  const { t } = useTranslation();
  return (
    <Badge variant="light" color={COLORS[state]} tt="none" data-state={state}>
      {t(`state.${state}`)}
    </Badge>
  );
}
