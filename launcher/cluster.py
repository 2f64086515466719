"""The gateway's side of Ray: starts the bridge, and calls through it. Never imports ray."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from paddock.engines.base import Detection, Gpu, Host
from paddock.launcher import bridge, processes
from paddock.launcher.connection import ActorLost, ActorUnavailable, Connection
from paddock.launcher.host import probe_host
from paddock.launcher.replica import WATCH_SECONDS, ReplicaConfig, ReplicaStatus
from paddock.registry.errors import PaddockError
from paddock.registry.settings import Settings

__all__ = ["ActorLost", "ActorUnavailable", "Cluster", "Handle", "RayFailed"]

log = logging.getLogger(__name__)

START_SECONDS = 60.0
"""How long a local Ray may take to start: 4 s on an idle machine, many times that on a busy one."""
JOIN_SECONDS = 15.0
"""How long the bridge may take to join a cluster that somebody named."""
START_POLL = 0.02
STOP_SECONDS = 15.0
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
        """Calls a method of `Replica` that `bridge.METHODS` names; dataclasses come as dicts."""
        try:
            return await self._cluster.invoke(self.actor, method, timeout, **args)
        except TimeoutError:
            message = f"{self.actor} did not answer {method!r} within {timeout:g} s"
            raise ActorUnavailable(message) from None

    async def end(self) -> None:
        """See `Cluster.end`; an actor that is gone already is no error."""
        await self._cluster.end(self.actor, "")


class Cluster:
    """Ray, as the controller sees it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.instance = processes.instance_id(settings.home)
        self.on_lost: Callable[[], None] = lambda: None
        """Called on the event loop when the connection breaks; `leave` breaks nothing."""
        self._connection: Connection | None = None
        self._connecting = asyncio.Lock()
        self._seen_nodes: set[str] = set()

    @property
    def external(self) -> bool:
        """Whether the user named a cluster; if not, Ray is ours to start and to end."""
        return bool(self._settings.ray_address)

    @property
    def connected(self) -> bool:
        """Whether Ray runs and calls can be made."""
        return self._connection is not None and self._connection.open

    def record(self) -> dict[str, Any] | None:
        """What the bridge wrote down of itself, if it lives."""
        return bridge_record(self._settings.home, self.instance)

    async def connect(self) -> None:
        """Connects to the bridge; starts one, and with it a local Ray if no cluster is named.

        Raises:
            RayFailed: with what Ray said.
        """
        async with self._connecting:
            if not self.connected:
                record = self.record()
                connection = await self._open(record) if record is not None else None
                if connection is None:  # none runs, or it hangs
                    record = await self._start_bridge()
                    connection = await self._open(record)
                if connection is None:
                    raise RayFailed("the bridge to Ray does not answer")
                assert record is not None
                connection.on_broken = self._broken
                self._connection, self._seen_nodes = connection, set()
                log.info("connected to Ray at %s", record["address"])

    async def _open(self, record: dict[str, Any]) -> Connection | None:
        """A connection over which the bridge answers, or None."""
        connection = None
        try:
            async with asyncio.timeout(CALL_SECONDS):
                pair = await asyncio.open_unix_connection(record["socket"], limit=bridge.LINE_BYTES)
                connection = Connection(*pair)
                await connection.call("ping", CALL_SECONDS)
                return connection
        except (OSError, ActorUnavailable) as error:  # a TimeoutError is one of the first
            log.warning("the bridge to Ray does not answer: %s", error or "in time")
        if connection is not None:
            await connection.close()
        return None

    def _broken(self) -> None:
        log.warning("the connection to Ray is broken")
        self.on_lost()

    async def _start_bridge(self) -> dict[str, Any]:
        home, logs = self._settings.home, self._settings.logs
        # What a Ray that was killed has left would hold memory, and names that we want.
        await asyncio.to_thread(end_ray, home, processes.STOP_GRACE)
        logs.mkdir(parents=True, exist_ok=True)
        argv = [sys.executable, "-m", "paddock.launcher.bridge", str(home)]
        if self.external:
            argv.append(self._settings.ray_address)
        with (logs / "ray.log").open("wb") as out:
            process = subprocess.Popen(  # noqa: ASYNC220 - it is to outlive us
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env={**os.environ, processes.INSTANCE_VARIABLE: self.instance},
                start_new_session=True,
                cwd="/",
            )
        for _ in range(round(START_SECONDS / START_POLL)):
            found = self.record()
            if found is not None:
                return found
            if process.poll() is not None:
                said = (logs / "ray.log").read_text(errors="replace").strip()
                last = said.splitlines()[-1] if said else f"exit code {process.returncode}"
                raise RayFailed(f"Ray did not start: {last}")
            await asyncio.sleep(START_POLL)
        raise RayFailed(f"Ray did not start within {START_SECONDS:g} s (see {logs / 'ray.log'})")

    async def hosts(self, paths: tuple[str, ...] = ()) -> list[Host]:
        """The facts of every node that can be planned on, the gateway's own first."""
        own = await asyncio.to_thread(probe_host, self._settings.home, paths)
        if not self.connected:
            return [own]
        others = await self._call("hosts", CALL_SECONDS, paths=list(paths))
        return [own, *map(_host, others)]

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

    async def lost_nodes(self) -> set[str]:
        """The Ray node ids that were alive earlier in this connection, or in Ray, and are dead."""
        nodes = await self._call("nodes", CALL_SECONDS)
        alive, dead = set(nodes["alive"]), set(nodes["dead"])
        self._seen_nodes |= alive
        return (self._seen_nodes | dead) - alive

    async def invoke(self, actor: str, method: str, seconds: float, **args: Any) -> Any:
        """As `Handle.invoke`, but raises `TimeoutError` when there is no answer in time."""
        connection = self._connected()
        known = {"actor": actor, "method": method, "seconds": seconds, "args": args}
        return await connection.call("invoke", seconds, **known)

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
        if self._connection is not None:
            await self._connection.close()

    async def shutdown(self) -> None:
        """Ends the bridge, the Ray that is ours, and everything that may be left of it."""
        await self.leave()
        await asyncio.to_thread(end_ray, self._settings.home, processes.STOP_GRACE)


