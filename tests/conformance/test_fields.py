"""Every field of a request, on every engine and format that this machine can run.

What `field_support` says of a field (docs/engines.md prints it as a table) is what happens: it has
its effect, or it is refused with 400 by its name and the engine's. Beside the fields: texts that
equal the reference, perplexity, usage, streams, requests side by side, prompts that are too long,
chats, the clients that people have; and what becomes of an engine that is killed.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import statistics
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anthropic
import openai
import psutil
import pytest
import requests
import yaml

from paddock.engines import load_engine
from paddock.registry.catalog import specs_root
from paddock.registry.prompts import EXAMPLE, find_prompt
from paddock.server.dialects.fields import field_support
from tests.conformance.cases import CASES, CHAT_ONLY, COMPLETIONS_ONLY, PROMPT, QUESTION, Ask
from tests.conftest import Paddock, make_paddock
from tests.launcher.weights.test_hubs import until
from tests.processor import has_tiles
from tests.rewritten import TEMPLATE, rewrite
from tests.templates import HERMES
from tools.tiny_mixtral.corpus import generate_documents

GGUF = ("Q2_K", "Q3_K_M", "Q4_0", "Q4_K_M", "Q5_0", "Q5_K_M", "Q6_K", "Q8_0")
ONE_EACH = {"none", "Q4_K_M"}
"""Quantizations that stand for their engine, where the weights make no difference."""
WORSE = 0.03
"""How much higher than the plain weights' a quantization's perplexity may be."""
CONTEXT = 1024
SECONDS = 120.0


@dataclass(frozen=True)
class Served:
    """One engine with one variant.

    Attributes:
        exact: its arithmetic is the reference's.
        ties: it draws among tokens that are equally likely, which there are in 16 bits.
        beside: it is launched beside the one of all tests, which may run at the same time.
    """

    engine: str
    format: str
    quantization: str
    options: tuple[str, ...] = ()
    exact: bool = False
    ties: bool = False
    beside: bool = False

    @property
    def uid(self) -> str:
        """Its id."""
        uid = f"{self.engine}-{self.format}-{self.quantization}".lower()
        return f"{uid}-beside" if self.beside else uid


EAGER = ("--enforce_eager",)
VARIANTS = (
    *(Served("llama.cpp", "ggufv2", quantization) for quantization in GGUF),
    Served("Transformers", "pytorch", "none", ("--dtype", "float32"), exact=True),
    Served("Transformers", "pytorch", "4-bit"),
    Served("Transformers", "pytorch", "8-bit"),
    Served("Transformers", "gptq", "Int4"),
    Served("Transformers", "awq", "Int4"),
    # Not compiled: it is slower, and begins a minute sooner.
    Served("vLLM", "pytorch", "none", ("--dtype", "float32", *EAGER), exact=True),
    *((Served("vLLM", "gptq", "Int4", EAGER, ties=True),) if has_tiles() else ()),
)
# What the library itself says of the plain weights: a text, tokens, and each next token's chance.
REFERENCE = """
import json, math, sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
path, prompt, question, texts = sys.argv[1], sys.argv[2], *map(json.loads, sys.argv[3:])
tokenizer = AutoTokenizer.from_pretrained(path)
model = AutoModelForCausalLM.from_pretrained(path, dtype="float32")
ids = tokenizer(prompt, return_tensors="pt").input_ids
made = model.generate(ids, max_new_tokens=24, do_sample=False)[0, ids.shape[1]:]
chat = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_dict=True)
told = {"text": tokenizer.decode(made, skip_special_tokens=True), "tokens": ids.shape[1],
        "chat": chat["input_ids"], "prompt": tokenizer.decode(chat["input_ids"]),
        "texts": [], "loss": []}
blanks = [tokenizer(text, add_special_tokens=False)["input_ids"]
          for text in ("\\n", " ", "\\t", "\\r", "\\n\\n", "  ")]
