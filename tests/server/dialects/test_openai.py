"""Requests of OpenAI's API, made out for an engine: what is taken, completed and refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from paddock.engines import load_engine
from paddock.registry.errors import BadValue, FieldRefused
from paddock.server.dialects.base import Model
from paddock.server.dialects.openai import chat
from paddock.server.dialects.rerank import rerank
from paddock.server.proxy.steps import Assembly, BareLogprobs, Called, EngineRequest, OpenAI

MODEL = Model(
    "zoo", ("generate", "chat", "tools", "vision", "rerank"), "llama.cpp",
    load_engine("llama.cpp").fields, 2048,
)  # fmt: skip
USER: dict[str, Any] = {"role": "user", "content": "Hello"}


def made(**fields: Any) -> tuple[dict[str, Any], EngineRequest]:
    """The body for the engine, and the request."""
    request = {"model": "zoo", "messages": [USER], **fields}
    engine_request = chat(request, MODEL, json.dumps(request).encode())
    return json.loads(engine_request.bodies[0]), engine_request


def called(arguments: Any) -> list[dict[str, Any]]:
    """A history in which a tool was called."""
    function = {"name": "feed", **({} if arguments is ... else {"arguments": arguments})}
    call = {"id": "call_1", "type": "function", "function": function}
    return [
        USER,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "done"},
    ]


@pytest.mark.parametrize(
    ("arguments", "sent"),
    [
        ("", "{}"),
        ("  \n", "{}"),
        (None, "{}"),
        (..., "{}"),
        ({}, "{}"),
        ({"food": "hay"}, '{"food":"hay"}'),
        ('{"food": "hay"}', '{"food": "hay"}'),
    ],
)
def test_a_call_without_arguments_counts_as_an_empty_object(arguments: Any, sent: str) -> None:
    """Engines read them as JSON; some clients send none, or an object."""
    body, _ = made(messages=called(arguments))
    assert body["messages"][1]["tool_calls"][0]["function"]["arguments"] == sent
    assert body["messages"][0] == USER


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ({"role": "user", "content": [{"type": "text"}]}, r"\[0\]\.content\[0\]\.text is needed"),
        ({"role": "user", "content": [{"type": "text", "text": None}]}, "text is needed"),
        ({"role": "user", "content": [{"type": "text", "text": ["a"]}]}, "text is needed"),
        ({"role": "user", "content": [{"type": "image_url"}]}, "image_url is needed"),
        ({"role": "user", "content": [{"type": "input_audio"}]}, "input_audio is needed"),
        ({"role": "assistant", "content": [{"type": "refusal"}]}, "refusal is needed"),
        ({"role": "user", "content": [{}]}, "must be an object with a type"),
        (called("{broken")[1], r"tool_calls\[0\]\.function\.arguments must be JSON"),
        ({"role": "assistant", "tool_calls": {}}, "tool_calls must be a list"),
        ({"role": "assistant", "tool_calls": [None]}, r"tool_calls\[0\] must be an object"),
        ({"role": "assistant", "tool_calls": [{"function": {}}]}, r"function\.name is needed"),
        ({"role": "assistant", "tool_calls": [{"id": "a"}]}, r"function\.name is needed"),
    ],
)
def test_a_message_that_no_engine_can_read_is_refused_by_name(
    message: dict[str, Any], says: str
) -> None:
    """With the place in the request, before an engine fails on it."""
    with pytest.raises(BadValue, match=says):
        made(messages=[message])


@pytest.mark.parametrize(
    "fields",
    [
        {"stream": True, "stream_options": {"continuous_usage_stats": False}},
        {"stream": True, "stream_options": {"include_usage": None, "other": None}},
        {"store": True},
        {"store": False},
        {"stop": [f"stop {n}" for n in range(17)]},
        {"stop": [f"stop {n}" for n in range(300)]},
    ],
)
def test_what_asks_nothing_of_an_engine_is_taken(fields: dict[str, Any]) -> None:
    """An option that is off, what only concerns OpenAI's own storage, and any number of stops."""
    body, _ = made(**fields)
    assert body.get("stop") == fields.get("stop")
    assert "store" not in body
    with pytest.raises(BadValue, match="continuous_usage_stats"):
        made(stream_options={"continuous_usage_stats": True})


