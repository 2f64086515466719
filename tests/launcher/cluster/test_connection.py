"""Calls to a bridge that breaks, hangs or answers nonsense."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from paddock.launcher.cluster.connection import ActorLost, ActorUnavailable, Connection, is_own_peer

LIMIT = 1000
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Connect = Callable[..., Awaitable[Connection]]


@pytest.fixture
async def connect(tmp_path: Path) -> AsyncIterator[Connect]:
    """Connects to a bridge that is a function of this process."""
    connections: list[Connection] = []
    servers: list[asyncio.Server] = []

    async def build(serve: Serve, beat_seconds: float = 60.0) -> Connection:
        path = tmp_path / str(len(servers))
        servers.append(await asyncio.start_unix_server(serve, path))
        pair = await asyncio.open_unix_connection(path, limit=LIMIT)
        connections.append(Connection(*pair, beat_seconds=beat_seconds))
        return connections[-1]

    yield build
    for connection in connections:
        await connection.close()
    for server in servers:
        server.close()


async def request(reader: asyncio.StreamReader, call: str = "find") -> int:
    """Reads up to a request of this name; its number."""
    while True:
        asked = json.loads(await reader.readline())
        if asked["call"] == call:
            return int(asked["id"])


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reads and never answers, as a process does that was stopped."""
    await reader.read()
    writer.close()


@pytest.mark.parametrize(
    "line", [b"x" * (2 * LIMIT) + b"\n", b"no json\n", b"[]\n", b"{}\n", b"\xff\n", b""]
)
async def test_a_line_that_cannot_be_read_breaks_the_connection(
    connect: Connect, line: bytes
) -> None:
    """An over-long, a broken or no line settles every call, is told once, and ends new calls."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        await request(reader)
        writer.write(line)
        writer.close()

    connection = await connect(serve)
    losses: list[bool] = []
    connection.on_broken = lambda: losses.append(connection.open)
    calls = [asyncio.create_task(connection.call("find", 30.0)) for _ in range(2)]
    for call in calls:
        with pytest.raises(ActorUnavailable):
            await call
    assert losses == [False]
    with pytest.raises(ActorUnavailable):
        await connection.call("find", 30.0)


async def test_a_bridge_that_hangs_counts_as_lost(connect: Connect) -> None:
    """Two beats without an answer settle the calls that wait."""
    connection = await connect(silent, beat_seconds=0.01)
    lost = asyncio.Event()
    connection.on_broken = lost.set
    with pytest.raises(ActorUnavailable):
        await connection.call("find", 30.0)
    assert lost.is_set()
    assert connection.hangs


async def test_a_call_has_a_time_limit(connect: Connect) -> None:
    """A call that is not answered in time raises `TimeoutError`, and the connection lives on."""
    connection = await connect(silent)
    with pytest.raises(TimeoutError):
        await connection.call("find", 0.01)
    assert connection.open


async def test_another_users_process_is_told_from_our_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each end of a socket knows whose process the other end is."""
    seen: asyncio.Queue[bool] = asyncio.Queue()

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.put_nowait(is_own_peer(writer))
        writer.close()

    server = await asyncio.start_unix_server(serve, tmp_path / "socket")
    for user, is_own in ((os.getuid(), True), (os.getuid() + 1, False)):
        monkeypatch.setattr(os, "getuid", lambda user=user: user)
        _, writer = await asyncio.open_unix_connection(tmp_path / "socket")
        assert is_own_peer(writer) is is_own
        assert await seen.get() is is_own
        writer.close()
    server.close()


async def test_closing_is_no_loss(connect: Connect) -> None:
    """`close` ends the calls that wait and tells nobody of a loss."""
    connection = await connect(silent)
    losses: list[None] = []
    connection.on_broken = lambda: losses.append(None)
    call = asyncio.create_task(connection.call("find", 30.0))
    await asyncio.sleep(0)
    await connection.close()
    with pytest.raises(ActorUnavailable):
        await call
    assert losses == []


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("ActorLost", ActorLost),
        ("ActorUnavailable", ActorUnavailable),
        ("TimeoutError", TimeoutError),
        ("internal", RuntimeError),
    ],
)
async def test_errors_cross_the_socket_by_name(
    connect: Connect, name: str, error: type[Exception]
) -> None:
    """What the bridge raised is raised at the gateway, with its text."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reply = {"id": await request(reader), "error": name, "message": "the text"}
        writer.write(json.dumps(reply).encode() + b"\n")
        await silent(reader, writer)

    connection = await connect(serve)
    with pytest.raises(error, match="the text"):
        await connection.call("find", 30.0)
