"""Takes an answer apart as it comes: thoughts, content, and calls of tools, in a model's own form.

Pure, and without torch or Paddock. However a text is cut into pieces, what comes out joins to the
same. A call's name goes out as soon as it is there, and its arguments follow as the model writes
them; of a call that is cut off there is as much as came. What only looks like a call is content:
one whose name is none of the request's tools, or whose head is no JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from reader import Piece, Reader, Wait, find_first, overlap

Schema = Mapping[str, Any]


@dataclass(frozen=True)
class JsonForm:
    """Calls as JSON objects with a name and the arguments.

    Attributes:
        marks: what begins one, or several; empty: the answer itself is one.
        close: what ends it.
        listed: they stand in a list.
        key: the name of the arguments.
        split: what stands between a name and the arguments, with no object around them.
    """

    marks: tuple[str, ...] = ()
    close: str = ""
    listed: bool = False
    key: str = "arguments"
    split: str = ""


@dataclass(frozen=True)
class TagForm:
    """Calls in tags, with a pair of them for each argument.

    Attributes:
        marks: what begins a call, or several.
        name: what stands before a name, and what may end it.
        key: what stands before and after an argument's name.
        value: what stands before and after its value.
        end: what ends a call.
        close: what ends several.
        line: the value stands on lines of its own.
        glue: what models write between tags.
    """

    marks: tuple[str, ...]
    name: tuple[str, tuple[str, ...]]
    key: tuple[str, str]
    value: tuple[str, str]
    end: str
    close: str = ""
    line: bool = False
    glue: str = "\n"


_MISTRAL = JsonForm(("[TOOL_CALLS]",), listed=True, split="[ARGS]")
"""Either form, by what follows: models write the one of their tokenizer, not of the template."""
_FUNCTIONS = TagForm(
    ("<tool_call>", "<function="),
    ("<function=", (">",)),
    ("<parameter=", ">"),
    ("", "</parameter>"),
    "</function>",
    "</tool_call>",
    line=True,
)
_PAIRS = TagForm(
    ("<tool_call>",),
    ("", ("\n", "<arg_key>", "</tool_call>")),
    ("<arg_key>", "</arg_key>"),
    ("<arg_value>", "</arg_value>"),
    "</tool_call>",
)
FORMS: Mapping[str, JsonForm | TagForm] = {
    "hermes": JsonForm(("<tool_call>",), "</tool_call>"),
    "mistral": _MISTRAL,
    "mistral_nemo": _MISTRAL,
    "mistral_args": _MISTRAL,
    "llama3_json": JsonForm(key="parameters"),
    "granite": JsonForm(("<|tool_call|>",), listed=True),
    "phi4_mini_json": JsonForm(("functools",), listed=True),
    "deepseek_v31": JsonForm(
        ("<｜tool▁call▁begin｜>",), "<｜tool▁call▁end｜>", split="<｜tool▁sep｜>"
    ),
    "qwen3_coder": _FUNCTIONS,
    "seed_oss": replace(
        _FUNCTIONS, marks=("<seed:tool_call>",), close="</seed:tool_call>", line=False
    ),
    "glm45": _PAIRS,
    "glm47": replace(_PAIRS, glue=""),
    "minimax_m2": TagForm(
        ("<minimax:tool_call>",),
        ('<invoke name="', ('">',)),
        ('<parameter name="', '">'),
        ("", "</parameter>"),
        "</invoke>",
        "</minimax:tool_call>",
    ),
}
"""The formats of `registry/tool_formats.py` that are read here."""
AROUND = {
    "mistral_args": ("[CALL_ID]",),
    "llama3_json": ("<|python_tag|>",),
    "deepseek_v31": ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"),
}
"""Further texts of a format that are no content, and may be tokens of their own."""


@dataclass(frozen=True)
class Expected:
    """What an answer may have in it.

    Attributes:
        format: of `FORMS`; empty: there are no calls.
        tools: the names that may be called, and the schema of each one's arguments.
        required: the answer is a call.
        thought: what begins and what ends a thought; empty: there are none.
        thinks: a thought has begun in the prompt.
    """

    format: str = ""
    tools: Mapping[str, Schema] = field(default_factory=dict)
    required: bool = False
    thought: tuple[str, ...] = ()
    thinks: bool = False


class Parser:
    """One answer."""

    def __init__(self, expected: Expected) -> None:
        self._reader = Reader(expected.required)
        self._run = _read(self._reader, expected)
        self._over = False

    def feed(self, text: str) -> list[Piece]:
        """What can go out with this text."""
        self._reader.text += text
        return self._resume()

    def end(self, cut_off: bool = False) -> list[Piece]:
        """What was held back; `cut_off`: the model would have gone on."""
        self._reader.ended, self._reader.cut_off = True, cut_off
        return self._resume()

    @property
    def thinks(self) -> bool:
        """Whether a thought has begun, and not ended."""
        thinks: bool = self._reader.thinks
        return thinks

    def _resume(self) -> list[Piece]:
        if not self._over:
            self._over = next(self._run, self) is self
        pieces: list[Piece] = self._reader.pieces
        self._reader.pieces = []
        return pieces


def markers(format: str, thought: tuple[str, ...]) -> set[str]:
    """The texts of a format and of thoughts that may be special tokens, and must be kept."""
    form = FORMS.get(format)
    found = {*thought, *AROUND.get(format, ())}
    if form is not None:
        found |= {*form.marks, form.close}
    if isinstance(form, JsonForm):
        found.add(form.split)
    elif form is not None:
        found |= {*form.name[1], *form.key, *form.value, form.end}
    return {text.strip() for text in found} - {""}


def _read(reader: Reader, expected: Expected) -> Wait:
    if expected.thought:
        yield from _read_thought(reader, expected)
    form = FORMS.get(expected.format)
    if form is None:
        yield from reader.pass_until("content")
    elif isinstance(form, TagForm):
        yield from _read_tags(reader, expected, form)
    elif form.marks:
        yield from _read_marked(reader, expected, form)
    else:
        yield from _read_bare(reader, expected, form)
    reader.finish()


def _read_thought(reader: Reader, expected: Expected) -> Wait:
    start, end = expected.thought
    begun = expected.thinks
    if not begun:
        yield from reader.blanks()
        begun = yield from reader.starts(start)
    if not begun:
        reader.at = 0
        return
    reader.thinks = True
    yield from reader.blanks()
    yield from reader.pass_until("reasoning", end)
    reader.thinks = False
    reader.drop_blanks()
    yield from reader.blanks()


def _read_marked(reader: Reader, expected: Expected, form: JsonForm) -> Wait:
    around = AROUND.get(expected.format, ()) if form.close else ()  # else they stand within
    while mark := (yield from reader.pass_until("content", *form.marks, *around)):
        if mark in around:
            reader.drop_blanks()
            continue
        yield from reader.blanks()
        if form.listed and (yield from reader.starts("[")):
            read = yield from _read_list(reader, expected)
        elif form.split:
            read = yield from _read_split(reader, expected, form.split)
        else:
            read = not form.listed and (yield from _read_object(reader, expected))
        if not read:
            reader.undo(mark)
            continue
        yield from reader.blanks()
        yield from reader.closes(form.close)


def _read_bare(reader: Reader, expected: Expected, form: JsonForm) -> Wait:
    """Calls that are the answer: one object, or several with semicolons between."""
    (tag,) = AROUND[expected.format]
    while True:
        yield from reader.blanks()
        yield from reader.starts(tag)
        yield from reader.blanks()
        if not (yield from _read_object(reader, expected)):
            break
        yield from reader.blanks()
        yield from reader.starts(";")
        reader.text, reader.at = reader.text[reader.at :], 0
    if reader.ended and expected.required:
        reader.at = len(reader.text)
        return
    reader.at = 0
    yield from reader.pass_until("content")


def _read_list(reader: Reader, expected: Expected) -> Wait:
    count = 0
    while (yield from _read_object(reader, expected)):
        count += 1
        yield from reader.blanks()
        if not (yield from reader.starts(",")):
            yield from reader.starts("]")
            break
        yield from reader.blanks()
    return count > 0


def _read_split(reader: Reader, expected: Expected, split: str) -> Wait:
    """A name, perhaps an id, and the arguments."""
    found = yield from reader.until(split, "[CALL_ID]", "{")
    if found is None or found[0].strip() not in expected.tools:
        return False
    name, mark = found
    if mark == "[CALL_ID]" and (yield from reader.until(split)) is None:
        return False
    if mark == "{":
        reader.at -= 1
    reader.put("call", name.strip())
    yield from reader.blanks()
    yield from reader.value(passed=True)
    return True


@dataclass
class _Call:
    """A call that is being read from an object: its arguments are held while its name is open."""

    name: str | None = None
    held: str | None = None
    begun: bool = False


def _read_object(reader: Reader, expected: Expected) -> Wait:
    """An object with a name and arguments, which go out; false: it is none, and nothing does."""
    call = _Call()
    if not (yield from reader.starts("{")):
        return False
    while (yield from _read_member(reader, expected, call)):
        yield from reader.blanks()
        if not (yield from reader.starts("}")):
            if (yield from reader.starts(",")):
                continue
            break
        if call.name is not None and not call.begun:
            reader.put("call", call.name)
            reader.put("arguments", _as_object(call.held))
        return call.name is not None
    return call.begun


def _read_member(reader: Reader, expected: Expected, call: _Call) -> Wait:
    """One key and its value; false: there is none, or it is none of a call's."""
    yield from reader.blanks()
    key = yield from reader.string()
    yield from reader.blanks()
    if key is None or not (yield from reader.starts(":")):
        return False
    yield from reader.blanks()
    if key == "name" and call.name is None:
        name = yield from reader.string()
        if name in expected.tools:
            call.name = name
        return call.name is not None
    if key not in ("arguments", "parameters") or call.begun:
        return (yield from reader.value()) is not None
    if call.name is None:
        call.held = yield from reader.value()
        return call.held is not None
    call.begun = True
    reader.put("call", call.name)
    yield from _read_arguments(reader)
    return True


