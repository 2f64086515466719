"""Which chat template an engine is started with: known once the weights are there.

The order: one that the plan has, of the user or of the spec; the weights' own; the spec's format.
Where there is none, the engine gets a template that writes the messages alone, so that it starts on
no guess of its own, and the gateway refuses chats.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from paddock.engines import load_engine
from paddock.launcher.planning.plan import LaunchPlan
from paddock.registry.errors import CorruptFile
from paddock.registry.formats import weight_format
from paddock.registry.gguf import read_gguf
from paddock.registry.prompts import find_prompt, is_token, turn_end, without_blanks
from paddock.registry.reasoning_formats import find_reasoning
from paddock.registry.tool_formats import find_tools

NO_FORMAT = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
"""What an engine is given where chats are refused."""
GGUF_KEY = "tokenizer.chat_template"
LONGEST_FILE = 64 << 20
"""Bytes of the largest tokenizer file that is read; those of 260,000 words reach 35 MB."""
_JSON = ("chat_template.json", "processor_config.json", "tokenizer_config.json")


@dataclass(frozen=True)
class Prompt:
    """How a replica chats.

    Attributes:
        source: whose template counts. `engine`: no weights are read here; `none`: no chat.
        format: the name of its format, if it is one of Paddock's.
        template: what the engine is given; None: it reads the weights' own.
        stop: texts that end an answer, and are no tokens.
        stop_ids: tokens that end one, and are not named as such by the weights.
        tools: whether it can show tools, and its calls be read; None: as the spec says.
        tools_reason: why there are no tools, with the way out.
        tool_format: how the model writes calls (`registry/tool_formats.py`), if it is known.
        reasoning_format: how it marks its thoughts, likewise.
        reason: why there is no chat, or why the weights' own does not count.
    """

    source: Literal["plan", "weights", "spec", "engine", "none"] = "engine"
    format: str | None = None
    template: str | None = None
    stop: tuple[str, ...] = ()
    stop_ids: tuple[int, ...] = ()
    tools: bool | None = None
    tools_reason: str = ""
    tool_format: str | None = None
    reasoning_format: str | None = None
    reason: str = ""

    @property
    def note(self) -> str:
        """What a user must know of it."""
        return f"no chat: {self.reason}" if self.source == "none" and self.reason else self.reason

    def to_json(self) -> dict[str, Any] | None:
        """What the gateway needs, as plain values; None where it does not matter."""
        if self.source == "engine":
            return None
        return {
            "source": self.source,
            "format": self.format,
            "tools": self.tools,
            "tools_reason": self.tools_reason,
            "tool_format": self.tool_format,
            "reasoning_format": self.reasoning_format,
            "stop": list(self.stop),
            "stop_token_ids": list(self.stop_ids),
            "reason": self.reason,
        }


def settle_prompt(plan: LaunchPlan, weights: Path | None) -> Prompt:
    """The template that counts. Reads the weights' header or settings."""
    if plan.type != "LLM" or weights is None:
        return Prompt(template=plan.chat_template, stop=plan.stop)
    if plan.chat_template is not None:
        template = plan.chat_template
        prompt = Prompt("plan", plan.chat_format, template, plan.stop, tools="tools" in template)
        templates: tuple[str, ...] = (template,)
    elif templates := tuple(own_templates(plan, weights)):
        prompt = Prompt("weights", stop=_with_end(plan.stop, templates[0]))
    else:
        return replace_own(plan, weights, "the weights bring no chat template")
    return _fitted(_with_formats(prompt, plan, templates), plan, weights)


def replace_own(plan: LaunchPlan, weights: Path | None, reason: str) -> Prompt:
    """The prompt where the weights' own does not count, for the `reason` that is given."""
    prompt = _stand_in(plan, reason)
    if prompt.source == "spec" and prompt.template is not None:
        prompt = _with_formats(prompt, plan, (prompt.template,))
    return prompt if weights is None else _fitted(prompt, plan, weights)


def _with_formats(prompt: Prompt, plan: LaunchPlan, templates: tuple[str, ...]) -> Prompt:
    """The prompt with the forms of calls and of thoughts, as the templates have them.

    There are no tools where the template shows none, or the engine cannot read its calls: they
    would be dropped in silence, and calls be told as text. A parser that the user names is taken
    at its word, and engines that find the form by themselves are left to it.
    """
    if "reasoning" in plan.abilities:
        thoughts = find_reasoning(templates[0])
        if thoughts == "think" and plan.derived is None:  # as a spec knows, and no template can
            thoughts = "deepseek_r1"
        prompt = replace(prompt, reasoning_format=thoughts)
    engine = load_engine(plan.engine)
    if "tools" not in plan.abilities or engine.tool_parsers is None:
        return prompt
    found = [find_tools(template) for template in templates]
    shown = any(one.shown for one in found)
    form = next((one.format for one in found if one.format is not None), None)
    prompt = replace(prompt, tool_format=form)
    options = engine.options.parse(plan.engine, plan.options)
    if engine.tool_parser(options, None) is not None:
        return prompt
    if not shown:
        reason = "its chat template shows no tools; launch it with --chat-template FILE"
    elif engine.tool_parser(options, form) is None:
        known = f"({form}) is not one that {plan.engine} reads" if form else "is not known"
        has_option = "tool_call_parser" in engine.options.model_fields
        out = "--tool_call_parser NAME" if has_option else "--model-engine NAME: another may"
        reason = f"the form in which its chat template writes calls {known}; {out}"
    else:
        return prompt
    return replace(prompt, tools=False, tools_reason=reason)


