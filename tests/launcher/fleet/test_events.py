"""What the bus makes of changes, and how it treats those who listen."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from paddock.launcher.fleet.events import HISTORY_EVENTS, PENDING, Bus, TooSlow, changes
from paddock.launcher.fleet.status import ModelStatus
from paddock.launcher.replicas.status import ReplicaStatus, State


def model(uid: str, *states: State, created: float = 1.0, **fields: Any) -> ModelStatus:
    replicas = tuple(
        ReplicaStatus(f"{uid}-rep{number}", state=state, **fields)
        for number, state in enumerate(states)
    )
    plan: Any = SimpleNamespace(
        replicas=len(states), model="m", format="f", quantization="q", engine="e"
    )
    return ModelStatus(uid, plan, created, replicas)


def told(before: list[ModelStatus], after: list[ModelStatus]) -> list[tuple[str, str, str, bool]]:
    """Kind, id, state and whether it is gone, of each change."""
    return [
        (
            change.kind,
            change.replica.replica_id if change.replica else change.model.uid,
            change.replica.state if change.replica else change.model.state,
            change.gone,
        )
        for change in changes({m.uid: m for m in before}, {m.uid: m for m in after})
    ]


def test_nothing_is_told_of_what_stays() -> None:
    """The same models twice are no event."""
    assert told([model("a", "ready")], [model("a", "ready")]) == []


def test_new_model_is_told_with_its_replicas() -> None:
    """A launch tells of each replica, then of the model."""
    assert told([], [model("a", "pending")]) == [
        ("replica", "a-rep0", "pending", False),
        ("model", "a", "pending", False),
    ]


def test_replica_that_gets_ready_makes_its_model_ready() -> None:
    """A replica's state is told, and the model's if it follows."""
    before, after = model("a", "ready", "starting"), model("a", "ready", "ready")
    assert told([before], [after]) == [("replica", "a-rep1", "ready", False)]
    assert told([model("a", "starting")], [model("a", "ready")]) == [
        ("replica", "a-rep0", "ready", False),
        ("model", "a", "ready", False),
    ]


def test_what_ends_is_told_as_gone() -> None:
    """A removed replica and a terminated model are told with the last state that they had."""
    assert told([model("a", "ready", "stopping")], [model("a", "ready")]) == [
        ("replica", "a-rep1", "stopping", True),
        ("model", "a", "ready", False),
    ]
    assert told([model("a", "ready")], []) == [("model", "a", "ready", True)]


def test_model_that_takes_anothers_id_is_another() -> None:
    """A launch under the id of a failed model tells of the end of one and the start of another."""
    before, after = model("a", "failed"), model("a", "failed", created=2.0)
    assert told([before], [after]) == [
        ("model", "a", "failed", True),
        ("replica", "a-rep0", "failed", False),
        ("model", "a", "failed", False),
    ]


@pytest.mark.parametrize(
    ("before", "after", "total", "is_told"),
    [
        (0, 9_999, 1_000_000, False),
        (0, 10_000, 1_000_000, True),
        (9_999, 10_001, 1_000_000, True),
        (999_998, 999_999, 1_000_000, False),
        (999_999, 1_000_000, 1_000_000, True),
        (0, 7_999_999, None, False),
        (7_999_999, 8_000_000, None, True),
        (5, 5, 5, False),
    ],
)
def test_download_is_told_in_hundredths(
    before: int, after: int, total: int | None, is_told: bool
) -> None:
    """However often a download is measured, it makes about a hundred events."""
    old = model("a", "downloading", came_bytes=before, total_bytes=total)
    new = model("a", "downloading", came_bytes=after, total_bytes=total)
    assert [kind for kind, *_ in told([old], [new])] == (["progress"] if is_told else [])


def test_note_is_progress() -> None:
    """Another note in the same state is told."""
    old, new = model("a", "starting", note="loads"), model("a", "starting", note="warms up")
    assert [kind for kind, *_ in told([old], [new])] == ["progress"]


def shown(bus: Bus, count: int) -> None:
    """Makes so many events: a model that goes back and forth between two notes."""
    first = model("a", "ready")
    bus.show("a", first)
    while bus.number < count:
        note = str(bus.number)
        bus.show("a", replace(first, replicas=(replace(first.replicas[0], note=note),)))


def test_one_who_comes_back_is_told_what_was_missed() -> None:
    """What is kept is told from any number on; what is not, or is yet to come, is not known."""
    bus = Bus()
    assert bus.since(0) == []
    assert bus.since(1) is None
    shown(bus, HISTORY_EVENTS + 10)
    assert bus.since(9) is None
    kept = bus.since(10)
    assert kept is not None
    assert [happened.number for happened in kept] == list(range(11, HISTORY_EVENTS + 11))
    assert bus.since(HISTORY_EVENTS + 10) == []
    assert bus.since(HISTORY_EVENTS + 11) is None


def test_listener_that_does_not_read_is_let_go() -> None:
    """A slow listener gets all events before the gap, then an error; the others lose nothing."""
    woken: list[int] = []
    bus = Bus()
    slow, quick = bus.listen(lambda: woken.append(1)), bus.listen(lambda: None)
    numbers = []
    for count in range(1, PENDING + 20):
        shown(bus, count)
        while (happened := quick.take()) is not None:
            numbers.append(happened.number)
    assert numbers == list(range(1, bus.number + 1))
    assert woken
    read = [slow.take() for _ in range(PENDING)]
    assert [happened.number for happened in read if happened] == list(range(1, PENDING + 1))
    with pytest.raises(TooSlow):
        slow.take()