def _read_arguments(reader: Reader) -> Wait:
    """The arguments, as they come; some models write them as a text, or none."""
    if (yield from reader.starts("{")):
        reader.at -= 1
        yield from reader.value(passed=True)
        return
    raw = yield from reader.value()
    if raw is not None or not reader.cut_off:
        reader.put("arguments", _as_object(raw))


def _as_object(raw: str | None) -> str:
    """Arguments that are no object, as one where they can be."""
    if raw is None or raw == "null":
        return "{}"
    if not raw.startswith('"'):
        return raw
    try:
        return str(json.loads(raw, strict=False))
    except ValueError:
        return raw


def _read_tags(reader: Reader, expected: Expected, form: TagForm) -> Wait:
    while mark := (yield from reader.pass_until("content", *form.marks)):
        if mark == form.name[0]:
            reader.at = 0
        count = 0
        while (yield from _read_tagged(reader, expected, form)):
            count += 1
        if not count:
            reader.undo(mark)
            continue
        yield from reader.blanks()
        yield from reader.closes(form.close)


def _read_tagged(reader: Reader, expected: Expected, form: TagForm) -> Wait:
    """One call in tags; false: there is none, and nothing is read."""
    begin = reader.at
    yield from reader.blanks()
    found = None
    if (yield from reader.starts(form.name[0])):
        found = yield from reader.until(*form.name[1])
    name = found[0].strip() if found else ""
    if found is None or name not in expected.tools:
        reader.at = begin
        return False
    if found[1].startswith("<"):
        reader.at -= len(found[1])
    reader.put("call", name)
    properties = expected.tools[name].get("properties") or {}
    separator = "{"
    while True:
        yield from reader.blanks()
        if not (yield from reader.starts(form.key[0])):
            break
        key = yield from reader.until(form.key[1])
        if key is not None and form.value[0]:
            yield from reader.blanks()
            if not (yield from reader.starts(form.value[0])) and reader.ended:
                key = None
        if key is None:
            reader.drop()
            return True
        written = json.dumps(key[0].strip(), ensure_ascii=False)
        reader.put("arguments", f"{separator}{written}: ")
        separator = ", "
        kinds = kinds_of(properties.get(key[0].strip()), expected.tools[name])
        if not (yield from _read_value(reader, form, kinds)):
            return True
    ended = yield from reader.starts(form.end)
    if ended or not (reader.ended and reader.cut_off):
        reader.put("arguments", "{}" if separator == "{" else "}")
    if not ended:
        reader.drop_tail(form.end, form.key[0])
    return True


