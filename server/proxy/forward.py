"""The data path: from the client to the engine and back as bytes.

The gateway reads the request, finds a slot of a replica and copies the answer's bytes from the
engine's connection to the client's in one callback: no task, no parsing, no Ray. An answer that
must be rewritten on its way (another dialect, a wrong of the engine to mend, several parts) goes
event by event through the steps of `treatment.py`, which say why.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from paddock.launcher.fleet.activity import Lease, start_of
from paddock.launcher.fleet.fleet import Fleet
from paddock.launcher.fleet.status import ModelStatus
from paddock.launcher.replicas.replica import ReplicaStatus
from paddock.registry.errors import (
    Aborted,
    BadValue,
    EngineDied,
    EngineSilent,
    KeyRevoked,
    NotAllowed,
    NotReady,
    PaddockError,
    TooLarge,
)
from paddock.registry.json_codec import decode, encode
from paddock.server.access.blocklist import Blocklist
from paddock.server.access.keys import principal
from paddock.server.access.media import inline_media
from paddock.server.access.revocation import is_revoked
from paddock.server.dialects import dialects, openai
from paddock.server.dialects.base import Body, Call, Dialect, Model
from paddock.server.http import large
from paddock.server.http.body import LARGE_BYTES, apart, check_content_type, parse
from paddock.server.http.errors import envelope, on_bug, render, status_of
from paddock.server.http.operation import Operation
from paddock.server.http.protocol import outlet
from paddock.server.proxy.sinks import (
    NO_SHAPE,
    NO_STREAM,
    AssemblingSink,
    BufferingSink,
    EngineRefused,
    PartSink,
    PassthroughSink,
    RewritingSink,
    StreamAborted,
    UpstreamLost,
)
from paddock.server.proxy.steps import Assembly, Encoder, EngineRequest, OpenAI
from paddock.server.proxy.upstream import SILENCE_SECONDS, Pool, Upstream
from paddock.server.telemetry.metrics import Load
from paddock.server.telemetry.timeline import Timeline

MAX_BODY_BYTES = 64_000_000
JSON = b"application/json"
MAX_KNOWN = 1000
"""Models whose fields are at hand; they are made out again in 2 µs."""
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
        self._running: dict[tuple[str, str], set[_Exchange]] = {}
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
        """Ends the requests that came with this `request_id`, and those that come with it soon.

        False: none is there now.
        """
        self._blocked.add(uid, request_id, block_seconds)
        found = self._running.get((uid, request_id), set())
        for exchange in tuple(found):
            exchange.abort()
        return bool(found)

    @contextlib.contextmanager
    def _named(self, uid: str, request_id: str, exchange: _Exchange) -> Iterator[None]:
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

    async def forward(self, exchange: _Exchange, receive: Receive, call: Call) -> None:
        """Answers one request. Raises only before the first byte has gone out."""
        raw = await _read(receive)
        check_content_type(exchange.content_type, raw)
        size = len(raw)
        body = await apart(size, partial(_parsed, raw))
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
        encoder = exchange.encoder
        if call.to_openai is not None:
            (body, encoder), raw = await apart(size, partial(call.to_openai, body)), b""
            exchange.encoder = encoder
        engine_request = await apart(size, partial(call.build, body, model, raw, encoder))
        if media := openai.media(body):
            # After `make`, which refuses them where the model has no eyes.
            inlined = await inline_media(media)
            if inlined is not None:
                body = {**body, "messages": inlined}
                work = partial(call.build, body, model, b"", encoder)
                engine_request = await apart(LARGE_BYTES + 1, work)  # with pictures it mostly is
        self._fleet.slots.check(uid, len(engine_request.bodies))
        exchange.timeline.streamed = engine_request.streamed
        carry_out = self._stream if engine_request.streamed else self._whole
        request_id = body.get("request_id")
        try:
            if isinstance(request_id, str):
                with self._named(uid, request_id, exchange):
                    await carry_out(exchange, engine_request)
            else:
                await carry_out(exchange, engine_request)
        except EngineRefused as error:
            if model.served and error.status in _ITS_OWN:
                # Not the caller's: 401 would tell him that his own key is wrong.
                self._fleet.doubt(uid)
                raise NotReady(uid, "ready", _ITS_OWN[error.status], 5.0) from None
            if model.fields.too_long is None or not model.fields.too_long.search(error.body):
                raise
            raise EngineRefused(400, error.body) from None

    async def _stream(self, exchange: _Exchange, engine_request: EngineRequest) -> None:
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
        except StreamAborted:
            return
        except (EngineRefused, PaddockError) as error:
            if not out.started:
                raise
            out.write(engine_request.encoder.error(_error_body(error)))
            out.end()
            return
        if engine_request.needles is None:
            out.write(engine_request.encoder.close())
        out.end()

    async def _whole(self, exchange: _Exchange, engine_request: EngineRequest) -> None:
        timeline = exchange.timeline
        if engine_request.raw:
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
            timeline.prompt_tokens = usage.get("prompt_tokens") or 0
            timeline.completion_tokens = usage.get("completion_tokens") or 0
            body = encode(engine_request.encoder.whole(answer))
        timing = (b"server-timing", timeline.header().encode())
        exchange.out.answer(200, [(b"content-type", JSON), timing], body)

    async def _parts(
        self, exchange: _Exchange, engine_request: EngineRequest, sink: Callable[[int], PartSink]
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
        exchange: _Exchange,
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
                return await self._ask(exchange, lease, engine_request, part, sink)
            except EngineRefused as error:
                # Some say in their errors with which key they were asked.
                raise _without(replica.key, error) from None
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
        tried.append(start_of(replica))
        if len(tried) >= TRIES:
            if diagnosis is not None:
                raise EngineDied(uid, diagnosis["cause"], diagnosis["message"]) from error
            reason = f"its engine does not answer ({error})"
            raise NotReady(uid, "ready", reason, 1.0) from error

    async def _ask(
        self,
        exchange: _Exchange,
        lease: Lease,
        engine_request: EngineRequest,
        part: int,
        sink: Callable[[int], PartSink],
    ) -> PartSink:
        """One part on one replica: on a kept connection, and if that was closed on a new one."""
        replica = lease.replica
        assert replica.endpoint is not None
        request = _request(replica, engine_request.path, engine_request.bodies[part])
        upstream = self._pool.take(replica.endpoint)
        if upstream is not None:
            try:
                return await exchange.send_and_wait(
                    upstream, lease, request, sink(part), engine_request.reusable
                )
            except UpstreamLost:
                if lease.revoked:
                    raise
        upstream = await self._pool.connect(replica.endpoint)
        return await exchange.send_and_wait(
            upstream, lease, request, sink(part), engine_request.reusable
        )


def _assembled(engine_request: EngineRequest, parts: Sequence[AssemblingSink]) -> Assembly:
    """The answer of all parts, after all steps."""
    if len(parts) == 1 and not engine_request.steps:
        return parts[0].assembly
    assembly = Assembly(engine_request.chat)
    for number, part in enumerate(parts):
        for event in engine_request.events(number, part.assembly.event()):
            assembly.add(event)
    return assembly


class _Exchange:
    """One client's request, and the connections to engines that work on it."""

    def __init__(self, scope: Scope, timeline: Timeline) -> None:
        self.out = out = outlet(scope)
        self.timeline = timeline
        self.caller = principal(scope)
        # Without keys, all that can be told is the machine.
        self.client = self.caller.id or str((scope.get("client") or ("",))[0])
        self.content_type = next(
            (v.decode("latin-1") for k, v in scope["headers"] if k == b"content-type"), ""
        )
        self.encoder: Encoder = OpenAI()
        self.silence_seconds = SILENCE_SECONDS
        self.aborted = False
        self._live: set[Upstream] = set()
        self._sinks: list[PartSink] = []
        self._task = asyncio.current_task()
        out.on_disconnect = self._on_disconnect
        out.on_backpressure = self._on_backpressure
        out.on_drain = self._on_drain

    async def send_and_wait(
        self, upstream: Upstream, lease: Lease, request: bytes, sink: PartSink, reusable: bool
    ) -> PartSink:
        """Sends the request and waits until the sink has the whole answer.

        However it ends before that, the connection is closed, which tells the engine to stop. So
        it is when the engine sends nothing for `silence_seconds`. The lease knows meanwhile how
        long its engine has been silent, and can end the work of one that hangs.

        Raises:
            Lost: the connection broke off, or the lease was revoked.
        """
        if lease.revoked:
            raise UpstreamLost(lease.revoked)
        lease.attach(upstream, upstream.break_off)
        self._live.add(upstream)
        self._sinks.append(sink)
        try:
            self.timeline.sent = time.perf_counter()
            upstream.ask(request, sink, reusable, self.silence_seconds)
            await sink.done
        except UpstreamLost:
            self._sinks.remove(sink)  # another connection or replica takes its place
            raise
        finally:
            self._live.discard(upstream)
            upstream.release()
            lease.detach()
        return sink

    @property
    def is_complete(self) -> bool:
        """Whether the client has the whole answer."""
        return bool(self._sinks) and all(sink.is_complete for sink in self._sinks)

    def abort(self) -> None:
        """Ends it as if its client had left; the client is told."""
        self.aborted = True
        self._on_disconnect()

    def _on_disconnect(self) -> None:
        # At once, and not when the task comes to it: the engine shall stop within milliseconds.
        for upstream in self._live:
            upstream.abort()
        if self._task is not None:
            self._task.cancel()

    def _on_backpressure(self) -> None:
        for upstream in self._live:
            upstream.pause()

    def _on_drain(self) -> None:
        for upstream in self._live:
            upstream.resume()


