"""Ray, and nothing but Ray: connects to it (starting a local one if need be), looks at its nodes,
starts, finds and ends replica actors. The only module that imports ray, and only when it is needed.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from paddock.engines.base import Host
from paddock.launcher import processes, ray_head
from paddock.launcher.host import LOCAL, probe_host
from paddock.launcher.replica import Replica, ReplicaConfig, ReplicaStatus
from paddock.registry.errors import PaddockError
from paddock.registry.settings import Settings, read_settings

log = logging.getLogger(__name__)

HEAD_SECONDS = 90.0
ACTOR_SECONDS = 60.0


class RayFailed(PaddockError):
    """Ray could not be started, or not be reached."""


class ActorLost(PaddockError):
    """The actor is gone: it was killed, or its node is not there any more."""


class Handle:
    """A replica's actor, with Ray's calls as coroutines and Ray's errors as `ActorLost`."""

    def __init__(self, actor: Any, node: str) -> None:
        self.actor = actor
        self.node = node

    async def begin(self) -> ReplicaStatus:
        """See `Replica.begin`."""
        status: ReplicaStatus = await self._call(self.actor.begin.remote())
        return status

    async def watch(self, since: int) -> ReplicaStatus:
        """See `Replica.watch`."""
        status: ReplicaStatus = await self._call(self.actor.watch.remote(since))
        return status

    async def stop(self, timeout: float) -> ReplicaStatus:
        """See `Replica.stop`."""
        return await asyncio.wait_for(self._call(self.actor.stop.remote()), timeout)

    async def tail(self, lines: int) -> list[str]:
        """See `Replica.tail`."""
        tail: list[str] = await self._call(self.actor.tail.remote(lines))
        return tail

    async def _call(self, ref: Any) -> Any:
        import ray

        try:
            return await ref
        except ray.exceptions.RayActorError as error:
            raise ActorLost(str(error).strip().splitlines()[0]) from error
        except ray.exceptions.RaySystemError as error:
            raise ActorLost(str(error)) from error


