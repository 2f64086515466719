"""An application behind the gateway's HTTP protocol, at a port of this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import formatdate

import uvicorn
from starlette.types import ASGIApp
from uvicorn.server import ServerState

from paddock.server.http.protocol import Protocol

SECONDS = 20.0
"""How long clients may take to leave."""


@asynccontextmanager
async def serving(app: ASGIApp, protocol: type[Protocol] = Protocol) -> AsyncIterator[int]:
    """Listens on 127.0.0.1 and yields the port; at the end waits for the clients to leave.

    `uvicorn.Server` is not used: it checks every 0.1 s whether to exit, and again whether all
    connections are closed, which took most of these tests' time.
    """
    config = uvicorn.Config(app, http=protocol, lifespan="off", log_config=None)
    config.load()
    state = ServerState()
    state.default_headers = [(b"date", formatdate(usegmt=True).encode()), *config.encoded_headers]
    server = await asyncio.get_running_loop().create_server(
        lambda: protocol(config, state, {}), "127.0.0.1", 0
    )
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for connection in list(state.connections):
            connection.shutdown()
        async with asyncio.timeout(SECONDS):
            while state.connections or state.tasks:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            await server.wait_closed()
