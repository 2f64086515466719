"""Runs the gateway in this process: one for each PADDOCK_HOME, guarded by a file lock."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import gc
import json
import logging
import os
import resource
import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
import uvloop

from paddock.launcher.cluster.cluster import Cluster
from paddock.launcher.fleet.fleet import Fleet
from paddock.launcher.fleet.store import SqliteStore
from paddock.registry.custom import Library
from paddock.registry.errors import BadValue, PaddockError, PortInUse
from paddock.registry.files import make_home, write_atomically, writing
from paddock.registry.settings import Settings
from paddock.server.access.keys import KeyStore, always_keyed, first_key
from paddock.server.http.app import create_app
from paddock.server.http.limits import LimitedProtocol
from paddock.server.http.protocol import check_uvicorn

log = logging.getLogger(__name__)

GC_THRESHOLD = 20_000
"""New objects after which the garbage collector looks for reference cycles among them."""
FILE = "gateway.json"
LOCK = "gateway.lock"
FILES = 65_536
"""Open files that the gateway asks the system for, where it may have so many."""
GRACE = 30
"""Seconds that answers in progress get when the gateway is told to end."""


class AlreadyRuns(PaddockError):
    """Another gateway holds this PADDOCK_HOME."""

    def __init__(self, home: Path, endpoint: str) -> None:
        super().__init__(home, endpoint)
        self.home = home
        self.endpoint = endpoint

    def __str__(self) -> str:
        return f"a gateway already runs for {self.home} at {self.endpoint or 'an unknown address'}"


@dataclass(frozen=True)
class Started:
    """A gateway that answers. `minted` is its first key, just made, or empty."""

    endpoint: str
    keyed: bool
    minted: str = field(default="", repr=False)


def serve(settings: Settings, on_ready: Callable[[Started], None]) -> None:
    """Serves until a signal or `DELETE /v1/clusters`; `on_ready` is told once it answers.

    Raises:
        AlreadyRuns: another gateway has the same home.
        PortInUse: the port belongs to another process.
        CorruptFile: the file of keys cannot be read.
        NotWritten: the home folder cannot be written.
        WrongUvicorn: as `check_uvicorn`.
    """
    check_uvicorn()
    # Bridge, replicas and engines inherit our environment, and have no use for the key.
    os.environ.pop("PADDOCK_API_KEY", None)
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    _raise_files()
    with _lock(settings.home), _bind(settings.host, settings.port) as listener:
        host, port = listener.getsockname()[:2]
        shown = "127.0.0.1" if host in {"0.0.0.0", "::"} else host  # noqa: S104 - compared, not bound
        endpoint = f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"
        try:
            minted = first_key(settings)
            keyed = always_keyed(settings) or KeyStore(settings.home).is_keyed()
            started = Started(endpoint, keyed, minted.secret if minted else "")
            uvloop.run(_serve(settings, listener, started, on_ready))
        finally:
            (settings.home / FILE).unlink(missing_ok=True)


def _raise_files() -> None:
    """Every stream takes two connections; the usual limit of 1,024 files would be met at 500."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@contextmanager
def _lock(home: Path) -> Iterator[None]:
    make_home(home)
    with writing(home / LOCK):
        opened = os.open(home / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        # Whoever can open it can hold it, and so keep the gateway from starting.
        os.fchmod(opened, 0o600)
    with os.fdopen(opened, "rb+") as lock:
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
            if error.errno == errno.EADDRINUSE:
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
    settings: Settings,
    listener: socket.socket,
    started: Started,
    on_ready: Callable[[Started], None],
) -> None:
    # Read at the first launch: listing and forwarding never need it.
    library = Library(settings.specs, settings.index)
    store = SqliteStore(settings.home / "paddock.db")
    fleet = Fleet(settings, library.present, store, Cluster(settings))
    leave = asyncio.Event()
    local_key = secrets.token_urlsafe(32)
    app = create_app(fleet, settings, library, leave, local_key)
    config = uvicorn.Config(
        app,
        log_config=None,
        http=LimitedProtocol,
        proxy_headers=False,  # nobody is trusted to say where a request comes from
        access_log=settings.log_level == "debug",
        timeout_graceful_shutdown=GRACE,
        server_header=False,
        lifespan="on",
    )
    # What is there now stays: no collection need look at it again.
    gc.collect()
    gc.freeze()
    # A request leaves no reference cycles behind: collections find little, however seldom they run.
    gc.set_threshold(GC_THRESHOLD, 20, 20)
    record = {"endpoint": started.endpoint, "pid": os.getpid(), "key": local_key}
    server = _Server(config, settings.home / FILE, record, lambda: on_ready(started), fleet.leave)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    leaving = asyncio.create_task(leave.wait())
    await asyncio.wait([serving, leaving], return_when=asyncio.FIRST_COMPLETED)
    server.should_exit = True
    leaving.cancel()
    await serving


class _Server(uvicorn.Server):
    """Writes down where it is once it answers, and not before."""

    def __init__(
        self,
        config: uvicorn.Config,
        path: Path,
        record: dict[str, Any],
        on_ready: Callable[[], None],
        on_leaving: Callable[[], None],
    ) -> None:
        super().__init__(config)
        self._path = path
        self._record = record
        self._on_ready = on_ready
        self._on_leaving = on_leaving

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Streams of events and logs have no end of their own, and would be waited for.
        self._on_leaving()
        await super().shutdown(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.should_exit:  # the application refused to start
            return
        # It has the key by which commands of this user come in: nobody else may read it.
        write_atomically(self._path, json.dumps(self._record))
        self._on_ready()
