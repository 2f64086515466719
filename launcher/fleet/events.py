"""What happens to models, told to whoever listens.

The fleet shows the bus each model that has changed. The bus compares it with what it saw before
(`changes`, pure), keeps the last events for those who come back, and hands them on. It never waits
for a listener: one that does not keep up is let go. Beside the changes it keeps, for each model,
the last events in words.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from paddock.launcher.fleet.status import ModelStatus
from paddock.launcher.replicas.status import ReplicaStatus

Kind = Literal["model", "replica", "progress"]
HISTORY_EVENTS = 1000
"""Size of the history, for listeners that come back."""
TEXTS = 100
"""Size of a model's history in words."""
PENDING = 500
"""How many events may wait for one listener before it is let go."""
STEPS = 100
"""A download is told of in hundredths,"""
STEP_BYTES = 8_000_000
"""or in steps of so many bytes, where its size is not known."""


@dataclass(frozen=True)
class Event:
    """Something that happened to a model, in words; `at` is in seconds since 1970."""

    at: float
    text: str
    is_error: bool = False


@dataclass(frozen=True)
class Change:
    """One change. `model` is as it is now, or as it was last if it is gone; so is `replica`.

    `kind` is `model` when the model's state changed, `replica` when a replica's did, `progress`
    when a replica is further along in the same state.
    """

    kind: Kind
    model: ModelStatus
    replica: ReplicaStatus | None = None
    gone: bool = False


@dataclass(frozen=True)
class Happened:
    """A change with its number, which grows by one from 1, and its time in seconds."""

    number: int
    at: float
    change: Change


class TooSlow(Exception):
    """The listener did not keep up and gets nothing more."""


class Listener:
    """What one listener has yet to read. Leave with `Bus.leave`."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self.wake = wake
        self._pending: deque[Happened] = deque()
        self._lost = False

    def hand(self, happened: Happened) -> bool:
        """Gives it an event; False lets it go, for too many wait already."""
        self._lost = len(self._pending) >= PENDING
        if not self._lost:
            self._pending.append(happened)
        self.wake()
        return not self._lost

    def take(self) -> Happened | None:
        """The next event; None if none waits. Raises `TooSlow` after the last before a gap."""
        if self._pending:
            return self._pending.popleft()
        if self._lost:
            raise TooSlow
        return None


class Bus:
    """The events of one fleet. Use from its event loop only.

    `epoch` names this run of it: numbers of another run mean nothing here.
    """

    def __init__(self) -> None:
        self.epoch = f"{time.time_ns() // 1_000_000:x}"
        self.closed = False
        self._number = 0
        self._last_statuses: dict[str, ModelStatus] = {}
        self._history: deque[Happened] = deque(maxlen=HISTORY_EVENTS)
        self._listeners: set[Listener] = set()
        self._texts: dict[str, deque[Event]] = {}

    def say(self, uid: str, text: str, is_error: bool = False) -> None:
        """Notes an event of a model in words."""
        texts = self._texts.setdefault(uid, deque(maxlen=TEXTS))
        texts.append(Event(time.time(), text, is_error))

    def texts(self, uid: str) -> tuple[Event, ...]:
        """What happened to a model since this gateway knows it, oldest first."""
        return tuple(self._texts.get(uid, ()))

    @property
    def number(self) -> int:
        """The number of the last event; 0 before the first."""
        return self._number

    def show(self, uid: str, model: ModelStatus | None) -> None:
        """Looks at a model as it is now, None if it is gone, and tells what has changed."""
        before = {uid: self._last_statuses[uid]} if uid in self._last_statuses else {}
        for change in changes(before, {uid: model} if model is not None else {}):
            self._number += 1
            happened = Happened(self._number, time.time(), change)
            self._history.append(happened)
            self._listeners = {one for one in self._listeners if one.hand(happened)}
        if model is not None:
            self._last_statuses[uid] = model
        else:
            self._last_statuses.pop(uid, None)
            self._texts.pop(uid, None)

    def since(self, number: int) -> list[Happened] | None:
        """What happened after `number`; None if that is not known to the last event any more."""
        first = self._history[0].number if self._history else self._number + 1
        if not first - 1 <= number <= self._number:
            return None
        return [happened for happened in self._history if happened.number > number]

    def listen(self, wake: Callable[[], None]) -> Listener:
        """A listener for what happens from now on; `wake` is called when there is something."""
        listener = Listener(wake)
        self._listeners.add(listener)
        return listener

    def leave(self, listener: Listener) -> None:
        """Ends it."""
        self._listeners.discard(listener)

    def close(self) -> None:
        """Tells every listener that nothing more will come: `closed` is true."""
        self.closed = True
        for listener in self._listeners:
            listener.wake()


def changes(
    before: Mapping[str, ModelStatus], after: Mapping[str, ModelStatus]
) -> Iterator[Change]:
    """What made `after` of `before`: replicas before their model, since they make its state."""
    for uid, old in before.items():
        new = after.get(uid)
        if new is None or new.created != old.created:
            yield Change("model", old, gone=True)
    for uid, new in after.items():
        known = before.get(uid)
        if known is not None and known.created != new.created:
            known = None
        yield from _of_replicas(known, new)
        if known is None or known.state != new.state or known.plan.replicas != new.plan.replicas:
            yield Change("model", new)


def _of_replicas(known: ModelStatus | None, new: ModelStatus) -> Iterator[Change]:
    olds = {replica.replica_id: replica for replica in known.replicas} if known else {}
    for replica in new.replicas:
        old = olds.pop(replica.replica_id, None)
        if old is None or old.state != replica.state or old.restarts != replica.restarts:
            yield Change("replica", new, replica)
        elif _is_further(old, replica):
            yield Change("progress", new, replica)
    for old in olds.values():
        yield Change("replica", new, old, gone=True)


def _is_further(old: ReplicaStatus, new: ReplicaStatus) -> bool:
    """Whether the progress is worth telling: another note, or a step of the download."""
    if old.note != new.note or old.total_bytes != new.total_bytes:
        return True
    step = max(1, new.total_bytes // STEPS) if new.total_bytes else STEP_BYTES
    return new.came_bytes // step != old.came_bytes // step or (
        new.came_bytes != old.came_bytes and new.came_bytes == new.total_bytes
    )
