"""Schemas of requests: what an engine is given, and what is refused by its keyword and place."""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from paddock.engines import load_engine
from paddock.registry.errors import BadValue, FieldRefused, Refused
from paddock.server.dialects import anthropic, responses
from paddock.server.dialects.base import Model
from paddock.server.dialects.openai import chat, completions
from paddock.server.dialects.schemas import (
    MAX_DEPTH,
    bound_for_converter,
    make_standalone,
    write_grammar,
)
from tests.schemas import random_schema

MODEL = Model(
    "zoo", ("generate", "chat", "tools"), "llama.cpp", load_engine("llama.cpp").fields, 2048
)
THINKER = replace(MODEL, abilities=(*MODEL.abilities, "reasoning"))
PLACE = "response_format.json_schema.schema"


def form(schema: Any) -> dict[str, Any]:
    """A `response_format`."""
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}


def sent(model: Model = MODEL, **fields: Any) -> Any:
    """What the engine gets for a chat."""
    request = {"model": "zoo", "messages": [{"role": "user", "content": "Hello"}], **fields}
    before = json.dumps(request)
    body = json.loads(chat(request, model, before.encode()).bodies[0])
    assert json.dumps(request) == before
    return body


def tool(name: str, parameters: Any) -> dict[str, Any]:
    """A function."""
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def test_a_schema_becomes_a_grammar_of_llguidance() -> None:
    """In place of the response format, which llama.cpp's own converter would read."""
    schema = {"type": "object", "properties": {"a": {"type": "integer", "minimum": 100}}}
    body = sent(response_format=form(schema))
    assert "response_format" not in body
    head, _, rest = body["grammar"].partition("%json ")
    assert head == "%llguidance {}\nstart: "
    assert json.loads(rest) == {**schema, "x-guidance": {"whitespace_flexible": False}}


@pytest.mark.parametrize("name", ["guided_json", "json_schema"])
def test_completions_get_it_too(name: str) -> None:
    """By vLLM's name of the field and by llama.cpp's."""
    request = {"model": "zoo", "prompt": "x", name: {"type": "string", "pattern": "^a$"}}
    body = json.loads(completions(request, MODEL).bodies[0])
    assert body["grammar"].startswith("%llguidance")
    assert name not in body
    with pytest.raises(FieldRefused, match=f"{name}.uniqueItems"):
        completions({**request, name: {"uniqueItems": True}}, MODEL)


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"properties": {"a": {"not": {}}}}, "properties.a.not"),
        ({"items": {"if": {}, "then": {}}}, "items.if"),
        ({"properties": {"a": {"type": "string", "format": "foo"}}}, "properties.a.format"),
        ({"type": "string", "pattern": "(?=a)b"}, "pattern"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "oneOf"),
        ({"properties": {"a": {"$ref": "#/$defs/x"}}, "$defs": {"x": {"not": {}}}}, "$defs.x.not"),
    ],
)
def test_what_cannot_be_enforced_is_named_with_its_place(schema: Any, place: str) -> None:
    """Never taken and passed over."""
    with pytest.raises(FieldRefused) as refusal:
        sent(response_format=form(schema))
    assert refusal.value.name == f"{PLACE}.{place}"


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer", "minimum": 10, "maximum": 5},
        {"type": "string", "minLength": 5, "maxLength": 2},
        {"type": "strin"},
        {"enum": []},
        {"$ref": "#/$defs/nobody"},
        {"$ref": "http://example.com/schema"},
        {"$ref": 3},
        {"minItems": 10**9, "type": "array"},
        {"type": "integer", "minimum": 8, "maximum": 13, "multipleOf": 7},
        {"properties": {"a": {"type": "integer", "minimum": 2**60, "multipleOf": 7}}},
        {"type": "string", "pattern": "^abc$", "maxLength": 2},
        {"properties": []},
        {"const": "x" * 300_000},
    ],
)
def test_what_is_no_schema_or_cannot_be_met_is_refused(schema: Any) -> None:
    """With the place in the request."""
    with pytest.raises(BadValue) as refusal:
        sent(response_format=form(schema))
    assert refusal.value.name.startswith(PLACE)


