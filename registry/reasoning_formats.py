"""How models mark their thoughts, found out by their chat template.

The marks stand in the template's text; whether it opens a thought in the prompt, and whether it can
be told not to, shows when it is rendered. Names are those of vLLM's parsers, but for `think`; the
names that other engines have stand in their adapters. An unknown form is None: thoughts then stay
in the answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from paddock.registry.errors import BadValue
from paddock.registry.prompts import EXAMPLE, render


@dataclass(frozen=True)
class ReasoningFormat:
    """A form of thoughts.

    Attributes:
        start: what begins a thought, in the answer or at the prompt's end.
        end: what ends it.
        marks: texts that a template of this form has, one of them at least; without any it is
            chosen by what the template does.
    """

    name: str
    start: str
    end: str
    marks: tuple[str, ...] = ()


_THINK = ("<think>", "</think>")

# In this order: the first of which a mark is there counts.
REASONING_FORMATS: tuple[ReasoningFormat, ...] = (
    ReasoningFormat("gemma4", "<|channel>thought\n", "<channel|>", ("<|channel>",)),
    ReasoningFormat(
        "openai_gptoss", "<|channel|>analysis<|message|>", "<|end|>", ("<|channel|>analysis",)
    ),
    ReasoningFormat("mistral", "[THINK]", "[/THINK]", ("[THINK]",)),
    ReasoningFormat("seed_oss", "<seed:think>", "</seed:think>", ("<seed:think>", "</seed:think>")),
    ReasoningFormat("minimax_m3", "<mm:think>", "</mm:think>", ("<mm:think>",)),
    ReasoningFormat("minimax_m2", *_THINK, ("<minimax:tool_call>",)),
    ReasoningFormat("kimi_k2", *_THINK, ("<|tool_calls_section_begin|>",)),
    ReasoningFormat("glm45", *_THINK, ("[gMASK]<sop>",)),
    ReasoningFormat("deepseek_v3", *_THINK),  # does not think, unless it is told to
    ReasoningFormat("qwen3", *_THINK),  # thinks, unless it is told not to
    ReasoningFormat("deepseek_r1", *_THINK),  # always thinks
    ReasoningFormat("think", *_THINK),  # begins a thought itself, or does not think at all
)
_BY_NAME = {one.name: one for one in REASONING_FORMATS}
_OFF = {"enable_thinking": False, "thinking": False}
_ON = {"enable_thinking": True, "thinking": True}


def reasoning_format(name: str) -> ReasoningFormat:
    """The format of a name that `find_reasoning` has given."""
    return _BY_NAME[name]


@lru_cache(64)
def find_reasoning(template: str) -> str | None:
    """The name of the form in which a template's model marks its thoughts; None: none known."""
    marked = next(
        (
            one
            for one in REASONING_FORMATS
            if any(mark in template for mark in one.marks)
            and (one.end in template or one.start in template or one.marks[0] in one.start)
        ),
        None,
    )
    if marked is not None:
        return marked.name
    if _THINK[1] not in template:
        return None
    usual, off, on = (_prompt_end(template, given) for given in ({}, _OFF, _ON))
    if usual == off != on:
        return "deepseek_v3"
    if usual != off:
        return "qwen3"
    return "deepseek_r1" if usual.rstrip().endswith(_THINK[0]) else "think"


def _prompt_end(template: str, given: dict[str, Any]) -> str:
    """What stands before an answer; empty where the template refuses the conversation."""
    try:
        return render(template, EXAMPLE[:1], **given)
    except BadValue:
        return ""
