import { Button } from "@mantine/core";
import { ArrowRight } from "lucide-react";
import { useTranslation } from "react-i18next";
import { Link } from "react-router";
import { nextStep } from "../lib/nextStep";

/** A button that goes to where a suggested command can be done. */
export function NextStepButton({ command }: { command: string | null | undefined }) {
  const { t } = useTranslation();
  const step = command ? nextStep(command) : null;
  if (!step) return null;
  return (
    <Button
      component={Link}
      to={step.path}
      size="xs"
      rightSection={<ArrowRight size={14} aria-hidden />}
    >
      {t(`nextStep.${step.kind}`)}
    </Button>
  );
}
