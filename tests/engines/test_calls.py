"""Answers taken apart as they come: thoughts, content and calls, however the text is cut."""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddock.engines import transformers
from paddock.registry.tool_formats import TOOL_FORMATS

sys.path.insert(0, str(Path(transformers.__file__).parent))

from calls import AROUND, FORMS, Expected, Parser, kinds_of, markers

TOOLS: dict[str, dict[str, Any]] = {
    "find": {
        "type": "object",
        "properties": {
            "word": {"type": "string"},
            "count": {"type": "integer"},
            "deep": {"$ref": "#/$defs/deep"},
            "any": {},
        },
        "$defs": {"deep": {"anyOf": [{"type": "boolean"}, {"type": "null"}]}},
    },
    "wash": {"type": "object", "properties": {}},
}
EXAMPLES = {one.name: one.example for one in TOOL_FORMATS if one.name in FORMS}
THOUGHT = ("<think>", "</think>")
CALL = ["call find", 'arguments {"word": "a"}']
ON_EACH_FORM = pytest.mark.parametrize("form", EXAMPLES)


def read(text: str, cuts: list[int] | None = None, cut_off: bool = False, **expected: Any) -> Any:
    """The pieces of a text that comes in several, neighbours of a kind joined."""
    parser = Parser(Expected(**{"tools": TOOLS, **expected}))
    places = [0, *sorted(cuts or ()), len(text)]
    pieces = [piece for begin, end in pairwise(places) for piece in parser.feed(text[begin:end])]
    pieces += parser.end(cut_off)
    told: list[str] = []
    for kind, part in pieces:
        if told and told[-1].startswith(f"{kind} ") and kind != "call":
            told[-1] += part
        else:
            told.append(f"{kind} {part}")
    return told


@ON_EACH_FORM
def test_calls_are_read_in_each_form(form: str) -> None:
    """One, several after a text, and none where there are no tools."""
    call = EXAMPLES[form]
    assert read(call, format=form) == CALL
    if FORMS[form].marks:
        told = read(f"Let me see.\n{call}\n{call}", format=form)
        assert told == ["content Let me see.", *CALL * 2]
    else:
        assert read(f"{call}; {call}", format=form) == CALL * 2
    assert read(call) == [f"content {call}"]


@ON_EACH_FORM
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_it_does_not_matter_how_the_text_is_cut(form: str, data: st.DataObject) -> None:
    """Also of texts that are no calls, or are none after all."""
    parts = [
        EXAMPLES[form],
        EXAMPLES[form][:-7],
        "a <tool_call>",
        "\n",
        '{"name": "find"',
        "</think>",
        "b",
    ]
    text = "".join(data.draw(st.lists(st.sampled_from(parts), max_size=5)))
    text = data.draw(st.sampled_from(["", "<think>\n", "<th"])) + text
    expected: dict[str, Any] = {
        "format": form,
        "thought": data.draw(st.sampled_from([(), THOUGHT])),
    }
    expected["thinks"] = bool(expected["thought"]) and data.draw(st.booleans())
    expected["required"] = data.draw(st.booleans())
    cut_off = data.draw(st.booleans())
    cuts = data.draw(st.lists(st.integers(0, len(text))))
    whole = read(text, cut_off=cut_off, **expected)
    assert read(text, cuts, cut_off, **expected) == whole
    assert read(text, list(range(len(text))), cut_off, **expected) == whole


@ON_EACH_FORM
def test_what_is_cut_off_has_the_arguments_so_far(form: str) -> None:
    """And no part of what is around them; before the name is there, there is no call."""
    text = EXAMPLES[form]
    for size in range(len(text)):
        told = read(text[:size], cut_off=True, format=form, required=True)
        assert told in ([], CALL[:1]) or told[:-1] == CALL[:1]
        if len(told) > 1:
            assert CALL[1].startswith(told[1])


@ON_EACH_FORM
def test_what_only_looks_like_a_call_stays_content(form: str) -> None:
    """Another name, or a head that is none; all of it but what DeepSeek writes around calls."""
    for text in (
        EXAMPLES[form].replace("find", "fly"),
        EXAMPLES[form][: EXAMPLES[form].index("find")] + "\nand so on",
        "no <tool_call> here",
    ):
        kept = text
        for outer in AROUND.get(form, ())[:2] if FORMS[form].close else ():
            kept = kept.replace(outer, "")
        assert "".join(read(text, format=form)) == f"content {kept}"


def test_arguments_follow_as_the_model_writes_them() -> None:
    """The name first, then each piece of the arguments that is there."""
    parser = Parser(Expected("hermes", TOOLS))
    assert parser.feed('<tool_call>\n{"name": "find", "argum') == []
    assert parser.feed('ents": {"word": "a b') == [("call", "find"), ("arguments", '{"word": "a b')]
    assert parser.feed(' c"}') == [("arguments", ' c"}')]
    assert parser.feed("}\n</tool_call>") == parser.end() == []


