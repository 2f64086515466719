"""The gateway's side of Ray: starts the bridge, and calls through it. Never imports ray."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psutil

from paddock.engines.base import Detection, Gpu, Host
from paddock.launcher.cluster import bridge, head
from paddock.launcher.cluster.connection import ActorLost, ActorUnavailable, Connection, is_own_peer
from paddock.launcher.cluster.head import FILE, Record, read_record
from paddock.launcher.cluster.sweep import end_ray
from paddock.launcher.hosts import processes
from paddock.launcher.hosts.host import probe_host
from paddock.launcher.replicas.replica import WATCH_SECONDS
from paddock.launcher.replicas.status import ReplicaConfig, ReplicaStatus
from paddock.registry.errors import PaddockError
from paddock.registry.files import make_home, make_private, open_private
from paddock.registry.settings import Settings

__all__ = ["ActorLost", "ActorUnavailable", "Cluster", "Handle", "RayFailed"]

log = logging.getLogger(__name__)

START_SECONDS = 60.0
"""How long a local Ray may take to start: 4 s on an idle machine, many times that on a busy one."""
KNOCK_SECONDS = 3.0
"""How long the address of a named cluster may take to accept a connection."""
JOIN_SECONDS = 12.0
"""How long the bridge may take to join a cluster that somebody named."""
START_POLL = 0.02
OPEN_SECONDS = 5.0
"""How long the bridge may take to answer at all: its event loop waits for nothing else."""
HEAD_SECONDS = 1.0
"""How often the local Ray's head is looked at, which costs some 50 µs."""
STOP_SECONDS = 5.0
CALL_SECONDS = 10.0
"""How long the bridge may take for what it does by itself, or asks Ray's control service for."""
BEGIN_SECONDS = 60.0
"""How long an actor's process may take to start: 0.3 s as a rule, longer on a node that is busy."""
WATCH_SLACK = 10.0
"""How much longer than a long poll its answer may take."""
END_SECONDS = 30.0
"""How long the end of an actor by force may take: the bridge's own limits, and Ray's to notice."""


class RayFailed(PaddockError):
    """Ray could not be started, or not be reached."""


class Handle:
    """One actor, by its name; whichever connection the cluster has is used.

    Each call raises `ActorLost` when the actor is gone, `ActorUnavailable` when nothing can be said
    of it within the call's time, and `RuntimeError` with the text of what the replica raised.
    """

    def __init__(self, cluster: Cluster, actor: str) -> None:
        self._cluster = cluster
        self.actor = actor

    async def begin(self) -> ReplicaStatus:
        """See `Replica.begin`."""
        return ReplicaStatus(**await self.invoke("begin", BEGIN_SECONDS))

    async def watch(self, since: int) -> ReplicaStatus:
        """See `Replica.watch`."""
        answer = await self.invoke("watch", WATCH_SECONDS + WATCH_SLACK, since=since)
        return ReplicaStatus(**answer)

    async def stop(self, timeout: float) -> ReplicaStatus:
        """See `Replica.stop`. Raises `TimeoutError` if it has not stopped within `timeout`."""
        return ReplicaStatus(**await self._cluster.invoke(self.actor, "stop", timeout))

    async def tail(self, lines: int) -> list[str]:
        """See `Replica.tail`."""
        return list(await self.invoke("tail", CALL_SECONDS, lines=lines))

    async def log_after(self, offset: int) -> tuple[int, str]:
        """See `Replica.log_after`."""
        position, text = await self.invoke("log_after", CALL_SECONDS, offset=offset)
        return int(position), str(text)

    async def invoke(self, method: str, timeout: float, **args: Any) -> Any:
        """Calls a method that `bridge.METHODS` names; returns its result, dataclasses as dicts.

        Raises:
            ActorLost, ActorUnavailable: the actor is gone, or does not answer now.
        """
        try:
            return await self._cluster.invoke(self.actor, method, timeout, **args)
        except TimeoutError:
            message = f"{self.actor} did not answer {method!r} within {timeout:g} s"
            raise ActorUnavailable(message) from None


