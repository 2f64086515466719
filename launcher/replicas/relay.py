"""Lets the gateway of another node reach an engine that listens on loopback here.

A connection must open with an HTTP request that carries the replica's key; after that its bytes
are copied both ways without being looked at.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import re
import socket

HEAD_LIMIT = 65536
HEAD_SECONDS = 10.0
_AUTHORIZATION = re.compile(rb"\r\nauthorization:[ \t]*bearer[ \t]+([^\r\n]+)", re.IGNORECASE)
_REASON = b'{"error": {"message": "relay: no key, or a wrong one"}}'
_DENIED = (
    b"HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(_REASON), _REASON)
)


class Relay:
    """Listens on `host`, at a port that the system picks, and leads to `port` on loopback."""

    def __init__(self, host: str, port: int, key: str, head_seconds: float = HEAD_SECONDS) -> None:
        self._head_seconds = head_seconds
        self._host = host
        self._port = port
        self._key = key.encode()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def endpoint(self) -> str:
        """The base URL for the other side."""
        assert self._server is not None
        port = self._server.sockets[0].getsockname()[1]
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{port}"

    async def open(self) -> None:
        """Starts to listen."""
        self._server = await asyncio.start_server(self._serve, self._host, 0, limit=HEAD_LIMIT)

    async def close(self) -> None:
        """Ends the listening and every connection."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), self._head_seconds)
            match = _AUTHORIZATION.search(head)
            if match is None or not hmac.compare_digest(match[1].strip(), self._key):
                writer.write(_DENIED)
                await writer.drain()
                return
            await self._lead(head, reader, writer)
        except (OSError, TimeoutError, EOFError, asyncio.LimitOverrunError):
            pass  # a side left, or the client never said who it is: an end without an answer
        except asyncio.CancelledError:
            # By `close` alone. Python 3.11's streams log a cancelled handler as an error.
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _lead(
        self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self._port)
        for side in (writer, inner_writer):
            side.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        inner_writer.write(head)
        both = [
            asyncio.create_task(_copy(reader, inner_writer)),
            asyncio.create_task(_copy(inner_reader, writer)),
        ]
        try:
            # Either side's end is the end of both: a client that left must stop its generation.
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            inner_writer.close()
            await asyncio.gather(*both, return_exceptions=True)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
