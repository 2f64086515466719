"""Prompt formats: what they render is what is published, and what is no template is refused."""

from __future__ import annotations

import re

import pytest

from paddock.registry.catalog import Catalog
from paddock.registry.errors import BadValue, UnknownName
from paddock.registry.prompts import (
    EXAMPLE,
    PromptFormat,
    check_template,
    find_prompt,
    is_token,
    prompt_names,
    render,
    syntax_error,
    turn_end,
)

SYSTEM = ({"role": "system", "content": "S"}, *EXAMPLE)
# How each publication places a system message: what the prompt has in place of `found`.
SYSTEM_TURNS = {
    "baichuan-2": ("<reserved_106>U1", "S<reserved_106>U1"),
    **dict.fromkeys(
        ("chatml", "chatml-bos", "qwen3", "qwen3-instruct", "qwen3-thinking", "qwq"),
        ("<|im_start|>user\nU1", "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU1"),
    ),
    "deepseek-llm": ("User: U1", "S\n\nUser: U1"),
    "deepseek-r1": ("<｜User｜>U1", "S<｜User｜>U1"),
    "deepseek-r1-0528": ("<｜User｜>U1", "S<｜User｜>U1"),
    "deepseek-v3": ("<｜User｜>U1", "S<｜User｜>U1"),
    "gemma-3": ("user\nU1", "user\nS\n\nU1"),
    "llama-2": ("U1", "<<SYS>>\nS\n<</SYS>>\n\nU1"),
    "llama-3": (
        "<|begin_of_text|>",
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|>",
    ),
    "llama-3.1": ("2024\n\n<|eot_id|>", "2024\n\nS<|eot_id|>"),
    "minicpm-2b": ("<用户>U1", "S<用户>U1"),
    "mistral-v1": ("U1", "S\n\nU1"),
    "mistral-v3": ("U2", "S\n\nU2"),
    "mistral-v3-tekken": ("U2", "S\n\nU2"),
    "phi-3": ("<|user|>\nU1", "<|system|>\nS<|end|>\n<|user|>\nU1"),
    "qwen": ("You are a helpful assistant.", "S"),
    "qwen2.5-1m": ("You are a helpful assistant.", "S"),
    "qwen2.5": ("You are Qwen, created by Alibaba Cloud. You are a helpful assistant.", "S"),
}
ALTERNATING = ("gemma-3", "llama-2", "mistral-v1", "mistral-v3", "mistral-v3-tekken")


@pytest.fixture(params=prompt_names())
def known(request: pytest.FixtureRequest) -> PromptFormat:
    """Each format."""
    return find_prompt(request.param)


def test_a_format_renders_the_published_example(known: PromptFormat) -> None:
    """Character by character, with the start of the next answer."""
    assert render(known.template, EXAMPLE, known.bos, known.eos) == known.example


def test_a_system_message_stands_where_it_is_published(known: PromptFormat) -> None:
    """In a turn of its own, in a user's turn, or in place of the format's own."""
    found, placed = SYSTEM_TURNS[known.name]
    assert known.example.count(found) == 1
    assert render(known.template, SYSTEM, known.bos, known.eos) == known.example.replace(
        found, placed
    )


def test_a_format_cites_its_sources_and_says_what_ends_an_answer(known: PromptFormat) -> None:
    """What its template writes after an answer is among the ends, unless it is the end of text."""
    assert known.sources
    assert all(source.startswith("https://") for source in known.sources)
    end = turn_end(known.template)
    assert end in {*known.stop, ""} or known.name == "minicpm-2b"  # which writes none


@pytest.mark.parametrize("name", ALTERNATING)
def test_a_format_of_alternating_roles_refuses_others(name: str) -> None:
    """Two questions in a row are no such conversation."""
    known = find_prompt(name)
    with pytest.raises(BadValue, match="alternate"):
        render(known.template, [EXAMPLE[0], EXAMPLE[0]], known.bos, known.eos)


def test_the_published_prompt_of_mixtral() -> None:
    """As its card has it, but for the blank that its makers' tokenizer puts before each [/INST]."""
    messages = [
        {"role": "user", "content": "User Instruction 1"},
        {"role": "assistant", "content": " Model answer 1"},  # as the model writes it
        {"role": "user", "content": "User instruction 2"},
    ]
    known = find_prompt("mistral-v1")
    assert render(known.template, messages, "<s>", "</s>") == (
        "<s> [INST] User Instruction 1 [/INST] Model answer 1</s> [INST] User instruction 2 [/INST]"
    )


def test_earlier_thoughts_are_left_out() -> None:
    """Of DeepSeek-R1's answers only what follows them is shown again."""
    messages = [EXAMPLE[0], {"role": "assistant", "content": "<think>T</think>A1"}, EXAMPLE[2]]
    known = find_prompt("deepseek-r1")
    assert render(known.template, messages, known.bos, known.eos) == known.example


