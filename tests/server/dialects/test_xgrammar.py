"""What reaches vLLM and SGLang, whose xgrammar passes over what it does not know."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from paddock.engines import load_engine
from paddock.registry.errors import BadValue, FieldRefused
from paddock.server.dialects.base import Model
from paddock.server.dialects.openai import chat, completions
from paddock.server.dialects.xgrammar import write_for_xgrammar

ENGINES = ("vLLM", "SGLang")
PLACE = "response_format.json_schema.schema"


def sent(engine: str, **fields: Any) -> Any:
    """What the engine gets for a chat; a completion's is the same."""
    abilities = ("generate", "chat", "tools")
    model = Model("zoo", abilities, engine, load_engine(engine).fields, 2048)
    messages = [{"role": "user", "content": "Hello"}]
    body = json.loads(chat({"model": "zoo", "messages": messages, **fields}, model).bodies[0])
    if "tools" not in fields:
        text = json.loads(completions({"model": "zoo", "prompt": "x", **fields}, model).bodies[0])
        for name in ("response_format", "structured_outputs", "regex", "ebnf"):
            assert text.get(name) == body.get(name)
    return body


def form(schema: Any) -> Any:
    """A response format of the schema."""
    return {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {"type": "integer", "minimum": 3}}},
        {"type": "object", "properties": {"a": {}}, "required": ["a"]},
        {"type": "object", "additionalProperties": {"type": "boolean"}},
        {"type": "object", "patternProperties": {"^x": {"type": "integer"}}},
        {"type": "array", "items": {"type": "null"}, "minItems": 1, "maxItems": 3},
        {"type": ["integer", "string"], "minimum": 3, "maxLength": 2},
        {"type": "string", "enum": ["a", "b"], "title": "T"},
        {"type": "integer", "const": 3},
        {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
        {"allOf": [{"type": "integer", "minimum": 1}]},
        {"type": "string", "format": "uuid"},
        {"$ref": "#/$defs/a", "$defs": {"a": {"type": "string", "pattern": "^a$"}}},
    ],
)
def test_what_it_enforces_passes(engine: str, schema: Any) -> None:
    """As a response format, whatever field it came in; references have a root of their own."""
    body = sent(engine, response_format=form(schema))
    passed = body["response_format"]["json_schema"]["schema"]
    assert set(passed) >= set(schema) - {"$defs"}
    for name in ("guided_json", "json_schema"):
        assert sent(engine, **{name: schema})["response_format"] == body["response_format"]


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"type": "integer", "multipleOf": 7}, "multipleOf"),
        ({"minimum": 3}, "minimum"),
        ({"type": "string", "minimum": 3}, "minimum"),
        ({"enum": [1, 2, 3], "type": "integer", "minimum": 2}, "minimum"),
        ({"enum": [1, "a"], "type": "integer"}, "type"),
        ({"allOf": [{"type": "integer"}, {"type": "integer", "minimum": 2}]}, "allOf"),
        ({"anyOf": [{"type": "integer"}], "type": "integer"}, "type"),
        ({"type": "object", "properties": {"a": {}}, "anyOf": [{"type": "object"}]}, "type"),
        ({"type": "object", "required": ["a"]}, "required"),
        ({"type": "object", "minProperties": 1}, "minProperties"),
        ({"type": "string", "pattern": "^a+$", "maxLength": 3}, "maxLength"),
        ({"type": "string", "format": "uuid", "minLength": 3}, "minLength"),
        ({"type": "array", "prefixItems": [{}, {}], "maxItems": 1}, "maxItems"),
        ({"type": "object", "properties": {"a": False}}, "properties"),
        ({"type": "object", "properties": {"a": {"not": {}}}}, "properties.a.not"),
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
    ],
)
def test_what_it_passes_over_is_refused_with_its_place(schema: Any, place: str) -> None:
    """Never taken and passed over."""
    with pytest.raises(FieldRefused) as refusal:
        sent("vLLM", response_format=form(schema))
    assert refusal.value.name == f"{PLACE}.{place}"


def test_what_nothing_satisfies_is_said() -> None:
    """As on the other engines."""
    with pytest.raises(BadValue, match="minimum"):
        sent("vLLM", response_format=form({"type": "integer", "minimum": 10, "maximum": 5}))


@pytest.mark.parametrize(
    ("fields", "vllm", "sglang"),
    [
        ({"guided_regex": "a|b"}, {"regex": "a|b"}, {"regex": "a|b"}),
        ({"structured_outputs": {"regex": "a"}}, {"regex": "a"}, {"regex": "a"}),
        ({"guided_choice": ["a+", "b"]}, {"choice": ["a+", "b"]}, {"regex": r"a\+|b"}),
        ({"grammar": 'root ::= "a"'}, {"grammar": 'root ::= "a"'}, {"ebnf": 'root ::= "a"'}),
        ({"guided_grammar": 'root ::= "a"'}, {"grammar": 'root ::= "a"'}, {"ebnf": 'root ::= "a"'}),
    ],
)
def test_other_kinds_reach_their_own_fields(fields: Any, vllm: Any, sglang: Any) -> None:
    """In all spellings."""
    assert sent("vLLM", **fields)["structured_outputs"] == vllm
    body = sent("SGLang", **fields)
    assert {name: body[name] for name in sglang} == sglang
    assert "structured_outputs" not in body


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "fields",
    [
        {"guided_regex": "(?=a)b"},
        {"guided_choice": []},
        {"grammar": "%llguidance {}\nstart: /a/"},
        {"guided_regex": "a", "guided_choice": ["a"]},
    ],
)
def test_what_it_cannot_do_is_refused_by_name(engine: str, fields: Any) -> None:
    """Before the engine sees it."""
    with pytest.raises((BadValue, FieldRefused)) as refusal:
        sent(engine, **fields)
    assert refusal.value.name in fields


def test_formats_that_it_takes_loosely_become_patterns() -> None:
    """Each takes what is one, and not what is none."""
    texts = {
        "date": (
            ["2024-02-29", "2000-02-29", "1999-12-31"],
            ["2023-02-29", "1900-02-29", "4535-11-31"],
        ),
        "date-time": (
            ["2024-02-29T23:59:59Z", "2020-01-01T00:00:00.5+01:30"],
            ["2020-01-01T24:00:00Z"],
        ),
        "ipv4": (["1.2.3.4", "255.0.10.199"], ["1.2.03.4", "256.1.1.1", "1.2.3"]),
    }
    for name, (right, wrong) in texts.items():
        schema = write_for_xgrammar({"type": "string", "format": name}, "s", "vLLM")
        pattern = re.compile(schema["pattern"])
        assert all(pattern.fullmatch(text) for text in right)
        assert not any(pattern.fullmatch(text) for text in wrong)


def test_tools_keep_definitions_of_their_own() -> None:
    """References into each tool's own are told apart, as on llama.cpp."""
    parameters = {
        "type": "object",
        "properties": {"f": {"$ref": "#/$defs/F"}},
        "$defs": {"F": {"type": "string"}},
    }
    tools = [
        {"type": "function", "function": {"name": name, "parameters": parameters}} for name in "ab"
    ]
    body = sent("vLLM", tools=tools)
    found = [tool["function"]["parameters"]["properties"]["f"]["$ref"] for tool in body["tools"]]
    assert len(set(found)) == 2
