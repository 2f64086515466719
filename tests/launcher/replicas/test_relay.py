"""The relay: only who has the key gets through, and either side's end is the other's."""

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import aiohttp
import pytest
from aiohttp import web

from paddock.launcher.replicas.relay import HEAD_LIMIT, Relay

KEY = "the-key"
HEADERS = {"Authorization": f"Bearer {KEY}"}
DEADLINE = 10.0

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def relay_to(port: int, **options: float) -> AsyncIterator[Relay]:
    relay = Relay("127.0.0.1", port, KEY, **options)
    await relay.open()
    try:
        yield relay
    finally:
        await relay.close()


@asynccontextmanager
async def engine(handler: Handler) -> AsyncIterator[int]:
    """A server on loopback that treats connections as the handler says; its port."""
    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def connect(relay: Relay) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", urlsplit(relay.endpoint).port)


def head(key: str | None = KEY, more: str = "") -> bytes:
    line = f"aUTHORIZATION:  bEARER {key} \r\n" if key is not None else ""
    return f"GET / HTTP/1.1\r\nHost: x\r\n{line}{more}\r\n".encode()


async def untouched(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()
    raise AssertionError("the engine was reached")


async def test_streams_and_kept_connections_pass() -> None:
    """Answers come through as they are made, and one connection serves many requests."""
    go_on = asyncio.Event()

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"first")
        await go_on.wait()
        await response.write(b"second")
        return response

    async def echo(request: web.Request) -> web.Response:
        assert request.transport is not None
        peer = request.transport.get_extra_info("peername")
        return web.Response(body=await request.read(), headers={"Peer": str(peer)})

    app = web.Application(client_max_size=2**24)
    app.router.add_get("/stream", stream)
    app.router.add_post("/echo", echo)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    async with (
        relay_to(runner.addresses[0][1]) as relay,
        aiohttp.ClientSession(relay.endpoint, headers=HEADERS) as session,
        asyncio.timeout(DEADLINE),
    ):
        async with session.get("/stream") as answer:
            assert await answer.content.readany() == b"first"
            go_on.set()
            assert await answer.content.read() == b"second"
        peers = set()
        for size in (0, 1, 5_000_000):
            async with session.post("/echo", data=io.BytesIO(b"x" * size)) as answer:
                assert len(await answer.read()) == size
                peers.add(answer.headers["Peer"])
        assert len(peers) == 1
    await runner.cleanup()


@pytest.mark.parametrize("key", [None, "", "the-kez", "the-key2", "THE-KEY", "ключ"])
async def test_without_the_key_nothing_reaches_the_engine(key: str | None) -> None:
    """No key and a wrong one get 401 and an end, and the engine never hears of it."""
    async with engine(untouched) as port, relay_to(port) as relay, asyncio.timeout(DEADLINE):
        reader, writer = await connect(relay)
        writer.write(head(key))
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 401 ")
        assert b"relay:" in answer
        writer.close()


async def test_a_key_in_the_body_does_not_count() -> None:
    """Only the first head is looked at."""
    async with engine(untouched) as port, relay_to(port) as relay, asyncio.timeout(DEADLINE):
        reader, writer = await connect(relay)
        writer.write(head(None) + head(KEY))
        assert (await reader.read()).startswith(b"HTTP/1.1 401 ")
        writer.close()


async def test_a_client_that_leaves_ends_the_generation() -> None:
    """The engine sees the end of its connection, which stops its work."""
    came, left = asyncio.Event(), asyncio.Event()

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert b"the-key" in await reader.readuntil(b"\r\n\r\n")
        came.set()
        assert await reader.read() == b""
        left.set()
        writer.close()

    async with engine(endless) as port, relay_to(port) as relay, asyncio.timeout(DEADLINE):
        _, writer = await connect(relay)
        writer.write(head())
        await came.wait()
        writer.close()
        await left.wait()


async def test_an_engine_that_ends_closes_the_client() -> None:
    """What it sent last still arrives, then the end."""

    async def dies(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"last words" * 100_000)
        writer.close()

    async with engine(dies) as port, relay_to(port) as relay, asyncio.timeout(DEADLINE):
        reader, writer = await connect(relay)
        writer.write(head())
        assert len(await reader.read()) == 1_000_000
        writer.close()


async def test_an_engine_that_is_gone_closes_the_client() -> None:
    """Nobody listens behind the relay: the client gets an end and no invented answer."""
    async with engine(untouched) as port:
        pass
    async with relay_to(port) as relay, asyncio.timeout(DEADLINE):
        reader, writer = await connect(relay)
        writer.write(head())
        assert await reader.read() == b""
        writer.close()


async def test_a_head_without_end_is_cut_off() -> None:
    """More than the limit without an empty line is no request."""
    async with engine(untouched) as port, relay_to(port) as relay, asyncio.timeout(DEADLINE):
        reader, writer = await connect(relay)
        writer.write(head(more="X: " + "x" * (2 * HEAD_LIMIT) + "\r\n"))
        # What was sent and not read may reset the connection, which is an end as well.
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()


async def test_a_slow_head_times_out() -> None:
    """Who opens a connection and says nothing does not hold it for long."""
    async with (
        engine(untouched) as port,
        relay_to(port, head_seconds=0.05) as relay,
        asyncio.timeout(DEADLINE),
    ):
        reader, writer = await connect(relay)
        writer.write(b"GET / HTTP/1.1\r\n")
        assert await reader.read() == b""
        writer.close()


async def test_closing_ends_open_connections() -> None:
    """A relay that is closed lets go of both sides, and leaves no task."""
    came, left = asyncio.Event(), asyncio.Event()

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.set()
        await reader.read()
        left.set()
        writer.close()

    before = asyncio.all_tasks()
    async with engine(endless) as port, asyncio.timeout(DEADLINE):
        async with relay_to(port) as relay:
            reader, writer = await connect(relay)
            writer.write(head())
            await came.wait()
        await left.wait()
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
    extra = asyncio.all_tasks() - before
    if extra:
        await asyncio.wait(extra, timeout=DEADLINE)
    assert asyncio.all_tasks() <= before
