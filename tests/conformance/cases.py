"""One case for each field of a request: how to ask for it, and what shows that it was done.

A case talks to a model through `Ask` and fails by an assertion if the field has no effect. Fields
that the engine does not take are refused before, and `test_fields.py` checks that refusal.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jsonschema

PROMPT = "The old elephant"
QUESTION = [{"role": "user", "content": "Tell me a story about a lion."}]
HOT = {"temperature": 2.0, "seed": 5}
SCHEMA = {
    "type": "object",
    "properties": {"animal": {"enum": ["lion", "zebra"]}, "legs": {"enum": [2, 4]}},
    "required": ["animal", "legs"],
    "additionalProperties": False,
}
TOOL = {
    "type": "function",
    "function": {
        "name": "feed",
        "description": "Feeds an animal.",
        "parameters": {
            "type": "object",
            "properties": {"food": {"enum": ["hay", "fish"]}},
            "required": ["food"],
            "additionalProperties": False,
        },
    },
}


@dataclass(frozen=True)
class Ask:
    """Asks one model on one route.

    Attributes:
        chat: whether the route is that of chats.
        ties: several tokens may be as likely as the first, and then one of them is drawn.
        blanks: a bias against blanks, of which a small model finds no end where they are valid.
    """

    post: Callable[[str, dict[str, Any]], dict[str, Any]]
    stream: Callable[[str, dict[str, Any]], list[dict[str, Any]]]
    chat: bool
    ties: bool
    blanks: dict[str, int]

    @property
    def path(self) -> str:
        """The route."""
        return "/v1/chat/completions" if self.chat else "/v1/completions"

    def body(self, fields: dict[str, Any]) -> dict[str, Any]:
        """A request: greedy and short, unless the fields say something else."""
        asked = {"messages": QUESTION} if self.chat else {"prompt": PROMPT}
        return {**asked, "max_tokens": 24, "temperature": 0, **fields}

    def __call__(self, **fields: Any) -> dict[str, Any]:
        """A whole answer."""
        return self.post(self.path, self.body(fields))

    def text(self, **fields: Any) -> str:
        """An answer's text."""
        return self.texts(self(**fields))[0]

    def texts(self, answer: dict[str, Any]) -> list[str]:
        """The texts of all choices."""
        if self.chat:
            return [choice["message"]["content"] or "" for choice in answer["choices"]]
        return [choice["text"] for choice in answer["choices"]]

    def events(self, **fields: Any) -> list[dict[str, Any]]:
        """A stream's events."""
        return self.stream(self.path, {**self.body(fields), "stream": True})

    def joined(self, events: list[dict[str, Any]]) -> str:
        """The text that a stream's events make."""
        choices = [event["choices"][0] for event in events if event["choices"]]
        if self.chat:
            return "".join(choice["delta"].get("content") or "" for choice in choices)
        return "".join(choice["text"] for choice in choices)


def _max_tokens(ask: Ask) -> None:
    answer = ask(max_tokens=3, ignore_eos=None)
    assert answer["usage"]["completion_tokens"] == 3
    assert answer["choices"][0]["finish_reason"] == "length"


def _max_completion_tokens(ask: Ask) -> None:
    answer = ask(max_tokens=None, max_completion_tokens=3)
    assert answer["usage"]["completion_tokens"] == 3


def _temperature(ask: Ask) -> None:
    assert ask.text() == ask.text()
    hot = {ask.text(temperature=2.0, seed=seed) for seed in range(4)}
    assert len(hot) > 1


def _narrow(**fields: Any) -> Callable[[Ask], None]:
    """Of so few choices only the greedy one is left, however hot."""

    def case(ask: Ask) -> None:
        narrow = ask.text(**HOT, **fields)
        assert narrow != ask.text(**HOT) != ask.text()
        assert narrow == ask.text() or ask.ties

    return case


def _min_p(ask: Ask) -> None:
    def several(least: float) -> set[str]:
        hot = {"temperature": 2.0, "min_p": least, "max_tokens": 8}
        return {ask.text(**hot, seed=seed) for seed in range(6)}

    # One text would be left; but in 16 bits several tokens may be as likely as the first.
    assert len(several(1.0)) < len(several(0.0))


def _seed(ask: Ask) -> None:
    assert ask.text(**HOT) == ask.text(**HOT)
    assert len({ask.text(temperature=2.0, seed=seed) for seed in range(4)}) > 1


def _stop(ask: Ask) -> None:
    whole = ask.text()
    word = whole.split()[1]
    answer = ask(stop=["never said", word])
    assert ask.texts(answer) == [whole[: whole.index(word)]]
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert ask.joined(ask.events(stop=[word])) == whole[: whole.index(word)]


