"""Request ids that are refused for a while."""

from __future__ import annotations

import time

import pytest

from paddock.server.access import blocklist
from paddock.server.access.blocklist import Blocklist


class Clock:
    """Seconds that pass by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


def test_ids_are_refused_for_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each id ends at its own moment; blocked again, at the last one."""
    clock, blocked = Clock(monkeypatch), Blocklist()
    blocked.add("m", "long", 100.0)
    blocked.add("m", "short", 1.0)
    blocked.add("m", "none", 0.0)
    blocked.add("m", "again", 1.0)
    blocked.add("m", "again", 50.0)
    assert blocked.has("m", "short")
    assert not blocked.has("other", "short")
    assert not blocked.has("m", "none")
    clock.now = 2.0
    assert not blocked.has("m", "short")
    assert blocked.has("m", "again")
    assert len(blocked) == 2
    clock.now = 51.0
    assert not blocked.has("m", "again")
    assert blocked.has("m", "long")


def test_abort_alone_does_not_grow_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has ended goes with the next id, and there is a limit to what has not."""
    clock, blocked = Clock(monkeypatch), Blocklist()
    for number in range(100):
        clock.now = number
        blocked.add("m", str(number), 5.0)
    assert len(blocked) == 5
    monkeypatch.setattr(blocklist, "MAX_BLOCKED", 50)
    for number in range(100):
        blocked.add("m", str(number), 1000.0 + number)
    assert len(blocked) == 50
    assert blocked.has("m", "99")
