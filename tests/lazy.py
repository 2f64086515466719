"""Modules that are imported at their first use."""

from __future__ import annotations

from importlib import import_module
from typing import Any


class Lazy:
    """Stands for a client library in the tests that use it.

    Each worker of pytest-xdist collects all tests, most runs use few of these libraries, and some
    take more than a second to import.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("_"):  # pytest looks for its own marks on all that a module has
            raise AttributeError(attribute)
        return getattr(import_module(self._name), attribute)