told["halves"] = tokenizer("ż", add_special_tokens=False)["input_ids"]
told["blanks"] = {str(ids[0]): -100 for ids in blanks if len(ids) == 1}
for text in texts:
    ids = tokenizer(text, return_tensors="pt").input_ids[:, :48]
    with torch.inference_mode():
        chances = model(ids).logits[0].log_softmax(-1)
    ids = ids[0].tolist()
    ends = [at for at in range(1, len(ids)) if ids[at] not in tokenizer.all_special_ids]
    told["texts"] += [ids[:at + 1] for at in ends]
    told["loss"] += [-float(chances[at - 1, ids[at]]) for at in ends]
print(json.dumps(told))
"""
TEXTS = tuple(generate_documents(seed=1000, count=3))
# Nothing in a specification keeps a model from tools; this one has not learnt them.
NAME = "tiny-with-tools"
FOOD: Any = [{"role": "user", "content": "What does the elephant eat?"}]


AWQ = """\
  - format: awq
    size: 0_004
    quantizations: [Int4]
    engines: [Transformers]
    sources:
      - hub: path
        id: {path}

"""


class Refused(Exception):
    """The gateway's answer to a request that it refuses."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@pytest.fixture(scope="module")
def gateway(
    transformers_home: Path, vllm_home: Path, awq: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Paddock]:
    """One gateway and one Ray; models come and go."""
    home = tmp_path_factory.mktemp("conformance")
    (home / "engines").symlink_to(transformers_home / "engines")
    paddock = make_paddock(home)
    spec = (specs_root() / "llm" / "tiny-mixtral.yaml").read_text()
    spec = spec.replace("tiny-mixtral", NAME, 1).replace("chat]", "chat, tools]", 1)
    spec = spec.replace("weights:\n", f"weights:\n{AWQ.format(path=awq)}", 1)
    spec += f"chat_template: {json.dumps(_with_tools())}\n"
    (home / "spec.yaml").write_text(spec)
    paddock.ok("register", "--file", str(home / "spec.yaml"))
    yield paddock
    assert paddock.run("stop").returncode == 0
    assert paddock.processes() == []


def _with_tools() -> str:
    """The weights' own template, and Hermes' beside it for chats with tools."""
    weights = specs_root() / "weights" / "tiny-mixtral" / "pytorch" / "none"
    own = json.loads((weights / "tokenizer_config.json").read_text())["chat_template"]
    return "{%- if tools %}" + HERMES + "{%- else %}" + own + "{%- endif %}"


