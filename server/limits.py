"""The gateway's HTTP protocol with a limit to what it holds of a request's head.

uvicorn's httptools protocol keeps whatever a client sends until the head ends, which a stranger's
may never do. `Security` counts a whole head exactly; this bounds the memory of one that is not
whole yet, of trailers, and of whatever else the parser keeps to itself.
"""

from __future__ import annotations

import json
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from paddock.server.errors import envelope
from paddock.server.protocol import Protocol
from paddock.server.security import ADD_HEADERS, HEAD_TOO_LARGE

# Counted in whole reads of the socket, of up to 256 KiB, which may have the end of a body in them.
MAX_HELD_BYTES = 512 * 1024


class LimitedProtocol(Protocol):
    """One client's connection, which is closed when it sends a head without end."""

    _held_bytes = 0

    def data_received(self, data: bytes) -> None:
        """Feeds the parser, and gives up on a client of whom it has told nothing for too long."""
        self._held_bytes += len(data)
        super().data_received(data)
        if self._held_bytes > MAX_HELD_BYTES and not self.transport.is_closing():
            if self.cycle is None or self.cycle.response_complete:
                self.transport.write(_TOO_LARGE)
            self.transport.close()

    def on_headers_complete(self) -> None:
        """A head has ended."""
        self._held_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of a body has come; its own limit counts from here."""
        self._held_bytes = 0
        super().on_body(body)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        def add(headers: list[tuple[bytes, bytes]]) -> None:
            # A list of this request's own, which both ASGI's and the outlet's answers begin with.
            cycle.default_headers = [*cycle.default_headers, *headers]

        cast(dict[str, Any], cycle.scope)[ADD_HEADERS] = add
        super()._start_asgi_task(cycle, app)


def _answer(status: bytes, message: str) -> bytes:
    body = json.dumps(envelope(int(status[:3]), message, "forbidden", {})).encode()
    head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
    return head % (status, len(body)) + b"connection: close\r\n\r\n" + body


_TOO_LARGE = _answer(b"431 Request Header Fields Too Large", HEAD_TOO_LARGE)
