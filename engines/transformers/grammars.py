"""Grammars of llguidance that hold an answer to calls of tools, in a model's own form. Pure.

Each call's arguments are of its tool's schema. Where the model thinks, it thinks first.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from calls import AROUND, FORMS, JsonForm, TagForm, kinds_of

HEAD = "%llguidance {}"
# As models have learnt to write it, without blanks of which there is no end.
_WRITTEN = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
_TEXT = "/(?s:.*)/"
_NEWLINE = "\n"
_BLANKS = r"/[ \n]*/"
_NO_OBJECT = r"/(?s:[^ \n{<].*)/"


@dataclass(frozen=True)
class Tool:
    """A tool: its name, its arguments' schema, and whether nothing of that may be left out."""

    name: str
    schema: Mapping[str, Any]
    strict: bool = False


@dataclass(frozen=True)
class Wanted:
    """What an answer shall be.

    Attributes:
        format: of `calls.FORMS`.
        required: a call; else any text, but what begins like a call is one.
        parallel: there may be several.
        thought: what begins and what ends a thought; empty: there are none.
        thinks: one has begun in the prompt.
        tokens: the texts that are special tokens, and their numbers.
    """

    format: str
    tools: Sequence[Tool]
    required: bool
    parallel: bool
    thought: tuple[str, ...]
    thinks: bool
    tokens: Mapping[str, int]


def bind_answer(
    grammar: str, thought: tuple[str, ...], thinks: bool, tokens: Mapping[str, int]
) -> str:
    """The grammar of an answer that a thought may stand before, or stands before already.

    `grammar` has one rule, `start`, on one line behind its head.
    """
    _, _, answer = grammar.partition("\nstart: ")
    writer = _Writer(Wanted("", (), False, False, thought, thinks, tokens))
    return writer.bind(answer)


def write_grammar(wanted: Wanted) -> str:
    """The grammar, in llguidance's words."""
    return _Writer(wanted).write()


