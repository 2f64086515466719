import { ActionIcon, Code, CopyButton, Group, Tooltip } from "@mantine/core";
import { Check, Copy } from "lucide-react";
import { useTranslation } from "react-i18next";

/** Copies a text; says that it has. */
export function Copied({ value, label }: { value: string; label?: string }) {
  const { t } = useTranslation();
  return (
    <CopyButton value={value}>
      {({ copied, copy }) => {
        const says = copied ? t("copy.done") : (label ?? t("copy.copy"));
        return (
          <Tooltip label={says}>
            <ActionIcon variant="subtle" color="gray" onClick={copy} aria-label={says}>
              {copied ? <Check size={16} /> : <Copy size={16} />}
            </ActionIcon>
          </Tooltip>
        );
      }}
    </CopyButton>
  );
}

/** A command line to copy. */
export function Command({ value }: { value: string }) {
  return (
    <Group gap={4} wrap="nowrap" align="flex-start">
      <Code block className="wrap" style={{ flex: 1, whiteSpace: "pre-wrap", minWidth: 0 }}>
        {value}
      </Code>
      <Copied value={value} />
    </Group>
  );
}
