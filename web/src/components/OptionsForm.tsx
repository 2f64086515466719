import { NumberInput, Select, SimpleGrid, TextInput } from "@mantine/core";
import { useTranslation } from "react-i18next";

/** What of an option's JSON schema decides its field. */
interface Property {
  type?: string;
  enum?: unknown[];
  const?: unknown;
  anyOf?: Property[];
  $ref?: string;
  items?: Property;
  default?: unknown;
  description?: string;
  minimum?: number;
  maximum?: number;
  exclusiveMinimum?: number;
}

export interface OptionsSchema {
  properties?: Record<string, Property>;
  $defs?: Record<string, Property>;
}

/** The kind of field for an option: the first of its types that is not null. Pure. */
export function kindOf(given: Property, schema: OptionsSchema = {}): Property {
  const named = given.$ref ? schema.$defs?.[given.$ref.replace("#/$defs/", "")] : undefined;
  const property = named ? { ...given, ...named } : given;
  const inner = property.anyOf?.find((one) => one.type !== "null");
  return inner ? { ...property, ...kindOf(inner, schema) } : property;
}

/** A form of an engine's own options, from their schema; what is empty is left to the engine. */
export function OptionsForm(props: {
  schema: OptionsSchema;
  values: Record<string, string>;
  /** What the plan has settled for those left open. */
  settled: Record<string, unknown>;
  change: (name: string, value: string) => void;
}) {
  const { t } = useTranslation();
  return (
    <SimpleGrid cols={{ base: 1, xs: 2 }} spacing="sm">
      {Object.entries(props.schema.properties ?? {}).map(([name, given]) => {
        const property = kindOf(given, props.schema);
        const value = props.values[name] ?? "";
        const settled = props.settled[name] ?? property.default;
        const common = {
          size: "sm" as const,
          label: name,
          description: property.description,
          inputWrapperOrder: ["label", "input", "description", "error"] as (
            | "label"
            | "input"
            | "description"
            | "error"
          )[],
          placeholder: shown(settled) || t("launch.left"),
        };
        const choices =
          property.type === "boolean"
            ? ["true", "false"]
            : (property.enum ?? []).filter((one) => one !== null).map(String);
        if (choices.length > 0) {
          return (
            <Select
              key={name}
              {...common}
              data={choices}
              value={value || null}
              onChange={(next) => props.change(name, next ?? "")}
              clearable
            />
          );
        }
        if (property.type === "integer" || property.type === "number") {
          return (
            <NumberInput
              key={name}
              {...common}
              value={value}
              onChange={(next) => props.change(name, String(next))}
              allowDecimal={property.type === "number"}
              min={property.minimum}
              max={property.maximum}
              hideControls
            />
          );
        }
        return (
          <TextInput
            key={name}
            {...common}
            value={value}
            onChange={(event) => props.change(name, event.currentTarget.value)}
          />
        );
      })}
    </SimpleGrid>
  );
}

function shown(value: unknown): string {
  if (value === null || value === undefined) return "";
  if (Array.isArray(value)) return value.join(",");
  return String(value);
}
