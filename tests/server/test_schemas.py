"""Schemas on a real llama.cpp: each answer is one of its schema's, or the request is refused."""

from __future__ import annotations

import json
import re
from typing import Any

import psutil
import pytest
from jsonschema import Draft202012Validator

from paddock.client import Client
from paddock.registry.errors import GatewayError
from tests.schemas import random_schema

MESSAGES: list[Any] = [{"role": "user", "content": "Tell me."}]
COMMON: dict[str, Any] = {"temperature": 1.5, "max_tokens": 200}


def ask(client: Client, uid: str, schema: Any, **fields: Any) -> Any:
    """The answer as a value; None if it was cut off."""
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    fields = {**COMMON, "response_format": form, **fields}
    choice = client.chat(uid, MESSAGES, **fields)["choices"][0]
    text = choice["message"]["content"]
    return None if choice["finish_reason"] == "length" else json.loads(text)


def test_random_schemas_are_honoured_or_refused(client: Client, tiny: str) -> None:
    """Never a 200 that breaks the schema, and never a 500. `bench/schemas.py` asks a thousand."""
    honoured, refusals = 0, []
    for seed in range(60):
        schema = random_schema(seed)
        try:
            answer = ask(client, tiny, schema, seed=seed)
        except GatewayError as error:
            refusals.append((error.status, error.text))
            continue
        if answer is not None:
            Draft202012Validator(schema).validate(answer)
            honoured += 1
    assert honoured > 20
    assert {status for status, _ in refusals} == {400}
    assert all("response_format.json_schema.schema" in text for _, text in refusals)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer", "minimum": 100},
        {"type": "string", "pattern": r"^\d{3}$"},
        {"type": "number", "minimum": 0, "maximum": 1},
        {"type": "integer", "minimum": 100, "maximum": 999, "multipleOf": 7},
    ],
)
def test_what_converters_drop_is_enforced(client: Client, tiny: str, schema: Any) -> None:
    """At a temperature at which a model would say anything."""
    answers = [ask(client, tiny, schema, seed=seed) for seed in range(10)]
    told = [one for one in answers if one is not None]
    assert told
    for answer in told:
        Draft202012Validator(schema).validate(answer)


def test_patterns_and_lists_of_answers_are_enforced(client: Client, tiny: str) -> None:
    """Whole answers are of them; in completions too."""
    for seed in range(5):
        fields = {**COMMON, "seed": seed}
        chat = client.chat(tiny, MESSAGES, guided_regex="[0-9]{3}/[a-c]", **fields)
        assert re.fullmatch("[0-9]{3}/[a-c]", chat["choices"][0]["message"]["content"])
        text = client.complete(tiny, "The", guided_choice=["a lion", "an ähre"], **fields)
        assert text["choices"][0]["text"] in {"a lion", "an ähre"}


def test_streams_and_several_answers_are_bound_too(client: Client, tiny: str) -> None:
    """From the first token on."""
    schema = {"type": "array", "items": {"type": "integer", "minimum": 10}, "maxItems": 3}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    fields = {**COMMON, "response_format": form}
    text = "".join(client.stream_chat(tiny, MESSAGES, seed=1, **fields))
    Draft202012Validator(schema).validate(json.loads(text))
    choices = client.chat(tiny, MESSAGES, n=3, seed=1, **fields)["choices"]
    for choice in choices:
        Draft202012Validator(schema).validate(json.loads(choice["message"]["content"]))


def test_one_schema_does_not_take_the_machine(client: Client, tiny: str) -> None:
    """Its bound of 16 digits is enforced, and the engine has the memory that it had."""
    (replica,) = client._call("GET", f"/v1/models/{tiny}/replicas")
    engine = psutil.Process(replica["pid"])
    before = engine.memory_info().rss
    schema = {
        "type": "object",
        "properties": {"a": {"type": "integer", "minimum": 2 * 10**15}},
        "required": ["a"],
        "additionalProperties": False,
    }
    answers = [ask(client, tiny, schema, seed=seed) for seed in range(5)]
    assert any(one is not None for one in answers)
    assert all(one is None or one["a"] >= 2 * 10**15 for one in answers)
    assert engine.memory_info().rss - before < 100_000_000


def test_each_tool_is_called_with_its_own_arguments(client: Client, toolful: str) -> None:
    """Definitions of one name in two tools; and a reference into properties."""
    tools = []
    for name, kind in (("book", "isbn"), ("car", "wheels")):
        found = {"type": "string" if kind == "isbn" else "integer"}
        definition = {
            "type": "object",
            "properties": {kind: found},
            "required": [kind],
            "additionalProperties": False,
        }
        parameters = {
            "type": "object",
            "properties": {"f": {"$ref": "#/$defs/Filter"}, "g": {"$ref": "#/properties/f"}},
            "required": ["f"],
            "additionalProperties": False,
            "$defs": {"Filter": definition},
        }
        function = {"name": f"find_{name}", "parameters": parameters}
        tools.append({"type": "function", "function": function})
    kinds = {"find_book": "isbn", "find_car": "wheels"}
    for seed in range(4):
        answer = client.chat(
            toolful, MESSAGES, tools=tools, tool_choice="required", seed=seed, **COMMON
        )
        choice = answer["choices"][0]
        if choice["finish_reason"] == "length":
            continue
        (call,) = choice["message"]["tool_calls"]
        arguments = json.loads(call["function"]["arguments"])
        assert list(arguments["f"]) == [kinds[call["function"]["name"]]]
    client.chat(toolful, MESSAGES, tools=tools, tool_choice="auto", max_tokens=4)
