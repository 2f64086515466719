"""Runs the gateway in this process: one for each PADDOCK_HOME, guarded by a file lock."""

from __future__ import annotations

import asyncio
import fcntl
import ipaddress
import json
import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import uvicorn
import uvloop

from paddock.launcher.cluster import Cluster
from paddock.launcher.controller import Controller
from paddock.launcher.store import Store
from paddock.registry.custom import Library
from paddock.registry.errors import BadValue, PaddockError, PortInUse
from paddock.registry.settings import Settings
from paddock.server.app import create_app
from paddock.server.protocol import Protocol

log = logging.getLogger(__name__)

FILE = "gateway.json"
LOCK = "gateway.lock"
GRACE = 5


class AlreadyRuns(PaddockError):
    """Another gateway holds this PADDOCK_HOME."""

    def __init__(self, home: Path, endpoint: str) -> None:
        super().__init__(home, endpoint)
        self.home = home
        self.endpoint = endpoint

    def __str__(self) -> str:
        return f"a gateway already runs for {self.home} at {self.endpoint or 'an unknown address'}"


def serve(settings: Settings, on_ready: Callable[[str], None]) -> None:
    """Serves until a signal or `DELETE /v1/clusters`; `on_ready` is told the endpoint.

    Raises:
        AlreadyRuns: another gateway has the same home.
        PortInUse: the port belongs to another process.
        BadValue: a host that is not loopback, and no key.
    """
    _check_host(settings)
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    with _lock(settings.home), _bind(settings.host, settings.port) as listener:
        host, port = listener.getsockname()[:2]
        shown = "127.0.0.1" if host in {"0.0.0.0", "::"} else host  # noqa: S104 - compared, not bound
        endpoint = f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"
        try:
            uvloop.run(_serve(settings, listener, endpoint, on_ready))
        finally:
            (settings.home / FILE).unlink(missing_ok=True)


def _check_host(settings: Settings) -> None:
    try:
        loopback = ipaddress.ip_address(settings.host).is_loopback
    except ValueError:
        loopback = settings.host == "localhost"
    if not loopback and not settings.api_key:
        raise BadValue(
            "host",
            settings.host,
            "others can reach this address, so a key is needed: set PADDOCK_API_KEY",
        )


@contextmanager
def _lock(home: Path) -> Iterator[None]:
    home.mkdir(parents=True, exist_ok=True)
    lock: IO[bytes]
    with (home / LOCK).open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            endpoint = ""
            with suppress(OSError, ValueError):
                endpoint = json.loads((home / FILE).read_text())["endpoint"]
            raise AlreadyRuns(home, endpoint) from None
        yield


@contextmanager
def _bind(host: str, port: int) -> Iterator[socket.socket]:
    try:
        family, *_, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise BadValue("host", host, error.strerror or str(error)) from None
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted sockets inherit it; the event loop sets it on sockets that it made, not on these.
        # Without it the head and the body of an answer lie 40 ms apart.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            listener.bind(address)
        except OSError as error:
            if error.errno == 98:
                raise PortInUse(host, port, _holder(port)) from None
            raise BadValue("host", host, error.strerror or str(error)) from None
        listener.listen(2048)
        yield listener


def _holder(port: int) -> str:
    """The process that listens on the port, in words."""
    import psutil

    with suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            address = connection.laddr
            if connection.status == psutil.CONN_LISTEN and address and address.port == port:
                if connection.pid is None:
                    break
                process = psutil.Process(connection.pid)
                return f"{process.name()} (pid {connection.pid})"
    return "a process of another user"


async def _serve(
    settings: Settings, listener: socket.socket, endpoint: str, on_ready: Callable[[str], None]
) -> None:
    # Read at the first launch: listing and forwarding never need it.
    library = Library(settings.specs, settings.index)
    store = Store(settings.home / "paddock.db")
    controller = Controller(settings, library.catalog, store, Cluster(settings))
    leave = asyncio.Event()
    app = create_app(controller, settings, library, leave)
    config = uvicorn.Config(
        app,
        log_config=None,
        http=Protocol,
        access_log=settings.log_level == "debug",
        timeout_graceful_shutdown=GRACE,
        server_header=False,
        lifespan="on",
    )
    server = _Server(config, settings.home, endpoint, on_ready)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    leaving = asyncio.create_task(leave.wait())
    await asyncio.wait([serving, leaving], return_when=asyncio.FIRST_COMPLETED)
    server.should_exit = True
    leaving.cancel()
    await serving


class _Server(uvicorn.Server):
    """Writes down where it is once it answers, and not before."""

    def __init__(
        self, config: uvicorn.Config, home: Path, endpoint: str, on_ready: Callable[[str], None]
    ) -> None:
        super().__init__(config)
        self._home = home
        self._endpoint = endpoint
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.should_exit:  # the application refused to start
            return
        made = self._home / f".{FILE}.{os.getpid()}"
        made.write_text(json.dumps({"endpoint": self._endpoint, "pid": os.getpid()}), "ascii")
        made.replace(self._home / FILE)
        self._on_ready(self._endpoint)
