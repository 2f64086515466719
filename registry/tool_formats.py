"""How models write calls of tools, found out by what their chat template writes of one.

A template is rendered with a tool and a conversation that has a call: the model has learnt to call
in the form that the template writes. Templates that leave calls out of the history name the form in
their instructions, by marks that no other form has. The names that engines have for a format stand
in their adapters. An unknown form is None, and never a guess.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from paddock.registry.errors import BadValue
from paddock.registry.prompts import render

_TOOL = "find_word"
_CALLED = "look_up"
_CALL_ID = "abcdefghi"
"""Mistral's templates want nine letters."""
_TOOLS: tuple[Mapping[str, Any], ...] = (
    {
        "type": "function",
        "function": {
            "name": _TOOL,
            "description": "Finds a word.",
            "parameters": {
                "type": "object",
                "properties": {"word": {"type": "string", "description": "The word."}},
                "required": ["word"],
            },
        },
    },
)
_ARGUMENTS: tuple[Mapping[str, str] | str, ...] = ({"word": "spoon"}, '{"word": "spoon"}')
"""As most templates take them, and as the others do."""
_OBJECT = r'\{"word": "spoon"\}'


@dataclass(frozen=True)
class ToolFormat:
    """A form of calls.

    Attributes:
        name: vLLM's, where it has one.
        call: what its templates write of the call of `look_up`.
        example: a call of `find` with the text `a` as `word`.
        marks: texts of templates that write no calls, each of which no other form has.
    """

    name: str
    call: re.Pattern[str]
    example: str
    marks: tuple[str, ...] = ()


def _format(name: str, call: str, example: str, *marks: str) -> ToolFormat:
    return ToolFormat(name, re.compile(call), example, marks)


