"""Where an engine's answer goes: each kind of answer is a sink of its connection's callbacks."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from paddock.server.errors import envelope
from paddock.server.protocol import Headers, Outlet
from paddock.server.timeline import Timeline
from paddock.server.treatment import DONE, Asked, Encoder, Events, OpenAI


class Lost(Exception):
    """The engine's connection broke off; nothing has gone out to the client."""


class EngineRefused(Exception):
    """The engine answered with an error."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(status, body)
        self.status = status
        self.body = body


class PartSink:
    """One part's answer. `done` ends with it: with an exception where nothing has gone out."""

    def __init__(self, timeline: Timeline) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.timeline = timeline
        self._status = 0
        self._refusal: list[bytes] | None = None

    def head(self, status: int, content_type: bytes) -> None:
        """An error is collected, whatever the answer was to become."""
        if status >= 300:  # a redirect, which only an attached endpoint can mean, is none of ours
            self._status, self._refusal = status, []

    def body(self, data: bytes) -> None:
        """Takes a piece. Engines send the head of a stream long before its first token."""
        if not self.timeline.first:
            self.timeline.first = time.perf_counter()
        if self._refusal is None:
            self.take(data)
        else:
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
            self.done.set_exception(EngineRefused(self._status, b"".join(self._refusal)))
        else:
            self.done.set_result(None)

    def lost(self, why: str) -> None:
        """It never will be."""
        if not self.done.done():
            self.done.set_exception(Lost(why))


class Gathered(PartSink):
    """An answer that is one JSON object."""

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
            event = json.loads(payload)
            self.timeline.events += 1
            if "error" in event:
                status = (event["error"] or {}).get("code")
                self._status = status if isinstance(status, int) and 400 <= status < 600 else 502
                self._refusal = [payload]
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

    def take(self, data: bytes) -> None:
        """Passes what has no needle in it, and rewrites the rest event by event."""
        if self._needles is not None and self._cut.is_clean and data.endswith(b"\n\n"):
            for needle in self._needles:
                if needle in data:
                    break
            else:
                super().take(data)
                return
        written: list[bytes] = []
        for payload in self._cut.feed(data):
            if payload == DONE:
                if self._needles is not None:
                    written.append(b"data: [DONE]\n\n")
                continue
            event = json.loads(payload)
            self.timeline.events += 1
            if "error" in event:
                written.append(self._asked.encoder.error(event))
                continue
            if usage := event.get("usage"):
                self.timeline.prompt_tokens += usage.get("prompt_tokens", 0)
                self.timeline.completion_tokens += usage.get("completion_tokens", 0)
            written += map(self._asked.encoder.event, self._asked.events(self._part, event))
        if not self._out.started:
            start(self._out, self.timeline, self._headers)
        self._last = b"".join(written)
        self._out.write(self._last)

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
