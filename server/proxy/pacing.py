"""How often a stream is read where many run at once.

Each read wakes the gateway, whose write wakes the client: on a machine whose cores the engine wants
for itself, most of what a token costs is that. So where more than a few streams run, one that has
just been read rests before it is read again, longer the more there are, and what came meanwhile
passes in one piece. A stream whose tokens are further apart than that has nothing to read after its
rest; it goes back to the event loop, which passes the next one at once.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

log = logging.getLogger(__name__)

FEW = 3
"""Streams that are read as they come: one stream's end must not wait, as it would in a rest."""
REST_SECONDS = 0.0005
"""A rest's length for each stream that runs: all of them are read 2,000 times a second together."""
LONGEST_REST_SECONDS = 0.02


class Stream(Protocol):
    """What can rest."""

    def wake(self) -> None:
        """The rest is over."""
        ...


class Pacer:
    """The streams that run, and the rests of those that are fast. All rests end together."""

    def __init__(self) -> None:
        self._running: set[Stream] = set()
        self._resting: list[Stream] = []

    def enter(self, stream: Stream) -> None:
        """A stream begins."""
        self._running.add(stream)

    def leave(self, stream: Stream) -> None:
        """A stream is over, or never was."""
        self._running.discard(stream)

    def rest(self, stream: Stream) -> bool:
        """Whether a stream that was read shall rest now; if so, it is woken in a while."""
        running = len(self._running)
        if running <= FEW:
            return False
        if not self._resting:
            seconds = min(REST_SECONDS * running, LONGEST_REST_SECONDS)
            asyncio.get_running_loop().call_later(seconds, self._wake)
        self._resting.append(stream)
        return True

    def _wake(self) -> None:
        rested, self._resting = self._resting, []
        for stream in rested:
            try:
                stream.wake()
            except Exception:
                # A bug in one stream's steps must not leave the others asleep.
                log.exception("a stream failed")
