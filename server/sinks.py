"""Where an engine's answer goes: each kind of answer is a sink of its connection's callbacks."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from paddock.server.errors import envelope
from paddock.server.protocol import Headers, Outlet
from paddock.server.timeline import Timeline
from paddock.server.treatment import DONE, Asked, Encoder, Events, OpenAI, dump


class Lost(Exception):
    """The engine's connection broke off; nothing has gone out to the client."""


class EngineRefused(Exception):
    """The engine answered with an error; `retry_after` is its header, of an attached endpoint."""

    def __init__(self, status: int, body: bytes, retry_after: bytes = b"") -> None:
        super().__init__(status, body)
        self.status = status
        self.body = body
        self.retry_after = retry_after


NO_STREAM = b"its answer is no stream, which it was asked for"


def event_of(payload: bytes) -> dict[str, Any]:
    """An event of an engine's stream. What is none, as attached endpoints may send, is an error."""
    try:
        event = json.loads(payload)
    except ValueError:
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

    @property
    def is_whole(self) -> bool:
        """Whether the client has all of it; of what is not streamed, never before its end."""
        return False

    def take(self, data: bytes) -> None:
        """Takes a piece of an answer that is no error."""
        raise NotImplementedError

    def end(self) -> None:
        """The answer is whole."""
        if self.done.done():
            return
        if self._refusal is not None:
            said = b"".join(self._refusal)
            self.done.set_exception(EngineRefused(self._status, said, self._retry_after))
        else:
            self.done.set_result(None)

    def lost(self, why: str) -> None:
        """It never will be."""
        if not self.done.done():
            self.done.set_exception(Lost(why))


class Gathered(PartSink):
    """An answer that is one JSON object."""

    streams = False

    def __init__(self, timeline: Timeline) -> None:
        super().__init__(timeline)
        self.parts: list[bytes] = []

    def take(self, data: bytes) -> None:
        """Keeps it."""
        self.parts.append(data)


class Assembled(PartSink):
    """A stream from the engine that becomes one whole answer."""

    def __init__(self, timeline: Timeline, asked: Asked, part: int) -> None:
        super().__init__(timeline)
        self.events: list[dict[str, Any]] = []
        self._asked = asked
        self._part = part
        self._cut = Events()

    def take(self, data: bytes) -> None:
        """Keeps the events."""
        for payload in self._cut.feed(data):
            if payload == DONE:
                continue
            event = event_of(payload)
            self.timeline.events += 1
            if "error" in event:
                status = event["error"].get("code")
                self._status = status if isinstance(status, int) and 400 <= status < 600 else 502
                self._refusal = [dump(event)]
                return
            self.events.append(event)


class Straight(PartSink):
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
    def is_whole(self) -> bool:
        """Whether the client has all: many leave at `[DONE]`, before the engine's last bytes."""
        return self._last.rstrip().endswith(DONE)

    def end(self) -> None:
        """Ends the client's stream too."""
        if self._refusal is None and not self._out.started:
            start(self._out, self.timeline, self._headers)
        super().end()

    def lost(self, why: str) -> None:
        """Once bytes have passed, the client is told by an event, not by a cut."""
        if not self._out.started:
            super().lost(why)
        elif not self.done.done():
            clean = not self._last or self._last.endswith(b"\n\n")
            broken(self._out, OpenAI(), why, clean=clean)
            self.done.set_exception(Told())


class Rewritten(Straight):
    """A stream of which some events change on their way."""

    def __init__(
        self, timeline: Timeline, out: Outlet, headers: Headers, asked: Asked, part: int
    ) -> None:
        super().__init__(timeline, out, headers)
        self._asked = asked
        self._part = part
        self._cut = Events()
        self._needles = asked.needles
        self._is_over = False

    def take(self, data: bytes) -> None:
        """Passes what has no needle in it, and rewrites the rest event by event."""
        if self._is_over:  # what follows an error, or the end, is nobody's
            return
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
                written.append(self._asked.encoder.error(event))
                continue
            if usage := event.get("usage"):
                self.timeline.prompt_tokens += usage.get("prompt_tokens") or 0
                self.timeline.completion_tokens += usage.get("completion_tokens") or 0
            written += map(self._asked.encoder.event, self._asked.events(self._part, event))
        if not self._out.started:
            start(self._out, self.timeline, self._headers)
        self._last = b"".join(written)
        self._out.write(self._last)

    def end(self) -> None:
        """As its parent; a stream that ended without the sentinel gets it."""
        if self._refusal is None and self._needles is not None and not self._is_over:
            if not self._out.started:
                start(self._out, self.timeline, self._headers)
            self._out.write(b"data: [DONE]\n\n")
        super().end()

    def lost(self, why: str) -> None:
        """As its parent, in the client's dialect; nothing of a half event has gone out."""
        if not self._out.started:
            PartSink.lost(self, why)
        elif not self.done.done():
            broken(self._out, self._asked.encoder, why, clean=True)
            self.done.set_exception(Told())


class Told(Exception):
    """The engine broke off in the middle, and the client has been told so by an event."""


def start(out: Outlet, timeline: Timeline, headers: Headers) -> None:
    """Begins a stream's answer."""
    out.start(200, [*headers, (b"server-timing", timeline.header().encode())])


def broken(out: Outlet, encoder: Encoder, why: str, clean: bool) -> None:
    """Ends a stream whose engine broke off with an event that says so."""
    body = envelope(502, f"the engine broke off: {why}", "EngineLost", {})
    out.write((b"" if clean else b"\n\n") + encoder.error(body))
    out.end()
