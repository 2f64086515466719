"""Reads YAML as text only, keeping the line of every value.

YAML 1.1 turns `46_7` into 467, `no` into False and `2023-12-09` into a date. Here every scalar
stays the text that was written, and the spec's types convert it.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn

import yaml

from paddock.registry.errors import InvalidSpec

MAX_BYTES = 1 << 20
_MAX_DEPTH = 16
_TOO_DEEP = f"nested more than {_MAX_DEPTH} deep"
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_.+-]{1,64}")
_SHOWN = 80  # characters of a wrong value that a message repeats
# libyaml's parser where PyYAML was built with it, which is ten times as fast.
_Loader: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)

Steps = tuple["str | int", ...]


@dataclass
class _Node:
    """A value at the field `at`; of a collection, `children` maps keys or indexes to nodes."""

    line: int
    value: Any
    at: Steps
    children: dict[str | int, _Node] = field(default_factory=dict)
    key: str | None = None  # the mapping key that waits for its value
    key_line: int = 0


@dataclass(frozen=True)
class Document:
    """The mapping at the top of a YAML file, and where each of its values stands."""

    value: dict[str, Any]
    _root: _Node

    def line(self, path: Steps) -> int:
        """The 1-based line of the value at `path`; of its nearest parent where it is not there.

        An integer in a mapping counts its values in order, which is how pairs are numbered.
        """
        node = self._root
        for step in path:
            child = node.children.get(step)
            if child is None and isinstance(step, int) and isinstance(node.value, dict):
                child = dict(enumerate(node.children.values())).get(step)
            if child is None:
                break
            node = child
        return node.line


def parse(data: bytes, path: str) -> Document:
    """Parses `data`, the contents of the file at `path`, whose top must be a mapping.

    Raises `InvalidSpec` for what is not UTF-8 or YAML, for an empty or huge file, and for what
    YAML allows and a spec has no use for: anchors, tags, empty values, repeated keys, several
    documents, and nesting deeper than any spec's.
    """
    if len(data) > MAX_BYTES:
        raise InvalidSpec(path, 0, "", f"{len(data)} bytes; at most {MAX_BYTES} are read")
    try:
        text = data.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        byte = data[error.start]
        raise InvalidSpec(path, line, "", f"not UTF-8 (byte 0x{byte:02x})") from None
    try:
        root = _Builder(path).build(yaml.parse(text, Loader=_Loader))
    except yaml.MarkedYAMLError as error:
        raise _from_yaml(error, text, path) from None
    except yaml.YAMLError as error:  # a control character: `reader.ReaderError` knows no line
        position = getattr(error, "position", 0)
        line = text.count("\n", 0, position) + 1
        raise InvalidSpec(path, line, "", f"not YAML: {' '.join(str(error).split())}") from None
    if root is None:
        raise InvalidSpec(path, 0, "", "the file is empty")
    if not isinstance(root.value, dict):
        raise InvalidSpec(path, root.line, "", "must be a mapping, such as `name: my-model`")
    return Document(root.value, root)


def field_name(path: Steps) -> str:
    """`("weights", 0, "size")` as `weights[0].size`, on one line whatever the keys are."""
    name = ""
    for step in path:
        if isinstance(step, int):
            name += f"[{step}]"
        elif _PLAIN_KEY.fullmatch(step):
            name += f".{step}" if name else step
        else:  # a key that is no field's name, such as a whole line that lost its colon
            name += f"[{shorten(step)}]"
    return name


def shorten(value: object) -> str:
    """`repr(value)` with its middle left out where it is too long for a message."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 20]}...{text[-17:]}"


def _from_yaml(error: yaml.MarkedYAMLError, text: str, path: str) -> InvalidSpec:
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark else 0
    problem = " ".join((error.problem or error.context or "").split())
    lines = text.split("\n")
    if mark and mark.line < len(lines) and re.match(r" *\t", lines[mark.line]):
        return InvalidSpec(path, line, "", "a tab; YAML is indented with spaces")
    if "nesting depth" in problem:  # libyaml's own bound, since PyYAML 6.0.4: it looks ahead of us
        return InvalidSpec(path, line, "", _TOO_DEEP)
    return InvalidSpec(path, line, "", f"not YAML: {problem}")


class _Builder:
    """Builds the tree from parser events, without recursion: no nesting can exhaust the stack."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.root: _Node | None = None
        self.open: list[_Node] = []
        self.documents = 0

    def build(self, events: Iterator[Any]) -> _Node | None:
        for event in events:
            if isinstance(event, yaml.CollectionEndEvent):
                self.open.pop()
            elif isinstance(event, yaml.DocumentStartEvent):
                self.documents += 1
                if self.documents > 1:
                    self.refuse(event, "a second document; one file is one model", ())
            elif isinstance(event, yaml.NodeEvent):
                self.take(event)
        return self.root

    def take(self, event: Any) -> None:
        parent = self.open[-1] if self.open else None
        if event.anchor is not None:
            self.refuse(event, f"'{event.anchor}' is an anchor or alias; write the value out")
        if event.tag not in (None, "!"):
            self.refuse(event, f"the tag {shorten(event.tag)} has no place here")
        if parent is not None and isinstance(parent.value, dict) and parent.key is None:
            self.take_key(parent, event)
            return
        node = _Node(event.start_mark.line + 1, self.value(event), self.at())
        if parent is None:
            self.root = node
        elif parent.key is not None:
            # The line of a field is that of its name: a block's first line may come later.
            node.line = parent.key_line
            parent.value[parent.key], parent.children[parent.key] = node.value, node
            parent.key = None
        else:
            parent.children[len(parent.value)] = node
            parent.value.append(node.value)
        if not isinstance(event, yaml.ScalarEvent):
            if len(self.open) == _MAX_DEPTH:
                self.refuse(event, _TOO_DEEP, ())
            self.open.append(node)

    def take_key(self, parent: _Node, event: Any) -> None:
        line: int = event.start_mark.line + 1
        if not isinstance(event, yaml.ScalarEvent):
            self.refuse(event, "a key must be a plain name")
        if event.value in parent.children:
            first = parent.children[event.value].line
            self.refuse(event, f"given twice (first on line {first})", (*parent.at, event.value))
        parent.key, parent.key_line = event.value, line

    def value(self, event: Any) -> Any:
        if isinstance(event, yaml.MappingStartEvent):
            return {}
        if isinstance(event, yaml.SequenceStartEvent):
            return []
        # Quoted, "" and "null" are text like any other.
        if event.implicit[0] and event.value in _NULLS:
            self.refuse(event, "no value; give one or leave the field out")
        return event.value

    def at(self) -> Steps:
        """Where the next value goes."""
        if not self.open:
            return ()
        parent = self.open[-1]
        if isinstance(parent.value, list):
            return (*parent.at, len(parent.value))
        return parent.at if parent.key is None else (*parent.at, parent.key)

    def refuse(self, event: Any, reason: str, at: Steps | None = None) -> NoReturn:
        name = field_name(self.at() if at is None else at)
        raise InvalidSpec(self.path, event.start_mark.line + 1, name, reason)
