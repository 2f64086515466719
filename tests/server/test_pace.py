"""Requests that come slowly, or never, on a clock of the test's own."""

from __future__ import annotations

import asyncio
import heapq
import json
from collections.abc import Callable, Coroutine
from typing import Any, cast

import pytest
import uvicorn
from uvicorn.server import ServerState

from paddock.server.http.limits import BODY_PAUSE_SECONDS, HEAD_SECONDS, LimitedProtocol

HEAD = b"POST /v1/plan HTTP/1.1\r\nHost: localhost\r\n"
GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
KEEP_ALIVE_SECONDS = 5.0


class Timer:
    """A timer of the clock below."""

    def __init__(self, at: float, call: Callable[..., Any]) -> None:
        self.at = at
        self.call = call
        self.cancelled = False

    def __lt__(self, other: Timer) -> bool:
        return self.at < other.at

    def cancel(self) -> None:
        self.cancelled = True


class Clock:
    """The part of an event loop that the protocol uses; time passes by `wait`."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[Timer] = []
        self.loop = asyncio.get_running_loop()

    def time(self) -> float:
        return self.now

    def call_later(self, seconds: float, call: Callable[..., Any]) -> Timer:
        timer = Timer(self.now + seconds, call)
        heapq.heappush(self.timers, timer)
        return timer

    def create_task(self, work: Coroutine[Any, Any, Any], **options: Any) -> asyncio.Task[Any]:
        return self.loop.create_task(work, **options)

    def wait(self, seconds: float) -> None:
        until = self.now + seconds
        while self.timers and self.timers[0].at <= until:
            timer = heapq.heappop(self.timers)
            self.now = max(self.now, timer.at)
            if not timer.cancelled:
                timer.call()
        self.now = until


class Wire(asyncio.Transport):
    """A client's connection: what was written to it, and whether it was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False
        self.paused = False

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


class Connection:
    """One connection to a gateway whose application is `app`."""

    def __init__(self, app: Any) -> None:
        self.clock = Clock()
        self.wire = Wire()
        config = uvicorn.Config(
            app, http=LimitedProtocol, timeout_keep_alive=int(KEEP_ALIVE_SECONDS), log_config=None
        )
        state = ServerState()
        self.protocol = LimitedProtocol(config, state, {}, cast(Any, self.clock))
        self.tasks = state.tasks
        self.protocol.connection_made(self.wire)

    def send(self, data: bytes) -> None:
        self.protocol.data_received(data)

    async def settle(self) -> None:
        """Lets the application run until it waits for the client."""
        for _ in range(20):
            await asyncio.sleep(0)

    def lost(self) -> None:
        self.protocol.connection_lost(None)


Connect = Callable[..., Connection]


@pytest.fixture
async def connect() -> Any:
    """Makes connections, and ends them after the test."""
    made: list[Connection] = []

    def make(app: Any = None) -> Connection:
        made.append(Connection(app or answers))
        return made[-1]

    yield make
    for one in made:
        one.lost()
        await asyncio.gather(*one.tasks)


async def answers(scope: Any, receive: Any, send: Any) -> None:
    """Reads the body and answers with the request's headers."""
    while (message := await receive()).get("more_body"):
        pass
    if message["type"] == "http.disconnect":
        return
    body = json.dumps([name.decode() for name, _ in scope["headers"]]).encode()
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": body})


@pytest.mark.parametrize("begun", [b"", b"GET /", HEAD, HEAD + b"X-Hay: a"])
async def test_head_must_be_complete_in_time(connect: Connect, begun: bytes) -> None:
    """A connection that is silent, or sends part of a head, is closed; the latter with 408."""
    connection = connect()
    if begun:
        connection.send(begun)
    connection.clock.wait(HEAD_SECONDS - 1)
    assert not connection.wire.closed
    connection.clock.wait(2)
    assert connection.wire.closed
    assert connection.wire.written.startswith(b"HTTP/1.1 408 " if begun else b"")
    assert bool(connection.wire.written) == bool(begun)


async def test_head_that_grows_slowly_is_cut_off(connect: Connect) -> None:
    """A byte now and then does not prolong the time for a head."""
    connection = connect()
    connection.send(b"GET /")
    for _ in range(int(HEAD_SECONDS)):
        assert not connection.wire.closed
        connection.send(b"a")
        connection.clock.wait(1)
    assert connection.wire.written.startswith(b"HTTP/1.1 408 ")


async def test_empty_lines_do_not_keep_a_connection(connect: Connect) -> None:
    """What comes before a head counts as part of it."""
    connection = connect()
    connection.send(GET)
    await connection.settle()
    for _ in range(int(HEAD_SECONDS / (KEEP_ALIVE_SECONDS - 1)) + 2):
        connection.send(b"\r\n")
        connection.clock.wait(KEEP_ALIVE_SECONDS - 1)
    assert connection.wire.closed


