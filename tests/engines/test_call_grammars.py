"""Grammars that hold an answer to calls: what they let a model write, and what is read of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from llguidance import LLMatcher

from paddock.registry.tool_formats import TOOL_FORMATS
from paddock.server.dialects.schemas import _vocabulary
from paddock.server.dialects.schemas import write_grammar as write_schema
from tests.engines.test_calls import FORMS, ON_EACH_FORM, read

from grammars import Tool, Wanted, bind_answer, write_grammar  # isort: skip

FIND = Tool(
    "find",
    {
        "type": "object",
        "properties": {"word": {"type": "string"}, "count": {"type": "integer"}},
        "required": ["word"],
        "additionalProperties": False,
    },
)
WASH = Tool(
    "wash",
    {
        "type": "object",
        "properties": {"who": {"enum": ["lion", "frog"]}},
        "additionalProperties": False,
    },
)
SCHEMAS = {tool.name: tool.schema for tool in (FIND, WASH)}
EXAMPLES = {one.name: one.example for one in TOOL_FORMATS}


def grammar(form: str, **changes: Any) -> str:
    """The grammar of a wish, which is a required call of one of two tools at least."""
    given: dict[str, Any] = {
        "tools": (FIND, WASH),
        "required": True,
        "parallel": True,
        "thought": (),
        "thinks": False,
        "tokens": {},
    }
    written = write_grammar(Wanted(form, **{**given, **changes}))
    assert not LLMatcher.validate_grammar(written, _vocabulary())
    return str(written)


def accepts(written: str, text: str) -> bool:
    """Whether the text is one of the grammar's, to its end."""
    matcher = LLMatcher(_vocabulary(), written, log_level=0)
    tokens = list(text.encode())
    return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()


@ON_EACH_FORM
def test_a_required_call_is_all_there_may_be(form: str) -> None:
    """In the model's own form; not a text, nor half a call, nor another tool or argument."""
    written, call = grammar(form), EXAMPLES[form]
    assert accepts(written, call)
    for text in ("", "Hello", f"Hello {call}", call[:-1], call.replace("find", "fly")):
        assert not accepts(written, text)
    assert not accepts(written, call.replace("word", "wood"))


@ON_EACH_FORM
def test_a_text_that_begins_a_call_goes_on_as_one(form: str) -> None:
    """Where the choice is free, but the arguments are not."""
    written, call = grammar(form, required=False), EXAMPLES[form]
    assert accepts(written, call)
    assert accepts(written, "Hello, friend.")
    if FORMS[form].marks:
        assert accepts(written, f"Hello. {call}")
        assert not accepts(written, f"Hello. {call.replace('word', 'wood')}")


@ON_EACH_FORM
def test_one_call_where_several_are_not_wanted(form: str) -> None:
    """With `parallel_tool_calls` false."""
    call, between = EXAMPLES[form], "\n" if FORMS[form].marks else "; "
    between = "" if form in ("mistral_args", "deepseek_v31") else between
    for required in (True, False):
        one = grammar(form, required=required, parallel=False)
        assert accepts(one, call)
        assert not accepts(one, f"{call}{between}{call}")


@ON_EACH_FORM
def test_thoughts_come_first(form: str) -> None:
    """They may be begun in the prompt, and else by the model."""
    thought, call = ("<think>", "</think>"), EXAMPLES[form]
    begun = grammar(form, thought=thought, thinks=True)
    assert accepts(begun, f"Well.\n</think>\n\n{call}")
    assert not accepts(begun, call)
    free = grammar(form, thought=thought)
    assert accepts(free, call)
    assert accepts(free, f"<think>Well.</think>{call}")
    assert not accepts(free, f"Well.</think>{call}")


def test_tokens_of_their_own_stand_as_such() -> None:
    """A text would be spelt, which is not what a model has learnt."""
    tokens = {"[TOOL_CALLS]": 5, "[ARGS]": 6}
    assert '<[5]>  "["' in grammar("mistral_nemo", tokens=tokens)
    assert '<[5]> "find" <[6]>' in grammar("mistral_args", tokens=tokens)
    lead = grammar("mistral", tokens=tokens, required=False).splitlines()[1]
    assert "<[5]>" in lead


