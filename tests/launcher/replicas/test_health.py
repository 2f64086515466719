"""Hung is told apart from busy and from slow."""

from __future__ import annotations

import pytest

from paddock.launcher.replicas.health import IDLE_SHARE, MISSES, Health, Look

SILENT = Look(answered=False, seconds=1.0)


def test_three_misses_in_a_row_are_a_hang() -> None:
    """Two are not, and any sign of life begins the count anew."""
    health = Health()
    for _ in range(MISSES - 1):
        health.note(SILENT)
    assert not health.is_hung
    health.note(Look(answered=True))
    for _ in range(MISSES - 1):
        health.note(SILENT)
    assert not health.is_hung
    health.note(SILENT)
    assert health.is_hung


@pytest.mark.parametrize(
    ("look", "lives"),
    [
        (Look(True), True),
        (Look(False, has_moved=True), True),
        (Look(False, has_moved=False), False),
        (Look(False, computed_seconds=0.9, seconds=1.0), True),
        (Look(False, computed_seconds=IDLE_SHARE / 2, seconds=1.0), False),
        (Look(False, has_moved=False, computed_seconds=0.9, seconds=1.0), True),
        (Look(False, has_moved=None, computed_seconds=None), False),
    ],
)
def test_what_counts_as_a_sign_of_life(look: Look, lives: bool) -> None:
    """An answer, counters that move, or processor time where it counts; not what timers take."""
    health = Health()
    health.note(look)
    assert (health.misses == 0) is lives
