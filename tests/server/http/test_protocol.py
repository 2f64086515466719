"""The way out to a client, past ASGI."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from paddock.server.http.protocol import Outlet, Protocol, WrongUvicorn, check_uvicorn


class Wire:
    """A client's connection: what was written to it."""

    def __init__(self) -> None:
        self.written = b""

    def write(self, data: bytes) -> None:
        self.written += data


async def test_nothing_is_written_after_the_end() -> None:
    """What comes too late would stand before the next answer on the connection."""
    wire = Wire()
    cycle: Any = SimpleNamespace(
        disconnected=False,
        response_started=False,
        response_complete=False,
        default_headers=[],
        keep_alive=True,
        scope={"http_version": "1.1"},
        message_event=asyncio.Event(),
        on_response=lambda: None,
    )
    protocol = SimpleNamespace(transport=wire, current=None)
    out = Outlet(cast(Protocol, protocol), cycle)
    out.start(200, [])
    out.write(b"one")
    out.end()
    ended = wire.written
    out.write(b"two")
    out.end()
    assert wire.written == ended
    assert ended.endswith(b"3\r\none\r\n0\r\n\r\n")


def test_a_uvicorn_that_lacks_what_is_overridden_is_refused_at_start() -> None:
    """With the command that mends it, and not with an error at each request."""
    check_uvicorn()
    with pytest.raises(WrongUvicorn, match="pip install 'uvicorn=="):
        check_uvicorn(object)
