"""The only process of ours that speaks to Ray: `python -m paddock.launcher.bridge HOME [ADDRESS]`.

Without ADDRESS it is also the head of a local Ray: `ray.init` in it takes 3 to 4 s where
`ray start --head` takes 6, and Ray's processes live and die with it. It is a process of its own,
and not part of the gateway, because

- Ray and the models in it outlive the gateway;
- a Ray driver ends its own process when Ray has been away for a minute, and cannot reliably join a
  second Ray after that: here it may, and the gateway starts another bridge;
- the gateway stays at a third of the memory.

It serves calls, one JSON line each way, on a socket in a folder that only its user can enter:
`{"id": 1, "call": "watch", "args": {…}}` is answered by `{"id": 1, "result": …}` or
`{"id": 1, "error": "ActorLost", "message": …}`, in any order. `HOME/ray.json` says where, once Ray
is up.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from paddock.engines.base import Host
from paddock.launcher.host import LOCAL, probe_host
from paddock.launcher.processes import instance_id
from paddock.launcher.replica import Replica, ReplicaConfig
from paddock.registry.settings import read_settings

FILE = "ray.json"
TOKEN = "ray-token"  # noqa: S105 - a file's name
OBJECT_STORE_BYTES = 80_000_000
"""The least that Ray takes: nothing of ours goes through its object store."""
PROBE_SECONDS = 60.0
LINE_BYTES = 16_000_000


def environment(home: Path) -> dict[str, str]:
    """What a process must have in its environment before it imports ray, to use a local Ray.

    Token authentication with a token of our own; no usage reports; replicas as urgent as anything
    else, and not killed for others' memory; and loopback only: Ray listens on every interface
    unless its node's address is 127.0.0.1, which it takes for itself only where it believes that
    clusters are not to be had.
    """
    token = home / TOKEN
    if not token.exists():
        home.mkdir(parents=True, exist_ok=True)
        made = home / f".{TOKEN}.{os.getpid()}"
        made.touch(mode=0o600)
        made.write_text(secrets.token_hex(32), "ascii")
        made.replace(token)
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        # Ray would start replicas, and engines with them, at 15: behind all else on the machine.
        "RAY_worker_niceness": "0",
        # It would kill a replica's small actor, and its model, whoever fills the memory. The kernel
        # ends the process that is too large, and an engine's end is told as what it is.
        "RAY_memory_monitor_refresh_ms": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }


def namespace(instance: str) -> str:
    """Ray's namespace for the actors of one home folder: clusters may be shared."""
    return f"paddock-{instance}"


class Bridge:
    """Ray's side of the calls. Each public coroutine is a call by its name."""

    def __init__(self, space: str, node: str) -> None:
        self._namespace = space
        self._node = node
        self._actors: dict[str, Any] = {}

    async def hosts(self, paths: list[str]) -> list[dict[str, Any]]:
        """The facts of every node but our own."""
        return [asdict(host) for host in await asyncio.to_thread(self._hosts, tuple(paths))]

    def _hosts(self, paths: tuple[str, ...]) -> list[Host]:
        import ray

        probe = ray.remote(num_cpus=0)(_probe_node)
        refs = [
            probe.options(scheduling_strategy=_on(node["NodeID"])).remote(
                node["NodeID"], node["NodeManagerAddress"], paths
            )
            for node in ray.nodes()
            if node["Alive"] and node["NodeID"] != self._node
        ]
        hosts = []
        for ref in refs:
            try:
                hosts.append(ray.get(ref, timeout=PROBE_SECONDS))
            except ray.exceptions.RayError as error:
                # A node without Paddock, or one that is going: nothing can be planned on it.
                print(f"a node is left out: {error}", file=sys.stderr, flush=True)
        return hosts

    async def start(self, config: dict[str, Any], node: str) -> None:
        """Starts a replica's actor on `node` (`LOCAL` or a Ray node id)."""
        await asyncio.to_thread(self._start, ReplicaConfig(**config), node)

    def _start(self, config: ReplicaConfig, node: str) -> None:
        import ray

        self._actors[config.replica_id] = (
            ray.remote(Replica)
            .options(
                name=config.replica_id,
                namespace=self._namespace,
                lifetime="detached",
                num_cpus=0,
                max_restarts=0,
                scheduling_strategy=_on(self._node if node == LOCAL else node),
            )
            .remote(config)
        )

    async def find(self, replica_id: str) -> bool:
        """Whether the actor of a replica lives."""
        return await asyncio.to_thread(self._find, replica_id)

    def _find(self, replica_id: str) -> bool:
        import ray

        try:
            self._actors[replica_id] = ray.get_actor(replica_id, namespace=self._namespace)
        except ValueError:
            self._actors.pop(replica_id, None)
            return False
        return True

    async def actors(self) -> list[str]:
        """The replica ids of all actors that live in our namespace."""
        import ray

        found = await asyncio.to_thread(ray.util.list_named_actors, all_namespaces=True)
        return [actor["name"] for actor in found if actor["namespace"] == self._namespace]

    async def begin(self, replica_id: str) -> dict[str, Any]:
        """See `Replica.begin`."""
        return asdict(await self._actors[replica_id].begin.remote())

    async def watch(self, replica_id: str, since: int) -> dict[str, Any]:
        """See `Replica.watch`."""
        return asdict(await self._actors[replica_id].watch.remote(since))

    async def stop(self, replica_id: str) -> dict[str, Any]:
        """See `Replica.stop`."""
        return asdict(await self._actors[replica_id].stop.remote())

    async def tail(self, replica_id: str, lines: int) -> list[str]:
        """See `Replica.tail`."""
        return list(await self._actors[replica_id].tail.remote(lines))

    async def log_after(self, replica_id: str, offset: int) -> tuple[int, str]:
        """See `Replica.log_after`."""
        found: tuple[int, str] = await self._actors[replica_id].log_after.remote(offset)
        return found

    async def end(self, replica_id: str) -> None:
        """Ends the actor's process."""
        import ray

        actor = self._actors.pop(replica_id, None)
        if actor is not None:
            await asyncio.to_thread(ray.kill, actor, no_restart=True)


