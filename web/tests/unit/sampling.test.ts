import { describe, expect, it } from "vitest";
import { type BadField, NOTHING, samplingFields } from "../../src/lib/sampling";
import { python, snippet } from "../../src/lib/snippets";

describe("sampling fields", () => {
  it("are numbers, lists and objects; empty ones are left out", () => {
    const typed = {
      ...NOTHING,
      ...{ temperature: "0", top_k: "40", stop: "END\n\\n\\n", logit_bias: '{"5": -1}' },
      schema: '{"type": "object"}',
    };
    expect(samplingFields(typed)).toEqual({
      max_tokens: 256,
      temperature: 0,
      top_k: 40,
      stop: ["END", "\n\n"],
      logit_bias: { "5": -1 },
      response_format: {
        type: "json_schema",
        json_schema: { name: "answer", schema: { type: "object" } },
      },
    });
  });

  it("name the field that is wrong", () => {
    for (const [field, text] of [
      ["schema", "{"],
      ["tools", "{}"],
      ["temperature", "hot"],
    ] as const) {
      try {
        samplingFields({ ...NOTHING, [field]: text });
        expect.unreachable();
      } catch (error) {
        expect((error as BadField).field).toBe(field);
      }
    }
  });
});

describe("snippets", () => {
  const body = { model: "m", prompt: "It's\n", max_tokens: 5, top_k: 3 };
  const request = { route: "/v1/completions", body, endpoint: "http://h:1", keyed: false } as const;

  it("write values as Python does", () => {
    expect(python({ a: [true, null, 1.5], b: "x\n" })).toBe(
      '{\n    "a": [\n        True,\n        None,\n        1.5,\n    ],\n    "b": "x\\n",\n}',
    );
  });

  it("put what OpenAI's client does not know into extra_body", () => {
    const text = snippet("openai", request);
    expect(text).toContain('base_url="http://h:1/v1"');
    expect(text).toMatch(/extra_body=\{\s+"top_k": 3,\s+\}/);
  });

  it("survive a shell's quotes, and never hold the key", () => {
    expect(snippet("curl", request)).toContain(`It'"'"'s`);
    for (const kind of ["curl", "openai", "xinference", "paddock"] as const) {
      expect(snippet(kind, { ...request, keyed: true })).toContain("PADDOCK_API_KEY");
    }
  });
});