def _read_value(reader: Reader, form: TagForm, kinds: frozenset[str]) -> Wait:
    """The value of an argument, as JSON; false: it is cut off."""
    ends = (f"\n{form.value[1]}", form.value[1]) if form.line else (form.value[1],)
    if form.line:
        yield from reader.starts("\n")
    if kinds == {"string"}:
        reader.put("arguments", '"')
        while True:
            found = find_first(reader.text, ends, reader.at)
            stop = len(reader.text) if found is None else found[0]
            if found is None and not (reader.ended and not reader.cut_off):
                stop -= max(overlap(reader.text[reader.at :], end) for end in ends)
            reader.put("arguments", _escape(reader.text[reader.at : stop]))
            reader.at = stop
            if found is not None:
                reader.at += len(found[1])
                reader.put("arguments", '"')
                return True
            if not (yield from reader.more()):
                reader.drop()
                return False
    written = yield from reader.until(*ends)
    if written is None:
        reader.drop()
        return False
    reader.put("arguments", _typed(written[0], kinds))
    return True


def _escape(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _typed(text: str, kinds: frozenset[str]) -> str:
    """An argument's text as JSON of one of the kinds that its schema lets it have."""
    plain = text.strip()
    if "string" in kinds and not (plain == "null" and "null" in kinds):
        return json.dumps(text, ensure_ascii=False)
    if plain in ("True", "False", "None"):
        return {"True": "true", "False": "false", "None": "null"}[plain]
    try:
        json.loads(plain)
    except ValueError:
        return json.dumps(text, ensure_ascii=False)
    return plain


def kinds_of(schema: Any, root: Schema, depth: int = 0) -> frozenset[str]:
    """The types of JSON that a schema lets a value have; empty: it does not say."""
    if not isinstance(schema, Mapping) or depth > 8:
        return frozenset()
    reference = schema.get("$ref")
    if isinstance(reference, str):
        target = (root.get("$defs") or {}).get(reference.rpartition("/")[2])
        return kinds_of(target, root, depth + 1)
    kinds = schema.get("type")
    if isinstance(kinds, str):
        return frozenset((kinds,))
    if isinstance(kinds, list):
        return frozenset(str(kind) for kind in kinds)
    values = schema.get("enum") or ([schema["const"]] if "const" in schema else [])
    if values:
        return frozenset(_kind_of(value) for value in values)
    several = [kinds_of(one, root, depth + 1) for one in _cases(schema)]
    return frozenset().union(*several) if several and all(several) else frozenset()


def _cases(schema: Schema) -> list[Any]:
    return [*(schema.get("anyOf") or ()), *(schema.get("oneOf") or ())]


def _kind_of(value: Any) -> str:
    names = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array"}
    return "null" if value is None else names.get(type(value), "object")
