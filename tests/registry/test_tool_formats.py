"""The form of calls that a chat template has, by what it writes of one."""

from __future__ import annotations

import pytest

from paddock.registry.prompts import find_prompt, prompt_names
from paddock.registry.reasoning_formats import REASONING_FORMATS, find_reasoning, reasoning_format
from paddock.registry.tool_formats import TOOL_FORMATS, TemplateTools, find_tools
from tests.templates import CALLS, HERMES, THOUGHTS, with_calls

PLAIN = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"


@pytest.mark.parametrize("form", CALLS)
def test_the_form_is_that_of_the_call_that_is_written(form: str) -> None:
    """Whether the template takes arguments as an object or as a text."""
    assert find_tools(with_calls(form)) == TemplateTools(True, form)


def test_hermes_is_recognised() -> None:
    """In a template as families publish it."""
    assert find_tools(HERMES) == TemplateTools(True, "hermes")


def test_each_form_has_a_template_in_the_tests() -> None:
    """So that none is there that nothing was tried with."""
    assert set(CALLS) == {one.name for one in TOOL_FORMATS}
    assert len({one.name for one in TOOL_FORMATS}) == len(TOOL_FORMATS)


def test_a_template_without_tools_shows_none() -> None:
    """Though it may name them: what counts is what reaches the model."""
    assert find_tools(PLAIN) == TemplateTools(False, None)
    assert find_tools("{# tools #}" + PLAIN) == TemplateTools(False, None)


@pytest.mark.parametrize("name", prompt_names())
def test_formats_of_specs_have_tools_in_a_known_form_or_none(name: str) -> None:
    """Those of Qwen and QwQ have Hermes's; a thought is told by its marks."""
    is_hermes = name.startswith(("qwen2.5", "qwen3", "qwq"))
    shown = TemplateTools(True, "hermes") if is_hermes else TemplateTools(False, None)
    assert find_tools(find_prompt(name).template) == shown
    thoughts = {
        "qwen3": "qwen3",
        "deepseek-r1-0528": "think",
        **dict.fromkeys(("deepseek-r1", "qwen3-thinking", "qwq"), "deepseek_r1"),
    }
    assert find_reasoning(find_prompt(name).template) == thoughts.get(name)


def test_an_unknown_form_is_none() -> None:
    """Never a guess."""
    odd = "{{ tools }}" + PLAIN + "{% for m in messages %}{% for c in m.tool_calls or [] %}"
    odd += "CALL {{ c.function.name }}{% endfor %}{% endfor %}"
    assert find_tools(odd) == TemplateTools(True, None)


def test_a_template_that_leaves_calls_out_is_known_by_its_marks() -> None:
    """Of the forms that have such; and one that refuses the conversation, too."""
    assert find_tools("{{ tools }}<|tool_call|>" + PLAIN) == TemplateTools(True, "granite")
    assert find_tools("{{ tools }}<tool_call>" + PLAIN) == TemplateTools(True, None)
    refusing = "{% if messages %}{{ raise_exception('no') }}{% endif %}{{ tools }}<|tool_call|>"
    assert find_tools(refusing) == TemplateTools(True, "granite")


@pytest.mark.parametrize(("template", "name"), THOUGHTS)
def test_the_form_of_thoughts_is_found(template: str, name: str | None) -> None:
    """By its marks, and by whether it can be switched."""
    assert find_reasoning(template) == name
    if name is not None:
        assert reasoning_format(name).name == name


def test_forms_of_thoughts_have_names_of_their_own() -> None:
    """By which they are found again."""
    names = [one.name for one in REASONING_FORMATS]
    assert len(set(names)) == len(names)