def _host(found: dict[str, Any]) -> Host:
    engines = {name: Detection(**_tuples(one)) for name, one in found["engines"].items()}
    gpus = tuple(Gpu(**one) for one in found["gpus"])
    return Host(**{**found, "engines": engines, "gpus": gpus})


def _tuples(found: dict[str, Any]) -> dict[str, Any]:
    """With its lists as they were before they were JSON."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in found.items()}


def bridge_record(home: Path, instance: str) -> dict[str, Any] | None:
    """What the bridge of a home folder wrote down of itself, if it lives."""
    try:
        found: dict[str, Any] = json.loads((home / bridge.FILE).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return found if processes.alive(found["pid"], instance) else None


def end_ray(home: Path, grace: float) -> list[int]:
    """Ends the bridge of a home folder, its Ray and every other process of its instance.

    Returns the ids of the processes that had to be ended by force.
    """
    instance = processes.instance_id(home)
    try:
        found = json.loads((home / bridge.FILE).read_text("utf-8"))
    except (OSError, ValueError):
        found = None
    if found is not None and processes.alive(found["pid"], instance):
        with contextlib.suppress(psutil.Error):
            processes.end([psutil.Process(found["pid"])], STOP_SECONDS)
    # What Ray told to end may need a moment after its head has gone.
    _, left = psutil.wait_procs(processes.belonging(instance), timeout=grace)
    processes.end(left, grace)
    if found is not None:
        # Ray's own folder, which a bridge that was killed could not remove.
        shutil.rmtree(found["folder"], ignore_errors=True)
    (home / bridge.FILE).unlink(missing_ok=True)
    return [process.pid for process in left]
