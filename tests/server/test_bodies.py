"""Bodies with values of any type at any field: refused by name, or made out, and never a bug."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from paddock.engines import load_engine
from paddock.engines.attached import FIELDS
from paddock.registry.errors import BadValue, FieldRefused, PaddockError
from paddock.registry.json_codec import encode
from paddock.server.access import media
from paddock.server.dialects import dialects, openai
from paddock.server.dialects.base import Model
from paddock.server.dialects.fields import CHECKS
from paddock.server.proxy.steps import OpenAI

ABILITIES = ("generate", "chat", "tools", "vision", "reasoning", "embed", "rerank")
ENGINES = ("llama.cpp", "")
"""One that has most translated and emulated, and an attached endpoint."""

TOOL = {
    "type": "function",
    "function": {
        "name": "f",
        "description": "d",
        "strict": True,
        "parameters": {"type": "object", "properties": {}, "$defs": {"a": {}}},
    },
}
CHAT: dict[str, Any] = {
    "model": "m",
    "messages": [
        {"role": "system", "content": "s", "name": "n"},
        {"role": "user", "content": [{"type": "text", "text": "a"}]},
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
                {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": "r",
            "tool_calls": [
                {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
            ],
        },
        {"role": "tool", "tool_call_id": "c", "content": "x"},
    ],
    "tools": [TOOL],
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "chat_template_kwargs": {"a": 1},
    "enable_thinking": True,
    "reasoning_effort": "low",
    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}},
    "logit_bias": {"1": 2},
    "logprobs": True,
    "top_logprobs": 2,
    "stop": ["a"],
    "stream": True,
    "stream_options": {"include_usage": True},
    "n": 2,
    "seed": 1,
    "user": "u",
    "metadata": {"a": "b"},
    "modalities": ["text"],
    "functions": [],
    "function_call": "auto",
    "parallel_tool_calls": True,
    "service_tier": "auto",
    "store": False,
    "request_id": "r",
    "max_tokens": 5,
    "max_completion_tokens": 5,
    "extra_body": {},
}
TEMPLATES: dict[str, list[dict[str, Any]]] = {
    "/v1/chat/completions": [
        CHAT,
        {
            "model": "m",
            "messages": [{"role": "user", "content": "a"}],
            "tools": [TOOL],
            "tool_choice": "required",
        },
    ],
    "/v1/completions": [
        {
            **{key: value for key, value in CHAT.items() if key in CHECKS},
            "model": "m",
            "prompt": ["a", "b"],
            "echo": True,
            "best_of": 2,
            "suffix": "",
            "logprobs": 1,
            **dict.fromkeys(("messages", "tools", "response_format", "top_logprobs")),
        },
        {"model": "m", "prompt": [[1, 2], [3]], "n": 3, "seed": 2**63 - 2},
    ],
    "/v1/embeddings": [
        {
            "model": "m",
            "input": ["a", "b"],
            "encoding_format": "float",
            "dimensions": 3,
            "user": "u",
        },
        {"model": "m", "input": [[1, 2]]},
        {
            "model": "m",
            "input": "a",
            "truncate": "END",
            "truncate_prompt_tokens": 5,
            "truncation_side": "left",
            "output_dimension": 3,
            "prompt": "p",
            "instruction": "i",
        },
        {"model": "m", "input": "a", "input_type": "query", "truncation": True},
    ],
    "/v1/rerank": [
        {
            "model": "m",
            "query": {"text": "q"},
            "documents": ["a", {"text": "b"}],
            "top_n": 1,
            "return_documents": True,
            "kwargs": {},
            "user": "u",
        },
        {
            "model": "m",
            "query": "q",
            "documents": ["a"],
            "truncate": True,
            "max_tokens_per_doc": 5,
            "instruction": "i",
            "kwargs": '{"instruction": "i"}',
        },
    ],
    "/v1/messages": [
        {
            "model": "m",
            "max_tokens": 5,
            "system": [{"type": "text", "text": "s", "cache_control": {}}],
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "a"},
                        {"type": "image", "source": {"type": "url", "url": "https://x/y"}},
                        {
                            "type": "image",
                            "source": {"type": "base64", "media_type": "image/png", "data": "AA=="},
                        },
                        {
                            "type": "tool_result",
                            "tool_use_id": "t",
                            "is_error": True,
                            "content": [{"type": "text", "text": "x"}],
                        },
                    ],
                },
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "t", "signature": ""},
                        {"type": "text", "text": "a"},
                        {"type": "tool_use", "id": "t", "name": "f", "input": {}},
                    ],
                },
                {"role": "system", "content": "s"},
            ],
            "tools": [{"type": "custom", "name": "f", "description": "d", "input_schema": {}}],
            "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": True},
            "thinking": {"type": "enabled", "budget_tokens": 10},
            "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {}}},
            "stop_sequences": ["a"],
            "metadata": {},
            "mcp_servers": [],
            "context_management": {"edits": []},
            "service_tier": "auto",
            "speed": "standard",
            "stream": True,
            "temperature": 0.5,
            "top_k": 3,
        }
    ],
    "/v1/responses": [
        {
            "model": "m",
            "instructions": "i",
            "input": [
                {
                    "type": "message",
                    "role": "developer",
                    "content": [
                        {"type": "input_text", "text": "a"},
                        {"type": "input_image", "image_url": "data:image/png;base64,AA=="},
                    ],
                },
                {"type": "reasoning", "summary": [], "content": [{"type": "x", "text": "t"}]},
                {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c", "output": "x"},
                {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
            ],
            "max_output_tokens": 5,
            "text": {
                "verbosity": "medium",
                "format": {"type": "json_schema", "name": "n", "schema": {}},
            },
            "tools": [{"type": "function", "name": "f", "parameters": {"$defs": {}}}],
            "tool_choice": {"type": "function", "name": "f"},
            "reasoning": {"effort": "low", "summary": "auto"},
            "store": True,
            "background": False,
            "truncation": "disabled",
            "include": [],
            "top_logprobs": 0,
            "parallel_tool_calls": True,
            "metadata": {},
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": 1,
        }
    ],
}
TEMPLATES["/v1/messages/count_tokens"] = TEMPLATES["/v1/messages"]
WRONG: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2**63, 10**400, 1.5, 1e300, "", "a", "none", "required"),
    *([], [None], [1], ["a"], [[]], [{}], {}, {"a": None}, {"type": []}, {"type": "function"}),
    *([{"type": {}}], {"text": 1}, {"function": []}, {"$defs": 1}, [["a", 1]]),
)


CALLS = {call.path: call for dialect in dialects() for call in dialect.calls}


def model(engine: str) -> Model:
    """A model that can do everything, on an engine."""
    fields = load_engine(engine).fields if engine else FIELDS
    return Model("m", ABILITIES, engine, fields, 100, "" if engine else "served")


def make(path: str, body: dict[str, Any], of: Model) -> None:
    """Makes a request out as `Inference.forward` does. Raises as it does."""
    route, encoder, raw = CALLS[path], OpenAI(), encode(body)
    request: Any = body
    if route.to_openai is not None:
        (request, encoder), raw = route.to_openai(body), b""  # type: ignore[assignment]
    asked = route.build(request, of, raw, encoder)
    list(media._places(openai.media(request)))
    for part in asked.bodies:
        json.loads(part)
    asked.encoder.close()


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path to every value within a body."""
    if at:
        yield at
    inner: Any = ()
    if isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list):
        inner = enumerate(value)
    for key, one in inner:
        yield from places(one, (*at, key))


