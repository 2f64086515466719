"""Where an engine's answer goes: each kind of answer is a sink of its connection's callbacks."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from paddock.registry.errors import EngineSilent
from paddock.registry.json_codec import decode, encode
from paddock.server.http.errors import envelope
from paddock.server.http.protocol import Headers, Outlet
from paddock.server.proxy.shape import fault
from paddock.server.proxy.steps import DONE, Assembly, EngineRequest, Events, OpenAI
from paddock.server.telemetry.timeline import Timeline


class UpstreamLost(Exception):
    """The engine's connection broke off; nothing has gone out to the client."""


class EngineRefused(Exception):
    """The engine answered with an error; `retry_after` is its header, of an attached endpoint."""

    def __init__(self, status: int, body: bytes, retry_after: bytes = b"") -> None:
        super().__init__(status, body)
        self.status = status
        self.body = body
        self.retry_after = retry_after


NO_STREAM = b"its answer is no stream, which it was asked for"
NO_SHAPE = b"its answer is not of OpenAI's shape"
MAX_ANSWER_BYTES = 256_000_000
"""Of an answer that is gathered before it goes out: 10,000 vectors of 2,048 numbers as text."""
MAX_REFUSAL_BYTES = 1_000_000
"""Of an engine's error; more is cut off."""
MAX_EVENT_BYTES = 16_000_000
"""Of one event of a stream that is looked into."""


def event_of(payload: bytes) -> dict[str, Any]:
    """Parses one event of an engine's stream. Invalid ones become an error event with code 502."""
    try:
        event = decode(payload)
    except (ValueError, RecursionError):
        event = None
    if not isinstance(event, dict):
        said = payload[:200].decode("utf-8", "replace")
        return {"error": {"message": f"its stream has what is no event: {said}", "code": 502}}
    error = event.get("error")
    if error is not None and not isinstance(error, dict):
        event["error"] = {"message": str(error)}
    elif error is None:  # some have the key in each event
        event.pop("error", None)
        if "choices" in event and event["choices"] is None:
            event["choices"] = []
        if wrong := fault(event):
            message = f"its stream has an event that is not of OpenAI's shape: {wrong}"
            return {"error": {"message": message, "code": 502}}
    return event


class PartSink:
    """One part's answer. `done` ends with it: with an exception where nothing has gone out."""

    streams = True
    """Whether events are awaited."""

    def __init__(self, timeline: Timeline) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.timeline = timeline
        self._status = 0
        self._refusal: list[bytes] | None = None
        self._refusal_bytes = 0
        self._retry_after = b""
        self._passes = True

    def head(self, status: int, content_type: bytes, retry_after: bytes = b"") -> None:
        """An error is collected, whatever the answer was to become."""
        if status >= 300:  # a redirect, which only an attached endpoint can mean, is none of ours
            self._status, self._refusal, self._retry_after = status, [], retry_after
        elif self.streams and content_type.lower().startswith((b"application/json", b"text/html")):
            self._status, self._refusal, self._passes = 502, [NO_STREAM], False

    def body(self, data: bytes) -> None:
        """Takes a piece. Engines send the head of a stream long before its first token."""
        if not self.timeline.first:
            self.timeline.first = time.perf_counter()
        if self._refusal is None:
            self.take(data)
        elif self._passes:
            self._refusal.append(data)
            self._refusal_bytes += len(data)
            if self._refusal_bytes > MAX_REFUSAL_BYTES:
                self.end()

    @property
    def is_complete(self) -> bool:
        """Whether the client has all of it; of what is not streamed, never before its end."""
        return False

    def take(self, data: bytes) -> None:
        """Takes a piece of an answer that is no error."""
        raise NotImplementedError

    def drop_error(self) -> None:
        """Forgets the error of `done`, which has been raised.

        Its traceback has frames that hold this sink and the request: a reference cycle.
        """
        self.done = self.done.get_loop().create_future()
        self.done.set_result(None)

    def end(self) -> None:
        """The answer is complete."""
        if self.done.done():
            return
        if self._refusal is not None:
            said = b"".join(self._refusal)
            self.done.set_exception(EngineRefused(self._status, said, self._retry_after))
        else:
            self.done.set_result(None)

    def lost(self, why: str) -> None:
        """The answer will not be complete: the connection broke off."""
        self.fail(
            UpstreamLost(why), envelope(502, f"the engine broke off: {why}", "EngineLost", {})
        )

    def garbled(self, why: str) -> None:
        """The answer will not be complete: what came is not an answer."""
        why = f"the engine's answer cannot be read: {why}"
        refused = EngineRefused(502, why.encode())
        self.fail(refused, envelope(502, why, "EngineRefused", {"layer": "engine"}))

    def silent(self, seconds: float) -> None:
        """It is not waited for any longer."""
        error = EngineSilent(self.timeline.uid, self.timeline.replica_id, seconds)
        self.fail(error, envelope(504, str(error), type(error).__name__, error.fields()))

    def fail(self, error: Exception, body: dict[str, Any]) -> None:
        """Ends it with an error; `body` is for a client who has a part of the answer."""
        if not self.done.done():
            self.done.set_exception(error)