TOOL = {"name": "f", "description": "d", "parameters": {"type": "object"}}
TOOLS = [{"type": "function", "function": TOOL}]
CALLED = (
    {"role": "user", "content": "U1"},
    {
        "role": "assistant",
        "content": "",
        "reasoning_content": "T1",
        "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "f", "arguments": {"a": 1}}},
            {"id": "2", "type": "function", "function": {"name": "f", "arguments": {}}},
        ],
    },
    {"role": "tool", "tool_call_id": "1", "content": "R1"},
    {"role": "tool", "tool_call_id": "2", "content": "R2"},
)
ASKED = """# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}
</tools>

For each function call, return a json object with function name and arguments within \
<tool_call></tool_call> XML tags:
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call><|im_end|>
<|im_start|>user
U1<|im_end|>
<|im_start|>assistant
"""
ANSWERED = """<tool_call>
{"name": "f", "arguments": {"a": 1}}
</tool_call>
<tool_call>
{"name": "f", "arguments": {}}
</tool_call><|im_end|>
<|im_start|>user
<tool_response>
R1
</tool_response>
<tool_response>
R2
</tool_response><|im_end|>
<|im_start|>assistant
"""


@pytest.mark.parametrize(
    ("name", "first", "thought", "opened"),
    [
        ("qwen2.5", "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.", "", ""),
        ("qwen2.5-1m", "You are a helpful assistant.", "", ""),
        ("qwen3", "", "<think>\nT1\n</think>\n\n", ""),
        ("qwen3-instruct", "", "", ""),
        ("qwen3-thinking", "", "<think>\nT1\n</think>\n\n", "<think>\n"),
        ("qwq", "", "", "<think>\n"),
    ],
)
def test_tools_stand_where_qwen_has_them(name: str, first: str, thought: str, opened: str) -> None:
    """In the system turn; calls in the answer, results in one turn of the user's."""
    known = find_prompt(name)
    turn = f"<|im_start|>system\n{first}" + ("\n\n" if first else "")
    expected = turn + ASKED + thought + ANSWERED + opened
    assert render(known.template, CALLED, known.bos, known.eos, tools=TOOLS) == expected


def test_thinking_is_switched_as_qwen3_has_it() -> None:
    """An empty thought in the prompt; earlier thoughts are left out, those of this turn stay."""
    known = find_prompt("qwen3")
    off = render(known.template, EXAMPLE, known.bos, known.eos, enable_thinking=False)
    assert off == f"{known.example}<think>\n\n</think>\n\n"
    assert (
        render(known.template, EXAMPLE, known.bos, known.eos, enable_thinking=True) == known.example
    )
    for answer in (
        {"content": "<think>\nT\n</think>\n\nA1"},
        {"content": "A1", "reasoning_content": "T"},
    ):
        thought = [EXAMPLE[0], {"role": "assistant", **answer}, EXAMPLE[2]]
        assert render(known.template, thought, known.bos, known.eos) == known.example
        last = render(
            known.template, thought[:2], known.bos, known.eos, add_generation_prompt=False
        )
        assert last.endswith("assistant\n<think>\nT\n</think>\n\nA1<|im_end|>\n")


def test_every_spec_names_a_format_that_there_is() -> None:
    """And every format is some model's; a model that cannot chat has none."""
    named = {spec.name: spec for spec in Catalog.load() if spec.chat_format}
    assert {spec.chat_format for spec in named.values()} == set(prompt_names())
    assert all("chat" in spec.abilities for spec in named.values())
    assert named["mixtral-instruct-v0.1"].chat_format == "mistral-v1"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{% for message in messages %}\n{{ message.content }", "line 2"),
        ("{{ .Prompt }}", "line 1"),
        ("{{ if .System }}{{ .System }}", "line 1"),
        ("{{ if .System }}x{{ end }}", "undefined"),
    ],
)
def test_what_is_no_template_is_refused(text: str, reason: str) -> None:
    """Broken Jinja by its line, and Go's language by what it means in Jinja."""
    with pytest.raises(BadValue, match=reason):
        check_template(text)


def test_templates_that_are_taken() -> None:
    """Transformers' marks of an answer, loop controls, and a template that refuses the example."""
    for text in (
        "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}",
        "{% for m in messages %}{% if loop.last %}{% break %}{% endif %}{% endfor %}",
        "{{ raise_exception('needs a system message') }}",
    ):
        assert syntax_error(text) == ""
        assert check_template(text) == text
    assert check_template(" chatml ") == "chatml"
    with pytest.raises(UnknownName, match=re.escape("mistral-v1")):
        check_template("mistral-1")


def test_the_end_of_a_turn_is_read_off_a_template() -> None:
    """The token after an answer; none where it is the end of text, or no token."""
    line = "{% for m in messages %}{{ m.role }}: {{ m.content }}END{% endfor %}"
    assert turn_end(line.replace("END", "<|eot|>")) == "<|eot|>"
    assert turn_end(line.replace("END", "{{ eos_token }}")) == ""
    assert turn_end(line.replace("END", "\\n")) == ""
    assert turn_end("{{ broken") == ""
    assert (is_token("<|im_end|>"), is_token("[EOS]"), is_token("User:")) == (True, True, False)