def replaced(value: Any, at: tuple[Any, ...], new: Any) -> Any:
    """A copy with another value at one place."""
    if not at:
        return new
    copy: Any = dict(value) if isinstance(value, dict) else list(value)
    copy[at[0]] = replaced(value[at[0]], at[1:], new)
    return copy


NEEDED = ("model", "messages", "prompt", "input", "query", "documents", "max_tokens", "tools")


def variations(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Requests with one wrong value: in a full one, and where little else is refused first."""
    for template in TEMPLATES[path]:
        minimal = {key: value for key, value in template.items() if key in NEEDED}
        for at in places(template):
            alone = {**minimal, at[0]: template[at[0]]}
            for wrong in WRONG:
                for body in [template] if alone == template else [template, alone]:
                    yield f"{at} = {wrong!r}"[:200], replaced(body, at, wrong)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("path", sorted(TEMPLATES))
def test_wrong_type_at_any_place_is_no_bug(path: str, engine: str) -> None:
    """A value of another type, at each place of a request, is refused or passed on."""
    of = model(engine)
    for name, body in variations(path):
        if not isinstance(body["model"], str):
            continue  # refused before anything else
        try:
            make(path, body, of)
        except PaddockError:
            continue
        except Exception as error:
            raise AssertionError(f"{name}: {error!r}") from error


@pytest.mark.parametrize(
    ("field", "value", "names"),
    [
        ("tools", [{"function": {"name": "f", "parameters": []}}], "function.parameters"),
        ("tools", [{"function": {"name": "f", "parameters": {"$defs": 1}}}], "$defs"),
        ("chat_template_kwargs", [1], "chat_template_kwargs"),
        ("temperature", 10**400, "temperature"),
        ("temperature", float("nan"), "temperature"),
    ],
)
def test_wrong_type_is_refused_by_its_name(field: str, value: Any, names: str) -> None:
    """The refusal names the field, whatever else the request asks for."""
    body = {"model": "m", "messages": CHAT["messages"][:2], "enable_thinking": True, field: value}
    if field == "tools":
        body["tool_choice"] = "required"
    with pytest.raises(BadValue) as caught:
        make("/v1/chat/completions", body, model("llama.cpp"))
    assert names in str(caught.value)


def test_templates_are_requests_that_are_taken() -> None:
    """Some of them as they are: else the mutations would never come far."""
    taken = 0
    for path, templates in TEMPLATES.items():
        for template in templates:
            try:
                make(path, template, model(""))
                taken += 1
            except PaddockError:
                continue
    assert taken >= 4


def test_seeds_of_parts_stay_in_range() -> None:
    """Each part has a seed of its own, and none is too large for an engine."""
    route = CALLS["/v1/completions"]
    body = {"model": "m", "prompt": "a", "n": 3, "seed": 2**63 - 2}
    asked = route.build(body, model("llama.cpp"), b"", OpenAI())
    seeds = [json.loads(part)["seed"] for part in asked.bodies]
    assert len(set(seeds)) == 3
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize("engine", ENGINES)
def test_best_of_is_for_completions_alone(engine: str) -> None:
    """As the table of fields says: a chat with it is refused by name; 1 asks nothing."""
    of = model(engine)
    chat = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
    with pytest.raises(FieldRefused, match="best_of"):
        make("/v1/chat/completions", {**chat, "n": 2, "best_of": 2}, of)
    make("/v1/chat/completions", {**chat, "best_of": 1}, of)
    make("/v1/completions", {"model": "m", "prompt": "Hi", "n": 2, "best_of": 2}, of)
    with pytest.raises(BadValue, match="best_of"):
        make("/v1/completions", {"model": "m", "prompt": "Hi", "best_of": 2}, of)