CALLS = frozenset(
    {"hosts", "start", "find", "actors", "begin", "watch", "stop", "tail", "log_after", "end"}
)


async def _answer(bridge: Bridge, asked: dict[str, Any]) -> dict[str, Any]:
    import ray

    head = {"id": asked["id"]}
    if asked["call"] not in CALLS:
        return {**head, "error": "internal", "message": f"no call {asked['call']!r}"}
    call: Callable[..., Awaitable[Any]] = getattr(bridge, asked["call"])
    try:
        return {**head, "result": await call(**asked["args"])}
    except ray.exceptions.ActorUnavailableError as error:
        return {**head, "error": "ActorUnavailable", "message": _first_line(error)}
    except _lost() as error:
        return {**head, "error": "ActorLost", "message": _first_line(error)}
    except Exception as error:  # noqa: BLE001 - the process's border: a bug goes back as one
        return {**head, "error": "internal", "message": f"{type(error).__name__}: {error}"}


def _lost() -> tuple[type[Exception], ...]:
    """What says that the actor is gone. Ray tells its own killing for memory by another error."""
    from ray.exceptions import OutOfMemoryError, RayActorError, RaySystemError

    return (RayActorError, OutOfMemoryError, RaySystemError, KeyError)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


async def _serve(bridge: Bridge, path: Path, record: Callable[[], None]) -> None:
    """Answers calls until SIGTERM."""
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def one(line: bytes) -> None:
            answer = await _answer(bridge, json.loads(line))
            with contextlib.suppress(OSError):
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()

        try:
            while line := await reader.readline():
                task = asyncio.create_task(one(line))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
        finally:
            writer.close()

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    server = await asyncio.start_unix_server(connected, path, limit=LINE_BYTES)
    record()
    await stop.wait()
    server.close()
    for task in tasks:
        task.cancel()


def main() -> None:
    """Joins or starts Ray, says where it is, serves until SIGTERM, leaves or ends Ray."""
    home, address = Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else ""
    if not address:
        os.environ.update(environment(home))
        os.environ.pop("RAY_ADDRESS", None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import ray

    space = namespace(instance_id(home))
    # Ray's sockets lie below this folder, and a socket's path may have no more than 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="paddock-ray-", dir="/tmp"))
    local = {
        "include_dashboard": False,
        "object_store_memory": OBJECT_STORE_BYTES,
        "_temp_dir": str(folder),
    }
    try:
        context: Any = ray.init(
            address=address or "local",
            namespace=space,
            log_to_driver=False,
            configure_logging=False,
            **({} if address else local),
        )
        found = {
            "address": context.address_info["gcs_address"],
            "pid": os.getpid(),
            "folder": str(folder),
            "socket": str(folder / "bridge"),
        }

        def record() -> None:
            made = home / f".{FILE}.{os.getpid()}"
            made.write_text(json.dumps(found), "utf-8")
            made.replace(home / FILE)

        bridge = Bridge(space, ray.get_runtime_context().get_node_id())
        asyncio.run(_serve(bridge, folder / "bridge", record))
        (home / FILE).unlink(missing_ok=True)
        ray.shutdown()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _on(node: str) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node, soft=False)


def _probe_node(node: str, address: str, paths: tuple[str, ...]) -> Host:
    """Runs on another node: its facts."""
    return replace(probe_host(read_settings().home, paths, node), address=address)


if __name__ == "__main__":
    main()