class BufferingSink(PartSink):
    """An answer that is one JSON object."""

    streams = False

    def __init__(self, timeline: Timeline) -> None:
        super().__init__(timeline)
        self.parts: list[bytes] = []
        self._bytes = 0

    def take(self, data: bytes) -> None:
        """Keeps it."""
        self.parts.append(data)
        self._bytes += len(data)
        if self._bytes > MAX_ANSWER_BYTES:
            self.garbled(f"it is over {MAX_ANSWER_BYTES} bytes")


class AssemblingSink(PartSink):
    """A stream from the engine that becomes one whole answer."""

    def __init__(self, timeline: Timeline, chat: bool) -> None:
        super().__init__(timeline)
        self.assembly = Assembly(chat)
        """What came. Steps see it once no other replica can take this one's place."""
        self._cut = Events()
        self._bytes = 0

    def take(self, data: bytes) -> None:
        """Adds the events."""
        self._bytes += len(data)
        if self._bytes > MAX_ANSWER_BYTES:
            self.garbled(f"it is over {MAX_ANSWER_BYTES} bytes")
            return
        if self._cut.held_bytes > MAX_EVENT_BYTES:
            self.garbled(f"an event of it is over {MAX_EVENT_BYTES} bytes")
            return
        for payload in self._cut.feed(data):
            if payload == DONE:
                continue
            event = event_of(payload)
            self.timeline.events += 1
            if "error" in event:
                status = event["error"].get("code")
                self._status = status if isinstance(status, int) and 400 <= status < 600 else 502
                self._refusal, self._passes = [encode(event)], False
                return
            self.assembly.add(event)


class PassthroughSink(PartSink):
    """A stream whose bytes pass as they are."""

    def __init__(self, timeline: Timeline, out: Outlet, headers: Headers) -> None:
        super().__init__(timeline)
        self._out = out
        self._headers = headers
        self._last = b""

    def take(self, data: bytes) -> None:
        """The hot path: once for every read of the engine's connection."""
        if not self._out.started:
            start(self._out, self.timeline, self._headers)
        self._out.write(data)
        self.timeline.events += data.count(b"data: {")
        self._last = data

    @property
    def is_complete(self) -> bool:
        """Whether the client has all: many leave at `[DONE]`, before the engine's last bytes."""
        return self._last.rstrip().endswith(DONE)

    def end(self) -> None:
        """Ends the client's stream too; one without a byte is an error."""
        if self._refusal is None and not self._out.started:
            self._status, self._refusal = 502, [NO_STREAM]
        super().end()

    def fail(self, error: Exception, body: dict[str, Any]) -> None:
        """Once bytes have passed, the client is told by an event, not by a cut."""
        if not self._out.started:
            super().fail(error, body)
        elif not self.done.done():
            self._tell(body)
            self._out.end()
            self.done.set_exception(AlreadyTold())

    def _tell(self, body: dict[str, Any]) -> None:
        clean = not self._last or self._last.endswith(b"\n\n")
        self._out.write((b"" if clean else b"\n\n") + OpenAI().error(body))


class RewritingSink(PassthroughSink):
    """A stream of which some events change on their way."""

    def __init__(
        self, timeline: Timeline, out: Outlet, headers: Headers, request: EngineRequest, part: int
    ) -> None:
        super().__init__(timeline, out, headers)
        self._request = request
        self._part = part
        self._cut = Events()
        self._needles = request.needles
        self._is_over = False

    def take(self, data: bytes) -> None:
        """Passes what has no needle in it, and rewrites the rest event by event."""
        if self._is_over or self._is_too_long():
            return  # what follows an error, or the end, is nobody's
        if self._needles is not None and self._cut.is_clean and data.endswith(b"\n\n"):
            for needle in self._needles:
                if needle in data:
                    break
            else:
                super().take(data)
                self._is_over = data.endswith(b"[DONE]\n\n")
                return
        written: list[bytes] = []
        for payload in self._cut.feed(data):
            if self._is_over:
                break
            if payload == DONE:
                self._is_over = self._needles is not None
                if self._is_over:
                    written.append(b"data: [DONE]\n\n")
                continue
            event = event_of(payload)
            self.timeline.events += 1
            if "error" in event:
                self._is_over = True
                written.append(self._request.encoder.error(event))
                continue
            if usage := event.get("usage"):
                self.timeline.count(usage)
            written += map(self._request.encoder.event, self._request.events(self._part, event))
        if not self._out.started:
            start(self._out, self.timeline, self._headers)
        self._last = b"".join(written)
        self._out.write(self._last)

    def _is_too_long(self) -> bool:
        if self._cut.held_bytes <= MAX_EVENT_BYTES:
            return False
        self.garbled(f"an event of it is over {MAX_EVENT_BYTES} bytes")
        return True

    def end(self) -> None:
        """As its parent; a stream that ended without the sentinel gets it."""
        is_begun = self._refusal is None and self._out.started
        if is_begun and self._needles is not None and not self._is_over:
            self._out.write(b"data: [DONE]\n\n")
        super().end()

    def _tell(self, body: dict[str, Any]) -> None:
        """In the client's dialect; nothing of a half event has gone out."""
        self._out.write(self._request.encoder.error(body))


class AlreadyTold(Exception):
    """The answer ended in the middle, and the client has been told so by an event."""


def start(out: Outlet, timeline: Timeline, headers: Headers) -> None:
    """Begins a stream's answer."""
    out.start(200, [*headers, (b"server-timing", timeline.header().encode())])
