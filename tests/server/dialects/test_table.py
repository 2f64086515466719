"""The table of dialects."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator

import pytest

from paddock.server.dialects import BUILT_IN, dialects
from paddock.server.dialects.base import Dialect

MINE = Dialect("mine", ())


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One package brings a dialect, one cannot be imported, one names something else."""
    points = [
        importlib.metadata.EntryPoint(name, target, "paddock.dialects")
        for name, target in (
            ("gone", "no.such.module:DIALECT"),
            ("odd", "json:dumps"),
            ("mine", f"{__name__}:MINE"),
        )
    ]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points)
    dialects.cache_clear()
    yield
    dialects.cache_clear()


@pytest.mark.usefixtures("packages")
def test_a_broken_package_keeps_no_gateway_from_starting() -> None:
    """It is left out; the built-in dialects come first, and those of other packages after them."""
    names = [dialect.name for dialect in dialects()]
    assert names == [*BUILT_IN, "mine"]
