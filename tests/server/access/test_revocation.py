"""What becomes of requests in progress when their key is revoked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import cast

import pytest
from starlette.responses import JSONResponse, StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from paddock.launcher.fleet.fleet import Fleet
from paddock.registry.settings import read_settings
from paddock.server.access import revocation
from paddock.server.access.keys import KeyStore, NewKey
from paddock.server.access.security import Security
from paddock.server.proxy.forward import Inference
from tests.server.asgi import bearer, gateway, head
from tests.server.test_data_path import SECONDS, STREAM, event, post, request, world


@pytest.fixture(autouse=True)
def look(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file of keys is looked at often."""
    monkeypatch.setattr(revocation, "LOOK_SECONDS", 0.01)


class Call:
    """One GET in progress over an application: what came back so far."""

    def __init__(self, app: ASGIApp, path: str, key: str, query: str = "") -> None:
        self.messages: list[Message] = []
        self.came = asyncio.Event()
        scope = head("GET", path, bearer(key), query)
        self.task = asyncio.create_task(self._run(app, scope))

    async def _run(self, app: ASGIApp, scope: Scope) -> None:
        async def receive() -> Message:
            await asyncio.Event().wait()
            raise AssertionError

        async def send(message: Message) -> None:
            self.messages.append(message)
            self.came.set()

        await app(scope, receive, send)


async def test_stream_of_events_ends_with_its_key(home: Path) -> None:
    """`/v1/events` ends as a complete answer; a stream with another key goes on."""
    keys = KeyStore(home)
    revoked, other = keys.create("a"), keys.create("b")
    with gateway(home) as app:
        ending = Call(app, "/v1/events", revoked.secret)
        staying = Call(app, "/v1/events", other.secret)
        async with asyncio.timeout(SECONDS):
            await ending.came.wait()
            await staying.came.wait()
            KeyStore(home).revoke(revoked.key.id)  # as another process does it
            await ending.task
        assert ending.messages[0]["status"] == 200
        assert not ending.messages[-1].get("more_body")
        assert not staying.task.done()
        staying.task.cancel()
        await asyncio.wait([staying.task])


async def guarded(
    home: Path, made: NewKey, app: ASGIApp, then: Callable[[], Awaitable[None]]
) -> list[Message]:
    """What a GET with the key gets from `app`; `then` happens once it has begun."""
    settings = read_settings(environ={"PADDOCK_HOME": str(home)})
    call = Call(Security(app, settings, KeyStore(home)), "/v1/x", made.secret)
    async with asyncio.timeout(SECONDS):
        await then()
        await call.task
    return call.messages


async def test_stream_that_says_nothing_ends_too(home: Path) -> None:
    """A followed log without a line is a stream, though only its head has gone out."""
    keys, begun = KeyStore(home), asyncio.Event()
    made = keys.create("a")
    keys.create("b")

    async def lines() -> AsyncIterator[bytes]:
        begun.set()
        await asyncio.Event().wait()
        yield b""

    async def revoke() -> None:
        await begun.wait()
        keys.revoke(made.key.id)

    found = await guarded(home, made, StreamingResponse(lines()), revoke)
    assert [message["type"] for message in found] == ["http.response.start", "http.response.body"]


async def test_change_that_was_begun_is_carried_to_its_end(home: Path) -> None:
    """What is no stream is answered, although its key has gone."""
    keys, begun, looked = KeyStore(home), asyncio.Event(), asyncio.Event()
    made = keys.create("a")
    keys.create("b")

    async def change(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        await looked.wait()
        await JSONResponse({"done": True})(scope, receive, send)

    async def revoke() -> None:
        await begun.wait()
        keys.revoke(made.key.id)
        loop, later = asyncio.get_running_loop(), asyncio.Event()
        loop.call_later(revocation.LOOK_SECONDS * 3, later.set)
        await later.wait()
        looked.set()

    found = await guarded(home, made, change, revoke)
    assert json.loads(found[-1]["body"]) == {"done": True}


@pytest.mark.parametrize("begun", [False, True])
async def test_answer_of_a_model_ends_with_its_key(home: Path, begun: bool) -> None:
    """Before its first byte it is 401, after it an error event; the engine's work ends."""
    keys, asked, ended = KeyStore(home), asyncio.Event(), asyncio.Event()
    made = keys.create("a")
    keys.create("b")
    settings = read_settings(environ={"PADDOCK_HOME": str(home)})

    async def waits(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        if begun:
            writer.write(STREAM + event("one"))
        asked.set()
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await reader.readexactly(1)
        ended.set()

    def guard(app: ASGIApp) -> ASGIApp:
        routes = Inference(cast(Fleet, None)).routes()
        return Security(app, settings, KeyStore(home), routes)

    async with world(waits, guard=guard) as here:
        reader, writer = await here.connect()
        key = f"x-api-key: {made.secret}\r\n".encode()
        writer.write(post(stream=True).replace(b"\r\n", b"\r\n" + key, 1))
        async with asyncio.timeout(SECONDS):
            await asked.wait()
            if begun:
                await reader.readuntil(b'"one"')
            keys.revoke(made.key.id)
            answer = await reader.read()
            await ended.wait()
        writer.close()
        assert b"KeyRevoked" in answer
        assert answer.startswith(b"HTTP/1.1 401 ") is not begun
        assert here.ended[0].status == 401