@pytest.mark.parametrize(
    ("written", "arguments"),
    [
        ('{"arguments": {"word": "a"}, "name": "find"}', '{"word": "a"}'),
        ('{"name": "find", "arguments": "{\\"word\\": \\"a\\"}"}', '{"word": "a"}'),
        ('{"id": 1, "name": "find", "parameters": {"word": "}"}, "x": [1]}', '{"word": "}"}'),
        ('{"name": "find"}', "{}"),
        ('{"name": "find", "arguments": null}', "{}"),
        ('{"name": "find", "arguments": {"word": "a"}', '{"word": "a"}'),
    ],
)
def test_objects_are_read_as_models_write_them(written: str, arguments: str) -> None:
    """In any order, with arguments as a text or without any, with or without the last bracket."""
    told = read(f"<tool_call>{written}</tool_call>", format="hermes")
    assert told == ["call find", f"arguments {arguments}"]


def test_values_in_tags_have_the_types_of_the_schema() -> None:
    """A text stays one, whatever it looks like; what is not of its type is told as a text."""
    values = {"word": "1", "count": "7", "deep": "True", "any": "[1]"}
    tags = "".join(f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in values.items())
    text = f"<tool_call>\n<function=find>\n{tags}</function>\n</tool_call>"
    call, arguments = read(text, format="qwen3_coder")
    assert call == "call find"
    found = json.loads(arguments.removeprefix("arguments "))
    assert found == {"word": "1", "count": 7, "deep": True, "any": [1]}
    lines = '<function=find><parameter=word>\na\n"b"\n\n</parameter></function>'
    assert json.loads(read(lines, format="qwen3_coder")[1][10:]) == {"word": 'a\n"b"\n'}
    odd = "<function=find><parameter=count>\nmany\n</parameter></function>"
    assert json.loads(read(odd, format="qwen3_coder")[1][10:]) == {"count": "many"}
    assert read("<function=wash></function>", format="qwen3_coder") == ["call wash", "arguments {}"]


def test_mistrals_calls_are_read_by_what_follows() -> None:
    """A list, a name, or a name and an id."""
    for text in (
        '[TOOL_CALLS] [{"name": "find", "arguments": {"word": "a"}, "id": "abcdefghi"}]',
        '[TOOL_CALLS]find[ARGS]{"word": "a"}',
        '[TOOL_CALLS]find[CALL_ID]abcdefghi[ARGS]{"word": "a"}',
        '[TOOL_CALLS]find{"word": "a"}',
    ):
        assert read(text, format="mistral") == read(text, format="mistral_args") == CALL


def test_thoughts_are_split_from_the_answer() -> None:
    """Begun by the model or in the prompt; blanks around them are nobody's."""
    told = ["reasoning Well, 1 < 2.", "content So."]
    assert read("<think>\nWell, 1 < 2.\n</think>\n\nSo.", thought=THOUGHT) == told
    assert read("\nWell, 1 < 2.\n</think>\n\nSo.", thought=THOUGHT, thinks=True) == told
    assert read("So.", thought=THOUGHT) == told[1:]
    assert read("  So. <think>", thought=THOUGHT) == ["content   So. <think>"]
    assert read("Well", thought=THOUGHT, thinks=True, cut_off=True) == ["reasoning Well"]
    call = EXAMPLES["hermes"]
    both = read(f"<think>{call}</think>{call}", format="hermes", thought=THOUGHT)
    assert both == [f"reasoning {call}", *CALL]


def test_markers_are_what_must_not_be_left_out_of_a_text() -> None:
    """Of the form and of the thought."""
    assert markers("hermes", THOUGHT) == {"<tool_call>", "</tool_call>", *THOUGHT}
    assert {"[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"} <= markers("mistral_args", ())
    assert markers("", ()) == set()


@pytest.mark.parametrize(
    ("schema", "kinds"),
    [
        ({"type": "string"}, {"string"}),
        ({"type": ["integer", "null"]}, {"integer", "null"}),
        (
            {"enum": ["a", 1, None, 1.5, True, [], {}]},
            {"string", "integer", "null", "number", "boolean", "array", "object"},
        ),
        ({"const": "a"}, {"string"}),
        ({"$ref": "#/$defs/deep"}, {"boolean", "null"}),
        ({"$ref": "#/$defs/none"}, set()),
        ({"anyOf": [{"type": "string"}, {}]}, set()),
        (True, set()),
    ],
)
def test_kinds_of_a_schema(schema: Any, kinds: set[str]) -> None:
    """The types that it names; none where it lets any be."""
    assert kinds_of(schema, TOOLS["find"]) == kinds