class _Forward:
    """One path as an ASGI application."""

    def __init__(self, inference: Inference, dialect: Dialect, call: Call) -> None:
        self._inference = inference
        self._render_error = dialect.render_error
        self._call = call
        self.doc = replace(call.doc, scope="inference")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        timeline = Timeline(self._call.path)
        exchange = _Exchange(scope, timeline)
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
            ending = _ending(exchange, scope)
            if ending is None:
                raise
            timeline.status = status_of(ending)
            if exchange.out.started:
                exchange.out.write(b"\n\n" + exchange.encoder.error(_error_body(ending)))
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
        answer = render(error) if isinstance(error, PaddockError) else _rendered(error)
        return answer if self._render_error is None else _as_dialect(answer, self._render_error)


def _ending(exchange: _Exchange, scope: Scope) -> PaddockError | None:
    """Why the gateway itself cancelled a request; None if it did not."""
    if is_revoked(scope):
        return KeyRevoked(exchange.caller.id)
    return Aborted() if exchange.aborted else None


# What an attached endpoint says of the gateway, and not of the request.
_ITS_OWN = {
    301: "its endpoint redirects, which is not followed",
    302: "its endpoint redirects, which is not followed",
    303: "its endpoint redirects, which is not followed",
    307: "its endpoint redirects, which is not followed",
    308: "its endpoint redirects, which is not followed",
    401: "its endpoint does not take the key any more",
    403: "its endpoint does not allow that with its key",
}


