import { Alert, Button, Code, Group, List, Stack, Text } from "@mantine/core";
import { CircleAlert } from "lucide-react";
import type { ReactNode } from "react";
import { useTranslation } from "react-i18next";
import { type ApiError, asApiError, type Diagnosis } from "../api/client";
import { variantText } from "../lib/format";
import { Command } from "./Command";

/** Why a launch failed: the cause, the deciding lines, what to do next. */
export function DiagnosisView(props: { diagnosis: Diagnosis; children?: ReactNode }) {
  const { t } = useTranslation();
  const { diagnosis } = props;
  const ended = [
    diagnosis.exit_code !== null && diagnosis.exit_code !== undefined
      ? t("diagnosis.exitCode", { code: diagnosis.exit_code })
      : "",
    diagnosis.signal ? t("diagnosis.signal", { signal: diagnosis.signal }) : "",
  ].filter(Boolean);
  return (
    <Alert
      color="red"
      icon={<CircleAlert size={18} />}
      title={cause(t, diagnosis.cause)}
      role="alert"
      data-cause={diagnosis.cause}
    >
      <Stack gap="xs">
        <Text size="sm" className="wrap">
          {diagnosis.message}
        </Text>
        {ended.length > 0 && (
          <Text size="xs" c="dimmed">
            {ended.join(" · ")}
          </Text>
        )}
        {diagnosis.tried && diagnosis.tried.length > 0 && (
          <div>
            <Text size="sm">{t("diagnosis.tried")}</Text>
            <List size="sm">
              {diagnosis.tried.map((one) => (
                <List.Item key={one} className="wrap">
                  {one}
                </List.Item>
              ))}
            </List>
          </div>
        )}
        {diagnosis.lines && diagnosis.lines.length > 0 && (
          <div>
            <Text size="sm" mb={4}>
              {t("diagnosis.lines")}
            </Text>
            <Code block className="wrap" style={{ whiteSpace: "pre-wrap" }}>
              {diagnosis.lines.join("\n")}
            </Code>
          </div>
        )}
        {diagnosis.next_command && (
          <div>
            <Text size="sm" mb={4}>
              {t("diagnosis.next")}
            </Text>
            <Command value={diagnosis.next_command} />
          </div>
        )}
        {props.children && <Group gap="xs">{props.children}</Group>}
      </Stack>
    </Alert>
  );
}

type Translate = ReturnType<typeof useTranslation>["t"];

/** A cause in words; one that this page does not know by its name. */
export function cause(t: Translate, name: string): string {
  const key = `diagnosis.causes.${name}`;
  const text = t(key as "diagnosis.causes.internal", { defaultValue: "" });
  return text || name;
}

/** An error of a request: what happened, in the gateway's words. */
export function ErrorView({ error, retry }: { error: unknown; retry?: () => void }) {
  const { t } = useTranslation();
  const found = asApiError(error);
  if (found.diagnosis) return <DiagnosisView diagnosis={found.diagnosis} />;
  const refused = Object.entries((found.fields.refused ?? {}) as Record<string, string>);
  return (
    <Alert
      color="red"
      icon={<CircleAlert size={18} />}
      title={title(t, found)}
      role="alert"
      data-code={found.code}
    >
      <Stack gap="xs" align="flex-start">
        {refused.length > 0 ? (
          <List size="sm">
            {refused.map(([engine, why]) => (
              <List.Item key={engine} className="wrap">
                {engine}: {why}
              </List.Item>
            ))}
          </List>
        ) : (
          <Text size="sm" className="wrap">
            {found.status === 0 ? t("error.unreachable") : found.message}
          </Text>
        )}
        {retry && mayPass(found) && (
          <Button size="xs" variant="default" onClick={retry}>
            {t("error.retry")}
          </Button>
        )}
      </Stack>
    </Alert>
  );
}

/** Whether the same request may be answered another time; what is wrong in itself stays wrong. */
function mayPass({ status }: ApiError): boolean {
  return status === 0 || status === 409 || status === 429 || status >= 500;
}

function title(t: Translate, error: ApiError): string {
  if (error.fields.refused) {
    return t("error.noEngine", { variant: variantText(String(error.fields.variant)) });
  }
  if (error.status === 0) return t("error.lost");
  if (error.status === 403) return t("error.forbidden");
  if (error.status === 404) return t("error.notFound");
  if (error.status === 507) return t("error.noRoom");
  if (error.status >= 500) return t("error.failed");
  return t("error.refused");
}