def _stand_in(plan: LaunchPlan, reason: str) -> Prompt:
    if "chat" not in plan.abilities:
        return Prompt("none", template=NO_FORMAT)
    if plan.chat_format is None:
        return Prompt("none", template=NO_FORMAT, stop=plan.stop, reason=reason)
    found = find_prompt(plan.chat_format)
    stop = tuple(dict.fromkeys((*plan.stop, *found.stop)))
    text = f"{reason}; {found.name}, the spec's format, stands in"
    tools = "tools" in found.template
    return Prompt("spec", found.name, found.template, stop, tools=tools, reason=text)


def own_templates(plan: LaunchPlan, weights: Path) -> Iterator[str]:
    """The chat templates that the weights bring, the default one first."""
    if weight_format(plan.format).is_single_file:
        yield from _texts(_metadata(weights).get(GGUF_KEY))
        return
    folder = weights if weights.is_dir() else weights.parent
    yield from _texts(_read(folder / "chat_template.jinja"))
    for name in _JSON:
        data = _read_json(folder / name)
        template = data.get("chat_template") if isinstance(data, dict) else None
        for one in template if isinstance(template, list) else [template]:
            yield from _texts(one.get("template") if isinstance(one, dict) else one)


def _metadata(weights: Path) -> Mapping[str, Any]:
    """What a GGUF's header says; nothing of a broken one, of which the engine says more."""
    try:
        return read_gguf(weights).metadata
    except (CorruptFile, OSError):
        return {}


def _fitted(prompt: Prompt, plan: LaunchPlan, weights: Path) -> Prompt:
    """The prompt as the weights' tokenizer needs it.

    Of stop texts, those that are tokens have numbers in the files. llama.cpp ends an answer at
    every token that looks like a turn's end, whatever else the header names (`special_eog_ids` in
    its llama-vocab.cpp), so that a GGUF keeps the texts alone.
    """
    if weight_format(plan.format).is_single_file:
        texts = tuple(text for text in prompt.stop if not is_token(text))
        template = prompt.template
        if template is not None and prompt.format is not None and _writes_blanks(weights):
            template = without_blanks(template)
        return replace(prompt, stop=texts, template=template)
    folder = weights if weights.is_dir() else weights.parent
    tokens = _added_tokens(folder) if prompt.stop or prompt.reasoning_format else {}
    if prompt.reasoning_format == "deepseek_r1" and "</think>" not in tokens:
        # Its parsers want tokens, and would not start; these read the same from the text.
        prompt = replace(prompt, reasoning_format="qwen3")
    texts = tuple(text for text in prompt.stop if text not in tokens and not is_token(text))
    ends = _end_tokens(folder)
    ids = tuple(tokens[text] for text in prompt.stop if text in tokens)
    return replace(prompt, stop=texts, stop_ids=tuple(one for one in ids if one not in ends))


def _writes_blanks(weights: Path) -> bool:
    """Whether llama.cpp puts a blank before each text that follows a special token."""
    metadata = _metadata(weights)
    is_sentencepiece = metadata.get("tokenizer.ggml.model") == "llama"
    return is_sentencepiece and metadata.get("tokenizer.ggml.add_space_prefix") is not False


def _added_tokens(folder: Path) -> dict[str, int]:
    """The tokens that the tokenizer's files name apart from its words."""
    found: dict[str, int] = {}
    data = _read_json(folder / "tokenizer.json")
    listed = data.get("added_tokens") if isinstance(data, dict) else None
    for token in listed if isinstance(listed, list) else []:
        if isinstance(token, dict) and type(token.get("id")) is int:
            found[str(token.get("content"))] = token["id"]
    data = _read_json(folder / "tokenizer_config.json")
    table = data.get("added_tokens_decoder") if isinstance(data, dict) else None
    for number, token in (table if isinstance(table, dict) else {}).items():
        if isinstance(token, dict) and str(number).isdecimal():
            found.setdefault(str(token.get("content")), int(number))
    return found


def _end_tokens(folder: Path) -> set[int]:
    """The tokens at which engines end a text by themselves."""
    for name in ("generation_config.json", "config.json"):
        data = _read_json(folder / name)
        ends = data.get("eos_token_id") if isinstance(data, dict) else None
        if ends is not None:
            return {one for one in (ends if isinstance(ends, list) else [ends]) if type(one) is int}
    return set()


def _with_end(stop: tuple[str, ...], template: str) -> tuple[str, ...]:
    end = turn_end(template)
    return stop if not end or end in stop else (*stop, end)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str) and value.strip():
        yield value


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8") if path.stat().st_size <= LONGEST_FILE else None
    except (OSError, UnicodeDecodeError):
        return None


def _read_json(path: Path) -> Any:
    text = _read(path)
    try:
        return None if text is None else json.loads(text)
    except ValueError:
        return None
