"""Engines that are silent, or speak bad HTTP or no OpenAI: each request ends with a reason."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddock.registry.json_codec import encode
from paddock.server.dialects.anthropic import Messages
from paddock.server.dialects.responses import Responses
from paddock.server.proxy import sinks, upstream
from paddock.server.proxy.shape import fault
from paddock.server.proxy.sinks import event_of
from paddock.server.proxy.steps import (
    Assembly,
    BareLogprobs,
    Called,
    Echo,
    Encoder,
    EngineRequest,
    LegacyLogprobs,
    Named,
    OpenAI,
    Parts,
    Step,
    StoppedBy,
    UsageApart,
)
from paddock.server.proxy.upstream import Pool
from tests.server.test_data_path import (
    END,
    SECONDS,
    STREAM,
    Script,
    answers,
    event,
    post,
    request,
    texts,
    until,
    world,
)

OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"


def says(*pieces: bytes, hangs: bool = True) -> Script:
    """Answers a request with these bytes, and leaves the connection open."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        if hangs:
            await reader.read()

    return script


def whole(payload: Any) -> bytes:
    """A stream with one event and its end."""
    text = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return OK + b"Connection: close\r\n\r\n" + b"data: %b\n\ndata: [DONE]\n\n" % text


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 999 Odd\r\nContent-Length: 2\r\n\r\nno", "status is 999"),
        (b"HTTP/1.1 600 Odd\r\nContent-Length: 0\r\n\r\n", "status is 600"),
        (b"HTTP/1.1 000 Odd\r\nContent-Length: 2\r\n\r\nno", "status is 000"),
        (b"HTTP/1.1 1000 Odd\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", "status is 101"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: yyyyyyyy\r\n" * 20_000, "head is over"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 20_000, "head is over"),
        (OK + b"Content-Length: 999999999999999999\r\n\r\nab", "length is"),
        (OK + b"Content-Length: 99999999999999999999\r\n\r\nab", "not HTTP"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nab", "without end"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n0000fffffffffff;x\r\nab", "without end"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nab", "not HTTP"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", "not HTTP"),
        (b"\x15\x03\x01\x00\x02\x02\x16", "not HTTP"),
        (b"HTTP/1.1 304 Not Modified\r\n\r\n", "304"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "no stream"),
        (OK + b"Content-Length: 0\r\n\r\n", "no stream"),
        (OK + b"Connection: close\r\n\r\n", "no stream"),
    ],
)
async def test_bad_http_is_a_reason(answer: bytes, reason: str, streamed: bool) -> None:
    """Every form of it is 502 at once, streamed or not, and the slot is free again."""
    hangs = b"Connection: close" not in answer
    async with world(says(answer, hangs=hangs)) as here:
        status, _, body = await here.post(stream=streamed)
        assert status == 502
        assert reason in json.loads(body)["detail"]
        assert here.inference is not None
        assert here.slots.in_flight("m-rep0") == 0
    assert [timeline.status for timeline in here.ended] == [502]