TOOL_FORMATS: tuple[ToolFormat, ...] = (
    _format(
        "hermes",
        rf'<tool_call>\s*\{{"name": "look_up", "arguments": {_OBJECT}\}}\s*</tool_call>',
        '<tool_call>\n{"name": "find", "arguments": {"word": "a"}}\n</tool_call>',
    ),
    _format(
        "mistral",
        rf'\[TOOL_CALLS\]\s+\[\{{"name": "look_up", "arguments": {_OBJECT}',
        '[TOOL_CALLS] [{"name": "find", "arguments": {"word": "a"}}]',
    ),
    _format(
        "mistral_nemo",
        rf'\[TOOL_CALLS\]\[\{{"name": "look_up", "arguments": {_OBJECT}',
        '[TOOL_CALLS][{"name": "find", "arguments": {"word": "a"}}]',
    ),
    _format(
        "mistral_args",
        rf"\[TOOL_CALLS\]look_up(?:\[CALL_ID\]\w+)?\[ARGS\]{_OBJECT}",
        '[TOOL_CALLS]find[ARGS]{"word": "a"}',
    ),
    _format(
        "llama3_json",
        rf'(?:_id\|>\s*|<\|python_tag\|>)\{{"name": "look_up", "parameters": {_OBJECT}',
        '{"name": "find", "parameters": {"word": "a"}}',
    ),
    _format(
        "qwen3_coder",
        r"<tool_call>\s*<function=look_up>\s*<parameter=word>\s*spoon\s*</parameter>\s*</function>",
        "<tool_call>\n<function=find>\n<parameter=word>\na\n</parameter>\n</function>\n</tool_call>",
    ),
    _format(
        "seed_oss",
        r"<seed:tool_call>\s*<function=look_up>\s*<parameter=word>spoon</parameter>",
        "<seed:tool_call>\n<function=find>\n<parameter=word>a</parameter>\n</function>\n"
        "</seed:tool_call>",
    ),
    _format(
        "glm47",
        r"<tool_call>look_up<arg_key>word</arg_key><arg_value>spoon</arg_value></tool_call>",
        "<tool_call>find<arg_key>word</arg_key><arg_value>a</arg_value></tool_call>",
    ),
    _format(
        "glm45",
        r"<tool_call>look_up\s*<arg_key>word</arg_key>\s*<arg_value>spoon</arg_value>",
        "<tool_call>find\n<arg_key>word</arg_key>\n<arg_value>a</arg_value>\n</tool_call>",
    ),
    _format(
        "deepseek_v3",
        rf"<｜tool▁call▁begin｜>function<｜tool▁sep｜>look_up\s*```json\s*{_OBJECT}",
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>find\n```json\n"
        '{"word": "a"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
    ),
    _format(
        "deepseek_v31",
        rf"<｜tool▁call▁begin｜>look_up<｜tool▁sep｜>{_OBJECT}<｜tool▁call▁end｜>",
        '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>find<｜tool▁sep｜>{"word": "a"}'
        "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    ),
    _format(
        "deepseek_v32",
        r'<｜DSML｜function_calls>\s*<｜DSML｜invoke name="look_up">',
        '<｜DSML｜function_calls>\n<｜DSML｜invoke name="find">\n<｜DSML｜parameter name="word" '
        'string="true">a</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜function_calls>',
    ),
    _format(
        "deepseek_v4",
        r'<｜DSML｜tool_calls>\s*<｜DSML｜invoke name="look_up">',
        '<｜DSML｜tool_calls>\n<｜DSML｜invoke name="find">\n<｜DSML｜parameter name="word" '
        'string="true">a</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>',
    ),
    _format(
        "kimi_k2",
        rf"<\|tool_call_begin\|>[\w.:]+<\|tool_call_argument_begin\|>{_OBJECT}",
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.find:0"
        '<|tool_call_argument_begin|>{"word": "a"}<|tool_call_end|><|tool_calls_section_end|>',
        "<|tool_call_argument_begin|>",
    ),
    _format(
        "kimi_k3",
        r'<\|open\|>call tool="look_up"',
        '<|open|>tools<|sep|><|open|>call tool="find" index="1"<|sep|><|open|>argument key="word" '
        'type="string"<|sep|>a<|close|>argument<|sep|><|close|>call<|sep|><|close|>tools<|sep|>',
    ),
    _format(
        "minimax_m2",
        r'<minimax:tool_call>\s*<invoke name="look_up">\s*<parameter name="word">spoon</parameter>',
        '<minimax:tool_call>\n<invoke name="find">\n<parameter name="word">a</parameter>\n'
        "</invoke>\n</minimax:tool_call>",
    ),
    _format(
        "minimax_m3",
        r'\]<\]minimax\[>\[<invoke name="look_up">',
        ']<]minimax[>[<tool_call>\n]<]minimax[>[<invoke name="find">]<]minimax[>[<word>a'
        "]<]minimax[>[</word>]<]minimax[>[</invoke>\n]<]minimax[>[</tool_call>",
    ),
    _format(
        "gemma4",
        r"<\|tool_call>call:look_up\{",
        '<|tool_call>call:find{word:<|"|>a<|"|>}<tool_call|>',
    ),
    _format(
        "openai",
        r"to=functions\.look_up<\|channel\|>commentary",
        "<|start|>assistant<|channel|>commentary to=functions.find <|constrain|>json<|message|>"
        '{"word": "a"}<|call|>',
    ),
    _format(
        "lfm2",
        r"<\|tool_call_start\|>\[look_up\(",
        '<|tool_call_start|>[find(word="a")]<|tool_call_end|>',
    ),
    _format(
        "granite",
        r'<\|tool_call\|>\s*\[\{"name": "look_up"',
        '<|tool_call|>[{"name": "find", "arguments": {"word": "a"}}]',
        "<|tool_call|>",
    ),
    _format(
        "apertus",
        rf'<\|tools_prefix\|>\[\{{"look_up": {_OBJECT}',
        '<|tools_prefix|>[{"find": {"word": "a"}}]<|tools_suffix|>',
    ),
    _format(
        "phi4_mini_json",
        r'functools\[\{"name": "look_up"',
        'functools[{"name": "find", "arguments": {"word": "a"}}]',
    ),
    _format(
        "gigachat3",
        rf'(?:function call<\|role_sep\|>\n|<\|function_call\|>)\{{"name": "look_up", '
        rf'"arguments": {_OBJECT}',
        '<|function_call|>{"name": "find", "arguments": {"word": "a"}}',
    ),
    _format(
        "minicpm5",
        r'<function name="look_up"><param name="word">',
        '<function name="find"><param name="word">a</param></function>',
    ),
    _format(
        "hunyuan",
        r"<tool_call(?::\w+)?>look_up<tool_sep(?::\w+)?>",
        "<tool_calls>\n<tool_call>find<tool_sep>\n<arg_key>word</arg_key>\n<arg_value>a</arg_value>"
        "\n</tool_call>\n</tool_calls>",
    ),
    _format(
        "muse_glimmer",
        r'<atem:invoke name="look_up">',
        '<atem:function_calls>\n<atem:invoke name="find">\n<atem:parameter name="word">a'
        "</atem:parameter>\n</atem:invoke>\n</atem:function_calls>",
    ),
)


@dataclass(frozen=True)
class TemplateTools:
    """What a chat template does with tools.

    Attributes:
        shown: whether it shows them to the model.
        format: the name of the form in which it writes calls; None: none that is known.
    """

    shown: bool
    format: str | None


@lru_cache(64)
def find_tools(template: str) -> TemplateTools:
    """Renders a template with a tool and its call, and tells what it makes of them."""
    shown, written = False, ""
    for arguments, length in itertools.product(_ARGUMENTS, (5, 2)):
        conversation = _conversation(arguments)[:length]  # some take no results, or no more of it
        try:
            text = render(template, conversation, bos="<s>", eos="</s>", tools=_TOOLS)
        except BadValue:
            continue
        shown, written = shown or _TOOL in text, f"{written}\n{text}"
    found = next((one.name for one in TOOL_FORMATS if one.call.search(written)), None)
    if not written:  # it refuses the conversation, or writes what no sandbox lets it
        shown = "tools" in template
    if found is None and shown and _CALLED not in written:
        found = next((f.name for f in TOOL_FORMATS if any(m in template for m in f.marks)), None)
    return TemplateTools(shown, found if shown else None)


def _conversation(arguments: Mapping[str, str] | str) -> tuple[Mapping[str, Any], ...]:
    function = {"name": _CALLED, "arguments": arguments}
    call = {"id": _CALL_ID, "type": "function", "function": function}
    return (
        {"role": "user", "content": "U1"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": _CALL_ID, "name": _CALLED, "content": "R1"},
        {"role": "assistant", "content": "A1"},
        {"role": "user", "content": "U2"},
    )
