import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { en } from "../../src/i18n/en";
import { preferred } from "../../src/i18n/preferred";
import { zh } from "../../src/i18n/zh";

function flat(texts: object, at = ""): Record<string, string> {
  return Object.assign(
    {},
    ...Object.entries(texts).map(([name, value]) =>
      typeof value === "string" ? { [at + name]: value } : flat(value, `${at}${name}.`),
    ),
  );
}

const holes = (text: string) => [...text.matchAll(/{{(\w+)}}/g)].map((one) => one[1]).sort();

describe("texts", () => {
  it("have the same keys in each language, and the same holes", () => {
    const [english, chinese] = [flat(en), flat(zh)];
    expect(Object.keys(chinese).sort()).toEqual(Object.keys(english).sort());
    for (const [name, text] of Object.entries(english)) {
      const missing = holes(chinese[name] as string).filter((hole) => !holes(text).includes(hole));
      expect(missing, name).toEqual([]);
      expect(chinese[name]?.trim(), name).not.toBe("");
    }
  });

  it("name every cause of a failure in each language", () => {
    const document = JSON.parse(readFileSync("openapi.json", "utf8"));
    const causes: string[] = document.components.schemas.Diagnosis.properties.cause.enum;
    for (const texts of [en, zh]) {
      expect(Object.keys(texts.diagnosis.causes).sort()).toEqual([...causes].sort());
    }
  });

  it("name every state of a replica in each language", () => {
    const document = JSON.parse(readFileSync("openapi.json", "utf8"));
    const states: string[] =
      document.components.schemas.InstanceReplica.properties.model_state.enum;
    for (const texts of [en, zh]) {
      expect(Object.keys(texts.state).sort()).toEqual([...states].sort());
    }
  });

  it("are in the reader's choice, else the browser's language, else English", () => {
    expect(preferred("zh", ["en-US"])).toBe("zh");
    expect(preferred(null, ["de-DE", "zh-CN", "en"])).toBe("zh");
    expect(preferred("xx", ["de"])).toBe("en");
  });
});