ROWS = re.findall(
    r"^\| `(\{.*?\})`(.*?)\| (enforced|asks nothing|refused) \|$",
    Path("docs/schemas.md").read_text("utf-8"),
    re.MULTILINE,
)


@pytest.mark.parametrize(("example", "more", "verdict"), ROWS)
def test_the_documented_table_is_true(example: str, more: str, verdict: str) -> None:
    """Each row's example, and the other formats that a row names."""
    schema = json.loads(example)
    others = [{**schema, "format": name} for name in re.findall(r"`(.*?)`", more)]
    for one in (schema, *others):
        if verdict == "refused":
            with pytest.raises((BadValue, FieldRefused)):
                sent(response_format=form(one))
        else:
            assert sent(response_format=form(one))["grammar"]


def test_the_table_was_found() -> None:
    """All of it."""
    assert len(ROWS) == 30


@pytest.mark.parametrize("model", [MODEL, THINKER])
@pytest.mark.parametrize("key", ["items", "$defs", "const", "anyOf"])
def test_depth_is_bounded(key: str, model: Model) -> None:
    """Whatever it is that is nested, in a format and in a tool."""
    schema: Any = {}
    for _ in range(200):
        schema = {"anyOf": [schema]} if key == "anyOf" else {key: schema}
    for fields in ({"response_format": form(schema)}, {"tools": [tool("f", schema)]}):
        with contextlib.suppress(BadValue):
            sent(model, **fields)
    chain = {f"d{i}": {"$ref": f"#/$defs/d{i + 1}"} for i in range(MAX_DEPTH * 20)}
    with pytest.raises(BadValue, match="levels"):
        sent(model, response_format=form({"$ref": "#/$defs/d0", "$defs": chain}))


@pytest.mark.parametrize(
    "wanted",
    [
        {"type": "json_schema", "schema": {"type": "object"}},
        {"type": "json_schema"},
        {"type": "json_schema", "json_schema": {"name": "x"}},
        {"type": "jsonschema"},
        {},
    ],
)
def test_a_format_of_the_wrong_form_is_refused(wanted: Any) -> None:
    """A schema in the wrong place is not passed over."""
    with pytest.raises(BadValue, match="response_format"):
        sent(response_format=wanted or {"kind": "text"})


def test_other_formats_pass() -> None:
    """Text is what answers are; an object is one of a schema that says no more."""
    assert sent(response_format={"type": "text"}).keys() == sent().keys()
    for form in ({"type": "json_object"}, {"type": "json_object", "schema": {"type": "object"}}):
        assert '{"type":"object",' in sent(response_format=form)["grammar"]


def test_each_tool_keeps_its_own_definitions() -> None:
    """Two of one name are two, also where a call is required."""
    tools = [
        tool(name, {"properties": {"f": {"$ref": "#/$defs/F"}}, "$defs": {"F": {"type": kind}}})
        for name, kind in (("book", "string"), ("car", "integer"))
    ]
    for choice in ("auto", "required"):
        body = sent(tools=tools, tool_choice=choice)
        parameters = [one["function"]["parameters"] for one in body["tools"]]
        names = [next(iter(one["$defs"])) for one in parameters]
        assert len(set(names)) == 2
        assert [
            one["$defs"][name]["type"] for one, name in zip(parameters, names, strict=True)
        ] == [
            "string",
            "integer",
        ]
    schema = body["response_format"]["json_schema"]["schema"]
    for call, kind in zip(schema["anyOf"], ("string", "integer"), strict=True):
        reference = call["properties"]["arguments"]["properties"]["f"]["$ref"]
        assert schema["$defs"][reference.removeprefix("#/$defs/")] == {"type": kind}


def test_references_into_properties_are_definitions_then() -> None:
    """zod writes them; engines know `$defs` alone."""
    inner = {"type": "object", "properties": {"c": {"type": "string"}}}
    schema = {"properties": {"from": inner, "to": {"$ref": "#/properties/from"}}}
    assert make_standalone(schema, "s") == {
        "properties": {"from": inner, "to": {"$ref": "#/$defs/from"}},
        "$defs": {"from": inner},
    }
    body = sent(tools=[tool("move", schema)], tool_choice="required")
    text = json.dumps(body["response_format"])
    assert "#/properties/" not in text


