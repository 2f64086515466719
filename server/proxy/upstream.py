"""Connections to engines: HTTP/1.1, kept between requests, without a task or a future per chunk.

What an engine sends goes to a `Sink` from the event loop's own callback. aiohttp's client, which
stood here before, woke a task for every chunk: half of what the gateway spent on one.
"""

from __future__ import annotations

import asyncio
import os
import re
import ssl
import time
from collections import defaultdict
from functools import cached_property
from typing import Protocol, cast
from urllib.parse import urlsplit

import httptools

from paddock.server.proxy.pacing import Pacer
from paddock.server.proxy.patience import Patience

CONNECT_SECONDS = 10.0
READ_BYTES = 64 * 1024
TOKENS_BYTES = 16 * 1024
"""A read of more than this is no stream of tokens, and does not rest."""
SILENCE_SECONDS = 1800.0
"""After so long without a byte an engine counts as hung. Reading a prompt is silent too: a context
of a million tokens takes a quarter of an hour at 1,000 tokens a second."""
MAX_HEAD_BYTES = 64 * 1024
"""Of an engine's answer, interim ones (100 Continue) included."""
MAX_LENGTH_BYTES = 1 << 40
"""A length, or the size of a chunk, that no answer has; the rest of it would be waited for."""
MAX_KEPT = 64
"""Connections to one endpoint that wait for their next request; each is a file at both ends."""
KEPT_SECONDS = 60.0
"""How long one waits. Most servers close theirs after 5 to 75 s, and a new one takes 0.1 ms."""
_LINE_FEED = 10
# The size of a chunk in 11 hexadecimal digits or more, leading zeros apart.
_HUGE_CHUNK = re.compile(rb"\r\n0*[1-9a-fA-F][0-9a-fA-F]{10,}[\r;]")


def post_bytes(endpoint: str, key: str, path: str, body: bytes) -> bytes:
    """A whole request to an engine, head and body."""
    at = urlsplit(endpoint)
    # An attached endpoint has a base path, which takes the place of our `/v1`.
    path = at.path + path.removeprefix("/v1") if at.path else path
    authorization = f"Authorization: Bearer {key}\r\n" if key else ""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {at.netloc or 'engine'}\r\n{authorization}"
        "User-Agent: paddock\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Sink(Protocol):
    """Where one answer goes: `head` once, `body` any number of times, then one of the others."""

    def head(self, status: int, content_type: bytes, retry_after: bytes) -> None:
        """The engine has begun to answer; of an attached endpoint, when to come again."""
        ...

    def body(self, data: bytes) -> None:
        """A piece of the answer, without the transfer's framing."""
        ...

    def end(self) -> None:
        """The answer is whole."""
        ...

    def lost(self, why: str) -> None:
        """The connection broke off before the answer was whole."""
        ...

    def garbled(self, why: str) -> None:
        """What came is not an answer of HTTP; the connection is closed."""
        ...

    def silent(self, seconds: float) -> None:
        """Nothing has come for so long; the connection is closed."""
        ...


