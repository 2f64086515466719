"""Patterns, lists of answers and grammars, in all the spellings that clients have of them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from paddock.engines import load_engine
from paddock.registry.errors import BadValue, FieldRefused
from paddock.server.dialects.base import Model
from paddock.server.dialects.openai import chat, completions

ABILITIES = ("generate", "chat", "tools")
ENGINES = ("llama.cpp", "Transformers")
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
GRAMMAR = "%llguidance {}\nstart: /a/"


def sent(engine: str, thinks: bool = False, **fields: Any) -> Any:
    """What the engine gets for a chat; of a completion the constraint is the same."""
    model = Model("zoo", ABILITIES, engine, load_engine(engine).fields, 2048)
    if thinks:
        model = replace(model, abilities=(*ABILITIES, "reasoning"))
    request = {"model": "zoo", "messages": [{"role": "user", "content": "Hello"}], **fields}
    body = json.loads(chat(request, model).bodies[0])
    if not {"tools", "response_format", "enable_thinking"} & set(fields):
        text = json.loads(completions({"model": "zoo", "prompt": "x", **fields}, model).bodies[0])
        assert text["grammar"] == body["grammar"]
    return body


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("fields", "grammar"),
    [
        ({"guided_regex": "a/b|c"}, r"start: /a\/b|c/"),
        ({"guided_regex": r"a\/b"}, r"start: /a\/b/"),
        ({"structured_outputs": {"regex": "[0-9]{3}"}}, "start: /[0-9]{3}/"),
        ({"guided_choice": ["yes", 'n"o', "ä"]}, r'start: "yes" | "n\"o" | "ä"'),
        ({"structured_outputs": {"choice": ["a"], "json": None}}, 'start: "a"'),
        ({"structured_outputs": {"json": {"const": 1}}}, '{"const":1,'),
        ({"structured_outputs": {"json_object": True}}, '{"type":"object",'),
        ({"grammar": GRAMMAR}, GRAMMAR),
        ({"guided_grammar": GRAMMAR}, GRAMMAR),
        ({"structured_outputs": {"grammar": GRAMMAR}}, GRAMMAR),
    ],
)
def test_each_spelling_becomes_a_grammar(engine: str, fields: Any, grammar: str) -> None:
    """The same on both engines and both routes."""
    body = sent(engine, **fields)
    assert grammar in body["grammar"]
    assert body["grammar"].startswith("%llguidance {}\n")
    assert not set(body) & {*fields} - {"grammar"}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"guided_regex": "(?=a)b"}, "guided_regex"),
        ({"guided_regex": "("}, "guided_regex"),
        ({"guided_regex": 5}, "guided_regex"),
        ({"guided_choice": "yes"}, "guided_choice"),
        ({"guided_choice": ["yes", 5]}, "guided_choice"),
        ({"guided_choice": ["x"] * 2000}, "guided_choice"),
        ({"structured_outputs": {"regexp": "a"}}, "structured_outputs.regexp"),
        ({"structured_outputs": "a"}, "structured_outputs"),
        (
            {"structured_outputs": {"json": {"uniqueItems": True}}},
            "structured_outputs.json.",
        ),
        ({"grammar": "%llguidance {}\nbegin: /a/"}, "grammar"),
        ({"guided_regex": "a", "guided_choice": ["a"]}, "guided_choice"),
        ({"guided_regex": "a", "response_format": {"type": "json_object"}}, "guided_regex"),
    ],
)
def test_what_is_none_is_refused_by_its_name(engine: str, fields: Any, name: str) -> None:
    """And two at once are."""
    with pytest.raises((BadValue, FieldRefused)) as refusal:
        sent(engine, **fields)
    assert str(refusal.value).startswith(name)


def test_grammars_of_llama_cpp_pass_as_they_are() -> None:
    """It says itself what is wrong with them."""
    assert sent("llama.cpp", guided_grammar="root ::= [a-z]+")["grammar"] == "root ::= [a-z]+"


@pytest.mark.parametrize("more", [{"tools": [TOOL]}, {"thinks": True}])
def test_patterns_do_not_go_with_tools_or_thinking(more: Any) -> None:
    """They would bind the call, or the thoughts."""
    with pytest.raises(FieldRefused, match="guided_regex"):
        sent("llama.cpp", **more, guided_regex="a")
    if "thinks" in more:
        assert sent("llama.cpp", **more, guided_regex="a", enable_thinking=False)["grammar"]


def test_a_llama_server_of_ones_own_takes_schemas_its_own_way() -> None:
    """It mostly has no llguidance: what its converter does not enforce is refused."""
    engine = load_engine("llama.cpp")
    fields = engine.fields_of("llama-server (/usr/bin/llama-server)")
    model = Model("zoo", ABILITIES, "llama.cpp", fields, 2048)
    request: dict[str, Any] = {"model": "zoo", "messages": [{"role": "user", "content": "Hi"}]}
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    body = json.loads(chat({**request, "response_format": form}, model).bodies[0])
    assert body["response_format"]["json_schema"]["schema"] == schema
    text = {"model": "zoo", "prompt": "x", "guided_json": schema}
    assert json.loads(completions(text, model).bodies[0])["json_schema"] == schema
    for odd in ({"guided_json": {"uniqueItems": True}}, {"guided_regex": "a"}):
        with pytest.raises(FieldRefused, match="this build"):
            chat({**request, **odd}, model)
    assert engine.fields_of("2026.10") is engine.fields


def test_completions_of_a_model_that_thinks_are_bound() -> None:
    """Without a chat template nothing thinks."""
    abilities = (*ABILITIES, "reasoning")
    model = Model("zoo", abilities, "llama.cpp", load_engine("llama.cpp").fields, 2048)
    request = {"model": "zoo", "prompt": "x", "guided_json": {"multipleOf": 7, "type": "integer"}}
    assert json.loads(completions(request, model).bodies[0])["grammar"]


def test_schema_of_a_model_that_thinks_is_refused_where_nothing_enforces_it() -> None:
    """Transformers, where the form of the thoughts is not known; with the way out."""
    form = {"type": "json_object"}
    with pytest.raises(FieldRefused, match="enable_thinking: false"):
        sent("Transformers", thinks=True, response_format=form)
    assert sent("Transformers", thinks=True, response_format=form, enable_thinking=False)["grammar"]


@pytest.mark.parametrize(
    "fields",
    [
        {"response_format": {"type": "json_object"}},
        {"guided_regex": "a|b"},
        {"guided_choice": ["a", "b"]},
    ],
)
def test_answers_behind_known_thoughts_are_bound(fields: Any) -> None:
    """Where Transformers knows how the model marks its thoughts; completions have none."""
    model = Model(
        "zoo", (*ABILITIES, "reasoning"), "Transformers", load_engine("Transformers").fields, 2048
    )
    model = replace(model, chat={"reasoning_format": "qwen3"})
    request = {"model": "zoo", "messages": [{"role": "user", "content": "Hello"}], **fields}
    body = json.loads(chat(request, model).bodies[0])
    assert body["answer_grammar"].startswith("%llguidance {}\nstart: ")
    assert not {"grammar", *fields} & set(body)
    off = json.loads(chat({**request, "enable_thinking": False}, model).bodies[0])
    assert off["grammar"] == body["answer_grammar"]
    with pytest.raises(FieldRefused, match="beside tools"):
        chat({**request, "tools": [TOOL]}, model)
