"""The gateway's HTTP protocol with limits to the size and the pace of a request.

uvicorn's httptools protocol keeps whatever a client sends until the head ends, and waits for it
without limit. `Security` counts a complete head exactly; this bounds the memory of one that is not
complete, of trailers, and of whatever else the parser buffers, and closes connections on which a
request does not come.
"""

from __future__ import annotations

import asyncio
import json
from typing import Literal

from paddock.server.access.security import HEAD_TOO_LARGE
from paddock.server.http.errors import envelope
from paddock.server.http.protocol import Protocol

# Counted in whole reads of the socket, of up to 256 KiB, which may have the end of a body in them.
MAX_HELD_BYTES = 512 * 1024
HEAD_SECONDS = 60.0
"""Within these a head must be complete, counted from the connection or the head's first byte.
A head is at most 64 KiB, which takes 9 s at the 56 kbit/s of the slowest modem."""
BODY_PAUSE_SECONDS = 60.0
"""The longest pause within a body. Every byte counts as progress, so a slow upload is never cut;
mobile networks lose a connection's packets for up to half a minute."""

Phase = Literal["idle", "head", "body"]


class LimitedProtocol(Protocol):
    """One client's connection, which is closed when a request on it has no end.

    One timer a connection at most, started only where a read leaves a request incomplete. An idle
    kept connection is uvicorn's, which closes it after `timeout_keep_alive`.
    """

    _held_bytes = 0
    _phase: Phase = "head"
    _since = 0.0
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Waits for a first head."""
        super().connection_made(transport)
        self._await("head")
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Waits for nothing more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feeds the parser, and closes a connection that sent too much without a complete head."""
        self._held_bytes += len(data)
        super().data_received(data)
        if self._held_bytes > MAX_HELD_BYTES and not self.transport.is_closing():
            if self._may_answer:
                self.transport.write(_TOO_LARGE)
            self.transport.close()
        if self._phase == "body":
            self._since = self.loop.time()
        elif self._phase == "idle" and self._may_answer:
            self._await("head")  # empty lines, for which the parser calls nothing
        if self._phase != "idle" and self._timer is None:
            self._watch()

    def on_message_begin(self) -> None:
        """The first byte of a head."""
        self._await("head")
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keeps a field of the head. Trailers come here too, and are dropped.

        They would stand among the headers, past a proxy that sets or removes `Authorization`,
        `Host` or `Origin`.
        """
        if self._phase == "head":
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """A head has ended."""
        self._held_bytes = 0
        self._phase = "body"
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of a body has come; its own limit counts from here."""
        self._held_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request has come completely; no time limit applies until the next one begins."""
        self._phase = "idle"
        super().on_message_complete()

    @property
    def _may_answer(self) -> bool:
        """Whether no other answer is due or in progress on the connection."""
        return self.cycle is None or self.cycle.response_complete

    def _await(self, phase: Phase) -> None:
        self._phase = phase
        self._since = self.loop.time()

    def _watch(self) -> None:
        """Starts the timer for the present phase."""
        limit = HEAD_SECONDS if self._phase == "head" else BODY_PAUSE_SECONDS
        left = max(0.0, self._since + limit - self.loop.time())
        self._timer = self.loop.call_later(left, self._look)

    def _look(self) -> None:
        """Closes the connection if its time is over. Moments are compared here, not at each read:
        a timer for each read would cost more than the read.
        """
        self._timer = None
        if self._phase == "idle" or self.transport.is_closing():
            return
        limit = HEAD_SECONDS if self._phase == "head" else BODY_PAUSE_SECONDS
        if self._is_excused():
            self._since = self.loop.time()
        if self.loop.time() - self._since < limit:
            self._watch()
        else:
            self._give_up()

    def _is_excused(self) -> bool:
        """Whether the delay is ours: an answer is due or going out, the client waits to be told to
        send its body (`100 Continue`), or the gateway has stopped reading.
        """
        if self.flow.read_paused:
            return True
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            return False
        waits = cycle.response_started or cycle.waiting_for_100_continue
        return bool(self._phase == "head" or waits)

    def _give_up(self) -> None:
        if self._phase == "body":
            if not self.cycle.response_started:
                self.transport.write(_BODY_TOO_SLOW)
        elif self.headers is not None:  # a connection without a byte gets no answer
            self.transport.write(_HEAD_TOO_SLOW)
        self.transport.close()


def _answer(status: bytes, message: str, kind: str = "forbidden") -> bytes:
    body = json.dumps(envelope(int(status[:3]), message, kind, {})).encode()
    head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
    return head % (status, len(body)) + b"connection: close\r\n\r\n" + body


_TOO_LARGE = _answer(b"431 Request Header Fields Too Large", HEAD_TOO_LARGE)
_HEAD_TOO_SLOW = _answer(
    b"408 Request Timeout",
    f"the request's head was not complete within {HEAD_SECONDS:g} s",
    "TooSlow",
)
_BODY_TOO_SLOW = _answer(
    b"408 Request Timeout",
    f"the request's body paused for more than {BODY_PAUSE_SECONDS:g} s",
    "TooSlow",
)
