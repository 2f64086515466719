"""The data path: from the client to the engine and back as bytes.

The gateway reads the request, takes a slot of a replica and copies the answer's bytes from the
engine's connection to the client's in one callback: no task and no parsing for a chunk, no Ray. An
answer that must be rewritten (another dialect, an engine's fault to mend, several parts) goes event
by event through the steps of `steps.py`, which say why.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import cast

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from paddock.launcher.fleet.activity import Lease
from paddock.launcher.fleet.fleet import Fleet
from paddock.launcher.fleet.status import ModelStatus
from paddock.registry.errors import (
    Aborted,
    BadValue,
    EngineDied,
    EngineSilent,
    NotAllowed,
    NotReady,
    PaddockError,
    TooLarge,
)
from paddock.registry.json_codec import decode, encode
from paddock.server.access.blocklist import Blocklist
from paddock.server.access.media import inline_media
from paddock.server.dialects import dialects, openai
from paddock.server.dialects.base import Body, Call, Dialect, Model
from paddock.server.http import large
from paddock.server.http.body import LARGE_BYTES, apart, check_content_type, parse
from paddock.server.http.errors import on_bug, render, status_of
from paddock.server.http.operation import Operation
from paddock.server.proxy.engine_errors import (
    REJECTIONS,
    died_by_itself,
    error_body,
    in_dialect,
    render_refusal,
    without_key,
)
from paddock.server.proxy.exchange import Exchange, reason_of_cancel
from paddock.server.proxy.sinks import (
    NO_SHAPE,
    NO_STREAM,
    AlreadyTold,
    AssemblingSink,
    BufferingSink,
    EngineRefused,
    PartSink,
    PassthroughSink,
    RewritingSink,
    UpstreamLost,
)
from paddock.server.proxy.steps import Assembly, EngineRequest, Event
from paddock.server.proxy.upstream import Pool, post_bytes
from paddock.server.telemetry.metrics import Load
from paddock.server.telemetry.timeline import Timeline

MAX_INFERENCE_BODY_BYTES = 64_000_000
JSON = b"application/json"
MAX_KNOWN = 1000
"""Size of the cache of models by id; a missing one is rebuilt in 2 µs."""
TRIES = 2
"""Replicas that a request is tried on, before anything of an answer has gone out."""


class _ClientLeft(Exception):
    pass


class Inference:
    """Forwards requests to replicas. `observe` is told each request's timeline when it is over."""

    def __init__(self, fleet: Fleet, observe: Callable[[Timeline], None] | None = None) -> None:
        self._fleet = fleet
        self._pool = Pool()
        self.observe = observe or (lambda _: None)
        self._running: dict[tuple[str, str], set[Exchange]] = {}
        self._blocked = Blocklist()
        self._known: dict[str, tuple[ModelStatus, Model]] = {}
        self._forwards: dict[str, _Forward] = {}
        for dialect in dialects():
            for call in dialect.calls:
                self._forwards.setdefault(call.path, _Forward(self, dialect, call))
        self.underway: dict[int, Timeline] = {}

    def close(self) -> None:
        """Closes the connections that wait."""
        self._pool.close()

    def load(self) -> Iterator[Load]:
        """Who serves how many requests now, with how many tokens so far, and how many wait."""
        tokens: Counter[str] = Counter()
        for timeline in self.underway.values():
            tokens[timeline.replica_id] += timeline.events
        for status in self._fleet.models():
            yield Load(status.uid, "", 0, self._fleet.slots.waiting(status.uid))
            for replica in status.replicas:
                in_flight = self._fleet.slots.in_flight(replica.replica_id)
                yield Load(status.uid, replica.replica_id, in_flight, 0, tokens[replica.replica_id])

    def routes(self) -> list[Operation]:
        """The routes of every dialect."""
        return [
            *(
                Operation("POST", path, forward, forward.doc)
                for path, forward in self._forwards.items()
            ),
            *(route for dialect in dialects() for route in dialect.operations(self._fleet)),
        ]

    def ahead_of(self, app: ASGIApp) -> ASGIApp:
        """`app`, but that requests for inference go past its router and its middleware."""
        forwards = self._forwards

        async def ahead(scope: Scope, receive: Receive, send: Send) -> None:
            forward = forwards.get(scope.get("path", ""))
            if forward is not None and scope["type"] == "http" and scope["method"] == "POST":
                await forward(scope, receive, send)
            else:
                await app(scope, receive, send)

        return ahead

    def abort(self, uid: str, request_id: str, block_seconds: float = 0.0) -> bool:
        """Ends the requests with this `request_id`; refuses others for the next `block_seconds`.

        False: none is there now.
        """
        self._blocked.add(uid, request_id, block_seconds)
        found = self._running.get((uid, request_id), set())
        for exchange in tuple(found):
            exchange.abort()
        return bool(found)

    @contextlib.contextmanager
    def _named(self, uid: str, request_id: str, exchange: Exchange) -> Iterator[None]:
        if self._blocked.has(uid, request_id):
            raise Aborted(request_id)
        running = self._running.setdefault((uid, request_id), set())
        running.add(exchange)
        try:
            yield
        finally:
            running.discard(exchange)
            if not running:
                self._running.pop((uid, request_id), None)

    def _model(self, uid: str) -> Model:
        """What a dialect must know of a model. Raises as `Fleet.servable`."""
        status = self._fleet.servable(uid)
        known = self._known.get(uid)
        if known is None or known[0] is not status:
            if len(self._known) >= MAX_KNOWN:  # many of them are gone
                self._known.clear()
            known = self._known[uid] = status, Model.of(status)
        return known[1]

    async def forward(self, exchange: Exchange, receive: Receive, call: Call) -> None:
        """Answers one request.

        Raises:
            BadValue, NotAllowed, NotReady, EngineRefused: only before the first byte has gone out.
        """
        raw = await _read(receive)
        check_content_type(exchange.content_type, raw)
        if len(raw) > LARGE_BYTES:
            body = await apart(len(raw), partial(large.loads, raw, parse))
        else:
            body = parse(raw)
        if not isinstance(body, dict):
            raise BadValue("body", type(body).__name__, "must be a JSON object")
        uid = body.get("model")
        if not isinstance(uid, str) or not uid:
            raise BadValue("model", uid, "is needed: the id of a launched model, as text")
        if not exchange.caller.may_use(uid):
            raise NotAllowed(f"model '{uid}'", "the key is for other models")
        model = self._model(uid)
        exchange.timeline.uid = uid
        exchange.silence_seconds = model.silence_seconds
        request_id = body.get("request_id")
        engine_request = await _make_out(exchange, call, body, model, raw)
        self._fleet.slots.check(uid, len(engine_request.bodies))
        exchange.timeline.streamed = engine_request.streamed
        carry_out = self._stream if engine_request.streamed else self._whole
        try:
            if isinstance(request_id, str):
                with self._named(uid, request_id, exchange):
                    await carry_out(exchange, engine_request)
            else:
                await carry_out(exchange, engine_request)
        except EngineRefused as error:
            if model.served and error.status in REJECTIONS:
                # Not the caller's: 401 would tell him that his own key is wrong.
                self._fleet.doubt(uid)
                raise NotReady(uid, "ready", REJECTIONS[error.status], 5.0) from None
            pattern = model.fields.too_long
            found = pattern.search(error.body) if pattern is not None else None
            if found is None:
                raise
            raise EngineRefused(400, _too_long(found, error.body, call, model)) from None

    async def _stream(self, exchange: Exchange, engine_request: EngineRequest) -> None:
        out, timeline = exchange.out, exchange.timeline
        headers = [
            (b"content-type", engine_request.encoder.content_type),
            (b"cache-control", b"no-cache"),
        ]

        def sink(part: int) -> PartSink:
            if engine_request.needles == ():
                return PassthroughSink(timeline, out, headers)
            return RewritingSink(timeline, out, headers, engine_request, part)

        try:
            await self._parts(exchange, engine_request, sink)
        except AlreadyTold:
            return
        except (EngineRefused, PaddockError) as error:
            if not out.started:
                raise
            out.write(engine_request.encoder.error(error_body(error)))
            out.end()
            return
        if engine_request.needles is None:
            out.write(engine_request.encoder.close())
        out.end()

    async def _whole(self, exchange: Exchange, engine_request: EngineRequest) -> None:
        timeline = exchange.timeline
        if engine_request.is_one_object:
            (gathered,) = await self._parts(
                exchange, engine_request, lambda _: BufferingSink(timeline)
            )
            assert isinstance(gathered, BufferingSink)
            body = b"".join(gathered.parts)
            if engine_request.reshape is not None:
                try:
                    body = encode(engine_request.reshape(decode(body)))
                except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
                    raise EngineRefused(502, NO_SHAPE) from None
            elif not body.lstrip().startswith(b"{"):
                raise EngineRefused(502, NO_SHAPE)
        else:
            sinks = await self._parts(
                exchange, engine_request, lambda _: AssemblingSink(timeline, engine_request.chat)
            )
            answer = _assembled(engine_request, cast(list[AssemblingSink], sinks)).answer()
            if not answer["choices"]:
                raise EngineRefused(502, NO_STREAM)
            usage = answer.get("usage") or {}
            timeline.count(usage)
            body = encode(engine_request.encoder.encode_answer(answer))
        timing = (b"server-timing", timeline.header().encode())
        exchange.out.answer(200, [(b"content-type", JSON), timing], body)

    async def _parts(
        self, exchange: Exchange, engine_request: EngineRequest, sink: Callable[[int], PartSink]
    ) -> list[PartSink]:
        """Every part's answer; the first that fails ends the others."""
        if len(engine_request.bodies) == 1:
            return [await self._part(exchange, engine_request, 0, sink)]
        tasks = [
            asyncio.create_task(self._part(exchange, engine_request, part, sink))
            for part in range(len(engine_request.bodies))
        ]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _part(
        self,
        exchange: Exchange,
        engine_request: EngineRequest,
        part: int,
        sink: Callable[[int], PartSink],
    ) -> PartSink:
        tried: list[str] = []
        while True:
            exchange.timeline.asked = time.perf_counter()
            lease = await self._fleet.ensure_ready(engine_request.uid, tried, exchange.client)
            replica = lease.replica
            exchange.timeline.taken = time.perf_counter()
            exchange.timeline.replica_id = replica.replica_id
            try:
                if engine_request.chat and (replica.chat or {}).get("source") == "none":
                    # It came back while the request waited: its weights bring no chat template.
                    self._model(engine_request.uid).needs("chat")
                return await self._ask(exchange, lease, engine_request, part, sink)
            except EngineRefused as error:
                # Some say in their errors with which key they were asked.
                raise without_key(replica.key, error) from None
            except EngineSilent:
                self._fleet.doubt(engine_request.uid, replica.replica_id)
                raise
            except (UpstreamLost, OSError) as error:
                lease.release()
                await self._judge(lease, error, tried)
            finally:
                lease.release()

    async def _judge(self, lease: Lease, error: Exception, tried: list[str]) -> None:
        """Lets the request go on to another replica, or raises.

        An engine that ended by itself may have been ended by this very request: it is not sent
        on, lest it end the others too. One that was killed, hung or could not be reached may not.
        """
        uid, replica = lease.uid, lease.replica
        self._fleet.doubt(uid, replica.replica_id)
        diagnosis = await self._fleet.verdict(lease)
        if diagnosis is not None and died_by_itself(diagnosis):
            raise EngineDied(uid, diagnosis["cause"], diagnosis["message"]) from error
        tried.append(replica.start)
        if len(tried) >= TRIES:
            if diagnosis is not None:
                raise EngineDied(uid, diagnosis["cause"], diagnosis["message"]) from error
            reason = f"its engine does not answer ({error})"
            raise NotReady(uid, "ready", reason, 1.0) from error

    async def _ask(
        self,
        exchange: Exchange,
        lease: Lease,
        engine_request: EngineRequest,
        part: int,
        sink: Callable[[int], PartSink],
    ) -> PartSink:
        """One part on one replica."""
        body = engine_request.bodies[part]
        if engine_request.prepare is not None:
            body = await engine_request.prepare(partial(self._ask_beside, exchange, lease))
        return await self._send(
            exchange, lease, engine_request.path, body, lambda: sink(part), engine_request.reusable
        )

    async def _ask_beside(self, exchange: Exchange, lease: Lease, path: str, body: Event) -> Event:
        """What the replica answers on another of its routes."""
        size = sum(len(value) for value in body.values() if isinstance(value, str | list))
        encoded = await apart(size, partial(large.dumps, body))
        timeline = Timeline(path)  # the client's is of the request itself
        sink = await self._send(exchange, lease, path, encoded, lambda: BufferingSink(timeline))
        assert isinstance(sink, BufferingSink)
        try:
            answer = decode(b"".join(sink.parts))
        except ValueError:
            raise EngineRefused(502, NO_SHAPE) from None
        if not isinstance(answer, dict):
            raise EngineRefused(502, NO_SHAPE)
        return answer

    async def _send(
        self,
        exchange: Exchange,
        lease: Lease,
        path: str,
        body: bytes,
        sink: Callable[[], PartSink],
        reusable: bool = True,
    ) -> PartSink:
        """Asks a replica: on a kept connection, and if that breaks first, on a new one."""
        replica = lease.replica
        assert replica.endpoint is not None
        request = post_bytes(replica.endpoint, replica.key, path, body)
        upstream = self._pool.take(replica.endpoint)
        if upstream is not None:
            try:
                return await exchange.send_and_wait(upstream, lease, request, sink(), reusable)
            except UpstreamLost:
                if lease.revoked:
                    raise
        upstream = await self._pool.connect(replica.endpoint)
        return await exchange.send_and_wait(upstream, lease, request, sink(), reusable)


