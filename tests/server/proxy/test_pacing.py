"""Rests between reads: what passes when, driven by hand."""

from __future__ import annotations

import asyncio
import select
from typing import Any

import pytest

from paddock.server.proxy import pacing
from paddock.server.proxy.pacing import Pacer, Stream
from tests.server.test_data_path import (
    END,
    SECONDS,
    STREAM,
    World,
    event,
    post,
    request,
    until,
    world,
)


class ByHand(Pacer):
    """Every stream rests after each read, until the test says otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.rests: asyncio.Queue[Any] = asyncio.Queue()

    def rest(self, stream: Stream) -> bool:
        self.rests.put_nowait(stream)
        return True


class Engine:
    """Sends what the test says, on one connection."""

    def __init__(self) -> None:
        self.writer: asyncio.StreamWriter | None = None
        self.asked = asyncio.Event()
        self.left = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        self.writer = writer
        writer.write(STREAM)
        self.asked.set()
        try:
            await reader.read()
        finally:
            self.left.set()

    def send(self, data: bytes) -> None:
        assert self.writer is not None
        self.writer.write(data)


async def begin(
    here: World, by_hand: ByHand, engine: Engine
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A stream whose first event has passed and that rests."""
    assert here.inference is not None
    here.inference._pool.pacer = by_hand
    reader, writer = await here.connect()
    writer.write(post(stream=True))
    await engine.asked.wait()
    engine.send(event("one"))
    await reader.readuntil(b"\r\n\r\n")
    assert b"one" in await chunk(reader)
    return reader, writer


async def chunk(reader: asyncio.StreamReader) -> bytes:
    """One chunk of the client's answer, which is one write of the gateway."""
    size = int(await reader.readuntil(b"\r\n"), 16)
    return (await reader.readexactly(size + 2))[:-2]


async def unread(upstream: Any) -> None:
    """Waits until something has come to the gateway, and sees that it stays where it is."""
    sock = upstream._transport.get_extra_info("socket")
    await until(lambda: select.select([sock], [], [], 0)[0])
    for _ in range(10):  # the loop would read it in the first of these
        await asyncio.sleep(0)
    assert select.select([sock], [], [], 0)[0]


async def test_what_came_in_a_rest_passes_in_one_piece() -> None:
    """It waits for the end of the rest; after a rest in which nothing came, all passes at once."""
    engine, by_hand = Engine(), ByHand()
    async with asyncio.timeout(SECONDS), world(engine) as here:
        reader, writer = await begin(here, by_hand, engine)
        engine.send(event("two"))
        engine.send(event("three"))
        waiting = asyncio.create_task(chunk(reader))
        resting = await by_hand.rests.get()
        await unread(resting)
        assert not waiting.done()
        resting.wake()
        piece = await waiting
        assert piece.count(b"data: ") == 2
        assert piece.index(b"two") < piece.index(b"three")
        (await by_hand.rests.get()).wake()  # nothing came
        engine.send(event("four"))
        assert b"four" in await chunk(reader)
        engine.send(END)
        (await by_hand.rests.get()).wake()
        assert b"[DONE]" in await chunk(reader)
        assert await reader.read() == b"0\r\n\r\n"
        writer.close()
    assert here.ended[0].status == 200


async def test_engine_that_dies_in_a_rest_is_found_after_it() -> None:
    """What it had sent passes, and the client is told."""
    engine, by_hand = Engine(), ByHand()
    async with asyncio.timeout(SECONDS), world(engine) as here:
        reader, writer = await begin(here, by_hand, engine)
        engine.send(event("two"))
        assert engine.writer is not None
        engine.writer.close()
        (await by_hand.rests.get()).wake()
        assert b"two" in await chunk(reader)
        (await by_hand.rests.get()).wake()
        assert b"broke off" in await reader.read()
        writer.close()


async def test_client_that_leaves_in_a_rest_ends_the_generation() -> None:
    """At once, not after the rest; and the end of the rest finds nothing to do."""
    engine, by_hand = Engine(), ByHand()
    async with asyncio.timeout(SECONDS), world(engine) as here:
        _, writer = await begin(here, by_hand, engine)
        resting = await by_hand.rests.get()
        writer.transport.abort()
        await engine.left.wait()
        resting.wake()
        assert by_hand.rests.empty()
        assert not by_hand._running


async def test_stream_held_back_by_its_client_is_not_read_after_a_rest() -> None:
    """A slow client and a rest both stop reading; it begins again when both are over."""
    engine, by_hand = Engine(), ByHand()
    async with asyncio.timeout(SECONDS), world(engine) as here:
        reader, writer = await begin(here, by_hand, engine)
        resting = await by_hand.rests.get()
        resting.pause()
        engine.send(event("two"))
        resting.wake()
        waiting = asyncio.create_task(chunk(reader))
        await unread(resting)
        assert not waiting.done()
        resting.resume()
        assert b"two" in await waiting
        writer.close()


class Sleeper:
    """Counts its wakes."""

    def __init__(self) -> None:
        self.wakes = 0

    def wake(self) -> None:
        self.wakes += 1


async def test_few_streams_do_not_rest_and_many_wake_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A few are read as they come; of many, each read is followed by one rest."""
    monkeypatch.setattr(pacing, "REST_SECONDS", 0.001)
    pace, streams = Pacer(), [Sleeper() for _ in range(pacing.FEW + 1)]
    for stream in streams[:-1]:
        pace.enter(stream)
        assert not pace.rest(stream)
    pace.enter(streams[-1])
    assert all(pace.rest(stream) for stream in streams)
    assert not any(stream.wakes for stream in streams)
    async with asyncio.timeout(SECONDS):
        await until(lambda: streams[-1].wakes)
    assert [stream.wakes for stream in streams] == [1] * len(streams)
    pace.leave(streams[0])
    assert not pace.rest(streams[1])