@pytest.fixture(scope="module")
def reference(transformers_home: Path) -> dict[str, Any]:
    """What `REFERENCE` prints."""
    environment = load_engine("Transformers").environment
    assert environment is not None
    made = environment.installed(transformers_home)
    assert made is not None
    weights = specs_root() / "weights" / "tiny-mixtral" / "pytorch" / "none"
    given = (str(weights), PROMPT, json.dumps(QUESTION), json.dumps(TEXTS))
    done = subprocess.run(
        [made.python, "-c", REFERENCE, *given], capture_output=True, text=True, check=True
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture(scope="module", params=VARIANTS, ids=lambda variant: variant.uid)
def served(request: pytest.FixtureRequest, gateway: Paddock) -> Iterator[Served]:
    """Each variant in turn, launched for all the tests of it."""
    one: Served = request.param
    launch(gateway, one)
    yield one
    gateway.ok("terminate", "--model-uid", one.uid)


def launch(gateway: Paddock, one: Served, *more: str, name: str = NAME) -> None:
    """Launches a variant under its own id."""
    variant = ("-f", one.format, "-q", one.quantization, "-en", one.engine)
    room = ("--context-length", str(CONTEXT), "--n_parallel", "4")
    gateway.ok("launch", name, "-u", one.uid, *variant, *room, *one.options, *more)


@pytest.fixture
def ask(served: Served, gateway: Paddock, reference: dict[str, Any]) -> Ask:
    """Asks for completions."""
    return _ask(served, gateway, reference, chat=False)


@pytest.fixture
def chat(served: Served, gateway: Paddock, reference: dict[str, Any]) -> Ask:
    """Asks for chats."""
    return _ask(served, gateway, reference, chat=True)


def _ask(served: Served, paddock: Paddock, reference: dict[str, Any], chat: bool) -> Ask:
    endpoint = paddock.record["endpoint"]

    def send(path: str, body: dict[str, Any]) -> requests.Response:
        given = {key: value for key, value in body.items() if value is not None}
        given["model"] = served.uid
        answer = requests.post(f"{endpoint}{path}", json=given, timeout=SECONDS)
        if answer.status_code != 200:
            raise Refused(answer.status_code, answer.json()["error"]["message"])
        return answer

    def post(path: str, body: dict[str, Any]) -> dict[str, Any]:
        return dict(send(path, body).json())

    def stream(path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        *lines, last = send(path, body).content.decode().removesuffix("\n\n").split("\n\n")
        assert last == "data: [DONE]"
        return [json.loads(line.removeprefix("data: ")) for line in lines]

    return Ask(post, stream, chat, served.ties, reference["blanks"])


@pytest.mark.parametrize("route", ["completions", "chat"])
@pytest.mark.parametrize("name", CASES)
def test_field_has_its_effect_or_is_refused_by_name(
    request: pytest.FixtureRequest, served: Served, name: str, route: str
) -> None:
    """As the table says."""
    is_chat = route == "chat"
    if name in (COMPLETIONS_ONLY if is_chat else CHAT_ONLY):
        return
    asking: Ask = request.getfixturevalue("chat" if is_chat else "ask")
    value, case = CASES[name]
    if field_support(load_engine(served.engine).fields, name, is_chat) != "refused":
        case(asking)
        return
    named = "tools|tool_choice" if name == "tool_choice" else name
    fields = {"tools": CASES["tools"][0]} if name == "tool_choice" else {}
    fields[name] = True if is_chat and name == "logprobs" else value
    with pytest.raises(Refused, match=rf"({named}).*{re.escape(served.engine)}") as refused:
        asking(**fields)
    assert refused.value.status == 400


def test_greedy_text_is_the_references(served: Served, ask: Ask, reference: dict[str, Any]) -> None:
    """Where the arithmetic is the same; what is quantized begins alike and repeats itself."""
    said = ask.text()
    assert ask.text() == said
    if served.exact:
        assert said == reference["text"]


@pytest.fixture(scope="module")
def bare(gateway: Paddock, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same weights without a chat template; their spec names Llama 2's format.

    That is not the weights' own, and has a <s> in its midst.
    """
    folder = tmp_path_factory.mktemp("bare")
    weights = specs_root() / "weights" / "tiny-mixtral"
    shutil.copytree(weights / "pytorch" / "none", folder / "plain")
    settings = folder / "plain" / "tokenizer_config.json"
    told = json.loads(settings.read_text())
    del told["chat_template"]
    settings.write_text(json.dumps(told))
    (folder / "gguf").mkdir()
    name = "tiny-mixtral.Q4_K_M.gguf"
    rewrite(weights / "ggufv2" / name, folder / "gguf" / name, {TEMPLATE: None})
    spec = yaml.safe_load((specs_root() / "llm" / "tiny-mixtral.yaml").read_text())
    spec |= {"name": "tiny-bare", "chat_format": "llama-2"}
    plain, _, quantized = spec["weights"]
    plain["sources"] = [{"hub": "path", "id": str(folder / "plain")}]
    plain["quantizations"] = ["none"]
    quantized["sources"] = [{"hub": "path", "id": str(folder / "gguf"), "file_template": name}]
    quantized["quantizations"] = ["Q4_K_M"]
    spec["weights"] = [plain, quantized]
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec))
    gateway.ok("register", "--file", str(folder / "spec.yaml"))
    del spec["chat_format"]
    (folder / "none.yaml").write_text(yaml.safe_dump({**spec, "name": "tiny-bare-none"}))
    gateway.ok("register", "--file", str(folder / "none.yaml"))
    return "tiny-bare"


ON_EACH_ENGINE = pytest.mark.parametrize(
    "one", [one for one in VARIANTS if one.quantization in ONE_EACH], ids=lambda one: one.uid
)


@ON_EACH_ENGINE
@pytest.mark.parametrize("by", ["the spec", "the user"])
def test_a_prompt_format_is_the_published_one(
    gateway: Paddock, reference: dict[str, Any], bare: str, one: Served, by: str
) -> None:
    """Token by token: its example is as long in a chat as it is as a text."""
    known = find_prompt("llama-2")
    options = ("--chat-template", known.name) if by == "the user" else ()
    with launched(gateway, bare if by == "the spec" else NAME, one, *options) as beside:
        sent = {"messages": list(EXAMPLE), "max_tokens": 1}
        answer = _ask(beside, gateway, reference, chat=True)(**sent)
        # The tokenizer adds the first one.
        text = known.example.removeprefix(known.bos)
        plain = _ask(beside, gateway, reference, chat=False)(prompt=text, max_tokens=1)
        assert answer["usage"]["prompt_tokens"] == plain["usage"]["prompt_tokens"]


@ON_EACH_ENGINE
def test_without_a_chat_template_there_is_no_chat(
    gateway: Paddock, reference: dict[str, Any], bare: str, one: Served
) -> None:
    """Neither one that the engine guesses: a chat is refused, and a text is continued."""
    with launched(gateway, f"{bare}-none", one) as beside:
        assert _ask(beside, gateway, reference, chat=False).text()
        with pytest.raises(Refused, match=r"no chat template.*--chat-template") as refused:
            _ask(beside, gateway, reference, chat=True)()
        assert refused.value.status == 400


@contextmanager
def launched(gateway: Paddock, name: str, one: Served, *options: str) -> Iterator[Served]:
    """A model on a variant's engine, under an id of its own."""
    one = replace(one, beside=True)
    launch(gateway, one, *options, name=name)
    yield one
    gateway.ok("terminate", "--model-uid", one.uid)


def _with_definition(name: str, kind: str, schema: str) -> dict[str, Any]:
    """A tool whose argument is of a definition that others have under the same name."""
    definition = {
        "type": "object",
        "properties": {kind: {"enum": [schema]}},
        "required": [kind],
        "additionalProperties": False,
    }
    parameters = {
        "type": "object",
        "properties": {"f": {"$ref": "#/$defs/Filter"}},
        "required": ["f"],
        "additionalProperties": False,
        "$defs": {"Filter": definition},
    }
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


PAIR = [_with_definition("find_book", "isbn", "a"), _with_definition("find_car", "wheels", "b")]
FOUND = {"find_book": {"f": {"isbn": "a"}}, "find_car": {"f": {"wheels": "b"}}}


def test_each_tool_is_called_by_its_own_definitions(served: Served, chat: Ask) -> None:
    """Required or named, at any temperature, whole and streamed; and no flag says how."""
    for name in ("required", *FOUND):
        choice = name if name == "required" else {"type": "function", "function": {"name": name}}
        fields: dict[str, Any] = {"tools": PAIR, "tool_choice": choice}
        fields |= {"max_tokens": 120, "temperature": 1.0}
        fields["logit_bias"] = chat.blanks  # of which small models write no end
        answer = chat(**fields, parallel_tool_calls=False)["choices"][0]
        (call,) = answer["message"]["tool_calls"]
        assert json.loads(call["function"]["arguments"]) == FOUND[call["function"]["name"]]
        assert name in ("required", call["function"]["name"])
        assert not answer["message"]["content"]
        deltas = [event["choices"][0]["delta"] for event in chat.events(**fields)]
        parts = [part for delta in deltas for part in delta.get("tool_calls") or ()]
        assert parts[0]["function"]["name"] in FOUND
        first = [part for part in parts if part["index"] == 0]
        text = "".join(part["function"].get("arguments") or "" for part in first)
        assert json.loads(text) == FOUND[parts[0]["function"]["name"]]
        assert not any(delta.get("content") for delta in deltas)


def test_tools_that_are_not_to_be_called_are_not_shown(served: Served, chat: Ask) -> None:
    """With `none` the prompt is as without; left to choose, the model sees them, and may answer."""
    plain, none, auto = (
        chat(**fields, max_tokens=4)
        for fields in ({}, {"tools": PAIR, "tool_choice": "none"}, {"tools": PAIR})
    )
    assert none["usage"]["prompt_tokens"] == plain["usage"]["prompt_tokens"]
    assert auto["usage"]["prompt_tokens"] > plain["usage"]["prompt_tokens"]
    assert auto["choices"][0]["finish_reason"] in {"stop", "length", "tool_calls"}


def test_a_call_that_is_cut_off_is_told_as_one(served: Served, chat: Ask) -> None:
    """With its arguments so far and the reason; never as a text."""
    choice = {"type": "function", "function": {"name": "find_book"}}
    fields = {"tools": PAIR, "tool_choice": choice, "temperature": 0}
    (whole,) = chat(**fields, max_tokens=120)["choices"][0]["message"]["tool_calls"]
    for most in (1, 12, 24):
        answer = chat(**fields, max_tokens=most)["choices"][0]
        if answer["finish_reason"] != "length":
            break
        assert not answer["message"]["content"]
        for call in answer["message"].get("tool_calls") or ():
            assert call["function"]["name"] == "find_book"
            begun = re.sub(r"\s", "", call["function"]["arguments"])
            assert re.sub(r"\s", "", whole["function"]["arguments"]).startswith(begun)


def test_calls_and_results_of_the_history_are_shown(served: Served, chat: Ask) -> None:
    """Also a call without arguments, as some clients send it."""
    for arguments in ('{"f": {"isbn": "a"}}', ""):
        function = {"name": "find_book", "arguments": arguments}
        call = {"id": "call_1", "type": "function", "function": function}
        history = [
            *QUESTION,
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": "It is on the shelf."},
        ]
        answer = chat(messages=history, tools=PAIR, max_tokens=4)
        assert answer["choices"][0]["finish_reason"] in {"stop", "length", "tool_calls"}


def test_a_tool_is_called_in_every_dialect(served: Served, gateway: Paddock, sdk: Any) -> None:
    """Anthropic's and OpenAI's clients see a call as their own, whole and streamed."""
    function = PAIR[0]["function"]
    tool: Any = {"name": function["name"], "input_schema": function["parameters"]}
    wanted: Any = {"model": served.uid, "messages": FOOD, "max_tokens": 200, "tools": [tool]}
    wanted["tool_choice"] = {"type": "any"}
    with anthropic.Anthropic(base_url=gateway.record["endpoint"], api_key="none") as client:
        told = client.messages.create(**wanted)
        with client.messages.stream(**wanted) as stream:
            streamed = stream.get_final_message()
    for message in (told, streamed):
        if message.stop_reason == "max_tokens":  # blanks, of which small models write no end
            continue
        assert message.stop_reason == "tool_use"
        call: Any = message.content[0]
        assert (call.type, call.name, call.input) == ("tool_use", "find_book", FOUND["find_book"])
    answer = sdk.responses.create(
        model=served.uid,
        input="What does the elephant eat?",
        tools=[{"type": "function", **function}],
        tool_choice="required",
        max_output_tokens=200,
    )
    if answer.status == "completed":
        assert answer.output[0].type == "function_call"
        assert json.loads(answer.output[0].arguments) == FOUND["find_book"]


def test_quantization_costs_little(served: Served, ask: Ask, reference: dict[str, Any]) -> None:
    """Perplexity, token by token through the gateway, beside the library's of the plain weights."""

    def loss(ids: list[int]) -> float:
        # The bias makes it say that token; what it tells is the model's own chance of it.
        *before, token = ids
        wanted = {"logit_bias": {str(token): 100}, "logprobs": 1, "max_tokens": 1}
        (said,) = ask(prompt=before, ignore_eos=True, **wanted)["choices"]
        return -float(said["logprobs"]["token_logprobs"][0])

    with ThreadPoolExecutor(8) as pool:
        losses = list(pool.map(loss, reference["texts"]))
    found, plain = (math.exp(statistics.fmean(one)) for one in (losses, reference["loss"]))
    print(f"{served.uid}: perplexity {found:.4f}, of the plain weights {plain:.4f}")
    if served.exact:
        assert losses == pytest.approx(reference["loss"], abs=2e-3)
    assert found < plain * (1 + WORSE)


def test_usage_is_the_tokenizers(
    served: Served, ask: Ask, chat: Ask, reference: dict[str, Any]
) -> None:
    """Of texts, and of chats, whose template writes the only BOS."""
    assert ask(max_tokens=1)["usage"]["prompt_tokens"] == reference["tokens"]
    assert chat(max_tokens=1)["usage"]["prompt_tokens"] == len(reference["chat"])
    usage = ask(max_tokens=5, ignore_eos=True)["usage"]
    assert usage["completion_tokens"] == 5
    assert usage["total_tokens"] == usage["prompt_tokens"] + 5


def test_chat_is_the_prompt_that_the_model_was_trained_with(
    served: Served, ask: Ask, chat: Ask, reference: dict[str, Any]
) -> None:
    """The template is applied once: its tokens, given as they are, are answered word for word."""
    assert reference["prompt"] == f"<s> [INST] {QUESTION[0]['content']} [/INST]"
    assert chat.text() == ask.text(prompt=reference["chat"]) or served.ties


def test_sixteen_requests_side_by_side_are_not_mixed_up(served: Served, ask: Ask) -> None:
    """Each answer belongs to its own request, streamed or not, and has an id of its own.

    A bias makes each say a token that is its alone, so that the engine's mixing them up would show
    as well as the gateway's.
    """

    def fields(number: int) -> dict[str, Any]:
        prompt = f"Number {number}:" + " and a lion" * number
        bias = {str(300 + 7 * number): 100}
        return {"prompt": prompt, "logit_bias": bias, "max_tokens": 8, "ignore_eos": True}

    def one(number: int) -> tuple[str, str, int]:
        if number % 2:
            *events, last = ask.events(**fields(number), stream_options={"include_usage": True})
            return ask.joined(events), events[0]["id"], last["usage"]["prompt_tokens"]
        answer = ask(**fields(number))
        return ask.texts(answer)[0], answer["id"], answer["usage"]["prompt_tokens"]

    alone = [one(number) for number in range(16)]
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(one, range(16)))
    assert [(text, count) for text, _, count in found] == [(text, n) for text, _, n in alone]
    assert len({text for text, _, _ in found}) == 16
    counts = [count for _, _, count in found]
    assert counts == sorted(set(counts))
    assert len({name for _, name, _ in found}) == 16


def test_characters_come_whole(served: Served, ask: Ask, reference: dict[str, Any]) -> None:
    """One of two tokens is held back until it is there, though only a half comes at a time."""
    # Nothing but its halves can be said; the penalty makes them take turns.
    bias = {str(token): 100 for token in reference["halves"]}
    fields = {"logit_bias": bias, "frequency_penalty": 2.0, "max_tokens": 60, "ignore_eos": True}
    whole = ask.text(**fields)
    pieces = [ask.joined([event]) for event in ask.events(**fields)]
    assert len(bias) == 2
    assert "".join(pieces) == whole
    assert whole.count("ż") > 9
    assert sum(piece.count("ż") for piece in pieces) == whole.count("ż")


def test_prompt_that_is_too_long_is_refused_with_both_numbers(served: Served, ask: Ask) -> None:
    """The prompt's tokens and the context's."""
    with pytest.raises(Refused, match=str(CONTEXT)) as refused:
        ask(prompt=[5] * 1200)
    assert refused.value.status == 400
    assert "1200" in str(refused.value)


@pytest.fixture
def sdk(served: Served, gateway: Paddock) -> Iterator[Any]:
    """OpenAI's client, untyped: its overloads want literals, and these tests vary the fields."""
    url = f"{gateway.record['endpoint']}/v1"
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as made:
        yield made


def test_openais_client_is_answered(served: Served, sdk: Any) -> None:
    """Whole, streamed, several at once, with the probabilities, the usage and a form."""
    wanted = {"model": served.uid, "prompt": PROMPT, "max_tokens": 12, "temperature": 0}
    whole = sdk.completions.create(**wanted)
    assert (whole.model, whole.usage.completion_tokens) == (served.uid, 12)
    pieces = sdk.completions.create(**wanted, stream=True)
    assert "".join(piece.choices[0].text for piece in pieces) == whole.choices[0].text
    several = sdk.completions.create(**{**wanted, "temperature": 1.2}, n=3, seed=1)
    assert [choice.index for choice in several.choices] == [0, 1, 2]
    both = sdk.completions.create(**{**wanted, "prompt": [PROMPT, "A lion"]})
    assert [choice.index for choice in both.choices] == [0, 1]
    if served.exact:  # else a sum depends on who else is in the batch
        assert both.choices[0].text == whole.choices[0].text
    echoed = sdk.completions.create(**wanted, echo=True)
    assert echoed.choices[0].text == PROMPT + whole.choices[0].text
    probable = sdk.completions.create(**wanted, logprobs=2)
    assert len(probable.choices[0].logprobs.tokens) == 12
    asked = {"model": served.uid, "messages": FOOD, "max_tokens": 16, "temperature": 0}
    chat = sdk.chat.completions.create(**asked, logprobs=True, top_logprobs=1)
    text = chat.choices[0].message.content or ""
    assert "elephant" in text.lower()
    assert chat.choices[0].logprobs is not None
    word = text.split()[1]
    stopped = sdk.chat.completions.create(**asked, stop=[word])
    assert stopped.choices[0].finish_reason == "stop"
    assert word not in (stopped.choices[0].message.content or "")


def test_anthropics_client_is_answered(served: Served, gateway: Paddock, sdk: Any) -> None:
    """Which asks for the count of a prompt's tokens too."""
    wanted: Any = {"model": served.uid, "messages": FOOD}
    with anthropic.Anthropic(base_url=gateway.record["endpoint"], api_key="none") as client:
        counted = client.messages.count_tokens(**wanted)
        told = client.messages.create(**wanted, max_tokens=8)
    assert told.usage.input_tokens == counted.input_tokens
    chat = sdk.chat.completions.create(**wanted, max_tokens=1)
    assert chat.usage.prompt_tokens == counted.input_tokens


def test_what_is_no_field_of_the_engines_is_refused_by_name(served: Served, ask: Ask) -> None:
    """Also what it has and would take no notice of; nothing is dropped in silence."""
    for field in ("wurst", *load_engine(served.engine).fields.refused):
        with pytest.raises(Refused, match=rf"{field}.*{re.escape(served.engine)}"):
            ask(**{field: 1})


def test_engine_that_runs_is_not_installed_again_nor_removed(
    served: Served, gateway: Paddock
) -> None:
    """The command says why."""
    environment = load_engine(served.engine).environment
    if environment is None or served.quantization not in ONE_EACH:
        return
    done = gateway.run("engine", "install", served.engine)
    assert done.returncode == 0
    assert "installed already" in done.stderr
    used = gateway.run("engine", "remove", environment.name)
    assert used.returncode == 2
    assert "in use" in used.stderr


def test_killed_engine_comes_again(served: Served, gateway: Paddock) -> None:
    """Its end is told as what it is, nothing is left of it, and its model is started again."""
    if served.quantization not in ONE_EACH:
        return
    client = gateway.client()
    (model,) = client.instances(served.uid)
    main = psutil.Process(int(model["replica_statuses"][0]["pid"]))
    below = main.children(recursive=True)
    if served.engine == "vLLM":  # its processes outlive the first of them
        assert len(below) >= 2
    os.kill(main.pid, signal.SIGKILL)
    until(lambda: client.instances(served.uid)[0]["restarts"] == 1)
    (replica,) = client.instances(served.uid)[0]["replica_statuses"]
    assert replica["last_failure"]["cause"] == "engine_killed"
    _, left = psutil.wait_procs(below, timeout=30)
    assert not left
    if served.engine != "vLLM":  # it takes half a minute, and is started as any other
        until(lambda: client.instances(served.uid)[0]["state"] == "ready")
        assert client.complete(served.uid, PROMPT, max_tokens=1)["choices"]