class Upstream(asyncio.Protocol):
    """One connection to one engine; carries one request at a time."""

    def __init__(self, pool: Pool, endpoint: str) -> None:
        self._pool = pool
        self._endpoint = endpoint
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._sink: Sink | None = None
        self._parts: list[bytes] = []
        self._complete = False
        self._keeps = False
        self._framed = False
        self._chunked = False
        self._until_close = False
        self._reusable = True
        self.is_held = False
        self._rests = False
        self._type = self._retry_after = b""
        self._fd: int | None = None
        self._now = time.monotonic
        self._heard = self._asked = self._quiet_since = 0.0
        self._in_head = True
        self._head_bytes = 0
        self._wrong = ""
        self.kept_at = 0.0

    def ask(
        self,
        request: bytes,
        sink: Sink,
        reusable: bool = True,
        silence_seconds: float = SILENCE_SECONDS,
    ) -> None:
        """Sends a whole request; the answer goes to `sink`.

        The connection is never kept if it is not `reusable`, and given up once the engine has sent
        nothing for `silence_seconds`.
        """
        assert self._transport is not None
        self._sink = sink
        self._reusable = reusable
        self._complete = self._keeps = False
        self._in_head = True
        self._head_bytes = 0
        self._wrong = ""
        self._heard = self._asked = self._quiet_since = self._now()
        self._pool.pacer.enter(self)
        self._pool.patience.enter(self, silence_seconds)
        self._transport.write(request)

    def abort(self) -> None:
        """Ends the connection and with it the engine's work on the request; the sink is let go."""
        self._let_go()
        if self._transport is not None:
            self._transport.abort()

    @property
    def silent_seconds(self) -> float:
        """Since when the engine has sent nothing, though it could; 0 while reading is paused."""
        return 0.0 if self.is_held else self._now() - self._quiet_since

    @property
    def heard_at(self) -> float | None:
        """See `fleet.activity.EngineConnection`."""
        return self._heard if self._heard > self._asked else None

    def give_up(self) -> None:
        """Ends the connection because its engine is silent, and tells the sink so."""
        seconds, sink = self.silent_seconds, self._let_go()
        if self._transport is not None:
            self._transport.abort()
        if sink is not None:
            sink.silent(seconds)

    def break_off(self, why: str) -> None:
        """Ends the connection because its engine will not answer any more; the sink is told why."""
        self._break(why)

    def release(self) -> None:
        """Returns the connection to the pool; closes it if the answer is incomplete.

        Closing it ends the engine's work. Call this last: nobody may abort or pause it afterwards.
        """
        if self._sink is not None:
            self.abort()
        elif self._keeps and self.usable:
            self._pool.keep(self._endpoint, self)
            self.resume()  # a slow client may have stopped it; the engine's closing must be seen

    def pause(self) -> None:
        """Takes nothing more from the engine for now."""
        self.is_held = True
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        """Takes what the engine sends again."""
        self.is_held = False
        self._quiet_since = self._now()
        self._read()

    def wake(self) -> None:
        """Reads what came in a rest, past the event loop, which would have to be told each time."""
        self._rests = False
        if self.is_held or not self.usable:
            return
        if self._fd is None:
            self._read()
            return
        try:
            data = os.read(self._fd, READ_BYTES)
        except OSError:  # nothing came; whatever else is wrong the event loop finds as well
            data = b""
        if data:
            try:
                self.data_received(data)
            except Exception as error:
                self._break(f"the gateway failed: {error}")
                raise
        self._read()

    def _read(self) -> None:
        """Has the event loop read, unless something is in the way."""
        transport = self._transport
        if not (transport is None or transport.is_closing() or self.is_held or self._rests):
            transport.resume_reading()

    @property
    def usable(self) -> bool:
        """Whether the connection can take a request."""
        return self._transport is not None and not self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport. The event loop has set TCP_NODELAY on it."""
        self._transport = cast(asyncio.Transport, transport)
        # What is on the wire of TLS is not the answer: the event loop alone can read that.
        tls = transport.get_extra_info("ssl_object") is not None
        self._fd = None if tls else transport.get_extra_info("socket").fileno()

    def on_message_begin(self) -> None:
        """Nothing is known of the answer's length. Raises `ValueError` for a second answer."""
        if self._complete:
            raise ValueError("a second answer")
        self._framed = self._until_close = self._chunked = False
        self._type = self._retry_after = b""

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keeps the content type, when to come again, and whether it is told where it ends."""
        name = name.lower()
        if name == b"content-type":
            self._type = value
        elif name in {b"content-length", b"transfer-encoding"}:
            self._framed = True
            self._chunked = self._chunked or name == b"transfer-encoding"
            if value.isdigit() and int(value) > MAX_LENGTH_BYTES:
                self._wrong = f"its length is {int(value)} bytes"
        elif name == b"retry-after":
            self._retry_after = value

    def on_headers_complete(self) -> None:
        """Passes the head on. A stream of HTTP/1.0 ends with its connection."""
        status = self._parser.get_status_code()
        self._until_close = not self._framed
        if not 100 <= status < 600 or status == 101:
            self._wrong = f"its status is {status:03d}"
        elif status >= 200 and not self._wrong:
            self._in_head = False
            if self._sink is not None:
                self._sink.head(status, self._type, self._retry_after)

    def on_body(self, body: bytes) -> None:
        """Collects the chunks of one read, so that they leave in one write."""
        self._parts.append(body)

    def on_message_complete(self) -> None:
        """Notes the end of an answer; an interim one (100 Continue) is none."""
        self._until_close = False
        self._complete = self._parser.get_status_code() >= 200
        # The parser says it here only: from the next byte on it is always false.
        self._keeps = self._reusable and self._parser.should_keep_alive()

    def data_received(self, data: bytes) -> None:
        """The hot path: once for every read."""
        if self._sink is None:  # nobody has asked
            self.abort()
            return
        self._heard = self._quiet_since = self._now()
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self._complete:
                self._reject(self._wrong or f"it is not HTTP: {error}")
                return
            self._keeps = False  # what follows a complete answer is nobody's
        if self._in_head:
            self._check_head(data)
        elif data[-1] != _LINE_FEED and self._chunked:
            self._check_chunk(data)
        parts, transport, whole = self._parts, self._transport, b""
        assert transport is not None
        if parts:
            whole = parts[0] if len(parts) == 1 else b"".join(parts)
            parts.clear()
            if self._sink is not None:
                self._sink.body(whole)
        if self._complete:
            self._complete = False
            # A body may have made the sink abort us, by a client that is gone.
            sink = self._let_go()
            if not self._keeps:
                transport.close()
            if sink is not None:
                sink.end()
        elif whole and len(whole) < TOKENS_BYTES and self._pool.pacer.rest(self):
            self._rests = True
            transport.pause_reading()

    def _check_head(self, data: bytes) -> None:
        """Gives up on an answer whose head is wrong or has no end."""
        self._head_bytes += len(data)
        if not self._wrong and self._head_bytes > MAX_HEAD_BYTES:
            self._wrong = f"its head is over {MAX_HEAD_BYTES} bytes"
        if self._wrong:
            self._reject(self._wrong)

    def _check_chunk(self, data: bytes) -> None:
        """Gives up on a chunk without end. Streams seldom come here: chunks end their reads."""
        if _HUGE_CHUNK.search(b"\r\n" + data):
            self._reject("it announces a chunk without end")

    def eof_received(self) -> None:
        """The engine closes; `connection_lost` follows."""

    def connection_lost(self, exc: Exception | None) -> None:
        """An end in the middle of an answer is the sink's to mend."""
        self._pool.forget(self._endpoint, self)
        if exc is None and self._until_close and (sink := self._let_go()) is not None:
            sink.end()
        self._break(f"the connection broke off ({exc or 'closed by the engine'})")
        self._transport = None

    def _let_go(self) -> Sink | None:
        sink, self._sink = self._sink, None
        self._pool.pacer.leave(self)
        self._pool.patience.leave(self)
        return sink

    def _break(self, why: str) -> None:
        sink = self._let_go()
        if self._transport is not None:
            self._transport.abort()
        if sink is not None:
            sink.lost(why)

    def _reject(self, why: str) -> None:
        sink = self._let_go()
        self._parts.clear()
        self._complete = False
        if self._transport is not None:
            self._transport.abort()
        if sink is not None:
            sink.garbled(why)


