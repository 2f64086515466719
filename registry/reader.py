"""Makes a `ModelSpec` from a YAML file, or names the lines that are wrong."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from paddock.registry.document import MAX_BYTES, Document, Steps, field_name, parse, shorten
from paddock.registry.errors import InvalidSpec, near
from paddock.registry.spec import Architecture, ModelSpec, Source, Weights

_MODELS: dict[str, type[BaseModel]] = {
    "architecture": Architecture,
    "weights": Weights,
    "sources": Source,
}

_LONGEST_REASON = 300
# A file of another kind could have 100,000 faults, and would take seconds to explain.
_MOST_PROBLEMS = 20
# Messages for pydantic's kinds of error, in terms of a YAML file.
_REASONS = {
    "wrong": "{reason}",
    "missing": "is missing",
    "literal_error": "must be {expected}, not {value}",
    "tuple_type": "must be a list",
    "model_type": "must be a mapping of fields",
    "too_short": "must have at least one item",
    "string_type": "must be text",
}


def read_spec(path: Path) -> ModelSpec:
    """The spec in the file at `path`. Raises `InvalidSpec` for the first thing wrong with it."""
    return parse_spec(read_bytes(path), str(path))


def parse_spec(data: bytes, path: str) -> ModelSpec:
    """The spec in `data`, which came from `path`. Raises `InvalidSpec` for its first fault."""
    spec, _, problems = examine(data, path)
    if spec is None:
        raise problems[0]
    return spec


def examine(
    data: bytes, path: str
) -> tuple[ModelSpec | None, Document | None, tuple[InvalidSpec, ...]]:
    """The spec in `data` with its lines, or else its faults, by line."""
    try:
        document = parse(data, path)
    except InvalidSpec as error:
        return None, None, (error,)
    try:
        return ModelSpec.model_validate(document.value), document, ()
    except ValidationError as error:
        details = _own(error.errors(include_url=False))
        details.sort(key=lambda detail: document.line(_at(detail)))
        problems = [_problem(detail, document, path) for detail in details[:_MOST_PROBLEMS]]
        if len(details) > _MOST_PROBLEMS:
            line = document.line(_at(details[_MOST_PROBLEMS]))
            more = f"and {len(details) - _MOST_PROBLEMS} more, from here on"
            problems.append(InvalidSpec(path, line, "", more))
        return None, document, tuple(problems)


def _own(details: list[Any]) -> list[Any]:
    """The errors, without those of lists that are too short only because an item is wrong."""
    wrong = {detail["loc"][:depth] for detail in details for depth in range(len(detail["loc"]))}
    return [d for d in details if d["type"] != "too_short" or d["loc"] not in wrong]


def read_bytes(path: Path) -> bytes:
    """The contents of a spec file. Raises `InvalidSpec` where it cannot be read or is huge."""
    try:
        # Without O_NONBLOCK, opening a named pipe would wait for a writer for ever.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with open(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise InvalidSpec(str(path), 0, "", "not a regular file")
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InvalidSpec(str(path), 0, "", f"cannot be read: {error.strerror}") from None


def _at(detail: Any) -> Steps:
    """The field that an error is about."""
    at: Steps = (*detail["loc"], *detail.get("ctx", {}).get("at", ()))
    # Pydantic numbers the two halves of a pair; a mapping's reader knows only its keys.
    return at[: at.index("size_bytes") + 2] if "size_bytes" in at else at


def _problem(detail: Any, document: Document, path: str) -> InvalidSpec:
    """One of pydantic's errors, in terms of the YAML file."""
    at = _at(detail)
    reason = _reason(detail, detail.get("ctx", {}))
    if len(reason) > _LONGEST_REASON:  # the message quotes a value that fills a page
        reason = f"{reason[: _LONGEST_REASON // 2]} ... {reason[-_LONGEST_REASON // 3 :]}"
    return InvalidSpec(path, document.line(at), _name(at, document), reason)


def _name(at: tuple[str | int, ...], document: Document) -> str:
    if len(at) > 1 and at[-2] == "size_bytes" and isinstance(at[-1], int):
        value: Any = document.value
        for step in at[:-1]:
            value = value[step]
        if isinstance(value, dict):
            at = (*at[:-1], list(value)[at[-1]])
    return field_name(at)


def _reason(detail: Any, context: dict[str, Any]) -> str:
    kind, at, value = detail["type"], detail["loc"], detail["input"]
    if kind == "extra_forbidden":
        owner = next((_MODELS[step] for step in reversed(at[:-1]) if step in _MODELS), ModelSpec)
        close = near(str(at[-1]), owner.model_fields, limit=1)
        return "unknown field" + (f"; did you mean {close[0]}?" if close else "")
    if kind == "tuple_type" and isinstance(value, str):
        return f"must be a list, not {shorten(value)}"
    if kind in _REASONS:
        return _REASONS[kind].format(value=shorten(value), **context)
    text = str(detail["msg"])
    reason = text[:1].lower() + text[1:]
    return f"{reason}, not {shorten(value)}" if isinstance(value, str) else reason
