"""The gateway's side of Ray: starts the bridge, and calls through it. Never imports ray."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from paddock.engines.base import Detection, Gpu, Host
from paddock.launcher import bridge, processes
from paddock.launcher.host import probe_host
from paddock.launcher.replica import ReplicaConfig, ReplicaStatus
from paddock.registry.errors import PaddockError
from paddock.registry.settings import Settings

log = logging.getLogger(__name__)

START_SECONDS = 90.0
START_POLL = 0.02
STOP_SECONDS = 15.0


class RayFailed(PaddockError):
    """Ray could not be started, or not be reached."""


class ActorLost(PaddockError):
    """The actor is gone: it was killed, or its node or all of Ray is not there any more."""


class ActorUnavailable(PaddockError):
    """The actor cannot be reached now; it may be again."""


class _Connection:
    """Calls over the bridge's socket, many at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._ids = itertools.count()
        self.open = True
        self._reading = asyncio.create_task(self._read(reader))

    async def _read(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError):
            while line := await reader.readline():
                answer = json.loads(line)
                future = self._waiting.pop(answer["id"], None)
                if future is not None and not future.done():
                    _settle(future, answer)
        self.open = False
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(ActorLost("Ray is gone"))

    async def call(self, name: str, **args: Any) -> Any:
        """Raises what the bridge raised; `ActorLost` if the bridge is gone."""
        if not self.open:
            raise ActorLost("Ray is gone")
        number = next(self._ids)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            asked = {"id": number, "call": name, "args": args}
            self._writer.write(json.dumps(asked).encode() + b"\n")
            return await future
        finally:
            self._waiting.pop(number, None)

    async def close(self) -> None:
        self._reading.cancel()
        self._writer.close()
        with contextlib.suppress(asyncio.CancelledError, OSError):
            await self._reading
        self.open = False


def _settle(future: asyncio.Future[Any], answer: dict[str, Any]) -> None:
    kinds = {"ActorLost": ActorLost, "ActorUnavailable": ActorUnavailable}
    if "error" not in answer:
        future.set_result(answer["result"])
    else:
        future.set_exception(kinds.get(answer["error"], RuntimeError)(answer["message"]))


class Handle:
    """One replica's actor."""

    def __init__(self, connection: _Connection, replica_id: str) -> None:
        self._connection = connection
        self.replica_id = replica_id

    async def begin(self) -> ReplicaStatus:
        """See `Replica.begin`."""
        return ReplicaStatus(**await self._connection.call("begin", replica_id=self.replica_id))

    async def watch(self, since: int) -> ReplicaStatus:
        """See `Replica.watch`."""
        answer = await self._connection.call("watch", replica_id=self.replica_id, since=since)
        return ReplicaStatus(**answer)

    async def stop(self, timeout: float) -> ReplicaStatus:
        """See `Replica.stop`. Raises `TimeoutError` besides."""
        call = self._connection.call("stop", replica_id=self.replica_id)
        return ReplicaStatus(**await asyncio.wait_for(call, timeout))

    async def tail(self, lines: int) -> list[str]:
        """See `Replica.tail`."""
        call = self._connection.call("tail", replica_id=self.replica_id, lines=lines)
        return list(await call)

    async def log_after(self, offset: int) -> tuple[int, str]:
        """See `Replica.log_after`."""
        call = self._connection.call("log_after", replica_id=self.replica_id, offset=offset)
        found, text = await call
        return int(found), str(text)

    async def end(self) -> None:
        """Ends the actor's process; an actor that is gone already is no error."""
        with contextlib.suppress(ActorLost):
            await self._connection.call("end", replica_id=self.replica_id)


class Cluster:
    """Ray, as the controller sees it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.instance = processes.instance_id(settings.home)
        self._connection: _Connection | None = None
        self._connecting = asyncio.Lock()

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
                found = self.record() or await self._start_bridge()
                try:
                    pair = await asyncio.open_unix_connection(
                        found["socket"], limit=bridge.LINE_BYTES
                    )
                except OSError as error:
                    raise RayFailed(f"the bridge to Ray does not answer: {error}") from error
                self._connection = _Connection(*pair)
                log.info("connected to Ray at %s", found["address"])

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
        if self._connection is None or not self._connection.open:
            return [own]
        others = await self._connection.call("hosts", paths=list(paths))
        return [own, *map(_host, others)]

    async def start(self, config: ReplicaConfig, node: str) -> Handle:
        """Starts a replica's actor on `node` (`LOCAL` or a Ray node id)."""
        connection = self._connected()
        await connection.call("start", config=asdict(config), node=node)
        return Handle(connection, config.replica_id)

    async def find(self, replica_id: str) -> Handle | None:
        """The actor of a replica that an earlier gateway started, if it lives."""
        connection = self._connected()
        found = await connection.call("find", replica_id=replica_id)
        return Handle(connection, replica_id) if found else None

    async def actors(self) -> set[str]:
        """The replica ids of all actors that live in our namespace."""
        return set(await self._connected().call("actors"))

    def _connected(self) -> _Connection:
        if self._connection is None:
            raise ActorLost("Ray does not run")
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