class Cluster:
    """Ray, as the fleet sees it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.home = settings.home
        self.instance = processes.instance_id(settings.home)
        self.on_lost: Callable[[], None] = lambda: None
        """Called on the event loop when the connection breaks; `leave` breaks nothing."""
        self._connection: Connection | None = None
        self._connecting = asyncio.Lock()
        self._failure: tuple[float, str] = (0.0, "")
        self._watching: asyncio.Task[None] | None = None
        self._seen_nodes: set[str] = set()
        self._others: tuple[float, tuple[Host, ...]] = (0.0, ())

    @property
    def external(self) -> bool:
        """Whether the user named a cluster; if not, Ray is ours to start and to end."""
        return bool(self._settings.ray_address)

    @property
    def connected(self) -> bool:
        """Whether Ray runs and calls can be made."""
        return self._connection is not None and self._connection.open

    def record(self) -> Record | None:
        """What runs of Ray: a bridge, or the head of a local Ray; None if neither does."""
        record = read_record(self.home)
        if record is None or not (record.bridge_lives or (record.head and record.head_lives)):
            return None
        return record

    async def connect(self) -> None:
        """Connects to the bridge; starts one, and a local Ray if none runs and none is named.

        Whoever waits while an attempt fails gets its failure, and does not try once more. What
        runs is taken. What is left of a local Ray that was killed is ended first, with the
        replicas and engines of it. Returns within `START_SECONDS` and a little, whatever hangs.

        Raises:
            RayFailed: with what Ray said.
        """
        asked = time.monotonic()
        async with self._connecting:
            if self.connected:
                return
            failed_at, reason = self._failure
            if failed_at > asked:
                raise RayFailed(reason)
            try:
                await self._connect()
            except RayFailed as error:
                self._failure = time.monotonic(), str(error)
                raise

    async def _connect(self) -> None:
        await self._stop_watching()
        record = self.record()
        record = record if record is not None and record.head_lives else None
        hangs = self._connection is not None and self._connection.hangs
        connection = None
        if record is not None and record.bridge_lives and not hangs:
            connection = await self._open(record)
        if connection is None:
            record = await self._start(record)
            connection = await self._open(record)
        if connection is None or record is None:
            raise RayFailed("the bridge to Ray does not answer")
        connection.on_broken = self._lose
        self._connection, self._seen_nodes = connection, set()
        self._others = (0.0, ())
        if record.head:
            self._watching = asyncio.create_task(self._watch_head(record))
        log.info("connected to Ray at %s", record.address)

    async def _open(self, record: Record) -> Connection | None:
        """A connection over which the bridge answers, or None."""
        connection = None
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                reader, writer = await asyncio.open_unix_connection(
                    record.socket, limit=bridge.LINE_BYTES
                )
                connection = Connection(reader, writer)
                if is_own_peer(writer):
                    await connection.call("ping", OPEN_SECONDS)
                    return connection
                log.error("another user's process listens at %s", record.socket)
        except (OSError, ActorUnavailable) as error:  # a TimeoutError is one of the first
            log.warning("the bridge to Ray does not answer: %s", error or "in time")
        if connection is not None:
            await connection.close()
        return None

    async def _start(self, record: Record | None) -> Record:
        """Starts a bridge, and before it a local Ray where there is none to join."""
        make_home(self.home)
        make_private(self._settings.logs)
        if self.external:
            await self._knock()
        limit = JOIN_SECONDS if self.external else START_SECONDS
        try:
            async with asyncio.timeout(limit):
                if record is not None:
                    await asyncio.to_thread(_kill_bridge, record)
                elif self.external:
                    _remove_folder(read_record(self.home))
                else:
                    # What is left would hold memory, and names that we want.
                    ended = await asyncio.to_thread(end_ray, self.home, processes.STOP_GRACE)
                    if ended.left:
                        log.warning("processes %s of an earlier Ray cannot be ended", ended.left)
                return await self._start_bridge(record)
        except TimeoutError:
            # What was started has ended; one that ran before hangs.
            out = "" if self.external or record is None else "; to end it: paddock stop"
            raise RayFailed(f"{self._name} did not answer within {limit:g} s{out}") from None

    async def _knock(self) -> None:
        """Refuses an address where nobody listens at once: Ray itself asks again for a minute."""
        host, colon, port = self._settings.ray_address.rpartition(":")
        if not colon or not port.isdecimal() or "/" in host:
            return  # a word such as `auto`, which Ray itself looks up
        try:
            async with asyncio.timeout(KNOCK_SECONDS):
                _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
        except (OSError, OverflowError) as error:  # a TimeoutError is one of the first
            reason = getattr(error, "strerror", None) or f"no answer in {KNOCK_SECONDS:g} s"
            raise RayFailed(f"{self._name} cannot be reached: {reason}") from None
        writer.close()

    @property
    def _name(self) -> str:
        """The Ray that is used, in words."""
        if not self.external:
            return "the local Ray"
        settings = self._settings
        return f"the Ray cluster at {settings.ray_address} ({settings.ray_address_from})"

    async def _start_bridge(self, record: Record | None) -> Record:
        """Both processes at once: the bridge imports ray while the head starts."""
        local = bool(record.head) if record is not None else not self.external
        is_new = record is None
        folder = record.folder if record else tempfile.mkdtemp(prefix="pd-", dir="/tmp")
        spawned = [self._spawn(processes.BRIDGE, bridge.__name__, "local" if local else "cluster")]
        joined = False
        try:
            if record is None and local:
                spawned.append(self._spawn(processes.RAY, head.__name__, folder))
                record = await self._until(
                    spawned[1], lambda record: record.folder == folder and bool(record.head)
                )
            record = record or Record(self._settings.ray_address, folder, {})
            assert spawned[0].stdin is not None
            with contextlib.suppress(BrokenPipeError):  # its log says why it ended
                spawned[0].stdin.write(record.dump().encode() + b"\n")
                spawned[0].stdin.close()
            own = spawned[0].pid
            record = await self._until(
                spawned[0], lambda record: record.bridge is not None and record.bridge[0] == own
            )
            joined = True
            return record
        finally:
            if not joined:
                # Nothing is awaited here: this may be a cancellation, or the gateway's end.
                for process in spawned:
                    processes.kill_session(process.pid)
                if is_new or not local:
                    shutil.rmtree(folder, ignore_errors=True)

    def _spawn(self, role: str, module: str, argument: str) -> subprocess.Popen[bytes]:
        """A process that outlives the gateway. Its log is of its last start."""
        with open_private(self._log(module), "wb") as out:
            child = subprocess.Popen(
                [sys.executable, "-m", module, str(self.home), argument],
                stdin=subprocess.PIPE if role == processes.BRIDGE else subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=processes.environment(self.instance, role),
                start_new_session=True,
                cwd="/",
            )
        CHILDREN.append(child)
        return child

    def _log(self, module: str) -> Path:
        return self._settings.logs / f"ray-{module.rpartition('.')[2]}.log"

    async def _until(
        self, process: subprocess.Popen[bytes], wanted: Callable[[Record], bool]
    ) -> Record:
        """Waits for a record. Raises `RayFailed` when the process ends without one."""
        while True:
            code = process.poll()
            record = read_record(self.home)
            if record is not None and wanted(record):
                return record
            if code is not None:
                log = self._log(list(process.args)[2])  # type: ignore[arg-type]  # a list of ours
                lines = log.read_text(errors="replace").strip().splitlines()
                last = lines[-1] if lines else f"exit code {code}"
                raise RayFailed(f"{self._name} cannot be used: {last}")
            await asyncio.sleep(START_POLL)

    async def _watch_head(self, record: Record) -> None:
        """Breaks the connection when a process of the local Ray's head has ended."""
        while record.head_lives:
            _collect()
            await asyncio.sleep(HEAD_SECONDS)
        log.warning("the local Ray is dead")
        if self._connection is not None and self._connection.open:
            await self._connection.close()
            self.on_lost()

    def _lose(self) -> None:
        log.warning("the connection to Ray is broken")
        self.on_lost()

    async def _stop_watching(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])
            self._watching = None

    async def hosts(self, paths: tuple[str, ...] = ()) -> list[Host]:
        """The facts of every node that can be planned on, the gateway's own first.

        Those of other nodes are what each has told last: `Host.age_seconds` says when. A node that
        has just come is waited for, but for 5 s at most, and so is the look at `paths` there.
        """
        own = await asyncio.to_thread(probe_host, self._settings.home, paths)
        if self.connected:
            try:
                others = await self._call("hosts", CALL_SECONDS, paths=list(paths))
                self._others = (time.monotonic(), tuple(map(_host, others)))
            except ActorUnavailable as error:
                log.warning("other nodes are as they were: %s", error)
        heard_at, hosts = self._others
        passed = time.monotonic() - heard_at
        return [own, *(replace(host, age_seconds=host.age_seconds + passed) for host in hosts)]

    async def start(self, actor: str, config: ReplicaConfig, node: str) -> Handle:
        """Starts an actor on `node` (`LOCAL` or a Ray node id), and does not wait for it to run."""
        await self._call("start", CALL_SECONDS, actor=actor, config=asdict(config), node=node)
        return Handle(self, actor)

    async def find(self, actor: str) -> Handle | None:
        """The actor of this name, whichever gateway has started it; None if none lives."""
        return Handle(self, actor) if await self._call("find", CALL_SECONDS, actor=actor) else None

    async def actors(self) -> set[str]:
        """The names of all replicas' actors that live in our namespace."""
        return set(await self._call("actors", CALL_SECONDS))

    async def lost_nodes(self, known: Collection[str] = ()) -> set[str]:
        """The Ray node ids that were alive earlier in this connection, or in Ray, and are dead.

        Also those of `known` that this Ray has never had: they were of one before it.
        """
        nodes = await self._call("nodes", CALL_SECONDS)
        alive, dead = set(nodes["alive"]), set(nodes["dead"])
        self._seen_nodes |= alive
        return (self._seen_nodes | dead | set(known)) - alive

    async def invoke(self, actor: str, method: str, seconds: float, **args: Any) -> Any:
        """As `Handle.invoke`, but raises `TimeoutError` when there is no answer in time."""
        connection = self._connected()
        arguments = {"actor": actor, "method": method, "limit": seconds, "args": args}
        return await connection.call("invoke", seconds, **arguments)

    async def end(self, actor: str, node: str) -> None:
        """Ends an actor by force; returns when it, its warden and its engine are gone from `node`.

        One that is gone already is no error. `node` is asked if Ray knows of none.

        Raises:
            TimeoutError: a process of it could not be ended.
            ActorUnavailable: its node cannot be asked.
        """
        await self._connected().call("end", END_SECONDS, actor=actor, node=node)

    async def _call(self, name: str, seconds: float, **args: Any) -> Any:
        try:
            return await self._connected().call(name, seconds, **args)
        except TimeoutError:
            message = f"Ray did not answer {name!r} within {seconds:g} s"
            raise ActorUnavailable(message) from None

    def _connected(self) -> Connection:
        if self._connection is None:
            raise ActorUnavailable("Ray does not run")
        return self._connection

    async def leave(self) -> None:
        """Lets go of the bridge, which goes on."""
        await self._stop_watching()
        if self._connection is not None:
            await self._connection.close()

    async def shutdown(self) -> None:
        """Ends the bridge, the Ray that is ours, and everything that may be left of it.

        The record of a foreign cluster stays if replicas may be left there: for `paddock stop`.
        """
        is_left = True
        if self.external and self.connected:
            with contextlib.suppress(ActorUnavailable, ActorLost, RuntimeError):
                is_left = bool(await self.actors())
                await self._call("dismiss", CALL_SECONDS)
        await self.leave()
        await asyncio.to_thread(end_ray, self.home, processes.STOP_GRACE)
        if not is_left:
            (self.home / FILE).unlink(missing_ok=True)


CHILDREN: list[subprocess.Popen[bytes]] = []
"""Bridges and heads that this process has started: it must collect those that end before it."""


def _collect() -> None:
    """Collects heads and bridges that have ended, which were zombies otherwise."""
    for child in [child for child in CHILDREN if child.poll() is not None]:
        CHILDREN.remove(child)


def _kill_bridge(record: Record) -> None:
    """Ends a bridge that hangs; Ray and all that runs in it go on."""
    if record.bridge is not None and record.bridge_lives:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(record.bridge[0])
            process.kill()
            processes.gone(process, STOP_SECONDS)


def _remove_folder(record: Record | None) -> None:
    """Removes what a bridge to a foreign cluster has left that was killed."""
    if record is not None and not record.head:
        shutil.rmtree(record.folder, ignore_errors=True)


def _host(values: dict[str, Any]) -> Host:
    engines = {name: Detection(**_tuples(one)) for name, one in values["engines"].items()}
    gpus = tuple(Gpu(**one) for one in values["gpus"])
    own = {**values, "engines": engines, "gpus": gpus}
    own.pop("evidence", None)  # the gateway keeps it
    return Host(**own)


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    """With its lists as they were before they were JSON."""
    return {
        key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
    }
