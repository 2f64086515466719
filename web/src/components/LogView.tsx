import { ActionIcon, Box, Group, Switch, Tooltip } from "@mantine/core";
import { ArrowDownToLine } from "lucide-react";
import { useEffect, useRef, useState } from "react";
import { useTranslation } from "react-i18next";
import { readEvents } from "../api/events";
import { soon } from "../lib/soon";

const KEPT_LINES = 5000;
const AGAIN_MS = 1000;
const DRAW_MS = 60;

interface Line {
  number: number;
  replica: string;
  text: string;
}

/** An engine's log, the last lines first and then as it is written. */
export function LogView({ uid }: { uid: string }) {
  const { t } = useTranslation();
  const [lines, setLines] = useState<Line[]>([]);
  const [follows, setFollows] = useState(true);
  const box = useRef<HTMLDivElement>(null);

  useEffect(() => {
    const leaving = new AbortController();
    void followLog(uid, leaving.signal, setLines);
    return () => leaving.abort();
  }, [uid]);

  // biome-ignore lint/correctness/useExhaustiveDependencies: each new line moves the view down
  useEffect(() => {
    if (follows && box.current) box.current.scrollTop = box.current.scrollHeight;
  }, [lines, follows]);

  const several = new Set(lines.map((line) => line.replica)).size > 1;
  const scrolled = () => {
    const { scrollTop, scrollHeight, clientHeight } = box.current as HTMLDivElement;
    setFollows(scrollHeight - scrollTop - clientHeight < 30);
  };
  return (
    <Box>
      <Group justify="flex-end" mb={4} gap="xs">
        <Switch
          size="xs"
          label={t("log.follow")}
          checked={follows}
          onChange={(event) => setFollows(event.currentTarget.checked)}
        />
        <Tooltip label={t("log.save")}>
          <ActionIcon
            variant="subtle"
            color="gray"
            aria-label={t("log.save")}
            onClick={() => save(`${uid}.log`, lines.map((line) => line.text).join("\n"))}
          >
            <ArrowDownToLine size={16} />
          </ActionIcon>
        </Tooltip>
      </Group>
      <div
        ref={box}
        className="log"
        style={{ height: "min(60vh, 28rem)" }}
        onScroll={scrolled}
        role="log"
        aria-label={t("log.label", { model: uid })}
        // biome-ignore lint/a11y/noNoninteractiveTabindex: it scrolls, and the keyboard must reach it
        tabIndex={0}
      >
        {lines.length === 0
          ? t("log.empty")
          : lines.map((line) => (
              <div key={line.number}>
                {several ? `[${line.replica.slice(line.replica.lastIndexOf("-rep") + 1)}] ` : ""}
                {line.text}
              </div>
            ))}
      </div>
    </Box>
  );
}

/** Reads the whole log and what is added to it, again from its beginning where the stream breaks. */
async function followLog(uid: string, signal: AbortSignal, show: (lines: Line[]) => void) {
  while (!signal.aborted) {
    let lines: Line[] = [];
    let number = 0;
    const later = soon(() => {
      if (!signal.aborted) show(lines.slice(-KEPT_LINES));
    }, DRAW_MS);
    try {
      await readEvents(
        `/v1/models/${encodeURIComponent(uid)}/logs?follow=true`,
        ({ data }) => {
          const { replica, line } = JSON.parse(data);
          number += 1;
          lines.push({ number, replica, text: line });
          if (lines.length > 2 * KEPT_LINES) lines = lines.slice(-KEPT_LINES);
          later();
        },
        { signal },
      );
    } catch {
      // The gateway's loss is shown above the page; a model that is gone has no log.
    }
    await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
  }
}

function save(name: string, text: string) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/plain" }));
  link.download = name;
  link.click();
  URL.revokeObjectURL(link.href);
}