class Pool:
    """Connections to engines that wait for their next request, by endpoint."""

    def __init__(self) -> None:
        self.pacer = Pacer()
        self.patience = Patience()
        self._kept: defaultdict[str, list[Upstream]] = defaultdict(list)
        self._timer: asyncio.TimerHandle | None = None

    def take(self, endpoint: str) -> Upstream | None:
        """A kept connection, the one used last; it may have been closed at the other end."""
        waiting = self._kept.get(endpoint)
        while waiting:
            upstream = waiting.pop()
            if upstream.usable:
                return upstream
        return None

    async def connect(self, endpoint: str) -> Upstream:
        """A new connection.

        Raises:
            OSError: nobody listens there, or not in time, or its certificate is not trusted.
        """
        parts = urlsplit(endpoint)
        tls = self._tls if parts.scheme == "https" else None
        port = parts.port or (443 if tls else 80)
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(CONNECT_SECONDS):
            _, upstream = await loop.create_connection(
                lambda: Upstream(self, endpoint), parts.hostname or "", port, ssl=tls
            )
        return upstream

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        """Certificates are verified; read at the first use, which few gateways have."""
        return ssl.create_default_context()

    def keep(self, endpoint: str, upstream: Upstream) -> None:
        """Takes a connection back whose answer is whole; the oldest goes where there are many."""
        loop = asyncio.get_running_loop()
        upstream.kept_at = loop.time()
        waiting = self._kept[endpoint]
        waiting.append(upstream)
        if len(waiting) > MAX_KEPT:
            waiting.pop(0).abort()
        if self._timer is None:
            self._timer = loop.call_later(KEPT_SECONDS, self._close_old)

    def _close_old(self) -> None:
        """Closes what has waited too long; comes again while others wait."""
        loop = asyncio.get_running_loop()
        waiting = [upstream for group in self._kept.values() for upstream in group]
        old = loop.time() - KEPT_SECONDS
        oldest = min((one.kept_at for one in waiting if one.kept_at > old), default=None)
        for upstream in waiting:
            if upstream.kept_at <= old:
                upstream.abort()
        self._timer = None
        if oldest is not None:
            self._timer = loop.call_at(oldest + KEPT_SECONDS, self._close_old)

    def forget(self, endpoint: str, upstream: Upstream) -> None:
        """A connection is closed."""
        waiting = self._kept.get(endpoint)
        if waiting is None:
            return
        if upstream in waiting:
            waiting.remove(upstream)
        if not waiting:
            del self._kept[endpoint]

    def close(self) -> None:
        """Closes all that wait."""
        self.patience.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for kept in list(self._kept.values()):
            for upstream in list(kept):
                upstream.abort()
        self._kept.clear()
