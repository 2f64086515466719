"""API dialects, one file each. A package adds one by an entry point, and replaces none."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from paddock.registry.added import load_added

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
    from paddock.server.dialects.base import Dialect

    targets = (target.partition(":") for target in BUILT_IN.values())
    built_in = [getattr(import_module(module), name) for module, _, name in targets]
    return (*built_in, *load_added(ENTRY_POINTS, Dialect))