def _logit_bias(ask: Ask) -> None:
    biased = ask.text(logit_bias={"300": 100}, max_tokens=4)
    assert biased != ask.text(max_tokens=4)
    assert biased == 4 * (biased[: len(biased) // 4])


def _moves(**fields: Any) -> Callable[[Ask], None]:
    """The answer is another one."""

    def case(ask: Ask) -> None:
        long = {"max_tokens": 60, "ignore_eos": True}
        assert ask.text(**long, **fields) != ask.text(**long)

    return case


def _logprobs(ask: Ask) -> None:
    if ask.chat:
        choice = ask(logprobs=True, top_logprobs=2, max_tokens=4)["choices"][0]
        content = choice["logprobs"]["content"]
        assert "".join(token["token"] for token in content) == choice["message"]["content"]
        assert all(len(token["top_logprobs"]) == 2 for token in content)
        assert all(token["logprob"] <= 0 for token in content)
        return
    choice = ask(logprobs=2, max_tokens=4)["choices"][0]
    told = choice["logprobs"]
    assert "".join(told["tokens"]) == choice["text"]
    # The chosen token may come beside those asked for.
    assert all(2 <= len(top) <= 3 for top in told["top_logprobs"])
    assert all(value <= 0 for value in told["token_logprobs"])


def _ignore_eos(ask: Ask) -> None:
    room = {"max_tokens": 200}
    assert ask(**room)["choices"][0]["finish_reason"] == "stop"
    answer = ask(**room, ignore_eos=True)
    assert answer["usage"]["completion_tokens"] == 200


def _n(ask: Ask) -> None:
    answer = ask(n=3, temperature=2.0, seed=1)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert len(set(ask.texts(answer))) > 1
    assert answer["usage"]["completion_tokens"] > 24


def _echo(ask: Ask) -> None:
    assert ask.text(echo=True) == PROMPT + ask.text()


def _stream(ask: Ask) -> None:
    events = ask.events()
    assert ask.joined(events) == ask.text()
    assert not any("usage" in event and event["usage"] for event in events)


def _usage(ask: Ask) -> None:
    *_, last = ask.events(stream_options={"include_usage": True})
    assert (last["choices"], last["usage"]) == ([], {**last["usage"], **ask()["usage"]})


def _response_format(ask: Ask) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "it", "schema": SCHEMA}}
    said = ask.text(response_format=wanted, max_tokens=100)
    jsonschema.validate(json.loads(said), SCHEMA)


def _tools(ask: Ask) -> None:
    fields = {"tools": [TOOL], "logit_bias": ask.blanks, "max_tokens": 120}
    named = {"type": "function", "function": {"name": "feed"}}
    for choice in ("required", named):
        answer = ask(**fields, tool_choice=choice)["choices"][0]
        (call,) = answer["message"]["tool_calls"]
        _is_fed(call["function"]["name"], call["function"]["arguments"])
        assert answer["finish_reason"] in {"tool_calls", "stop"}
        events = ask.events(**fields, tool_choice=choice)
        deltas = [event["choices"][0]["delta"].get("tool_calls") or [] for event in events]
        parts = [call["function"] for calls in deltas for call in calls]
        _is_fed(*("".join(part.get(key) or "" for part in parts) for key in ("name", "arguments")))
    assert ask(**fields, tool_choice="auto")["choices"]


def _is_fed(name: str, arguments: str) -> None:
    assert name == "feed"
    assert json.loads(arguments)["food"] in {"hay", "fish"}


# Field → what it is asked with where it should be refused, and what shows that it was done.
CASES: dict[str, tuple[Any, Callable[[Ask], None]]] = {
    "max_tokens": (3, _max_tokens),
    "temperature": (1.0, _temperature),
    "top_p": (1e-6, _narrow(top_p=1e-6)),
    "top_k": (1, _narrow(top_k=1)),
    "min_p": (1.0, _min_p),
    "seed": (5, _seed),
    "stop": ("x", _stop),
    "logit_bias": ({"300": 100}, _logit_bias),
    "frequency_penalty": (2.0, _moves(frequency_penalty=2.0)),
    "presence_penalty": (2.0, _moves(presence_penalty=2.0)),
    "repetition_penalty": (1.8, _moves(repetition_penalty=1.8)),
    "repeat_penalty": (1.8, _moves(repeat_penalty=1.8)),
    "logprobs": (2, _logprobs),
    "ignore_eos": (True, _ignore_eos),
    "n": (3, _n),
    "echo": (True, _echo),
    "stream": (True, _stream),
    "stream_options": ({"include_usage": True}, _usage),
    "max_completion_tokens": (3, _max_completion_tokens),
    "response_format": ({"type": "json_object"}, _response_format),
    "tools": ([TOOL], _tools),
    "tool_choice": ("required", _tools),
    "suffix": ("an end", lambda ask: None),
}
COMPLETIONS_ONLY = {"echo", "suffix"}
CHAT_ONLY = {"max_completion_tokens", "response_format", "tools", "tool_choice"}
