"""Ends what was begun with a key once the key is revoked.

A key is checked when its request comes, but a stream of events, a followed log or a long answer
goes on for hours. While such requests are open, the file of keys is looked at by a timer: another
process (`paddock keys revoke`) may have written it.

Requests to models end at any time, and other requests once they stream. What changes something,
such as a launch, is carried to its end: half of it would help nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from paddock.registry.errors import CorruptFile
from paddock.server.access.keys import KeyStore, Principal, principal

LOOK_SECONDS = 1.0
"""How soon after its key's end a stream ends; one `stat` each."""
_KEY = "paddock.revoked"


def is_revoked(scope: MutableMapping[str, Any]) -> bool:
    """Whether the request was cancelled because its key was revoked."""
    return bool(scope.get(_KEY))


class _Open:
    """One request in progress. `streams`: it may be ended at its present point."""

    def __init__(self, caller: Principal, scope: Scope, streams: bool) -> None:
        self.key_id = caller.id
        self.scope = scope
        self.streams = streams
        self._task = asyncio.current_task()

    def end(self) -> None:
        self.scope[_KEY] = True
        if self._task is not None:
            self._task.cancel()


class Revocations:
    """The open requests of one gateway, by the key that they came with."""

    def __init__(self, keys: KeyStore) -> None:
        self._keys = keys
        self._open: set[_Open] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def inference(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Runs a request to a model, which tells its client of the end itself: see `is_revoked`."""
        request = self._enter(scope, streams=True)
        try:
            await app(scope, receive, send)
        finally:
            self._leave(request)

    async def stream(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Runs another request. A stream ends where it stands; its client's next request is 401."""
        request = self._enter(scope, streams=False)

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                # An answer of a known length is on its way completely.
                names = {name.lower() for name, _ in message.get("headers", ())}
                request.streams = b"content-length" not in names
            await send(message)

        try:
            await app(scope, receive, noted)
        except asyncio.CancelledError:
            if not is_revoked(scope):
                raise
            await send({"type": "http.response.body", "body": b""})
        finally:
            self._leave(request)

    def _enter(self, scope: Scope, streams: bool) -> _Open:
        request = _Open(principal(scope), scope, streams)
        self._open.add(request)
        if self._timer is None:
            self._watch()
        return request

    def _leave(self, request: _Open) -> None:
        self._open.discard(request)

    def _watch(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        self._timer = None
        if not self._open:
            return
        self._watch()
        try:
            known = self._keys.ids()
        except CorruptFile:
            return  # it is not known who may go on; who comes anew is told so
        for request in tuple(self._open):
            if request.streams and request.key_id not in known:
                self._leave(request)
                request.end()
