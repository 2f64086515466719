import { Group, Progress, Stack, Text } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { useTranslation } from "react-i18next";
import { api, data, type Instance, type Schemas } from "../api/client";
import { live } from "../api/events";
import { bytes, duration, percent } from "../lib/format";
import { useStore } from "../lib/store";

const POLL_MS = 1000;

/** Whether a model is on its way: launched, and not yet ready. */
export function isComing(model: Pick<Instance, "state">): boolean {
  return ["pending", "downloading", "starting"].includes(model.state);
}

/** How far a launch is: stage, bytes, and each file of the download. */
export function LaunchProgress({ model }: { model: Instance }) {
  const { t } = useTranslation();
  const heard = useStore(live);
  // Events tell the whole; the files are asked for while they come.
  const files = useQuery({
    queryKey: ["models", model.model_uid, "progress"],
    queryFn: () =>
      data(api.GET("/v1/models/{uid}/progress", { params: { path: { uid: model.model_uid } } })),
    enabled: model.state === "downloading",
    refetchInterval: POLL_MS,
  });
  const replicas = Object.values(heard).filter((one) => one.model_uid === model.model_uid);
  const last = [...replicas].sort((a, b) => a.progress - b.progress)[0];
  return (
    <Stack gap={6} data-testid="progress">
      <Group justify="space-between" gap="xs">
        <Text size="sm" aria-live="polite">
          {t(`stage.${model.state as "pending"}`)}
          {last?.note ? `: ${last.note}` : ""}
        </Text>
        <Text size="sm" c="dimmed">
          {last?.total_bytes ? (
            <>
              {bytes(last.came_bytes)} / {bytes(last.total_bytes)}
              {last.bytes_per_second ? ` · ${bytes(last.bytes_per_second)}/s` : ""}
              {last.seconds_left
                ? ` · ${t("progress.left", { time: duration(last.seconds_left) })}`
                : ""}
            </>
          ) : null}
        </Text>
      </Group>
      <Progress
        value={100 * (last?.progress ?? 0)}
        animated
        aria-label={t("progress.label", { model: model.model_uid })}
      />
      {model.state === "downloading" && <Files files={files.data?.download_files ?? []} />}
    </Stack>
  );
}

/** Each file of a download with its own bar. */
export function Files({ files }: { files: Schemas["FileProgress"][] }) {
  if (files.length === 0) return null;
  return (
    <Stack gap={4} mah={220} style={{ overflowY: "auto" }}>
      {files.map((file) => (
        <div key={file.name}>
          <Group justify="space-between" gap="xs" wrap="nowrap">
            <Text size="xs" truncate>
              {file.name}
            </Text>
            <Text size="xs" c="dimmed" style={{ whiteSpace: "nowrap" }}>
              {bytes(file.came_bytes)} / {bytes(file.total_bytes)} · {percent(file.progress)}
            </Text>
          </Group>
          <Progress size="xs" value={100 * file.progress} aria-label={file.name} />
        </div>
      ))}
    </Stack>
  );
}
