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
    expect(samplingFields(typed, "chat")).toEqual({
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

  it("ask for log probabilities as each route does, and for nothing that it does not have", () => {
    const typed = {
      ...NOTHING,
      ...{ max_tokens: "", n: "2", logprobs: "3", ignore_eos: "true", echo: "true", tools: "[]" },
    };
    expect(samplingFields(typed, "completion")).toEqual({
      ...{ n: 2, logprobs: 3, ignore_eos: true, echo: true },
    });
    expect(samplingFields(typed, "chat")).toEqual({
      ...{ n: 2, logprobs: true, top_logprobs: 3, ignore_eos: true, tools: [] },
    });
    const none = { ...NOTHING, max_tokens: "", logprobs: "0" };
    expect(samplingFields(none, "chat")).toEqual({ logprobs: true });
    expect(samplingFields(none, "completion")).toEqual({ logprobs: 0 });
  });

  it("take any other field, and none that is the page's own", () => {
    const typed = {
      ...NOTHING,
      max_tokens: "",
      top_k: "1",
      more: '{"typical_p": 0.9, "top_k": 2}',
    };
    expect(samplingFields(typed, "chat")).toEqual({ top_k: 2, typical_p: 0.9 });
  });

  it("name the field that is wrong", () => {
    for (const [field, text] of [
      ["schema", "{"],
      ["tools", "{}"],
      ["more", "[]"],
      ["more", '{"stream": false}'],
      ["temperature", "hot"],
    ] as const) {
      try {
        samplingFields({ ...NOTHING, [field]: text }, "chat");
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

  it("ask for several answers whole: as a stream they would come through one another", () => {
    for (const kind of ["openai", "xinference", "paddock"] as const) {
      const text = snippet(kind, { ...request, body: { ...body, n: 2 } });
      expect(text).not.toContain("stream");
      expect(text).toContain("for choice in answer");
    }
  });

  it("survive a shell's quotes, and never hold the key", () => {
    expect(snippet("curl", request)).toContain(`It'"'"'s`);
    for (const kind of ["curl", "openai", "xinference", "paddock"] as const) {
      expect(snippet(kind, { ...request, keyed: true })).toContain("PADDOCK_API_KEY");
    }
  });
});
