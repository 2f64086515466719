"""Weights in several numbered files: `x-00001-of-00003.gguf`, for one, as llama.cpp writes them."""

from __future__ import annotations

import re

_PART = re.compile(r"(?P<stem>.+)-[0-9]{5}-of-(?P<count>[0-9]{5})(?P<suffix>\.[^./]+)", re.DOTALL)
MAX_PARTS = 1000


def parts(name: str) -> tuple[str, ...]:
    """The names of all parts in order, from the name of one; none for a file that is no part."""
    match = _PART.fullmatch(name)
    if match is None or not 1 <= int(match["count"]) <= MAX_PARTS:
        return ()
    count = match["count"]
    return tuple(
        f"{match['stem']}-{number:05}-of-{count}{match['suffix']}"
        for number in range(1, int(count) + 1)
    )


def together(name: str) -> str:
    """The name that all parts would have as one file; a file that is no part keeps its own."""
    match = _PART.fullmatch(name)
    return f"{match['stem']}{match['suffix']}" if match else name