def died_by_itself(diagnosis: Mapping[str, Any]) -> bool:
    """Whether a request may have ended an engine: it exited, crashed, or took all memory.

    Other SIGKILL and SIGTERM come from outside.
    """
    if diagnosis.get("cause") in {"engine_hung", "actor_died", "node_lost"}:
        return False
    return diagnosis.get("cause") == "oom" or diagnosis.get("signal") not in {"SIGKILL", "SIGTERM"}


_RETRY_AFTER = re.compile(rb"[\x20-\x7e]{1,100}")


def _without(key: str, error: EngineRefused) -> EngineRefused:
    body = error.body.replace(key.encode(), b"(key)") if key else error.body
    return EngineRefused(error.status, body, error.retry_after)


def _error_body(error: EngineRefused | PaddockError) -> dict[str, Any]:
    if isinstance(error, PaddockError):
        return envelope(status_of(error), str(error), type(error).__name__, error.fields())
    message = error.body.decode("utf-8", "replace").strip()
    fields: dict[str, Any] = {}
    with contextlib.suppress(ValueError, RecursionError):
        found = decode(error.body)
        said = found.get("error", found) if isinstance(found, dict) else {}
        if isinstance(said, dict):
            fields = {key: value for key, value in said.items() if key not in {"message", "type"}}
            message = str(said.get("message") or message)
            if "n_prompt_tokens" in fields:  # beyond the context
                fields["param"] = "prompt"
        else:
            message = str(said)
    status = _status(error)
    if status != error.status:
        message = f"its engine answered with status {error.status}: {message}"
    return envelope(status, message, "EngineRefused", {**fields, "layer": "engine"})


def _status(error: EngineRefused) -> int:
    """The engine's status where it is one of an error; others have no place for our body."""
    return error.status if 400 <= error.status < 600 else 502


def _as_dialect(answer: Response, failed: Callable[[Body], Body]) -> Response:
    headers = {k: v for k, v in answer.headers.items() if k.lower() == "retry-after"}
    body = encode(failed(decode(bytes(answer.body))))
    return Response(body, answer.status_code, headers, media_type="application/json")


def _rendered(error: EngineRefused) -> Response:
    body = encode(_error_body(error))
    headers = {}
    if _RETRY_AFTER.fullmatch(error.retry_after):
        headers["Retry-After"] = error.retry_after.decode("ascii")
    return Response(body, _status(error), headers, media_type="application/json")


def _request(replica: ReplicaStatus, path: str, body: bytes) -> bytes:
    at = urlsplit(replica.endpoint or "")
    # An attached endpoint has a base path, which takes the place of our `/v1`.
    path = at.path + path.removeprefix("/v1") if at.path else path
    key = f"Authorization: Bearer {replica.key}\r\n" if replica.key else ""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {at.netloc or 'engine'}\r\n{key}User-Agent: paddock\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _parsed(raw: bytes) -> Any:
    return parse(raw) if len(raw) <= LARGE_BYTES else large.loads(raw, parse)


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
            raise TooLarge("body", f"over {MAX_BODY_BYTES} bytes", "is too large")
        if not message.get("more_body"):
            return b"".join(parts)