async def test_bad_http_in_mid_stream_is_an_event() -> None:
    """What has gone out stays; the rest is an error event."""
    passed = asyncio.Event()

    async def turns_bad(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(STREAM + event("one"))
        await passed.wait()
        writer.write(b"ffffffffffffffff\r\nab")
        await reader.read()

    async with world(turns_bad) as here:
        reader, writer = await here.connect()
        writer.write(post(stream=True))
        async with asyncio.timeout(SECONDS):
            await reader.readuntil(b'"one"')
            passed.set()
            rest = await reader.read()
        writer.close()
    assert b"without end" in rest
    assert b"data: [DONE]" in rest


@pytest.mark.parametrize("more", [b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nevi", b"junk"])
async def test_bytes_behind_an_answer_are_nobodys(more: bytes) -> None:
    """A complete answer counts, and what the engine adds is in no answer."""
    full = STREAM + event("one") + END
    async with world(says(full + more)) as here:
        for streamed in (True, False):
            status, _, body = await here.post(stream=streamed)
            assert status == 200
            assert b"evi" not in body


ODD_EVENTS: list[Any] = [
    {"choices": {"a": 1}},
    {"choices": [None]},
    {"choices": "text"},
    {"choices": [{"delta": []}]},
    {"choices": [{"text": 1}]},
    {"choices": [{"index": "0", "text": "a"}]},
    {"choices": [{"index": -1, "text": "a"}]},
    {"choices": [{"text": "a", "logprobs": [1]}]},
    {"choices": [{"text": "a", "finish_reason": {}}]},
    {"choices": [], "usage": [1]},
    {"choices": [], "usage": {"prompt_tokens": "7"}},
    [1],
    b"\xff",
    b"[" * 100_000,
]


@pytest.mark.parametrize("odd", ODD_EVENTS, ids=lambda odd: str(odd)[:40])
async def test_event_of_another_shape_is_a_reason(odd: Any) -> None:
    """Where the gateway looks into an event, one of another shape is 502, or an error event."""
    async with world(says(whole(odd), hangs=False)) as here:
        status, _, body = await here.post()
        assert status == 502
        assert "its stream has" in json.loads(body)["detail"]
        status, _, body = await here.post(stream=True, echo=True)
        assert b"its stream has" in body


async def test_half_characters_pass() -> None:
    """A lone surrogate reaches the client as the escape that it came as."""
    payload = rb'{"choices": [{"index": 0, "text": "a\ud800", "finish_reason": "stop"}]}'
    async with world(says(whole(payload), hangs=False)) as here:
        status, _, body = await here.post()
        assert status == 200
        assert json.loads(body)["choices"][0]["text"] == "a\ud800"
        assert texts((await here.post(stream=True, echo=True))[2])[0] == "aa\ud800"


async def test_answers_and_errors_have_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is gathered does not grow without end."""
    monkeypatch.setattr(sinks, "MAX_ANSWER_BYTES", 100_000)
    monkeypatch.setattr(sinks, "MAX_EVENT_BYTES", 50_000)
    monkeypatch.setattr(sinks, "MAX_REFUSAL_BYTES", 1000)
    many = OK + b"\r\n" + b'data: {"choices": [{"text": "a"}]}\n\n' * 10_000
    async with world(says(many)) as here:
        status, _, body = await here.post()
        assert (status, "is over" in json.loads(body)["detail"]) == (502, True)
    async with world(says(OK + b"\r\ndata: " + b"a" * 500_000)) as here:
        _, _, body = await here.post(stream=True, echo=True)
        assert b"is over 50000 bytes" in body
    failed = b"HTTP/1.1 500 Oops\r\nContent-Type: text/plain\r\n\r\n" + b"a" * 500_000
    async with world(says(failed)) as here:
        status, _, body = await here.post()
        assert (status, len(body) < 700_000) == (500, True)


def anything() -> st.SearchStrategy[Any]:
    """JSON of any shape, with the names that events have."""
    names = st.sampled_from(
        [
            *("choices", "delta", "text", "content", "reasoning_content", "tool_calls", "index"),
            *("function", "name", "arguments", "id", "logprobs", "top_logprobs", "token"),
            *("logprob", "finish_reason", "usage", "prompt_tokens", "completion_tokens"),
            *("prompt_tokens_details", "cached_tokens", "__verbose", "stopping_word", "error"),
            *("completion_tokens_details", "reasoning_tokens", "message", "code", "role"),
        ]
    )
    leaves = (
        st.none()
        | st.booleans()
        | st.integers(-2, 2**65)
        | st.floats(allow_nan=False)
        | st.sampled_from(["", "a", "stop", "\ud800", '{"name": "f", "arguments": {}}'])
    )
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(names, inner, max_size=5),
        max_leaves=20,
    )


def events() -> st.SearchStrategy[list[dict[str, Any]]]:
    """Events in which one place or another has a value of any shape."""
    any_ = anything()
    token = st.fixed_dictionaries(
        {"token": st.just("a") | any_, "logprob": st.just(-1.0) | any_},
        optional={"top_logprobs": any_},
    )
    call = st.fixed_dictionaries(
        {},
        optional={
            "index": st.integers(0, 3) | any_,
            "id": st.just("x") | any_,
            "function": any_
            | st.fixed_dictionaries(
                {}, optional={"name": st.just("f") | any_, "arguments": st.just("{}") | any_}
            ),
        },
    )
    delta = st.fixed_dictionaries(
        {},
        optional={
            "role": any_,
            "content": st.just("a") | any_,
            "reasoning_content": st.just("a") | any_,
            "tool_calls": st.lists(call | any_, max_size=2) | any_,
        },
    )
    choice = st.fixed_dictionaries(
        {},
        optional={
            "index": st.integers(0, 2) | any_,
            "text": st.just("a") | any_,
            "delta": delta | any_,
            "logprobs": st.fixed_dictionaries({"content": st.lists(token, max_size=2)}) | any_,
            "finish_reason": st.sampled_from(["stop", "length", None]) | any_,
            "stop_reason": any_,
        },
    )
    one = st.fixed_dictionaries(
        {},
        optional={
            "choices": st.lists(choice | any_, max_size=2) | any_,
            "usage": any_,
            "__verbose": any_,
            "model": any_,
            "id": any_,
        },
    )
    return st.lists(one, min_size=1, max_size=3)


def steps() -> list[Step]:
    """Every step there is."""
    return [
        UsageApart(True),
        StoppedBy(),
        LegacyLogprobs(2),
        BareLogprobs(),
        Echo(["p"], False),
        Called(),
        Parts(1, 1),
        Named("m"),
    ]


ENCODERS: tuple[Callable[[], Encoder], ...] = (
    OpenAI,
    lambda: Messages("m"),
    lambda: Responses({"model": "m"}),
)


@settings(max_examples=300, deadline=None)
@given(stream=events(), number=st.integers(-1, 6))
def test_no_event_is_a_bug(stream: list[dict[str, Any]], number: int) -> None:
    """Whatever an endpoint sends is an error event, or goes through every step and dialect."""
    for chat, encoder in product((False, True), ENCODERS):
        every = steps()
        _pass(stream, every if number < 0 else [every[number]], chat, encoder)


def _pass(
    stream: list[dict[str, Any]], chosen: list[Step], chat: bool, encoder: Callable[[], Encoder]
) -> None:
    assembly, merged, out = Assembly(chat), Assembly(chat), encoder()
    asked = EngineRequest("m", "/", (b"",), steps=tuple(chosen), encoder=out)
    for raw in stream:
        found = event_of(encode(raw))
        if "error" in found:
            assert isinstance(found["error"].get("message"), str | None)
            continue
        assembly.add(json.loads(encode(found)))
        for changed in asked.events(0, found):
            out.event(changed)
    out.close()
    again = EngineRequest("m", "/", (b"",), steps=tuple(steps()), encoder=encoder())
    for changed in again.events(0, assembly.event()):
        merged.add(changed)
    answer = merged.answer()
    if answer["choices"] and (chat or isinstance(again.encoder, OpenAI)):
        encode(again.encoder.encode_answer(answer))


def test_merged_event_is_the_sum_of_its_events() -> None:
    """An assembly of one merged event gives the answer that its events give."""
    pieces = [
        {"index": 0, "id": "c", "function": {"name": "f", "arguments": '{"a"'}},
        {"index": 0, "function": {"arguments": ": 1}"}},
    ]
    token = {"token": "a", "logprob": -1.0}
    stream: list[dict[str, Any]] = [
        {"id": "x", "choices": [{"index": 0, "delta": {"role": "assistant", "content": "a"}}]},
        {"choices": [{"index": 0, "delta": {"content": "b"}, "logprobs": {"content": [token]}}]},
        *({"choices": [{"index": 0, "delta": {"tool_calls": [piece]}}]} for piece in pieces),
        {"choices": [{"delta": {}, "logprobs": {"content": [token]}, "finish_reason": "stop"}]},
        {"choices": [], "usage": {"prompt_tokens": 1}},
    ]
    first, second = Assembly(chat=True), Assembly(chat=True)
    for one in stream:
        assert fault(one) is None
        first.add(dict(one))
    second.add(first.event())
    assert first.answer() == second.answer()
    (choice,) = second.answer()["choices"]
    assert choice["logprobs"] == {"content": [token, token]}
    assert choice["finish_reason"] == "stop"
    function = {"name": "f", "arguments": '{"a": 1}'}
    call = {"id": "c", "type": "function", "function": function}
    assert choice["message"] == {"role": "assistant", "content": "ab", "tool_calls": [call]}


async def test_assembly_holds_no_events() -> None:
    """What is kept of a long answer is its text, not the events that it came in."""
    assembly = Assembly(chat=True)
    for _ in range(1000):
        assembly.add({"id": "x", "choices": [{"index": 0, "delta": {"content": "a"}}]})
    held = encode(assembly.event())
    assert len(held) < 1200
    assert assembly.answer()["choices"][0]["message"]["content"] == "a" * 1000


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine counts as hung after a moment."""
    monkeypatch.setattr("paddock.server.dialects.base.SILENCE_SECONDS", 0.05)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("said", [b"", STREAM, b"HTTP/1.1 200 O"])
async def test_silent_engine_is_given_up(streamed: bool, said: bytes) -> None:
    """Before its first byte of an answer: 504, the connection ends, and the slot is free."""
    async with world(says(said)) as here:
        status, _, body = await here.post(stream=streamed)
        assert status == 504
        error = json.loads(body)["error"]
        assert error["code"] == "EngineSilent"
        assert (error["uid"], error["replica_id"]) == ("m", "m-rep0")
        assert here.inference is not None
        assert here.slots.in_flight("m-rep0") == 0


@pytest.mark.usefixtures("impatient")
async def test_engine_that_falls_silent_ends_the_stream_with_an_event() -> None:
    """The event says what happened; a whole answer is 504 also after its first bytes."""
    async with world(says(STREAM + event("one"))) as here:
        _, _, body = await here.post(stream=True)
        lines = [line[6:] for line in body.split(b"\n\n") if line.startswith(b"data: ")]
        assert json.loads(lines[-2])["error"]["code"] == "EngineSilent"
        assert lines[-1] == b"[DONE]"
        assert (await here.post())[0] == 504


async def test_status_of_the_model_says_how_long_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model's own limit takes the default's place."""
    async with world(says(b"")) as here:
        found = here.ready("m")
        found.silence_seconds = 0.05
        monkeypatch.setattr(here, "ready", lambda uid: found)
        assert (await here.post())[0] == 504


async def test_silence_counts_from_the_last_byte_and_not_while_paused() -> None:
    """Every read begins it anew; while a client holds the engine back, it is not silent."""
    now = 0.0

    async with world(says(STREAM)) as here:
        pool = Pool()
        found = await pool.connect(str(here.replicas[0].endpoint))
        found._now = lambda: now

        class Sink:
            def head(self, *_: object) -> None: ...
            def body(self, _: bytes) -> None: ...
            def end(self) -> None: ...
            def lost(self, _: str) -> None: ...
            def garbled(self, _: str) -> None: ...
            def silent(self, _: float) -> None: ...

        found.ask(b"", Sink())
        now = 10.0
        assert found.silent_seconds == 10.0
        found.data_received(STREAM)
        assert found.silent_seconds == 0.0
        now = 30.0
        found.pause()
        assert found.silent_seconds == 0.0
        found.resume()
        assert found.silent_seconds == 0.0
        now = 35.0
        assert found.silent_seconds == 5.0
        found.abort()


async def test_few_idle_connections_are_kept_and_not_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After many requests at once only some connections wait for more, and those for a while."""
    monkeypatch.setattr(upstream, "MAX_KEPT", 3)
    open_now = 0

    async def counts(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal open_now
        open_now += 1
        try:
            await answers(reader, writer)
        finally:
            open_now -= 1

    async with world(counts, slots=8) as here:
        found = await asyncio.gather(*(here.post(stream=True) for _ in range(8)))
        assert [status for status, _, _ in found] == [200] * 8
        async with asyncio.timeout(SECONDS):
            await until(lambda: open_now <= 3)
        assert here.inference is not None
        kept = here.inference._pool._kept
        assert sum(map(len, kept.values())) == open_now == 3
        here.inference._pool._close_old()
        assert open_now == 3
        monkeypatch.setattr(upstream, "KEPT_SECONDS", 0.0)
        here.inference._pool._close_old()
        async with asyncio.timeout(SECONDS):
            await until(lambda: open_now == 0)
        assert not kept


async def test_leaving_after_a_stale_connection_counts_as_answered() -> None:
    """A kept connection that the engine had closed is no part of the answer."""
    first = True
    said, _, _ = END.partition(b"[DONE]\n\n")

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal first
        await request(reader)
        if first:
            first = False
            writer.write(STREAM + event("one") + END)
            await request(reader)
            return  # closes under the second request
        writer.write(STREAM + event("one") + said + b"[DONE]\n\n")
        await reader.read()

    async with world(once) as here:
        assert (await here.post(stream=True))[0] == 200
        reader, writer = await here.connect()
        writer.write(post(stream=True))
        async with asyncio.timeout(SECONDS):
            await reader.readuntil(b"[DONE]")
            writer.transport.abort()
            await until(lambda: len(here.ended) == 2)
        assert [timeline.status for timeline in here.ended] == [200, 200]


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_failed_request_leaves_no_reference_cycle(streamed: bool) -> None:
    """What a request held is free once it has failed, and not when the collector runs."""
    head = b"HTTP/1.1 400 Bad\r\nConnection: close\r\nContent-Type: application/json\r\n"
    refusal = head + b"Content-Length: 2\r\n\r\n{}"
    async with world(says(refusal)) as here:
        assert (await here.post(stream=streamed))[0] == 400  # makes what is kept
        gc.collect()
        gc.disable()
        try:
            assert (await here.post(stream=streamed))[0] == 400
            await asyncio.sleep(0)
            left = [one for one in gc.get_objects() if isinstance(one, EngineRequest)]
        finally:
            gc.enable()
        assert not left


async def test_an_error_event_and_what_follows_it_are_told_apart() -> None:
    """The client gets the engine's message, however many reads the stream came in."""
    error = b'data: {"error": {"message": "out of memory", "code": 503}}\n\n'

    async def in_pieces(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(STREAM + b"%x\r\n%b\r\n" % (len(error), error))
        await writer.drain()
        done = b"data: [DONE]\n\n"
        writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(done), done))
        await writer.drain()

    async with world(in_pieces) as here:
        status, _, body = await here.post()
        assert status == 503
        assert json.loads(body)["error"]["message"] == "out of memory"
