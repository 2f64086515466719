"""Request ids that are refused for a while, after `abort`."""

from __future__ import annotations

import heapq
import time

MAX_BLOCKED = 10_000
"""Ids that are kept, of about 200 bytes each; beyond, those that end soonest are forgotten."""

Id = tuple[str, str]


class Blocklist:
    """Ids with the moments until which they are refused, the soonest first."""

    def __init__(self) -> None:
        self._until: dict[Id, float] = {}
        self._ends: list[tuple[float, Id]] = []

    def __len__(self) -> int:
        return len(self._until)

    def add(self, uid: str, request_id: str, seconds: float) -> None:
        """Refuses an id of a model for so long from now on."""
        now = time.monotonic()
        self._prune(now)
        if seconds <= 0:
            return
        self._until[uid, request_id] = now + seconds
        heapq.heappush(self._ends, (now + seconds, (uid, request_id)))
        while len(self._ends) > MAX_BLOCKED:
            self._pop()

    def has(self, uid: str, request_id: str) -> bool:
        """Whether an id is refused now."""
        self._prune(time.monotonic())
        return (uid, request_id) in self._until

    def _prune(self, now: float) -> None:
        while self._ends and self._ends[0][0] <= now:
            self._pop()

    def _pop(self) -> None:
        end, blocked = heapq.heappop(self._ends)
        if self._until.get(blocked) == end:  # else it was blocked again, with another end
            del self._until[blocked]
