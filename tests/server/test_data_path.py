"""The data path between scripted engines and raw clients: what no real engine does on demand."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest
from starlette.types import ASGIApp

from paddock.launcher.fleet.activity import Lease, SlotQueue, pick
from paddock.launcher.fleet.fleet import Fleet
from paddock.launcher.replicas.status import ReplicaStatus
from paddock.registry.errors import NotLaunched, QueueFull
from paddock.registry.json_codec import encode
from paddock.server.access.keys import ANYONE
from paddock.server.dialects import fields, openai
from paddock.server.http import large
from paddock.server.http.body import parse
from paddock.server.proxy import forward, pacing
from paddock.server.proxy.forward import Inference
from paddock.server.proxy.sinks import PartSink
from paddock.server.proxy.upstream import Pool
from paddock.server.telemetry.timeline import Timeline
from tests.server.serving import serving

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
SECONDS = 20.0


@pytest.fixture(params=["at once", "paced"], autouse=True)
def pace(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test runs twice: read as it comes, and with a rest after each read."""
    if request.param == "paced":
        monkeypatch.setattr(pacing, "FEW", 0)


def event(text: str, **more: Any) -> bytes:
    """One event of a stream of completions, as a chunk."""
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": None, **more}
    data = b"data: %b\n\n" % json.dumps({"id": "x", "model": "m", "choices": [choice]}).encode()
    return b"%x\r\n%b\r\n" % (len(data), data)


SENTINELS = {b"", b"data: [DONE]"}
END = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


async def until(condition: Callable[[], Any]) -> None:
    """Waits for what has no event, within the deadline around it."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.005)


async def request(reader: asyncio.StreamReader) -> dict[str, Any]:
    """Reads one request; its body."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
    return dict(json.loads(await reader.readexactly(length)))


async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers every request on the connection with three events."""
    while True:
        try:
            await request(reader)
        except asyncio.IncompleteReadError:
            return
        writer.write(STREAM + event("one") + event(" two") + event("", finish_reason="stop") + END)


async def hangs_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reads a request and closes."""
    await request(reader)


async def breaks_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Closes in the middle of the second event."""
    await request(reader)
    writer.write(STREAM + event("one") + event("two")[:20])
    await writer.drain()


@dataclass
class World:
    """Replicas of one model, the gateway in front of them, and what was asked of whom."""

    port: int = 0
    slot_count: int = 4
    replicas: list[ReplicaStatus] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)
    ended: list[Timeline] = field(default_factory=list)
    inference: Inference | None = None
    diagnosis: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        self.slots = SlotQueue(self)

    async def ensure_ready(self, uid: str, avoid: Sequence[str] = (), client: str = "") -> Lease:
        return await self.slots.acquire(uid, avoid, client)

    async def verdict(self, lease: Lease) -> dict[str, Any] | None:
        return self.diagnosis

    def servable(self, uid: str) -> Any:
        return self.ready(uid)

    def ready(self, uid: str) -> Any:
        if uid != "m":
            raise NotLaunched(uid)
        plan = SimpleNamespace(
            engine="echo",
            engine_version="1",
            context_length=100,
            slots=self.slot_count,
            attached=None,
            embedding=None,
            ranking=None,
        )
        return SimpleNamespace(
            uid=uid,
            plan=plan,
            abilities=("generate", "chat"),
            chat={},
            state="ready",
            can_serve=True,
            replicas=tuple(self.replicas),
            silence_seconds=None,
        )

    def doubt(self, uid: str, replica_id: str | None = None) -> None:
        assert uid == "m"

    def models(self) -> list[Any]:
        return [self.ready("m")]

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def post(self, version: str = "1.1", **fields: Any) -> tuple[int, bytes, bytes]:
        """One request on a connection of its own: status, head and body without chunks."""
        reader, writer = await self.connect()
        try:
            writer.write(post(version, **fields))
            async with asyncio.timeout(SECONDS):
                raw = await reader.read()
        finally:
            writer.close()  # the gateway, which waits for its clients, ends then
        head, _, body = raw.partition(b"\r\n\r\n")
        if b"chunked" in head:
            body = dechunked(body)
        return int(head.split()[1]), head, body


def post(version: str = "1.1", close: bool = True, **fields: Any) -> bytes:
    """A request for a completion."""
    return sent("/v1/completions", {"prompt": "a", **fields}, version, close)


def sent(path: str, fields: dict[str, Any], version: str = "1.1", close: bool = True) -> bytes:
    """A request of any dialect."""
    body = json.dumps({"model": "m", **fields}).encode()
    head = f"POST {path} HTTP/{version}\r\nHost: localhost\r\n"
    head += "Connection: close\r\n" if close else ""
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def dechunked(body: bytes) -> bytes:
    """A chunked body's text; it must have its end."""
    found = b""
    while True:
        size, _, body = body.partition(b"\r\n")
        if size == b"0":
            return found
        found, body = found + body[: int(size, 16)], body[int(size, 16) + 2 :]


