"""Engines by name. A row imports nothing until the engine is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from paddock.registry.errors import UnknownName

if TYPE_CHECKING:
    from paddock.engines.base import Engine

# In the order in which a launch that names no engine tries them.
BUILT_IN = {
    "llama.cpp": "paddock.engines.llama_cpp:LlamaCpp",
    "Transformers": "paddock.engines.transformers:Transformers",
    "vLLM": "paddock.engines.vllm:Vllm",
    "SGLang": "paddock.engines.sglang:Sglang",
    "sentence-transformers": "paddock.engines.sentence_transformers:SentenceTransformers",
    "echo": "paddock.engines.echo:Echo",
}
ENTRY_POINTS = "paddock.engines"


@cache
def _table() -> dict[str, str]:
    table = dict(BUILT_IN)
    taken = {name.casefold() for name in table}
    for point in entry_points(group=ENTRY_POINTS):
        # A package cannot replace a built-in engine or one of another package, only add to them.
        if point.name.casefold() not in taken:
            taken.add(point.name.casefold())
            table[point.name] = point.value
    return table


def engine_names() -> tuple[str, ...]:
    """All engines that have an adapter, built-in ones first."""
    return tuple(_table())


def fold(name: str) -> str:
    """An engine's name as names are compared."""
    return name.casefold().replace("_", "-")


@cache
def load_engine(name: str) -> Engine:
    """The adapter called `name`, without regard to case; `_` counts as `-`, as Xinference writes.

    Raises:
        UnknownName: no adapter has this name.
    """
    table = {known.casefold(): known for known in _table()}
    known = table.get(fold(name))
    if known is None:
        raise UnknownName.among("engine", name, engine_names())
    module, _, attribute = _table()[known].partition(":")
    engine: Engine = getattr(import_module(module), attribute)()
    return engine


def engines() -> Iterator[Engine]:
    """Every adapter, in the order in which they are tried."""
    for name in engine_names():
        yield load_engine(name)
