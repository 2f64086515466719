"""Which replica takes a request, and who waits: pure bookkeeping on the gateway's event loop.

Each replica serves as many requests as it has slots; the others wait here, first come, first
served, and not in an engine: a request that waits here goes to whichever replica is free first,
costs nothing when its client leaves, and survives the death of a replica.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from paddock.launcher.controller import Controller, ModelStatus
from paddock.launcher.replica import ReplicaStatus
from paddock.registry.errors import NotReady, QueueFull

QUEUE = 512
"""Requests that may wait for one model; more are refused with 429."""
LOOK_SECONDS = 0.25
"""How often one who waits looks whether the model is still there."""


@dataclass
class _Line:
    waiting: deque[asyncio.Future[None]] = field(default_factory=deque)


class Balancer:
    """Hands out slots of replicas."""

    def __init__(self, controller: Controller, queue: int = QUEUE) -> None:
        self._controller = controller
        self._queue = queue
        self._in_flight: Counter[str] = Counter()
        self._lines: dict[str, _Line] = {}
        self._leaving: dict[str, asyncio.Event] = {}

    def in_flight(self, replica_id: str) -> int:
        """Requests that a replica serves now."""
        return self._in_flight[replica_id]

    def waiting(self, uid: str) -> int:
        """Requests that wait for a slot of the model."""
        line = self._lines.get(uid)
        return len(line.waiting) if line is not None else 0

    def check(self, uid: str, parts: int = 1) -> None:
        """Refuses a request whose parts would overfill the queue.

        Raises:
            QueueFull: with a time after which to ask again.
        """
        if self.waiting(uid) + parts - 1 >= self._queue:
            raise QueueFull(uid, self._queue, retry_after=1.0)

    async def take(self, uid: str, avoid: Sequence[str] = ()) -> ReplicaStatus:
        """A slot of the replica with the fewest requests; waits for one. `give` it back.

        Replicas in `avoid` have failed this request and are not asked again.

        Raises:
            NotLaunched, NotReady: there is no such model (any more), or none that can answer.
        """
        line = self._lines.get(uid)
        if line is None or not line.waiting:
            found = self._free(self._controller.ready(uid), avoid)
            if found is not None:
                self._in_flight[found.replica_id] += 1
                return found
        line = self._lines.setdefault(uid, _Line())
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line.waiting.append(turn)
        try:
            while True:
                await asyncio.wait((turn,), timeout=LOOK_SECONDS)
                first = line.waiting[0] is turn
                found = self._free(self._controller.ready(uid), avoid) if first else None
                if found is not None:
                    self._in_flight[found.replica_id] += 1
                    return found
                if turn.done():
                    line.waiting.remove(turn)
                    turn = asyncio.get_running_loop().create_future()
                    line.waiting.appendleft(turn)
        finally:
            line.waiting.remove(turn)
            if not line.waiting:
                self._lines.pop(uid, None)
            else:
                self._wake(uid)

    def give(self, uid: str, replica: ReplicaStatus) -> None:
        """Gives a slot back; the first who waits gets it."""
        self._in_flight[replica.replica_id] -= 1
        if self._in_flight[replica.replica_id] <= 0:
            del self._in_flight[replica.replica_id]
            if replica.replica_id in self._leaving:
                self._leaving[replica.replica_id].set()
        self._wake(uid)

    @asynccontextmanager
    async def drained(self, replica_id: str, seconds: float) -> AsyncIterator[None]:
        """Gives the replica no more requests, and waits up to `seconds` for those that it has."""
        empty = self._leaving.setdefault(replica_id, asyncio.Event())
        try:
            if self._in_flight[replica_id] > 0:
                with suppress(TimeoutError):
                    await asyncio.wait_for(empty.wait(), seconds)
            yield
        finally:
            self._leaving.pop(replica_id, None)

    def _wake(self, uid: str) -> None:
        line = self._lines.get(uid)
        if line is not None and line.waiting and not line.waiting[0].done():
            line.waiting[0].set_result(None)

    def _free(self, status: ModelStatus, avoid: Sequence[str]) -> ReplicaStatus | None:
        ready = [replica for replica in status.replicas if replica.endpoint is not None]
        left = [
            replica
            for replica in ready
            if replica.replica_id not in avoid and replica.replica_id not in self._leaving
        ]
        if not left:
            raise NotReady(status.uid, status.state, "its engine does not answer", retry_after=1.0)
        return pick(left, self._in_flight, status.plan.slots)


def pick(
    ready: Iterable[ReplicaStatus], in_flight: Counter[str], slots: int
) -> ReplicaStatus | None:
    """The replica with the fewest requests in flight, the first of equals; None if all are full."""
    best = min(ready, key=lambda replica: in_flight[replica.replica_id])
    return best if in_flight[best.replica_id] < slots else None
