"""The data path: completions and chat, from the client to the engine and back as bytes.

The gateway reads the model id, picks the replica with the fewest requests in flight and copies
bytes. Raw ASGI, so that nothing stands between the engine's chunk and the client's socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from paddock.launcher.controller import Controller, ModelStatus
from paddock.launcher.replica import ReplicaStatus
from paddock.registry.errors import BadValue, NotAble, NotReady, PaddockError
from paddock.server.errors import on_bug, render

if TYPE_CHECKING:
    import aiohttp

MAX_BODY_BYTES = 64_000_000
# Path → the ability that a model needs for it.
ROUTES = {"/v1/completions": "generate", "/v1/chat/completions": "chat"}
KEPT_HEADERS = frozenset({b"content-type", b"cache-control"})
# llama.cpp closes a kept connection after 5 s without a request, and after 100 requests: the pool
# gives up first on the former; a request that meets the latter is sent once more, on a new one.
KEPT_SECONDS = 4.0


class _ClientLeft(Exception):
    pass


class Inference:
    """Forwards requests to replicas. `open` before the first, `close` after the last."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._kept: aiohttp.ClientSession | None = None
        self._fresh: aiohttp.ClientSession | None = None
        self._in_flight: Counter[str] = Counter()

    async def open(self) -> None:
        """Opens the pools of connections to engines: of kept ones, and of new ones."""
        import aiohttp

        self._kept, self._fresh = (
            aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
                connector=connector,
                auto_decompress=False,
            )
            for connector in (
                aiohttp.TCPConnector(limit=0, keepalive_timeout=KEPT_SECONDS),
                aiohttp.TCPConnector(limit=0, force_close=True),
            )
        )

    async def close(self) -> None:
        """Closes the pools."""
        for session in (self._kept, self._fresh):
            if session is not None:
                await session.close()

    def routes(self) -> list[Route]:
        """One route a path. A class instance as endpoint is taken as a raw ASGI application."""
        return [
            Route(path, endpoint=_Forward(self, path, ability), methods=["POST"])
            for path, ability in ROUTES.items()
        ]

    def ahead_of(self, app: ASGIApp) -> ASGIApp:
        """`app`, but that requests for inference go past its router and its middleware.

        Each of those wraps `send`, which is called for every chunk.
        """
        forwards = {path: _Forward(self, path, ability) for path, ability in ROUTES.items()}

        async def ahead(scope: Scope, receive: Receive, send: Send) -> None:
            forward = forwards.get(scope.get("path", ""))
            if forward is not None and scope["type"] == "http" and scope["method"] == "POST":
                await forward(scope, receive, send)
            else:
                await app(scope, receive, send)

        return ahead

    async def forward(self, path: str, ability: str, receive: Receive, send: Send) -> None:
        """Answers one request. Raises only before the first byte has gone out."""
        body = await _read(receive)
        uid = _model(body)
        status = self._controller.ready(uid)
        if ability not in status.plan.abilities:
            raise NotAble(uid, ability, status.plan.abilities)
        replica = self._pick(status)
        self._in_flight[replica.replica_id] += 1
        gone = asyncio.create_task(_gone(receive))
        passing = asyncio.create_task(self._pass(uid, replica, path, body, send))
        try:
            await asyncio.wait([passing, gone], return_when=asyncio.FIRST_COMPLETED)
            if passing.done():
                passing.result()
        finally:
            # A client that left ends the generation: closing the connection tells the engine.
            for task in (passing, gone):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, PaddockError, OSError):
                    await task
            self._in_flight[replica.replica_id] -= 1

    def _pick(self, status: ModelStatus) -> ReplicaStatus:
        """The ready replica with the fewest requests in flight; the first of equals."""
        ready = [replica for replica in status.replicas if replica.endpoint is not None]
        if not ready:
            raise NotReady(status.uid, status.state, retry_after=1.0)
        return min(ready, key=lambda replica: self._in_flight[replica.replica_id])

    async def _pass(
        self, uid: str, replica: ReplicaStatus, path: str, body: bytes, send: Send
    ) -> None:
        answer = await self._ask(uid, replica, path, body)
        try:
            headers = [
                (name.lower(), value)
                for name, value in answer.raw_headers
                if name.lower() in KEPT_HEADERS
            ]
            start = {"type": "http.response.start", "status": answer.status, "headers": headers}
            await send(start)
            async for chunk in answer.content.iter_any():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            # Not `release`: a connection with an unread answer must be closed to stop the engine.
            answer.close()

    async def _ask(
        self, uid: str, replica: ReplicaStatus, path: str, body: bytes
    ) -> aiohttp.ClientResponse:
        import aiohttp

        assert self._kept is not None
        assert self._fresh is not None
        headers = {"Authorization": f"Bearer {replica.key}", "Content-Type": "application/json"}
        url = f"{replica.endpoint}{path}"
        try:
            return await self._kept.post(url, data=body, headers=headers)
        except aiohttp.ClientConnectionError:
            try:
                return await self._fresh.post(url, data=body, headers=headers)
            except aiohttp.ClientConnectionError as error:
                why = f"its engine does not answer ({error})"
                raise NotReady(uid, "ready", why, retry_after=1.0) from error


class _Forward:
    """One path as an ASGI application."""

    def __init__(self, inference: Inference, path: str, ability: str) -> None:
        self._inference = inference
        self._path = path
        self._ability = ability

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._inference.forward(self._path, self._ability, receive, send)
        except _ClientLeft:
            pass  # there is nobody to tell
        except PaddockError as error:
            await render(error)(scope, receive, send)
        except Exception as error:  # noqa: BLE001 - the border: a bug is a 500, as on other routes
            await (await on_bug(Request(scope), error))(scope, receive, send)


async def _read(receive: Receive) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _ClientLeft
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MAX_BODY_BYTES:
            raise BadValue("body", f"over {MAX_BODY_BYTES} bytes", "is too large")
        if not message.get("more_body"):
            return b"".join(parts)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _model(body: bytes) -> str:
    try:
        given: Any = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadValue(
            "body", body[:40].decode("utf-8", "replace"), f"is not JSON: {error}"
        ) from None
    if not isinstance(given, dict):
        raise BadValue("body", type(given).__name__, "must be a JSON object")
    uid = given.get("model")
    if not isinstance(uid, str) or not uid:
        raise BadValue("model", uid, "is needed: the id of a launched model, as text")
    return uid