@pytest.mark.parametrize(
    "begun",
    [
        b"Content-Length: 10\r\n\r\n",
        b"Content-Length: 10\r\n\r\nhalf",
        b"Transfer-Encoding: chunked\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n0\r\nX-Hay: a",
    ],
)
async def test_body_may_not_pause_for_ever(connect: Connect, begun: bytes) -> None:
    """A body that stops coming ends in 408, and its request sees that the client left."""
    connection = connect()
    connection.send(HEAD + begun)
    await connection.settle()
    connection.clock.wait(BODY_PAUSE_SECONDS - 1)
    assert not connection.wire.closed
    connection.clock.wait(2)
    assert connection.wire.closed
    assert connection.wire.written.startswith(b"HTTP/1.1 408 ")


async def test_slow_body_that_moves_is_never_cut(connect: Connect) -> None:
    """Any byte is progress, however long all of it takes."""
    connection = connect()
    connection.send(HEAD + b"Content-Length: 50\r\n\r\n")
    for _ in range(50):
        connection.clock.wait(BODY_PAUSE_SECONDS - 1)
        connection.send(b"a")
    await connection.settle()
    assert connection.wire.written.startswith(b"HTTP/1.1 200 ")


async def test_body_that_the_gateway_does_not_read_yet_is_not_late(connect: Connect) -> None:
    """Where reading is paused the client cannot go on, and its time does not pass."""
    read = asyncio.Event()

    async def busy(scope: Any, receive: Any, send: Any) -> None:
        await read.wait()
        await answers(scope, receive, send)

    connection = connect(busy)
    size = 1_000_000
    connection.send(HEAD + b"Content-Length: %d\r\n\r\n" % (size + 1) + b"a" * 100_000)
    assert connection.wire.paused
    connection.clock.wait(BODY_PAUSE_SECONDS * 10)
    assert not connection.wire.closed
    read.set()
    await connection.settle()
    assert not connection.wire.paused
    connection.send(b"a" * (size - 100_000 + 1))
    await connection.settle()
    assert connection.wire.written.startswith(b"HTTP/1.1 200 ")


async def test_client_that_waits_to_be_asked_is_not_late(connect: Connect) -> None:
    """With `Expect: 100-continue`, the pause begins when the gateway has asked for the body."""
    read = asyncio.Event()

    async def busy(scope: Any, receive: Any, send: Any) -> None:
        await read.wait()
        await answers(scope, receive, send)

    connection = connect(busy)
    connection.send(HEAD + b"Expect: 100-continue\r\nContent-Length: 4\r\n\r\n")
    await connection.settle()
    connection.clock.wait(BODY_PAUSE_SECONDS * 3)
    assert not connection.wire.closed
    read.set()
    await connection.settle()
    assert connection.wire.written == b"HTTP/1.1 100 Continue\r\n\r\n"
    connection.clock.wait(BODY_PAUSE_SECONDS * 2 + 1)
    assert connection.wire.closed


async def test_answer_in_progress_is_never_cut(connect: Connect) -> None:
    """A stream lasts as long as it likes, whatever else its client has begun to send."""
    go_on = asyncio.Event()

    async def streams(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        await go_on.wait()
        await send({"type": "http.response.body", "body": b"two"})

    for begun in (GET, GET + b"GET /he", HEAD + b"Content-Length: 10\r\n\r\n"):
        go_on.clear()
        connection = connect(streams)
        connection.send(begun)
        await connection.settle()
        connection.clock.wait(HEAD_SECONDS * 100)
        assert not connection.wire.closed
        go_on.set()
        await connection.settle()
        assert connection.wire.written.endswith(b"two\r\n0\r\n\r\n")


async def test_idle_connection_closes_after_keep_alive(connect: Connect) -> None:
    """Between requests uvicorn's own limit applies, and leaves no timer behind."""
    connection = connect()
    for _ in range(3):
        connection.send(GET)
        await connection.settle()
        connection.clock.wait(KEEP_ALIVE_SECONDS - 1)
        assert not connection.wire.closed
    assert connection.wire.written.count(b"HTTP/1.1 200 ") == 3
    connection.clock.wait(2)
    assert connection.wire.closed


async def test_rest_of_a_refused_body_has_a_limit_too(connect: Connect) -> None:
    """An answer that comes before the body's end does not free the client from sending it."""

    async def refuses(scope: Any, receive: Any, send: Any) -> None:
        length = (b"content-length", b"0")
        await send({"type": "http.response.start", "status": 413, "headers": [length]})
        await send({"type": "http.response.body", "body": b""})

    connection = connect(refuses)
    connection.send(HEAD + b"Content-Length: 1000\r\n\r\n")
    await connection.settle()
    connection.send(b"a")
    connection.clock.wait(BODY_PAUSE_SECONDS + 1)
    assert connection.wire.closed


async def test_trailers_are_not_headers(connect: Connect) -> None:
    """Fields after the last chunk are dropped; the next head on the connection counts again."""
    connection = connect()
    chunked = HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n"
    connection.send(chunked + b"Authorization: Bearer pk-1\r\nOrigin: http://evil.example\r\n\r\n")
    await connection.settle()
    assert b'["host", "transfer-encoding"]' in connection.wire.written
    connection.send(GET[:-2] + b"Authorization: Bearer pk-1\r\n\r\n")
    await connection.settle()
    assert b'["host", "authorization"]' in connection.wire.written
