"""API dialects by name, one file each. A package adds one by an entry point, and replaces none."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from paddock.server.dialects.base import Dialect

BUILT_IN = {
    "openai": "paddock.server.dialects.openai:OPENAI",
    "rerank": "paddock.server.dialects.rerank:RERANK",
    "responses": "paddock.server.dialects.responses:RESPONSES",
    "anthropic": "paddock.server.dialects.anthropic:ANTHROPIC",
}
ENTRY_POINTS = "paddock.dialects"


@cache
def dialects() -> tuple[Dialect, ...]:
    """Every dialect, built-in ones first. Of two that have a path, the first keeps it."""
    table = dict(BUILT_IN)
    for point in entry_points(group=ENTRY_POINTS):
        table.setdefault(point.name, point.value)
    loaded: list[Dialect] = []
    for target in table.values():
        module, _, attribute = target.partition(":")
        loaded.append(getattr(import_module(module), attribute))
    return tuple(loaded)