class _Writer:
    """Writes one grammar, rule by rule."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._rules: list[str] = []

    def write(self) -> str:
        form = FORMS[self._wanted.format]
        calls = self._calls(form) if self._wanted.required else self._among_text(form)
        return "\n".join([HEAD, f"start: {self._thought()}{calls}", *self._rules])

    def bind(self, answer: str) -> str:
        return "\n".join(
            [HEAD, f"start: {self._thought()}answer", f"answer: {answer}", *self._rules]
        )

    def _rule(self, name: str, body: str, suffix: str = "") -> str:
        name = f"{name}{len(self._rules)}"
        mark = f"[suffix={json.dumps(suffix)}]" if suffix else ""
        self._rules.append(f"{name}{mark}: {body}")
        return name

    def _literal(self, text: str) -> str:
        """A text as the tokens that it must be, and quoted between them."""
        if not text:
            return ""
        special = sorted(self._wanted.tokens, key=len, reverse=True)
        parts = re.split(f"({'|'.join(map(re.escape, special))})", text) if special else [text]
        tokens = self._wanted.tokens
        return " ".join(
            f"<[{tokens[part]}]>" if part in tokens else json.dumps(part, ensure_ascii=False)
            for part in parts
            if part
        )

    def _up_to(self, end: str) -> str:
        """Any text to the first of this, and that."""
        if any(text in end for text in self._wanted.tokens):
            return f"{self._rule('any', _TEXT)} {self._literal(end.strip())}"
        return self._rule("any", _TEXT, end)

    def _thought(self) -> str:
        if not self._wanted.thought:
            return ""
        start, end = self._wanted.thought
        rest = f"{self._up_to(end)} {self._rule('blanks', _BLANKS)} "
        return rest if self._wanted.thinks else f"({self._literal(start)} {rest})? "

    def _calls(self, form: JsonForm | TagForm) -> str:
        """One call, or several."""
        around = AROUND.get(self._wanted.format, ())
        if self._is_list(form):
            return f"{self._literal(form.marks[0])} {self._list(form)}"
        one = self._call(form)
        between = self._literal("" if len(around) == 2 or form.marks else "; ")
        if form.marks and not (isinstance(form, JsonForm) and form.split):
            between = f"{self._literal(_NEWLINE)}?"
        more = f"({between} {one})*" if self._wanted.parallel else ""
        if len(around) == 2:
            return f"{self._literal(around[0])} {one} {more} {self._literal(around[1])}"
        return f"{one} {more}"

    def _among_text(self, form: JsonForm | TagForm) -> str:
        """Text and calls in turn; what begins like a call goes on as one."""
        if not form.marks:
            return f"({self._calls(form)} | {self._rule('other', _NO_OBJECT)})"
        around = AROUND.get(self._wanted.format, ())
        mark = around[0] if len(around) == 2 else form.marks[0]
        if len(around) == 2:
            rest = self._calls(form).removeprefix(self._literal(mark))
        else:
            rest = self._list(form) if self._is_list(form) else self._call(form, mark)
        often = "*" if self._wanted.parallel else "?"
        if mark in self._wanted.tokens:
            lead = f"{self._rule('lead', _TEXT)} {self._literal(mark)}"
            return f"({lead} {rest}){often} {self._rule('tail', _TEXT)}"
        self._rules.append(f"TAIL: {_TEXT} & ~/(?s:.*{_escape(mark)}.*)/")
        return f"({self._rule('lead', _TEXT, mark)} {rest}){often} TAIL"

    def _is_list(self, form: JsonForm | TagForm) -> bool:
        listed = isinstance(form, JsonForm) and form.listed
        return listed and self._wanted.format != "mistral_args"

    def _list(self, form: JsonForm | TagForm) -> str:
        one = self._call(form)
        more = f'(", " {one})*' if self._wanted.parallel else ""
        blank = '" "' if self._wanted.format == "mistral" else ""
        return f'{blank} "[" {one} {more} "]"'

    def _call(self, form: JsonForm | TagForm, begun: str = "") -> str:
        """A call of one of the tools; `begun` of it is written already."""
        each = [self._tool(form, tool, begun) for tool in self._wanted.tools]
        return self._rule("call", " | ".join(each))

    def _tool(self, form: JsonForm | TagForm, tool: Tool, begun: str) -> str:
        if isinstance(form, TagForm):
            return self._tagged(form, tool, begun)
        arguments = _json(tool.schema, tool.strict)
        if form.split and not self._is_list(form):
            before = f"{form.marks[0]}{tool.name}{form.split}".removeprefix(begun)
            return f"{self._literal(before)} {arguments} {self._literal(form.close)}"
        name = json.dumps(tool.name, ensure_ascii=False)
        head, tail = f'{{"name": {name}, "{form.key}": ', "}"
        if form.close:
            head, tail = f"{form.marks[0]}\n{head}".removeprefix(begun), f"}}\n{form.close}"
        return f"{self._literal(head)} {arguments} {self._literal(tail)}"

    def _tagged(self, form: TagForm, tool: Tool, begun: str) -> str:
        glue, properties = form.glue, tool.schema.get("properties") or {}
        head = f"{form.marks[0]}{glue}{form.name[0]}" if form.name[0] else form.marks[0]
        end = form.name[1][0] if form.name[0] else ""
        parts = [self._literal(f"{head}{tool.name}{end}{glue}".removeprefix(begun))]
        needed = tool.schema.get("required") or ()
        for key, schema in properties.items():
            part = self._parameter(form, tool, key, schema)
            parts.append(part if key in needed else f"({part})?")
        parts.append(self._literal(form.end + (glue + form.close if form.close else "")))
        return " ".join(parts)

    def _parameter(self, form: TagForm, tool: Tool, key: str, schema: Any) -> str:
        line = "\n" if form.line else form.glue if form.value[0] else ""
        before = self._literal(f"{form.key[0]}{key}{form.key[1]}{line}{form.value[0]}")
        end = "\n" + form.value[1] if form.line else form.value[1]
        after = self._literal(form.glue)
        kinds = kinds_of(schema, tool.schema)
        values = schema.get("enum") if isinstance(schema, Mapping) else None
        if kinds == {"string"} and values:
            cases = " | ".join(json.dumps(value, ensure_ascii=False) for value in values)
            return f"{before} ({cases}) {self._literal(end)} {after}"
        if "string" in kinds or not kinds:
            return f"{before} {self._up_to(end)} {after}"
        inner = {**schema, "$defs": tool.schema["$defs"]} if "$defs" in tool.schema else schema
        return f"{before} {_json(inner, tool.strict)} {self._literal(end)} {after}"


def _json(schema: Any, strict: bool) -> str:
    written = {**_WRITTEN, **({} if strict else {"lenient": True})}
    return f"%json {json.dumps({**schema, 'x-guidance': written}, ensure_ascii=False)}"


def _escape(text: str) -> str:
    """A text within a pattern of llguidance."""
    return re.sub(r"([][().*+?|{}^$\\/])", r"\\\1", text)
