"""uvicorn's HTTP protocol, with a way past ASGI for the answers of engines.

An ASGI `send` is a coroutine for every chunk: it costs more than the chunk. So a request finds an
`Outlet` in its scope, which writes to the client's connection at once, from whatever callback the
chunk came in. Everything else (parsing, keep-alive, limits, other routes) stays uvicorn's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import uvicorn
from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from paddock.registry.errors import PaddockError

KEY = "paddock.outlet"
Headers = list[tuple[bytes, bytes]]


class WrongUvicorn(PaddockError):
    """The uvicorn that is installed is not one that `Protocol` can build on."""


def check_uvicorn(base: type = HttpToolsProtocol) -> None:
    """Looks at start whether the inner methods are there that `Protocol` overrides.

    Without them each request would fail, and not before it comes.

    Raises:
        WrongUvicorn: with the command that mends it.
    """
    if not callable(getattr(base, "_start_asgi_task", None)):
        version = uvicorn.__version__
        mend = "pip install 'uvicorn==0.54.*'"
        raise WrongUvicorn(f"uvicorn {version} cannot be used; to mend it: {mend}")


def outlet(scope: Scope) -> Outlet:
    """The way out to the client of this request; only under our own server."""
    return cast(Outlet, scope[KEY])


def has_outlet(scope: Scope) -> bool:
    """Whether the request came through our own server."""
    return KEY in scope


def _nothing() -> None:
    pass


class Outlet:
    """One answer on its way to the client: `start`, any number of `write`, `end`.

    Or `answer`, for a whole one. Set `on_disconnect` to learn at once that the client left,
    `on_backpressure` and `on_drain` that its connection takes no more, or takes more again. After
    the client left, writing does nothing.
    """

    def __init__(self, protocol: Protocol, cycle: RequestResponseCycle) -> None:
        self.on_disconnect: Callable[[], None] = _nothing
        self.on_backpressure: Callable[[], None] = _nothing
        self.on_drain: Callable[[], None] = _nothing
        self._protocol = protocol
        self._cycle = cycle
        self._transport = protocol.transport
        self._chunked = False

    def add_headers(self, headers: Headers) -> None:
        """Adds headers to the answer, whether it goes out by this outlet or by ASGI."""
        # A list of this request's own: the default is one of all requests.
        self._cycle.default_headers = [*self._cycle.default_headers, *headers]

    def close(self) -> None:
        """The answer is over: drops the references that would make the request part of a cycle.

        A cycle is freed by the garbage collector alone, later.
        """
        self.on_disconnect = self.on_backpressure = self.on_drain = _nothing
        cast(dict[str, Any], self._cycle.scope).pop(KEY, None)

    def lose(self) -> None:
        """The client has left. Of pipelined requests, uvicorn marks the last one alone."""
        self._cycle.disconnected = True
        self.on_disconnect()

    @property
    def is_full(self) -> bool:
        """Whether the client's connection takes no more now."""
        return bool(self._cycle.flow.write_paused)

    @property
    def is_gone(self) -> bool:
        """Whether the client has left."""
        return bool(self._cycle.disconnected)

    @property
    def started(self) -> bool:
        """Whether the head has gone out."""
        return bool(self._cycle.response_started)

    def start(self, status: int, headers: Headers) -> None:
        """Writes the head of an answer whose body goes out in chunks."""
        cycle = self._cycle
        if not cycle.disconnected:
            if cycle.scope["http_version"] == "1.1":
                self._chunked = True
                headers = [*headers, (b"transfer-encoding", b"chunked")]
            else:
                cycle.keep_alive = False  # HTTP/1.0 knows an end of unknown length only as a close
            self._transport.write(self._head(status, headers))

    def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """Writes a whole answer, in one go."""
        if not self._cycle.disconnected:
            headers = [*headers, (b"content-length", b"%d" % len(body))]
            self._transport.write(self._head(status, headers) + body)
            self.end()

    def _head(self, status: int, headers: Headers) -> bytes:
        cycle = self._cycle
        cycle.response_started = True
        cycle.waiting_for_100_continue = False
        parts = [STATUS_LINE[status]]
        for name, value in (*cycle.default_headers, *headers):
            parts += (name, b": ", value, b"\r\n")
        if not cycle.keep_alive:
            parts.append(b"connection: close\r\n")
        parts.append(b"\r\n")
        return b"".join(parts)

    def write(self, data: bytes) -> None:
        """Writes a piece of the body; empty pieces are left out, for they would end it.

        After the end nothing is written: of several parts one may go on for a moment after another
        has ended the answer with an error.
        """
        cycle = self._cycle
        if cycle.disconnected or cycle.response_complete or not data:
            return
        self._transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def end(self) -> None:
        """Ends the answer; the connection goes on to the client's next request."""
        cycle = self._cycle
        if cycle.disconnected or cycle.response_complete:
            return
        if self._chunked:
            self._transport.write(b"0\r\n\r\n")
        cycle.response_complete = True
        cycle.message_event.set()
        if not cycle.keep_alive:
            self._transport.close()
        cycle.on_response()


class Protocol(HttpToolsProtocol):
    """One client's connection."""

    current: Outlet | None = None

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        # Called for each request when its turn has come, pipelined ones included.
        self.current = Outlet(self, cycle)
        cast(dict[str, Any], cycle.scope)[KEY] = self.current
        super()._start_asgi_task(cycle, app)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tells the answer in progress that its client left."""
        super().connection_lost(exc)
        if self.current is not None:
            self.current.lose()
            self._close_outlet()

    def on_response_complete(self) -> None:
        """The answer is over, whichever way it went out; a pipelined request may begin."""
        self._close_outlet()
        super().on_response_complete()

    def _close_outlet(self) -> None:
        if self.current is not None:
            self.current.close()
            self.current = None

    def pause_writing(self) -> None:
        """The client reads more slowly than the engine writes."""
        super().pause_writing()
        if self.current is not None:
            self.current.on_backpressure()

    def resume_writing(self) -> None:
        """The client has caught up."""
        super().resume_writing()
        if self.current is not None:
            self.current.on_drain()
