"""Weights in several numbered files: `x-00001-of-00003.gguf`, for one, as llama.cpp writes them."""

from __future__ import annotations

import re
from pathlib import Path

_SHARD = re.compile(r"(?P<stem>.+)-[0-9]{5}-of-(?P<count>[0-9]{5})(?P<suffix>\.[^./]+)", re.DOTALL)
MAX_SHARDS = 1000


def shard_names(name: str) -> tuple[str, ...]:
    """The names of all shards in order, from the name of one; empty for a file that is no shard."""
    match = _SHARD.fullmatch(name)
    if match is None or not 1 <= int(match["count"]) <= MAX_SHARDS:
        return ()
    count = match["count"]
    return tuple(
        f"{match['stem']}-{number:05}-of-{count}{match['suffix']}"
        for number in range(1, int(count) + 1)
    )


def file_bytes(path: Path) -> int:
    """Bytes of a file, or of all shards if it is one. Raises `OSError` where one is not there."""
    names = shard_names(path.name) or (path.name,)
    return sum(path.with_name(name).stat().st_size for name in names)


def unsharded_name(name: str) -> str:
    """The name that all shards would have as one file; a file that is no shard keeps its own."""
    match = _SHARD.fullmatch(name)
    return f"{match['stem']}{match['suffix']}" if match else name