@ON_EACH_FORM
def test_what_the_grammar_makes_is_read_as_calls_of_the_schema(form: str) -> None:
    """Whatever tokens are drawn: names of tools, and arguments that are theirs."""
    for seed in range(12):
        text = b"".join(_draw(form, seed)).decode()
        told = read(text, format=form, required=True, tools=SCHEMAS)
        calls = [one for one in told if one.startswith("call ")]
        assert calls
        assert len(told) == 2 * len(calls)
        for call, arguments in zip(told[::2], told[1::2], strict=True):
            assert call in ("call find", "call wash")
            found = json.loads(arguments.removeprefix("arguments "))
            assert set(found) <= set(SCHEMAS[call[5:]]["properties"])


def _draw(form: str, seed: int) -> Iterator[bytes]:
    """A text of the form's grammar, which ends as soon as it may; free texts have three letters."""
    matcher = LLMatcher(_vocabulary(), grammar(form), log_level=0)
    draw, plain, found = Random(seed), 0, FORMS[form]
    value = getattr(found, "value", ("", '"'))[1].encode()
    end = b"\n" + value if getattr(found, "line", False) else value
    while not matcher.is_accepting():
        mask = matcher.compute_bitmask()
        allowed = [at for at in range(256) if mask[at // 8] >> at % 8 & 1]
        letters = [at for at in allowed if bytes([at]).isalnum()]
        others = [at for at in allowed if not bytes([at]).isdigit()]
        text = bytes([draw.choice((plain < 3 and letters) or others)])
        if plain >= 3 and {ord("a"), ord("<"), ord(" ")} <= set(allowed):
            text = end
        plain = plain + 1 if text.isalnum() else 0
        assert matcher.try_consume_tokens(list(text)) == len(text)
        yield text


def test_a_schema_that_cannot_be_enforced_is_a_fault_of_strict_tools_alone() -> None:
    """Else such a keyword is passed over."""
    schema = {"type": "object", "properties": {"u": {"type": "string", "format": "uri"}}}
    for strict in (True, False):
        tools = (Tool("find", schema, strict),)
        wanted = Wanted("hermes", tools, True, True, (), False, {})
        fault = LLMatcher.validate_grammar(write_grammar(wanted), _vocabulary())
        assert bool(fault) is strict


@pytest.mark.parametrize("form", ["qwen3_coder", "seed_oss", "glm45", "glm47", "minimax_m2"])
def test_arguments_in_tags_are_in_order_and_optional_ones_may_lack(form: str) -> None:
    """A text is free to its closing tag, and what is no text is of its schema."""
    written = grammar(form)
    call = EXAMPLES[form]
    for word in ("a < b", "</p>", "two\nlines"):
        assert accepts(written, call.replace("a\n", f"{word}\n").replace(">a<", f">{word}<"))
    assert not accepts(written, call.replace("word", "count"))


@pytest.mark.parametrize(
    ("thinks", "right", "wrong"),
    [
        (
            False,
            ("<think>\nWell, {.\n</think>\n\n{}", '{"a":1}', "<think></think>{}"),
            ("Well.</think>{}", "<think>Well.</think>So.", "<think>Well.", "{}</think>{}"),
        ),
        (True, ("Well, {.\n</think>\n\n{}", "</think>{}"), ("{}", "Well.</think>So.", "Well.")),
    ],
)
def test_an_answer_is_bound_behind_its_thought(
    thinks: bool, right: tuple[str, ...], wrong: tuple[str, ...]
) -> None:
    """A thought may come, or has begun in the prompt; what follows it is of the grammar."""
    answer = write_schema({"type": "object"}, "schema", "Transformers")
    written = bind_answer(answer, ("<think>", "</think>"), thinks, {})
    assert not LLMatcher.validate_grammar(written, _vocabulary())
    assert all(accepts(written, text) for text in right)
    assert not any(accepts(written, text) for text in wrong)
