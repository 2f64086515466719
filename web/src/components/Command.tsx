import { ActionIcon, Code, Group, Tooltip } from "@mantine/core";
import { useTimeout } from "@mantine/hooks";
import { notifications } from "@mantine/notifications";
import { Check, Copy } from "lucide-react";
import { Fragment, useState } from "react";
import { useTranslation } from "react-i18next";
import { copyText } from "../lib/clipboard";

const SHOWN_MS = 1500;

/** Copies a text; says that it has. */
export function Copied({ value }: { value: string }) {
  const { t } = useTranslation();
  const [copied, setCopied] = useState(false);
  const { start } = useTimeout(() => setCopied(false), SHOWN_MS);
  const copy = async () => {
    try {
      await copyText(value);
      setCopied(true);
      start();
    } catch (error) {
      notifications.show({ color: "red", title: t("copy.failed"), message: String(error) });
    }
  };
  const says = copied ? t("copy.done") : t("copy.copy");
  return (
    <Tooltip label={says}>
      <ActionIcon variant="subtle" color="gray" onClick={() => void copy()} aria-label={says}>
        {copied ? <Check size={16} /> : <Copy size={16} />}
      </ActionIcon>
    </Tooltip>
  );
}

/** A text that is broken between its words, and not after the hyphens of `--model-name`. */
function Words({ text }: { text: string }) {
  return text.split(" ").map((word, number) => (
    // biome-ignore lint/suspicious/noArrayIndexKey: words have no ids
    <Fragment key={number}>
      {number > 0 && " "}
      <span className="word">{word}</span>
    </Fragment>
  ));
}

/** A command line to copy. */
export function Command({ value }: { value: string }) {
  return (
    <Group gap={4} wrap="nowrap" align="flex-start">
      <Code block className="wrap" style={{ flex: 1, whiteSpace: "pre-wrap", minWidth: 0 }}>
        <Words text={value} />
      </Code>
      <Copied value={value} />
    </Group>
  );
}
