"""Calls over the bridge's socket: one JSON line each way, many at a time.

PaddockError
├── ActorLost          the actor is gone
└── ActorUnavailable   nothing can be said of it now; it may live
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import socket
import struct
from collections.abc import Callable
from typing import Any

from paddock.registry.errors import PaddockError

BEAT_SECONDS = 3.0
"""How often the bridge must answer. It does so from its event loop, on which nothing else waits."""
MISSED_BEATS = 2
"""After so many beats without an answer the bridge counts as hung. One is not enough: a process
that was stopped itself sees its own timers pass before it reads the answers that wait for it."""

CREDENTIALS = struct.Struct("3i")
"""Process, user and group of a socket's other end, as Linux tells them."""


class ActorLost(PaddockError):
    """The actor is gone: it was killed, or its node or all of Ray is not there any more."""


class ActorUnavailable(PaddockError):
    """The actor cannot be reached now; it may be again."""


ERRORS: dict[str, type[Exception]] = {
    "ActorLost": ActorLost,
    "ActorUnavailable": ActorUnavailable,
    "TimeoutError": TimeoutError,
}
"""What the bridge raises by name; any other error is a `RuntimeError` with its text."""


class Connection:
    """One connection to the bridge. Use from one event loop only.

    `on_broken` is called once when it breaks: at the end of the stream, at a line that cannot be
    read, or when the bridge does not answer any more. `close` breaks nothing.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        beat_seconds: float = BEAT_SECONDS,
    ) -> None:
        self._writer = writer
        self.on_broken: Callable[[], None] = lambda: None
        self._beat_seconds = beat_seconds
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._ids = itertools.count()
        self.open = True
        self.hangs = False
        """Whether it broke because the bridge did not answer."""
        self._tasks = (asyncio.create_task(self._read(reader)), asyncio.create_task(self._beat()))

    async def call(self, name: str, seconds: float, **args: Any) -> Any:
        """The call's result.

        Raises:
            ActorUnavailable: the connection is broken.
            TimeoutError: there was no answer within `seconds`.
            Exception: what the bridge raised, by `ERRORS`.
        """
        if not self.open:
            raise ActorUnavailable("the connection to Ray is broken")
        number = next(self._ids)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        request = {"id": number, "call": name, "args": args}
        # Not drained: a bridge that hangs would stop the caller, and requests are small.
        self._writer.write(json.dumps(request).encode() + b"\n")
        try:
            async with asyncio.timeout(seconds):
                return await future
        finally:
            self._waiting.pop(number, None)

    async def close(self) -> None:
        """Closes it; calls that still wait raise `ActorUnavailable`."""
        self._shut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        # ValueError: a line over the limit, or no JSON. The others: JSON of another shape.
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            while line := await reader.readline():
                reply = json.loads(line)
                future = self._waiting.pop(reply["id"], None)
                if future is not None and not future.done():
                    _settle(future, reply)
        self._break()

    async def _beat(self) -> None:
        missed = 0
        while self.open and missed < MISSED_BEATS:
            try:
                await self.call("ping", self._beat_seconds)
                missed = 0
                await asyncio.sleep(self._beat_seconds)
            except TimeoutError:
                missed += 1
            except ActorUnavailable:
                return
        self.hangs = self.open
        self._break()

    def _break(self) -> None:
        if self.open:
            self._shut()
            self.on_broken()

    def _shut(self) -> None:
        self.open = False
        self._writer.close()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(ActorUnavailable("the connection to Ray is broken"))


def is_own_peer(writer: asyncio.StreamWriter) -> bool:
    """Whether the other end of a local socket is a process of our own user."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:  # macOS; there, the folder's mode has to do
        return True
    peer = writer.get_extra_info("socket")
    _, uid, _ = CREDENTIALS.unpack(peer.getsockopt(socket.SOL_SOCKET, option, CREDENTIALS.size))
    return bool(uid == os.getuid())


def _settle(future: asyncio.Future[Any], reply: dict[str, Any]) -> None:
    if "error" in reply:
        error = ERRORS.get(reply["error"], RuntimeError)
        future.set_exception(error(reply["message"]))
    else:
        future.set_result(reply["result"])