def test_references_to_themselves_are_kept() -> None:
    """A tree has trees."""
    schema = {"type": "object", "properties": {"child": {"$ref": "#"}}}
    whole = make_standalone(schema, "s")
    assert whole["$defs"]["root"]["properties"]["child"] == {"$ref": "#/$defs/root"}
    write_grammar(whole, "s", "llama.cpp")
    assert make_standalone({"const": {"$ref": "#/x"}}, "s") == {"const": {"$ref": "#/x"}}
    named = {"type": "object", "properties": {"$ref": {"type": "string"}}}
    assert make_standalone(named, "s") == named


def test_bounds_of_tools_take_no_memory() -> None:
    """Those that say nothing are left out, as zod's are; others of 16 digits are refused."""
    zod = {"type": "integer", "minimum": -(2**53 - 1), "maximum": 2**53 - 1}
    body = sent(tools=[tool("count", {"type": "object", "properties": {"n": zod}})])
    sent_parameters = body["tools"][0]["function"]["parameters"]
    assert sent_parameters["properties"]["n"] == {"type": "integer"}
    huge = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 2 * 10**15}}}
    for choice in ("auto", "required"):
        with pytest.raises(BadValue) as refusal:
            sent(tools=[tool("count", huge)], tool_choice=choice)
        assert refusal.value.name == "tools[0].function.parameters.properties.n.minimum"
    assert bound_for_converter({"minimum": 5.5}, "s") == {"minimum": 5.5}


def test_places_are_in_the_dialects_own_words() -> None:
    """Where the client wrote it."""
    odd = {"type": "array", "uniqueItems": True}
    huge = {"properties": {"n": {"type": "integer", "minimum": 2**60}}}
    messages = [{"role": "user", "content": "Hello"}]
    for dialect, path, body, tools, words in (
        (
            anthropic,
            anthropic.messages,
            {"messages": messages, "max_tokens": 9},
            [{"name": "f", "input_schema": huge}],
            ("output_config.format.schema.uniqueItems", "tools[0].input_schema.properties.n"),
        ),
        (
            responses,
            responses.respond,
            {"input": "Hello"},
            [{"type": "function", "name": "f", "parameters": huge}],
            ("text.format.schema.uniqueItems", "tools[0].parameters.properties.n"),
        ),
    ):
        wish = {"type": "json_schema", "name": "x", "schema": odd}
        form = {"text": {"format": wish}} if dialect is responses else {}
        form = form or {"output_config": {"format": {"type": "json_schema", "schema": odd}}}
        for extra, place in ((form, words[0]), ({"tools": tools}, words[1])):
            request, encoder = dialect.to_openai({"model": "zoo", **body, **extra})
            with pytest.raises((BadValue, FieldRefused)) as refusal:
                path(request, MODEL, b"", encoder)
            assert str(refusal.value).startswith(place)


def test_model_that_thinks_keeps_its_engines_own_way() -> None:
    """A grammar would bind its thoughts; what is not enforced then is refused, with the way out."""
    plain = {"type": "object", "properties": {"a": {"type": "integer", "minimum": 3}}}
    assert sent(THINKER, response_format=form(plain))["response_format"]["json_schema"]
    exact = {"type": "number", "minimum": 0}
    with pytest.raises(FieldRefused, match="enable_thinking: false"):
        sent(THINKER, response_format=form(exact))
    body = sent(THINKER, response_format=form(exact), enable_thinking=False)
    assert body["grammar"].startswith("%llguidance")


@pytest.mark.parametrize("first", range(0, 1000, 250))
def test_any_schema_is_taken_or_refused_by_name(first: int) -> None:
    """A thousand of them: nothing else is ever raised, and each refusal names a place."""
    refused = []
    for seed in range(first, first + 250):
        try:
            sent(response_format=form(random_schema(seed)))
        except Refused as refusal:
            refused.append(str(refusal))
    assert all(PLACE in text for text in refused)
    assert 0 < len(refused) < 200