class Cluster:
    """The connection to Ray."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.instance = processes.instance_id(settings.home)
        self.namespace = f"paddock-{self.instance}"
        self.connected = False
        self._node = ""
        self._connecting = asyncio.Lock()

    @property
    def external(self) -> bool:
        """Whether the user named a cluster; if not, Ray is ours to start and to end."""
        return bool(self._settings.ray_address)

    def local_ray(self) -> dict[str, Any] | None:
        """`ray.json` of the local Ray that we started, if its head still lives."""
        try:
            found: dict[str, Any] = json.loads((self._settings.home / ray_head.FILE).read_text())
        except (OSError, ValueError):
            return None
        return found if processes.alive(found["pid"], self.instance) else None

    async def connect(self) -> None:
        """Connects to Ray; starts a local one if none of ours runs and no cluster is named.

        Raises:
            RayFailed: with what Ray said.
        """
        async with self._connecting:
            if self.connected and (self.external or self.local_ray() is not None):
                return
            await asyncio.to_thread(self._connect)

    def _connect(self) -> None:
        if self.connected:
            # The Ray that we knew has died under us.
            import ray

            ray.shutdown()
            self.connected = False
        address = self._settings.ray_address
        head = None
        if not self.external:
            os.environ.pop("RAY_ADDRESS", None)
            os.environ.update(ray_head.environment(self._settings.home))
            if self.local_ray() is None:
                head = self._start_head()
        import ray

        if not self.external:
            address = self._await_head(head)
        try:
            ray.init(
                address=address,
                namespace=self.namespace,
                log_to_driver=False,
                configure_logging=False,
            )
        except (ConnectionError, RuntimeError, ValueError, OSError, TimeoutError) as error:
            raise RayFailed(f"Ray at {address} cannot be joined: {error}") from error
        self._node = ray.get_runtime_context().get_node_id()
        self.connected = True
        log.info("connected to Ray at %s", address)

    def _start_head(self) -> subprocess.Popen[bytes]:
        home = self._settings.home
        (home / ray_head.FILE).unlink(missing_ok=True)
        self._settings.logs.mkdir(parents=True, exist_ok=True)
        with (self._settings.logs / "ray.log").open("wb") as out:
            return subprocess.Popen(
                [sys.executable, "-m", "paddock.launcher.ray_head", str(home)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env={**os.environ, processes.INSTANCE_VARIABLE: self.instance},
                start_new_session=True,
                cwd="/",
            )

    def _await_head(self, head: subprocess.Popen[bytes] | None) -> str:
        deadline = time.monotonic() + HEAD_SECONDS
        while True:
            found = self.local_ray()
            if found is not None:
                return str(found["address"])
            if head is not None and head.poll() is not None:
                said = (self._settings.logs / "ray.log").read_text(errors="replace").strip()
                last = said.splitlines()[-1] if said else "it said nothing"
                raise RayFailed(f"Ray did not start (exit code {head.returncode}): {last}")
            if time.monotonic() > deadline:
                raise RayFailed(f"Ray did not start within {HEAD_SECONDS:g} s")
            time.sleep(0.02)

    async def hosts(self, paths: tuple[str, ...] = ()) -> list[Host]:
        """The facts of every node that can be planned on, the gateway's own first."""
        own = await asyncio.to_thread(probe_host, self._settings.home, paths)
        return (
            [own, *await asyncio.to_thread(self._other_hosts, paths)] if self.connected else [own]
        )

    def _other_hosts(self, paths: tuple[str, ...]) -> list[Host]:
        import ray

        probe = ray.remote(num_cpus=0)(_probe_node)
        others = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] != self._node]
        refs = [
            probe.options(scheduling_strategy=_on(node["NodeID"])).remote(
                node["NodeID"], node["NodeManagerAddress"], paths
            )
            for node in others
        ]
        hosts: list[Host] = []
        for node, ref in zip(others, refs, strict=True):
            try:
                hosts.append(ray.get(ref, timeout=ACTOR_SECONDS))
            except ray.exceptions.RayError as error:
                log.warning("node %s left out: %s", node["NodeManagerAddress"], error)
        return hosts

    async def start(self, config: ReplicaConfig, node: str) -> Handle:
        """Starts a replica's actor on `node` (`LOCAL` or a Ray node id)."""
        return await asyncio.to_thread(self._start, config, node)

    def _start(self, config: ReplicaConfig, node: str) -> Handle:
        import ray

        try:
            actor = (
                ray.remote(Replica)
                .options(
                    name=config.replica_id,
                    namespace=self.namespace,
                    lifetime="detached",
                    num_cpus=0,
                    max_restarts=0,
                    scheduling_strategy=_on(self._node if node == LOCAL else node),
                )
                .remote(config)
            )
        except ray.exceptions.RayError as error:
            raise ActorLost(str(error)) from error
        return Handle(actor, node)

    async def find(self, replica_id: str, node: str) -> Handle | None:
        """The actor of a replica that an earlier gateway started, if it lives."""
        return await asyncio.to_thread(self._find, replica_id, node)

    def _find(self, replica_id: str, node: str) -> Handle | None:
        import ray

        try:
            return Handle(ray.get_actor(replica_id, namespace=self.namespace), node)
        except ValueError:
            return None

    async def actors(self) -> set[str]:
        """The replica ids of all actors that live in our namespace."""
        return await asyncio.to_thread(self._actors)

    def _actors(self) -> set[str]:
        import ray

        return {
            found["name"]
            for found in ray.util.list_named_actors(all_namespaces=True)
            if found["namespace"] == self.namespace
        }

    async def end(self, handle: Handle) -> None:
        """Ends the actor's process."""
        import ray

        await asyncio.to_thread(ray.kill, handle.actor, no_restart=True)

    async def shutdown(self) -> None:
        """Leaves Ray, and ends it if it is ours, with everything that may be left of it."""
        await asyncio.to_thread(self._shutdown)

    def _shutdown(self) -> None:
        if self.connected:
            import ray

            ray.shutdown()
            self.connected = False
        end_ray(self._settings.home, self._settings.stop_grace)


def end_ray(home: Path, grace: float) -> list[str]:
    """Ends the local Ray of a home folder and every process of its instance.

    Returns the names of the processes that were still there when Ray had ended, for the record.
    """
    instance = processes.instance_id(home)
    try:
        pid = json.loads((home / ray_head.FILE).read_text())["pid"]
        if processes.alive(pid, instance):
            processes.end([psutil.Process(pid)], 15.0)
    except (OSError, ValueError, psutil.Error):
        pass  # no Ray of ours, or one that ended this moment
    left = processes.belonging(instance)
    names = [f"{process.pid}" for process in left]
    processes.end(left, grace)
    (home / ray_head.FILE).unlink(missing_ok=True)
    return names


def _on(node: str) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node, soft=False)


def _probe_node(node: str, address: str, paths: tuple[str, ...]) -> Host:
    """Runs on another node: its facts."""
    from dataclasses import replace

    return replace(probe_host(read_settings().home, paths, node), address=address)