@asynccontextmanager
async def world(
    *scripts: Script, slots: int = 4, guard: Callable[[ASGIApp], ASGIApp] | None = None
) -> AsyncIterator[World]:
    """A gateway over engines that follow the scripts, in order, one replica each.

    `guard` stands before it and says who calls; without one, anyone may.
    """
    made = World(slot_count=slots)
    servers = []
    scripted: set[asyncio.Task[Any]] = set()
    for number, script in enumerate(scripts):

        async def serve(
            reader: asyncio.StreamReader,
            writer: asyncio.StreamWriter,
            number: int = number,
            script: Script = script,
        ) -> None:
            made.asked.append(number)
            task = asyncio.current_task()
            assert task is not None
            scripted.add(task)
            try:
                await script(reader, writer)
            except (asyncio.IncompleteReadError, ConnectionError):
                pass
            finally:
                writer.close()
                with suppress(ConnectionError):
                    await writer.wait_closed()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        servers.append(server)
        endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        made.replicas.append(
            ReplicaStatus(f"m-rep{number}", state="ready", endpoint=endpoint, key="k")
        )
    inference = made.inference = Inference(cast(Fleet, made), made.ended.append)

    async def missing(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    ahead = inference.ahead_of(missing)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await ahead({**scope, "paddock.principal": ANYONE}, receive, send)

    guarded = guard(ahead) if guard is not None else app
    try:
        async with serving(guarded) as made.port:
            yield made
    finally:
        inference.close()
        if scripted:
            await asyncio.wait(scripted, timeout=SECONDS)
        for server in servers:
            server.close()
            await server.wait_closed()


def texts(body: bytes) -> list[str]:
    """The texts of a stream's events; it must end in the sentinel."""
    lines = [line[6:] for line in body.split(b"\n\n") if line]
    assert lines[-1] == b"[DONE]"
    return [json.loads(line)["choices"][0]["text"] for line in lines[:-1]]


async def test_stream_passes_as_it_came() -> None:
    """The client gets the engine's events byte for byte, and the timeline in a header."""
    async with world(answers) as here:
        status, head, body = await here.post(stream=True)
        assert (status, texts(body)) == (200, ["one", " two", ""])
        assert b"text/event-stream" in head
        assert all(name in head for name in (b"server-timing", b"queue;dur", b"engine;dur"))
    (timeline,) = here.ended
    assert (timeline.uid, timeline.replica_id, timeline.status) == ("m", "m-rep0", 200)
    assert timeline.events == 3
    moments = [timeline.received, timeline.asked, timeline.taken, timeline.sent, timeline.first]
    assert [*moments, timeline.done] == sorted([*moments, timeline.done])


async def test_events_that_come_in_pieces_are_whole_at_the_client() -> None:
    """However the engine's writes cut an event, nothing is lost, in whole answers as in streams."""

    async def drips(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await request(reader)
            answer = STREAM + event("ä–one") + event(" two", usage={"x": 1}) + END
            for index in range(0, len(answer), 7):
                writer.write(answer[index : index + 7])
                await writer.drain()
                await asyncio.sleep(0)

    async with world(drips) as here:
        assert texts((await here.post(stream=True))[2]) == ["ä–one", " two"]
        assert json.loads((await here.post())[2])["choices"][0]["text"] == "ä–one two"
        assert texts((await here.post(stream=True, n=1, echo=True))[2])[0] == "aä–one"


async def test_reset_of_a_kept_connection_is_never_seen() -> None:
    """A connection that the engine closes under the second request is replaced by a new one."""
    unanswered = []

    async def says_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """As llama.cpp does after a hundred answers."""
        await request(reader)
        writer.write(STREAM + event("one") + END)
        unanswered.append(await request(reader))

    async with world(says_once) as here:
        for _ in range(6):
            status, _, body = await here.post(stream=True)
            assert (status, texts(body)) == (200, ["one"])
        assert (len(here.asked), len(unanswered)) == (6, 5)


async def test_connections_to_engines_are_kept() -> None:
    """One serves every request that comes after another, however the answer is passed on."""
    async with world(answers) as here:
        several: tuple[dict[str, Any], ...] = ({"stream": True}, {}, {"stream": True, "echo": True})
        for fields in (*several, {"stream": True}):
            assert (await here.post(**fields))[0] == 200
        assert here.asked == [0]


async def test_connection_that_a_slow_client_had_stopped_is_kept_and_read() -> None:
    """The last piece of an answer may stop the reading; the next request finds it going again."""
    pool = Pool()

    class Fills(PartSink):
        def take(self, data: bytes) -> None:
            upstream.pause()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline():
            writer.write(STREAM + event("one") + END)
        writer.close()
        await writer.wait_closed()
        over.set()

    over = asyncio.Event()
    async with (
        await asyncio.start_server(serve, "127.0.0.1", 0) as server,
        asyncio.timeout(SECONDS),
    ):
        endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        upstream = first = await pool.connect(endpoint)
        for _ in range(3):
            sink = Fills(Timeline("/v1/completions"))
            upstream.ask(b"go\n", sink)
            await sink.done
            upstream.release()
            kept = pool.take(endpoint)
            assert kept is first
            upstream = kept
        upstream.abort()
        await over.wait()


async def test_answer_that_ends_with_its_connection_is_whole() -> None:
    """HTTP/1.0 gives streams no length; a cut within the head or a chunk is still one."""

    async def old(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(b"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        writer.write(event("one").partition(b"\r\n")[2] + b"data: [DONE]\n\n")

    async with world(old) as here:
        assert texts((await here.post(stream=True))[2].replace(b"\r\n", b"")) == ["one"]
        assert json.loads((await here.post(n=2))[2])["choices"][1]["text"] == "one"

    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(b"HTTP/1.0 200 OK\r\nContent-Type: text/e")

    async with world(cut) as here:
        assert (await here.post())[0] == 503


async def test_what_nobody_asked_for_ends_a_kept_connection() -> None:
    """An answer that was not asked for, a time-out's say, is never taken for the next one's."""

    answered, closed = asyncio.Event(), asyncio.Event()

    async def chatters(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(STREAM + event("one") + END)
        await answered.wait()
        writer.write(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
        assert await reader.read() == b""
        closed.set()

    async with world(chatters) as here, asyncio.timeout(SECONDS):
        for _ in range(3):
            assert texts((await here.post(stream=True))[2]) == ["one"]
            answered.set()
            await closed.wait()
            answered.clear()
            closed.clear()
        assert len(here.asked) == 3


@pytest.mark.parametrize("streamed", [True, False])
async def test_request_without_a_first_byte_goes_to_another_replica(streamed: bool) -> None:
    """A replica that dies before it has answered is passed over; the client sees the other's."""
    async with world(hangs_up, answers) as here:
        status, _, body = await here.post(stream=streamed)
        assert status == 200
        assert b"one" in body
        assert here.asked == [0, 1]
        assert here.ended[0].replica_id == "m-rep1"


async def test_replica_that_does_not_listen_is_passed_over() -> None:
    """A refused connection counts as a replica that died."""
    async with world(answers, answers) as here:
        here.replicas[0] = ReplicaStatus(
            "m-rep0", state="ready", endpoint="http://127.0.0.1:1", key="k"
        )
        assert (await here.post(stream=True))[0] == 200
        assert here.asked == [1]


async def test_request_that_kills_replicas_does_not_kill_them_all() -> None:
    """After two replicas it is given up, with 503 and a time to ask again."""
    async with world(hangs_up, hangs_up, hangs_up) as here:
        status, head, body = await here.post()
        assert status == 503
        assert b"retry-after" in head
        assert "does not answer" in json.loads(body)["detail"]
        assert len(set(here.asked)) == 2


@pytest.mark.parametrize(
    ("diagnosis", "tries"),
    [
        ({"cause": "engine_exited", "message": "exited with code 9", "signal": None}, 1),
        ({"cause": "engine_killed", "message": "crashed", "signal": "SIGSEGV"}, 1),
        ({"cause": "engine_killed", "message": "killed", "signal": "SIGKILL"}, 2),
        ({"cause": "engine_hung", "message": "hangs", "signal": None}, 2),
    ],
)
async def test_request_whose_engine_ended_by_itself_is_not_moved(
    diagnosis: dict[str, Any], tries: int
) -> None:
    """A crash may be the request's doing, and ends it; a kill from outside lets it go on once."""
    async with world(hangs_up, hangs_up, hangs_up) as here:
        here.diagnosis = diagnosis
        status, _, body = await here.post()
        assert status == 502
        assert json.loads(body)["error"]["code"] == "EngineDied"
        assert json.loads(body)["error"]["cause"] == diagnosis["cause"]
        assert len(set(here.asked)) == tries


def hangs(begin: bytes, came: asyncio.Event) -> Script:
    """An engine that begins its answer so, and says no more while the connection is there."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(begin)
        await writer.drain()
        came.set()
        await reader.read()

    return script


CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "a"}]}


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/completions", {"prompt": "a"}),
        ("/v1/completions", {"prompt": "a", "echo": True}),
        ("/v1/chat/completions", CHAT),
        ("/v1/messages", {**CHAT, "max_tokens": 9}),
        ("/v1/responses", {"input": "a"}),
    ],
)
async def test_stream_of_a_replica_that_hangs_ends_with_an_error_event(
    path: str, fields: dict[str, Any]
) -> None:
    """In the client's dialect and with the reason, once a byte has gone out; nobody else is asked.

    The engine's connection is closed.
    """
    begin = STREAM + event("one", delta={"role": "assistant", "content": "one"})
    async with world(hangs(begin, asyncio.Event()), answers) as here:
        reader, writer = await here.connect()
        try:
            async with asyncio.timeout(SECONDS):
                writer.write(sent(path, {"stream": True, **fields}))
                raw = await reader.readuntil(b"one")
                here.slots.revoke("m-rep0", "its engine hangs")
                raw += await reader.read()
        finally:
            writer.close()  # the gateway, which waits for its clients, ends then
        assert here.asked == [0]
        assert here.slots.in_flight("m-rep0") == 0
    head, _, body = raw.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    *_, last = (frame for frame in dechunked(body).split(b"\n\n") if frame not in SENTINELS)
    name, _, data = last.rpartition(b"data: ")
    assert name == (b"event: error\n" if path in {"/v1/messages", "/v1/responses"} else b"")
    assert "its engine hangs" in json.loads(data)["error"]["message"]
    assert dechunked(body).endswith(b"data: [DONE]\n\n") == (not name)


@pytest.mark.parametrize(
    ("begin", "streamed"), [(b"", True), (b"", False), (STREAM + event("half"), False)]
)
@pytest.mark.parametrize("kept", [False, True])
async def test_request_on_a_replica_that_hangs_goes_to_another(
    begin: bytes, streamed: bool, kept: bool
) -> None:
    """Of a stream without a byte, and of an answer that is not streamed, nothing has gone out.

    So it is on a kept connection, on which a request is else sent again to the same replica.
    """
    came = asyncio.Event()
    hanging = hangs(begin, came)

    async def first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if kept:
            await request(reader)
            writer.write(STREAM + event("kept") + END)
        await hanging(reader, writer)

    async with world(first, answers) as here, asyncio.timeout(SECONDS):
        if kept:
            spare = here.replicas.pop()
            assert b"kept" in (await here.post(stream=streamed))[2]
            here.replicas.append(spare)
            here.slots = SlotQueue(here)  # whose next turn is the first replica's
        asking = asyncio.create_task(here.post(stream=streamed))
        await came.wait()
        here.slots.revoke("m-rep0", "its engine hangs")
        status, _, body = await asking
        assert here.asked == [0, 1]
        assert here.ended[-1].replica_id == "m-rep1"
    assert status == 200
    assert b"hangs" not in body
    assert b"half" not in body
    assert b"one" in body


async def test_request_is_moved_once() -> None:
    """One whose second replica hangs too ends with the reason; the third is not asked."""
    came = asyncio.Event()
    async with world(*[hangs(b"", came)] * 3) as here, asyncio.timeout(SECONDS):
        asking = asyncio.create_task(here.post(stream=True))
        for _ in range(2):
            await came.wait()
            came.clear()
            here.slots.revoke(f"m-rep{here.asked[-1]}", "its engine hangs")
        status, _, body = await asking
        assert len(set(here.asked)) == len(here.asked) == 2
    assert status == 503
    assert "its engine hangs" in json.loads(body)["detail"]


async def test_engine_that_dies_in_mid_stream_ends_it_with_an_error_event() -> None:
    """The client gets what came, then an error as an event and the sentinel: no cut."""
    async with world(breaks_off) as here:
        status, _, body = await here.post(stream=True)
        events = [line[6:] for line in body.split(b"\n\n") if line.startswith(b"data: ")]
        assert status == 200
        assert json.loads(events[0])["choices"][0]["text"] == "one"
        error = json.loads(events[-2])
        assert "broke off" in error["error"]["message"] == error["detail"]
        assert events[-1] == b"[DONE]"
        # Event by event, the half event is kept back.
        _, _, body = await here.post(stream=True, echo=True)
        lines = [line for line in body.split(b"\n\n") if line]
        assert len(lines) == 3
        assert "broke off" in json.loads(lines[1][6:])["detail"]


async def test_whole_answer_that_breaks_off_is_asked_for_again() -> None:
    """Nothing of it has gone out, so another replica may give all of it."""
    async with world(breaks_off, answers) as here:
        status, _, body = await here.post()
        assert status == 200
        assert json.loads(body)["choices"][0]["text"] == "one two"


async def test_client_that_leaves_closes_the_engines_connection_at_once() -> None:
    """Streaming or not, before the first byte and after it, the engine's side ends."""
    for streamed in (True, False):
        for begun in (True, False):
            ended, came = asyncio.Event(), asyncio.Event()

            async def waits(
                reader: asyncio.StreamReader,
                writer: asyncio.StreamWriter,
                begun: bool = begun,
                came: asyncio.Event = came,
                ended: asyncio.Event = ended,
            ) -> None:
                await request(reader)
                if begun:
                    writer.write(STREAM + event("one"))
                came.set()
                with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                    await reader.readexactly(1)
                ended.set()

            async with world(waits) as here:
                _, writer = await here.connect()
                writer.write(post(stream=streamed))
                async with asyncio.timeout(SECONDS):
                    await came.wait()
                    writer.transport.abort()
                    await ended.wait()
                    await until(lambda: here.ended)
                assert here.ended[0].status == 499


async def test_client_that_leaves_with_the_whole_answer_has_not_left_early() -> None:
    """Many close at `[DONE]`, and engines have a few bytes more to say: it counts as answered."""
    said, _, _ = END.partition(b"[DONE]\n\n")

    async def lingers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(STREAM + event("one") + said + b"[DONE]\n\n")
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readexactly(1)

    async with world(lingers) as here:
        reader, writer = await here.connect()
        writer.write(post(stream=True))
        async with asyncio.timeout(SECONDS):
            await reader.readuntil(b"[DONE]")
            writer.transport.abort()
            await until(lambda: here.ended)
        assert here.ended[0].status == 200


async def test_client_that_leaves_the_queue_never_reaches_the_engine() -> None:
    """One slot, one request in it, one that waits and leaves: the engine sees one request."""
    free = asyncio.Event()

    async def holds(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        await free.wait()
        writer.write(STREAM + event("one") + END)

    async with world(holds, slots=1) as here:
        slots = here.slots
        first = asyncio.create_task(here.post(stream=True))
        _, leaver = await here.connect()
        async with asyncio.timeout(SECONDS):
            await until(lambda: slots.in_flight("m-rep0") == 1)
            leaver.write(post())
            await until(lambda: slots.waiting("m") == 1)
            leaver.transport.abort()
            await until(lambda: not slots.waiting("m"))
            free.set()
            assert (await first)[0] == 200
        assert here.asked == [0]
        assert slots.in_flight("m-rep0") == 0


async def test_requests_beyond_the_slots_wait_their_turn() -> None:
    """Never more at the engine than it has slots, and all are answered."""
    now, most = 0, 0
    turns = asyncio.Semaphore(0)

    async def counts(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal now, most
        await request(reader)
        now += 1
        most = max(most, now)
        await turns.acquire()
        now -= 1
        writer.write(STREAM + event("one") + END)

    async with world(counts, slots=3) as here, asyncio.timeout(SECONDS):
        asking = [asyncio.create_task(here.post(stream=True)) for _ in range(20)]
        await until(lambda: now == 3 and here.slots.waiting("m") == 17)
        for left in range(20, 0, -1):
            await until(partial(lambda left: now == min(3, left), left))
            turns.release()
        found = await asyncio.gather(*asking)
        assert [status for status, _, _ in found] == [200] * 20
    assert most == 3
    assert sum(timeline.queue_seconds > 0.0 for timeline in here.ended) >= 17


async def test_full_queue_refuses_with_429() -> None:
    """One more than the queue holds is told when to come again; who waits is not affected."""
    free = asyncio.Event()

    async def holds(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        await free.wait()
        writer.write(STREAM + event("one") + END)

    async with world(holds, slots=1) as here:
        slots = here.slots = SlotQueue(here, limit=2)
        waiting = [asyncio.create_task(here.post(stream=True)) for _ in range(3)]
        async with asyncio.timeout(SECONDS):
            await until(lambda: slots.waiting("m") == 2)
            status, head, body = await here.post(stream=True)
            assert status == 429
            assert b"retry-after: 1" in head.lower()
            assert json.loads(body)["error"]["code"] == "QueueFull"
            free.set()
            assert [found[0] for found in await asyncio.gather(*waiting)] == [200] * 3


async def test_slow_client_holds_the_engine_back() -> None:
    """What a client does not read is not piled up in the gateway: the engine has to wait."""
    written = 0

    async def floods(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await request(reader)
        writer.write(STREAM)
        piece = event("x" * 50_000)
        for _ in range(2_000):
            writer.write(piece)
            await writer.drain()
            written += len(piece)
        writer.write(END)

    async with world(floods) as here:
        reader, writer = await here.connect()
        writer.write(post(stream=True))
        before = -1
        async with asyncio.timeout(SECONDS):
            while written != before or not written:  # until it stands still
                before = written
                await asyncio.sleep(0.3)
            assert written < 50_000_000
            rest = await reader.read()
        assert rest.endswith(b"0\r\n\r\n")
        assert len(rest) > 100_000_000
        writer.close()


async def test_kept_and_pipelined_requests_are_answered_in_order() -> None:
    """Two requests sent at once on one connection get two answers, whole, one after the other."""
    async with world(answers) as here:
        reader, writer = await here.connect()
        writer.write(post(close=False, max_tokens=3) + post(stream=True))
        async with asyncio.timeout(SECONDS):
            raw = await reader.read()
        writer.close()
        assert raw.count(b"HTTP/1.1 200 OK") == 2
        assert raw.index(b"application/json") < raw.index(b"text/event-stream")


async def test_old_clients_get_an_answer_without_chunks() -> None:
    """HTTP/1.0 knows no chunks: the end of the stream is the end of the connection."""
    async with world(answers) as here:
        status, head, body = await here.post("1.0", stream=True)
        assert status == 200
        assert b"chunked" not in head
        assert texts(body) == ["one", " two", ""]


async def test_engines_error_is_rendered_with_its_fields() -> None:
    """An engine's 4xx comes with its message, in our envelope, with `detail`."""

    async def refuses(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        body = b'{"error": {"message": "too long", "n_ctx": 5}}'
        head = b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\n"
        writer.write(head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))

    for streamed in (True, False):
        async with world(refuses) as here:
            status, _, body = await here.post(stream=streamed)
            assert status == 400
            error = json.loads(body)
            assert error["error"]["message"] == error["detail"] == "too long"
            assert error["error"]["n_ctx"] == 5
            assert error["error"]["layer"] == "engine"


async def test_neither_side_waits_for_acknowledgements() -> None:
    """The connection to the engine has TCP_NODELAY; so has the listener (test_inference)."""
    async with world(answers) as here:
        endpoint = here.replicas[0].endpoint
        assert endpoint is not None
        upstream = await Pool().connect(endpoint)
        assert upstream._transport is not None
        sock = upstream._transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        upstream.abort()


def test_fewest_in_flight_is_picked_and_full_ones_are_not() -> None:
    """The first of equals; none when all are full."""
    from collections import Counter

    one, two = ReplicaStatus("a"), ReplicaStatus("b")
    assert pick([one, two], Counter(), 2) is one
    assert pick([one, two], Counter(a=1), 2) is two
    assert pick([one, two], Counter(a=2, b=2), 2) is None


def test_many_parts_count_against_the_queue() -> None:
    """A request that asks for more answers than the queue holds is refused as a whole."""
    slots = SlotQueue(World(), limit=4)
    slots.check("m", 4)
    with pytest.raises(QueueFull):
        slots.check("m", 5)


async def test_large_requests_are_read_and_made_out_in_a_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Parsing and writing 2 MB holds up no stream; a small request goes no such way.

    Nor does a thread alone help, whose calls hold the interpreter's lock: each is short.
    """
    here, threads, lengths = threading.get_ident(), [], []

    def noted(work: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(argument: Any) -> Any:
            threads.append(threading.get_ident())
            lengths.append(len(argument))
            return work(argument)

        return wrapped

    monkeypatch.setattr(forward, "parse", noted(parse))
    for module in (openai, fields, large):
        monkeypatch.setattr(module, "encode", noted(encode))
    async with world(answers) as there:
        assert (await there.post(max_tokens=3))[0] == 200
        assert set(threads) == {here}
        assert len(threads) == 2
        threads.clear()
        assert (await there.post(prompt="a" * 2_000_000, max_tokens=3))[0] == 200
        assert here not in threads
        assert max(lengths) < 2_000_000 / 4
