import { describe, expect, it } from "vitest";
import { advanced, begun, parseServerTiming, type Run, speed } from "../../src/api/inference";

function run(...chunks: object[]): Run {
  return chunks.reduce<Run>(
    (known, chunk, number) => advanced(known, chunk, 100 * number),
    begun(0),
  );
}

describe("a stream", () => {
  it("puts the text of completions and of chats together", () => {
    const completion = run({ choices: [{ text: "The" }] }, { choices: [{ text: " end" }] });
    expect(completion.choices).toMatchObject([{ text: "The end" }]);
    const chat = run(
      { choices: [{ delta: { content: null } }] },
      { choices: [{ delta: { reasoning_content: "hm" } }] },
      { choices: [{ delta: { content: "Yes" } }] },
      { choices: [{ delta: {}, finish_reason: "stop" }] },
      { choices: [], usage: { prompt_tokens: 3, completion_tokens: 2 } },
    );
    expect(chat).toMatchObject({
      choices: [{ text: "Yes", reasoning: "hm", finish: "stop" }],
      ...{ first: 100, pieces: 2 },
      ...{ promptTokens: 3, completionTokens: 2 },
    });
  });

  it("puts tool calls together by their index", () => {
    const call = (index: number, piece: object) => ({
      choices: [{ delta: { tool_calls: [{ index, function: piece }] } }],
    });
    const found = run(
      call(0, { name: "weather", arguments: '{"ci' }),
      call(1, { name: "time", arguments: "{}" }),
      call(0, { arguments: 'ty":"Oslo"}' }),
    );
    expect(found.choices[0].tools).toEqual([
      { name: "weather", arguments: '{"city":"Oslo"}' },
      { name: "time", arguments: "{}" },
    ]);
  });

  it("keeps several answers apart by their index, and counts all of them", () => {
    const found = run(
      { choices: [{ index: 1, text: "a" }] },
      { choices: [{ index: 0, text: "b" }] },
      { choices: [{ index: 1, text: "c", finish_reason: "length" }] },
    );
    expect(found.choices).toMatchObject([
      { text: "b", finish: null },
      { text: "ac", finish: "length" },
    ]);
    expect(found.pieces).toBe(3);
  });

  it("has log probabilities in the shape of either route", () => {
    const other = { token: " a", logprob: -2 };
    const chosen = { token: " the", logprob: -0.5 };
    const chat = run({
      choices: [
        {
          delta: { content: " the" },
          logprobs: { content: [{ ...chosen, top_logprobs: [chosen, other] }] },
        },
      ],
    });
    const completion = run({
      choices: [
        {
          text: " the",
          logprobs: {
            tokens: ["It", " the"],
            token_logprobs: [null, -0.5],
            top_logprobs: [null, { " an": -3, " a": -2, " the": -0.5 }],
          },
        },
      ],
    });
    const token = { text: " the", logprob: -0.5 };
    expect(chat.choices[0].tokens).toEqual([{ ...token, others: [{ text: " a", logprob: -2 }] }]);
    expect(completion.choices[0].tokens).toEqual([
      {
        ...token,
        others: [
          { text: " a", logprob: -2 },
          { text: " an", logprob: -3 },
        ],
      },
    ]);
  });

  it("fails with what an error event says", () => {
    const found = run({ choices: [{ text: "a" }] }, { error: { message: "the engine ended" } });
    expect(found.state).toBe("failed");
    expect(found.error?.message).toBe("the engine ended");
    expect(found.choices[0].text).toBe("a");
  });

  it("has a speed from the first token to the last", () => {
    const found = {
      ...begun(0),
      first: 1000,
      ended: 3000,
      completionTokens: 21,
      pieces: 5,
      reads: 5,
    };
    expect(speed(found, 9999)).toBe(10);
    expect(speed({ ...found, reads: 1 }, 9999)).toBe(7);
    expect(speed({ ...found, completionTokens: null }, 0)).toBe(2);
    expect(speed({ ...found, completionTokens: 1 }, 0)).toBeNull();
  });

  it("reads the gateway's account of its time", () => {
    expect(parseServerTiming("queue;dur=0.02, gateway;dur=0.64, engine;dur=2.09")).toEqual({
      queue: 0.02,
      gateway: 0.64,
      engine: 2.09,
    });
    expect(parseServerTiming(null)).toEqual({});
  });
});
