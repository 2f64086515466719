"""Gives up on engines that send nothing for too long: one timer for all requests.

A timer for each request would cost more than its bytes do.
"""

from __future__ import annotations

import asyncio
from typing import Protocol


class Silent(Protocol):
    """A connection whose engine may fall silent."""

    @property
    def silent_seconds(self) -> float:
        """Since when the engine has sent nothing, though it could."""
        ...

    def give_up(self) -> None:
        """Ends the connection, because its engine is silent."""
        ...


class Patience:
    """The connections with a request on them, and how long each may be silent."""

    def __init__(self) -> None:
        self._limits: dict[Silent, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._next_look = 0.0

    def enter(self, connection: Silent, seconds: float) -> None:
        """A request was sent; its engine may be silent for so long."""
        self._limits[connection] = seconds
        due = asyncio.get_running_loop().time() + seconds
        if self._timer is None or due < self._next_look:
            self._look_at(due)

    def leave(self, connection: Silent) -> None:
        """Its answer is whole, or nobody waits for it any more."""
        self._limits.pop(connection, None)

    def _look_at(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._next_look = due
        self._timer = asyncio.get_running_loop().call_at(due, self._look)

    def _look(self) -> None:
        self._timer = None
        for connection, seconds in tuple(self._limits.items()):
            if connection.silent_seconds >= seconds:
                connection.give_up()
        left = [seconds - one.silent_seconds for one, seconds in self._limits.items()]
        if left:
            self._look_at(asyncio.get_running_loop().time() + max(0.001, min(left)))

    def close(self) -> None:
        """Looks no more."""
        self._limits.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