@pytest.mark.parametrize("asked", [{}, {"top_logprobs": 0}, {"top_logprobs": None}])
def test_log_probabilities_alone_come_without_alternatives(asked: dict[str, Any]) -> None:
    """As at OpenAI; the engine is asked for one, because none is none at all to it."""
    body, request = made(logprobs=True, **asked)
    assert (body["logprobs"], body["top_logprobs"]) == (True, 1)
    token = {"token": "a", "logprob": -0.1, "top_logprobs": [{"token": "a", "logprob": -0.1}]}
    event = {"choices": [{"index": 0, "logprobs": {"content": [token]}}]}
    (told,) = request.events(0, event)
    assert told["choices"][0]["logprobs"]["content"][0]["top_logprobs"] == []
    for fields in ({"logprobs": True, "top_logprobs": 2}, {"logprobs": False}, {}):
        _, request = made(**fields)
        assert not any(isinstance(step, BareLogprobs) for step in request.steps)


@pytest.mark.parametrize(
    ("text", "name", "arguments"),
    [
        ('{"name": "feed", "arguments": {"food": "ha', "feed", '{"food": "ha'),
        ('{"name": "feed", "arguments": {', "feed", "{"),
        ('{"name": "feed", "arguments":', "feed", ""),
        ('{"name": "feed",', "feed", ""),
        ('{"name":"feed"', "feed", ""),
        ('{"name": "fe', None, None),
        ('{"na', None, None),
        ("", None, None),
    ],
)
def test_a_required_call_that_is_cut_off_is_a_call_as_far_as_it_goes(
    text: str, name: str | None, arguments: str | None
) -> None:
    """Never its raw text as content; the reason stays `length`."""
    events: Iterator[Any] = iter(
        [
            {"choices": [{"index": 0, "delta": {"content": text[:5]}}]},
            {"choices": [{"index": 0, "delta": {"content": text[5:]}, "finish_reason": "length"}]},
        ]
    )
    step, assembly = Called(), Assembly(chat=True)
    for event in events:
        for passed in step.event(0, event):
            assembly.add(passed)
    (choice,) = assembly.answer()["choices"]
    assert choice["finish_reason"] == "length"
    assert not choice["message"]["content"]
    calls = choice["message"].get("tool_calls", [])
    found = [(call["function"]["name"], call["function"]["arguments"]) for call in calls]
    assert found == ([(name, arguments)] if name else [])


@pytest.mark.parametrize(
    ("sent", "has_documents"),
    [
        ({"return_documents": "true", "return_len": "true"}, True),
        ({"return_documents": "False", "return_len": "false"}, False),
        ({"return_documents": 1, "top_n": "1"}, True),
        ({"return_documents": "off"}, False),
        ({"return_documents": ""}, False),
        ({}, False),
    ],
)
def test_flags_of_a_reranker_may_be_text(sent: dict[str, Any], has_documents: bool) -> None:
    """As Xinference takes them: RAGFlow sends texts."""
    request = {"model": "zoo", "query": "a", "documents": ["b"], **sent}
    engine_request = rerank(request, MODEL, b"", OpenAI())
    assert engine_request.reshape is not None
    told = engine_request.reshape({"results": [{"index": 0, "relevance_score": 0.5}]})
    assert bool(told["results"][0]["document"]) == has_documents


@pytest.mark.parametrize(
    "sent", [{"return_documents": "maybe"}, {"return_documents": [True]}, {"top_n": "many"}]
)
def test_other_values_of_a_reranker_are_refused_by_name(sent: dict[str, Any]) -> None:
    """With what was sent."""
    with pytest.raises(BadValue, match=next(iter(sent))):
        rerank({"model": "zoo", "query": "a", "documents": ["b"], **sent}, MODEL, b"", OpenAI())
    with pytest.raises(FieldRefused, match="top_k"):
        rerank({"model": "zoo", "query": "a", "documents": ["b"], "top_k": 3}, MODEL, b"", OpenAI())
