"""Thoughts: all spellings of the switch come to the same, and every engine's are told alike."""

from __future__ import annotations

import json
from typing import Any

import pytest

from paddock.engines import load_engine
from paddock.engines.base import RequestFields
from paddock.registry.errors import BadValue, FieldRefused
from paddock.server.dialects.base import Model
from paddock.server.dialects.openai import chat
from paddock.server.proxy.steps import Thoughts, WithoutCalls

MESSAGES = [{"role": "user", "content": "Hello"}]
ABILITIES = ("generate", "chat", "tools", "reasoning")


def sent(engine: str = "llama.cpp", form: str = "qwen3", **fields: Any) -> dict[str, Any]:
    """What the engine gets."""
    made = load_engine(engine).fields
    model = Model("m", ABILITIES, engine, made, 2048, chat={"reasoning_format": form})
    body = chat({"model": "m", "messages": MESSAGES, **fields}, model).bodies[0]
    return dict(json.loads(body))


def told(**fields: Any) -> Any:
    """The chat template's arguments."""
    return sent(**fields).get("chat_template_kwargs")


@pytest.mark.parametrize("engine", ["llama.cpp", "Transformers", "vLLM", "SGLang"])
@pytest.mark.parametrize(
    ("spelt", "wanted"),
    [
        ({"enable_thinking": True}, {"enable_thinking": True}),
        ({"thinking": {"type": "enabled"}}, {"enable_thinking": True}),
        ({"thinking": {"type": "disabled"}}, {"enable_thinking": False}),
        ({"thinking": False}, {"enable_thinking": False}),
        ({"thinking": {"type": "adaptive"}}, None),
        ({"think": True}, {"enable_thinking": True}),
        ({"think": "low"}, {"reasoning_effort": "low"}),
        ({"reasoning_effort": "high"}, {"reasoning_effort": "high"}),
        ({"reasoning_effort": "none"}, {"reasoning_effort": "none", "enable_thinking": False}),
        ({"reasoning": {"effort": "low"}}, {"reasoning_effort": "low"}),
        ({"reasoning": {"enabled": False, "exclude": False}}, {"enable_thinking": False}),
    ],
)
def test_all_spellings_are_arguments_of_the_template(
    engine: str, spelt: dict[str, Any], wanted: Any
) -> None:
    """On every engine that has one."""
    assert told(engine=engine, **spelt) == wanted


def test_the_clients_own_arguments_count_before() -> None:
    """Dify sends all at once."""
    own = {"enable_thinking": False, "x": 1}
    assert told(thinking={"type": "enabled"}, chat_template_kwargs=own) == own


def test_templates_that_know_another_name_get_that_too() -> None:
    """DeepSeek's and Granite's, which do not think unless they are told to."""
    both = {"enable_thinking": True, "thinking": True}
    assert told(form="deepseek_v3", thinking=True) == both


def test_a_budget_is_given_where_the_engine_has_one() -> None:
    """By its own name; a model whose thoughts are not known has none there."""
    thinking = {"type": "enabled", "budget_tokens": 64}
    assert sent("llama.cpp", thinking=thinking)["reasoning_budget_tokens"] == 64
    assert sent("vLLM", thinking=thinking)["thinking_token_budget"] == 64
    assert "thinking_token_budget" not in sent("vLLM", form="", thinking=thinking)
    assert "reasoning_budget_tokens" not in sent("Transformers", thinking=thinking)
    assert sent("llama.cpp", reasoning={"max_tokens": 9})["reasoning_budget_tokens"] == 9


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"thinking": 1}, "thinking"),
        ({"thinking": {"type": "much"}}, "thinking"),
        ({"think": "much"}, "think"),
        ({"reasoning": "high"}, "reasoning"),
        ({"reasoning": {"exclude": True}}, "reasoning.exclude"),
    ],
)
def test_another_form_is_refused_by_its_name(fields: dict[str, Any], name: str) -> None:
    """With the value."""
    with pytest.raises(BadValue) as caught:
        sent(**fields)
    assert caught.value.name == name


def test_an_engine_without_a_template_refuses_the_switch() -> None:
    """By the name that the client gave it."""
    model = Model("m", ABILITIES, "some", RequestFields(), 2048)
    with pytest.raises(FieldRefused, match="thinking"):
        chat({"model": "m", "messages": MESSAGES, "thinking": True}, model)


def test_thoughts_have_one_name() -> None:
    """vLLM has another."""
    delta = {"reasoning": "Hm.", "content": None}
    (event,) = Thoughts("reasoning").event(0, {"choices": [{"delta": delta}, {}]})
    assert event["choices"][0]["delta"] == {"reasoning_content": "Hm.", "content": None}
    assert Thoughts("reasoning").needle == b'"reasoning":'


def test_an_answer_without_calls_does_not_end_for_their_sake() -> None:
    """In a stream and as a whole, choice by choice."""
    call = {"delta": {"tool_calls": [{"index": 0}]}, "index": 1}
    ends: Any = [{"index": at, "delta": {}, "finish_reason": "tool_calls"} for at in (0, 1)]
    step = WithoutCalls()
    step.event(0, {"choices": [call]})
    (event,) = step.event(0, {"choices": ends})
    assert [choice["finish_reason"] for choice in event["choices"]] == ["stop", "tool_calls"]


def test_strict_tools_are_refused_by_the_keyword_that_cannot_be_enforced() -> None:
    """Where they are enforced; others are left to the model."""
    parameters = {"type": "object", "properties": {"a": {"not": {"type": "string"}}}}
    for strict in (True, False):
        function = {"name": "f", "parameters": parameters, "strict": strict}
        tools = [{"type": "function", "function": function}]
        if not strict:
            assert sent("Transformers", tools=tools)["tools"]
            continue
        with pytest.raises(FieldRefused) as caught:
            sent("Transformers", tools=tools)
        assert caught.value.name == "tools[0].function.parameters.properties.a.not"
        assert sent("llama.cpp", tools=tools)["tools"]
