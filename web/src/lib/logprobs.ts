export interface Likely {
  text: string;
  /** Natural logarithm of its probability. */
  logprob: number;
}

/** A token of an answer, and what else was likely in its place, the likeliest first. */
export interface Token extends Likely {
  others: Likely[];
}

/** Log probabilities as answers have them: of chats by token, of completions list by list. */
export interface Logprobs {
  content?: ChatToken[] | null;
  tokens?: string[] | null;
  token_logprobs?: (number | null)[] | null;
  top_logprobs?: (Record<string, number> | null)[] | null;
}

interface ChatToken {
  token: string;
  logprob: number;
  top_logprobs?: ChatToken[] | null;
}

/** The tokens of either shape; those without a probability, such as a prompt's first, are left out. */
export function tokensOf(logprobs: Logprobs | null | undefined): Token[] {
  const chat = (logprobs?.content ?? []).map(({ token, logprob, top_logprobs }) => ({
    text: token,
    logprob,
    others: others(
      token,
      (top_logprobs ?? []).map((one) => ({ text: one.token, logprob: one.logprob })),
    ),
  }));
  const completion = (logprobs?.tokens ?? []).flatMap((text, at) => {
    const logprob = logprobs?.token_logprobs?.[at];
    if (typeof logprob !== "number") return [];
    const top = Object.entries(logprobs?.top_logprobs?.[at] ?? {});
    return [
      {
        text,
        logprob,
        others: others(
          text,
          top.map(([text, logprob]) => ({ text, logprob })),
        ),
      },
    ];
  });
  return [...chat, ...completion];
}

function others(chosen: string, top: Likely[]): Likely[] {
  return top.filter((one) => one.text !== chosen).sort((a, b) => b.logprob - a.logprob);
}
