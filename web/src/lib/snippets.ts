import type { Route } from "../api/inference";

export const LANGUAGES = ["curl", "openai", "xinference", "paddock"] as const;
export type Snippet = (typeof LANGUAGES)[number];

interface Request {
  route: Route;
  /** The request's fields, `model` among them. */
  body: Record<string, unknown>;
  endpoint: string;
  /** Whether the gateway asks for a key; the key itself is never written out. */
  keyed: boolean;
}

const SHARED = [
  ...["model", "n", "max_tokens", "temperature", "top_p", "seed", "stop"],
  ...["frequency_penalty", "presence_penalty", "logit_bias", "logprobs"],
];
/** OpenAI's own fields; what others there are goes beside them, as its client wants it. */
const OPENAI: Record<Route, ReadonlySet<string>> = {
  "/v1/completions": new Set([...SHARED, "prompt", "echo"]),
  "/v1/chat/completions": new Set([
    ...SHARED,
    ...["messages", "top_logprobs", "response_format", "tools"],
  ]),
};

/** The request as a program that does the same. */
export function snippet(kind: Snippet, request: Request): string {
  return { curl, openai, xinference, paddock }[kind](request);
}

/** A value as Python writes it. */
export function python(value: unknown, indent = ""): string {
  if (value === null || value === undefined) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (typeof value === "number") return String(value);
  // JSON's escapes of texts are Python's too; what it leaves as it is may stand in Python's texts.
  if (typeof value === "string") return JSON.stringify(value);
  const inner = `${indent}    `;
  if (Array.isArray(value)) {
    if (value.length === 0) return "[]";
    return `[\n${value.map((one) => `${inner}${python(one, inner)},\n`).join("")}${indent}]`;
  }
  const entries = Object.entries(value as object);
  if (entries.length === 0) return "{}";
  const lines = entries.map(
    ([name, one]) => `${inner}${JSON.stringify(name)}: ${python(one, inner)},\n`,
  );
  return `{\n${lines.join("")}${indent}}`;
}

function curl({ route, body, endpoint, keyed }: Request): string {
  const json = JSON.stringify({ ...body, stream: true }, null, 2).replaceAll("'", `'"'"'`);
  const key = keyed ? ` \\\n  -H "Authorization: Bearer $PADDOCK_API_KEY"` : "";
  return `curl -N ${endpoint}${route}${key} \\\n  -H 'Content-Type: application/json' \\\n  -d '${json}'\n`;
}

/** Whether there are several answers. As a stream they would come through one another. */
function several(body: Request["body"]): boolean {
  return Number(body.n ?? 1) > 1;
}

function openai({ route, body, endpoint, keyed }: Request): string {
  const known = OPENAI[route];
  const own = Object.entries(body).filter(([name]) => known.has(name));
  const extra = Object.fromEntries(Object.entries(body).filter(([name]) => !known.has(name)));
  const lines = own.map(([name, value]) => `    ${name}=${python(value, "    ")},`);
  if (Object.keys(extra).length) lines.push(`    extra_body=${python(extra, "    ")},`);
  const chat = route === "/v1/chat/completions";
  const create = `client.${chat ? "chat.completions" : "completions"}.create(\n${lines.join("\n")}\n`;
  const asked = several(body)
    ? `answer = ${create})
for choice in answer.choices:
    print(choice.${chat ? "message.content" : "text"})`
    : `stream = ${create}    stream=True,
)
for chunk in stream:
    if chunk.choices:
        print(chunk.choices[0].${chat ? 'delta.content or ""' : "text"}, end="", flush=True)`;
  return `${keyed ? "import os\n\n" : ""}from openai import OpenAI

client = OpenAI(base_url=${JSON.stringify(`${endpoint}/v1`)}, api_key=${apiKey(keyed, '"not needed"')})
${asked}
`;
}

function xinference({ route, body, endpoint, keyed }: Request): string {
  const { model, prompt, messages, ...rest } = body;
  const chat = route === "/v1/chat/completions";
  const config = python(several(body) ? rest : { ...rest, stream: true }, "    ");
  const call = `model.${chat ? "chat" : "generate"}(
    ${chat ? `messages=${python(messages, "    ")}` : `prompt=${python(prompt)}`},
    generate_config=${config},
)`;
  const asked = several(body)
    ? `answer = ${call}
for choice in answer["choices"]:
    print(choice${chat ? '["message"]["content"]' : '["text"]'})`
    : `stream = ${call}
for chunk in stream:
    if chunk["choices"]:
        print(chunk["choices"][0]${chat ? '["delta"].get("content") or ""' : '["text"]'}, end="", flush=True)`;
  return `${keyed ? "import os\n\n" : ""}from xinference_client import RESTfulClient

client = RESTfulClient(${JSON.stringify(endpoint)}${keyed ? `, api_key=${apiKey(keyed, "")}` : ""})
model = client.get_model(${python(model)})
${asked}
`;
}

function paddock({ route, body, endpoint, keyed }: Request): string {
  const { model, prompt, messages, ...rest } = body;
  const chat = route === "/v1/chat/completions";
  const given = [
    python(model),
    python(chat ? messages : prompt, "    "),
    ...Object.entries(rest).map(([name, value]) => `${name}=${python(value, "    ")}`),
  ];
  const call = (method: string) => `client.${method}(\n    ${given.join(",\n    ")},\n)`;
  const asked = several(body)
    ? `answer = ${call(chat ? "chat" : "complete")}
for choice in answer["choices"]:
    print(choice${chat ? '["message"]["content"]' : '["text"]'})`
    : `for text in ${call(chat ? "stream_chat" : "generate")}:
    print(text, end="", flush=True)`;
  return `${keyed ? "import os\n\n" : ""}from paddock.client import Client

client = Client(${JSON.stringify(endpoint)}${keyed ? `, api_key=${apiKey(keyed, "")}` : ""})
${asked}
`;
}

function apiKey(keyed: boolean, other: string): string {
  return keyed ? 'os.environ["PADDOCK_API_KEY"]' : other;
}