def _too_long(found: re.Match[bytes], body: bytes, call: Call, model: Model) -> bytes:
    """An error in which the engine speaks of its batches, with the model's context in their place.

    In the words by which `context_excess.py` knows it.
    """
    tokens = found.groupdict().get("tokens")
    if not tokens or not model.context_length:
        return body
    subject = "documents" if call.ability == "rerank" else "input"
    reason = f"{subject} has {int(tokens)} tokens, and the model takes {model.context_length}"
    return encode({"error": {"message": reason}})


def _assembled(engine_request: EngineRequest, parts: Sequence[AssemblingSink]) -> Assembly:
    """The answer of all parts, after all steps."""
    if len(parts) == 1 and not engine_request.steps:
        return parts[0].assembly
    assembly = Assembly(engine_request.chat)
    for number, part in enumerate(parts):
        for event in engine_request.events(number, part.assembly.event()):
            assembly.add(event)
    return assembly


class _Forward:
    """One path as an ASGI application."""

    def __init__(self, inference: Inference, dialect: Dialect, call: Call) -> None:
        self._inference = inference
        self._render_error = dialect.render_error
        self._call = call
        self.doc = replace(call.doc, scope="inference")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        timeline = Timeline(self._call.path)
        exchange = Exchange(scope, timeline)
        underway = self._inference.underway
        underway[id(timeline)] = timeline
        try:
            await self._inference.forward(exchange, receive, self._call)
            timeline.status = 200
        except _ClientLeft:
            timeline.status = 499
        except asyncio.CancelledError:
            timeline.status = 200 if exchange.is_complete else 499
            if exchange.out.is_gone:
                return  # there is nobody to tell
            ending = reason_of_cancel(exchange, scope)
            if ending is None:
                raise
            timeline.status = status_of(ending)
            if exchange.out.started:
                exchange.out.write(b"\n\n" + exchange.encoder.error(error_body(ending)))
                exchange.out.end()
            else:
                await self._answer(ending)(scope, receive, send)
        except (EngineRefused, PaddockError) as error:
            answer = self._answer(error)
            timeline.status = answer.status_code
            await answer(scope, receive, send)
        except Exception as error:  # noqa: BLE001 - the border: a bug is a 500, as on other routes
            timeline.status = 500
            answer = await on_bug(Request(scope), error)
            if not exchange.out.started:
                await answer(scope, receive, send)
            else:  # in the middle of a stream there is but one way to say it
                exchange.out.write(exchange.encoder.error(decode(bytes(answer.body))))
                exchange.out.end()
        finally:
            timeline.done = time.perf_counter()
            del underway[id(timeline)]
            self._inference.observe(timeline)

    def _answer(self, error: EngineRefused | PaddockError) -> Response:
        """An error in the route's dialect."""
        answer = render(error) if isinstance(error, PaddockError) else render_refusal(error)
        return answer if self._render_error is None else in_dialect(answer, self._render_error)


async def _make_out(
    exchange: Exchange, call: Call, body: Body, model: Model, raw: bytes
) -> EngineRequest:
    """The request for the engine. The exchange gets the encoder of the answer."""
    size, encoder = len(raw), exchange.encoder
    if call.to_openai is not None:
        translate = partial(call.to_openai, body)
        body, encoder = await apart(size, translate) if size > LARGE_BYTES else translate()
        exchange.encoder, raw = encoder, b""
    build = partial(call.build, body, model, raw, encoder)
    engine_request = await apart(size, build) if size > LARGE_BYTES else build()
    if media := openai.media(body):
        # After `build`, which refuses them where the model has no eyes.
        inlined = await inline_media(media)
        if inlined is not None:
            build = partial(call.build, {**body, "messages": inlined}, model, b"", encoder)
            return await apart(LARGE_BYTES + 1, build)  # with pictures it mostly is
    return engine_request


async def _read(receive: Receive) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _ClientLeft
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MAX_INFERENCE_BODY_BYTES:
            raise TooLarge("body", f"over {MAX_INFERENCE_BODY_BYTES} bytes", "is too large")
        if not message.get("more_body"):
            return b"".join(parts)
