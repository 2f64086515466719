"""The only process of ours that speaks to Ray: `python -m paddock.launcher.cluster.bridge HOME`.

It is a process of its own, and not part of the gateway, because

- a Ray driver ends its own process when Ray has been away for a minute, and cannot reliably join a
  second Ray after that: here it may, and the gateway starts another bridge;
- the gateway stays at a third of the memory.

It holds nothing that is not in Ray too: when it is killed, the next one goes on (`head.py` starts
Ray itself). Its stdin gets one line, the `Record` of the Ray to join, by which time it has imported
ray. It serves calls, one JSON line each way, on a socket in a folder that only its user can enter:
`{"id": 1, "call": "find", "args": {…}}` is answered by `{"id": 1, "result": …}` or
`{"id": 1, "error": "ActorLost", "message": …}`, in any order. `HOME/ray.json` says where.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, is_dataclass, replace
from pathlib import Path
from typing import Any

from paddock.engines.base import Host
from paddock.launcher.cluster.agent import PREFIX, Agent, end_actor
from paddock.launcher.cluster.connection import is_own_peer
from paddock.launcher.cluster.head import add_bridge, environment, parse_record
from paddock.launcher.cluster.nodes import AgentHandle, Node, Nodes
from paddock.launcher.hosts.host import LOCAL
from paddock.launcher.hosts.processes import instance_id
from paddock.launcher.replicas.replica import Replica
from paddock.launcher.replicas.status import ReplicaConfig

AGENT_SECONDS = 15.0
"""How long another node's agent may take to end an actor, and to start itself before that."""
RAY_SECONDS = 5.0
"""How long Ray's control service may take, where something can be done without it."""
THREADS = 64
"""For calls that wait for Ray: one that hangs must not keep the others from a thread."""
DEAD_SECONDS = 5.0
"""How long Ray may take to notice that an actor's process is gone."""
LINE_BYTES = 16_000_000


def namespace(instance: str) -> str:
    """Ray's namespace for the actors of one home folder: clusters may be shared."""
    return f"paddock-{instance}"


class Bridge:
    """Ray's side of the calls. Each public coroutine is a call by its name."""

    def __init__(self, instance: str, node: str) -> None:
        self._instance = instance
        self._namespace = namespace(instance)
        self._node = node
        self._actors: dict[str, Any] = {}
        self._nodes = Nodes(self._list_nodes, self._agent)

    def follow_nodes(self) -> None:
        """Begins to follow the agents of the other nodes. Call it on the event loop."""
        self._nodes.start()

    async def ping(self) -> None:
        """Says that the bridge's event loop runs."""

    async def hosts(self, paths: list[str]) -> list[dict[str, Any]]:
        """The last report of every node but our own: `Host` as JSON."""
        return [asdict(host) for host in await self._nodes.hosts(paths)]

    def _list_nodes(self) -> list[Node]:
        import ray

        return [
            Node(node["NodeID"], node["NodeManagerAddress"])
            for node in ray.nodes()
            if node["Alive"] and node["NodeID"] != self._node
        ]

    async def _agent(self, node: Node) -> AgentHandle:
        return await asyncio.to_thread(self._open_agent, node)

    def _open_agent(self, node: Node) -> _AgentHandle:
        import ray

        handle = (
            ray.remote(Agent)
            .options(
                name=PREFIX + node.id,
                namespace=self._namespace,
                lifetime="detached",
                get_if_exists=True,
                num_cpus=0,
                max_restarts=0,
                scheduling_strategy=_on(node.id),
            )
            .remote(node.id, node.address)
        )
        return _AgentHandle(handle)

    async def nodes(self) -> dict[str, list[str]]:
        """The ids of all nodes that Ray knows, by whether they live."""
        import ray

        nodes = await asyncio.to_thread(ray.nodes)
        return {
            "alive": [node["NodeID"] for node in nodes if node["Alive"]],
            "dead": [node["NodeID"] for node in nodes if not node["Alive"]],
        }

    async def dismiss(self) -> None:
        """Ends the agents of the other nodes: nobody follows them any more."""
        await self._nodes.close()
        for name in await self._list_actor_names():
            if name.startswith(PREFIX):
                with contextlib.suppress(_NoActor):
                    await asyncio.to_thread(_kill, await self._handle(name))

    async def start(self, actor: str, config: dict[str, Any], node: str) -> None:
        """Starts a replica's actor on `node` (`LOCAL` or a Ray node id)."""
        await asyncio.to_thread(self._start, actor, ReplicaConfig(**config), node)

    def _start(self, actor: str, config: ReplicaConfig, node: str) -> None:
        import ray

        self._actors[actor] = (
            ray.remote(Replica)
            .options(
                name=actor,
                namespace=self._namespace,
                lifetime="detached",
                num_cpus=0,
                max_restarts=0,
                scheduling_strategy=_on(self._node if node == LOCAL else node),
            )
            .remote(config)
        )

    async def find(self, actor: str) -> bool:
        """Whether an actor of this name lives."""
        self._actors.pop(actor, None)
        try:
            await self._handle(actor)
        except _NoActor:
            return False
        return True

    async def _handle(self, actor: str) -> Any:
        """The actor's handle, whichever bridge has started it. Raises `_NoActor`."""
        import ray

        if actor not in self._actors:
            try:
                self._actors[actor] = await asyncio.to_thread(
                    ray.get_actor, actor, namespace=self._namespace
                )
            except ValueError:
                raise _NoActor(f"no actor {actor} lives") from None
        return self._actors[actor]

    async def actors(self) -> list[str]:
        """The names of all replicas' actors that live in our namespace."""
        return [name for name in await self._list_actor_names() if not name.startswith(PREFIX)]

    async def _list_actor_names(self) -> list[str]:
        import ray

        actors = await asyncio.to_thread(ray.util.list_named_actors, all_namespaces=True)
        return [actor["name"] for actor in actors if actor["namespace"] == self._namespace]

    async def invoke(self, actor: str, method: str, limit: float, args: dict[str, Any]) -> Any:
        """Calls a method of the actor's `Replica`; dataclasses come back as dicts.

        An actor that does not answer within `limit` seconds is given up: no task waits for ever.

        Raises:
            AttributeError: actors have no such method.
        """
        if method not in METHODS:
            raise AttributeError(f"a replica has no method {method!r}")
        handle = await self._handle(actor)
        async with asyncio.timeout(limit):
            answer = await getattr(handle, method).remote(**args)
        return asdict(answer) if is_dataclass(answer) and not isinstance(answer, type) else answer

    async def end(self, actor: str, node: str) -> None:
        """Ends an actor with its warden and its engine by force; returns when none is left.

        Args:
            node: where to look if Ray does not know the actor any more.

        Raises:
            TimeoutError: it has not ended in time.
        """
        handle, info = None, {}
        # Processes of this node can be ended though Ray's control service hangs.
        with contextlib.suppress(_NoActor, TimeoutError):
            async with asyncio.timeout(RAY_SECONDS):
                handle = await self._handle(actor)
                info = await asyncio.to_thread(_describe, handle)
                # Before we look, so that Ray starts no process for it meanwhile.
                await asyncio.to_thread(_kill, handle)
        place = info.get("Address", {}).get("NodeID") or node
        place = self._node if place in {"", LOCAL} else place
        target = (self._instance, actor, info.get("Pid", 0), info.get("StartTime", 0) / 1000)
        left = await self._end_on(place, target)
        if left:
            raise TimeoutError(f"processes {left} of {actor} could not be ended")
        if handle is not None:
            await _until_dead(actor, handle)
        self._actors.pop(actor, None)

    async def _end_on(self, node: str, target: tuple[str, str, int, float]) -> list[int]:
        if node == self._node:
            return await asyncio.to_thread(end_actor, *target)
        nodes = {one.id: one for one in await asyncio.to_thread(self._list_nodes)}
        if node not in nodes:
            raise _NoNode(f"node {node} is not in the cluster")
        agent = await asyncio.to_thread(self._open_agent, nodes[node])
        from ray.exceptions import RayActorError

        try:
            async with asyncio.timeout(AGENT_SECONDS):
                return await agent.end(*target)
        # That the agent is lost says nothing of the actor that it was to end.
        except (TimeoutError, RayActorError) as error:
            reason = _first_line(error)
            raise _NoNode(f"the agent of node {node} does not answer: {reason}") from None


class _AgentHandle:
    """An agent's actor, as `AgentHandle` has it."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    async def report(self, since: int) -> tuple[int, Host]:
        """See `Agent.report`."""
        number, host = await self._handle.report.remote(since)
        return number, host

    async def look(self, paths: Sequence[str]) -> Host:
        """See `Agent.look`."""
        host: Host = await self._handle.look.remote(list(paths))
        return host

    async def end(self, instance: str, actor: str, pid: int, started_at: float) -> list[int]:
        """See `Agent.end`."""
        return list(await self._handle.end.remote(instance, actor, pid, started_at))


METHODS = frozenset({"begin", "watch", "stop", "tail", "log_after", "probe", "drain"})
"""Methods of `Replica` that the gateway may call."""
CALLS = frozenset({"ping", "hosts", "nodes", "dismiss", "start", "find", "actors", "invoke", "end"})


class _NoActor(Exception):
    """No actor of that name lives."""


class _NoNode(Exception):
    """A node cannot be reached."""


def _describe(handle: Any) -> dict[str, Any]:
    """What Ray's control service knows of an actor: its state, process and node."""
    from ray._private.state import actors

    return dict(actors(handle._actor_id.hex()) or {})


def _is_dead(handle: Any) -> bool:
    return bool(_describe(handle).get("State", "DEAD") == "DEAD")


def _kill(handle: Any) -> None:
    import ray

    ray.kill(handle, no_restart=True)


async def _until_dead(actor: str, handle: Any) -> None:
    """Waits until Ray has noticed that the actor's process is gone."""
    try:
        async with asyncio.timeout(DEAD_SECONDS):
            while not await asyncio.to_thread(_is_dead, handle):  # noqa: ASYNC110 - Ray tells nobody
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise TimeoutError(f"Ray does not say that {actor} is dead") from None


async def _answer(bridge: Bridge, request: dict[str, Any]) -> dict[str, Any]:
    head = {"id": request["id"]}
    if request["call"] not in CALLS:
        return {**head, "error": "internal", "message": f"no call {request['call']!r}"}
    call: Callable[..., Awaitable[Any]] = getattr(bridge, request["call"])
    try:
        return {**head, "result": await call(**request["args"])}
    except Exception as error:  # noqa: BLE001 - the process's border: a bug goes back as one
        return {**head, **_wire(error)}


def _wire(error: Exception) -> dict[str, str]:
    """An error as the gateway reads it: its kind, and one line."""
    from ray import exceptions

    cause = getattr(error, "cause", None)
    # Before all others: what an actor's own method raised is also an instance of its cause's class,
    # so that a replica's KeyError or TimeoutError would look like one of ours.
    if isinstance(error, exceptions.RayTaskError):
        inner = cause if isinstance(cause, Exception) else error
        return {"error": "internal", "message": f"{type(inner).__name__}: {_first_line(inner)}"}
    if isinstance(error, TimeoutError) and not isinstance(error, exceptions.RayError):
        return {"error": "TimeoutError", "message": _first_line(error)}
    unavailable = (
        _NoNode,
        exceptions.ActorUnavailableError,
        exceptions.GetTimeoutError,
        exceptions.RaySystemError,
        exceptions.RpcError,
    )
    if isinstance(error, unavailable):
        return {"error": "ActorUnavailable", "message": _first_line(error)}
    # Ray tells its own killing for memory by another error.
    lost = (
        _NoActor,
        exceptions.RayActorError,
        exceptions.OutOfMemoryError,
        exceptions.NodeDiedError,
        exceptions.ActorUnschedulableError,  # its node is gone
    )
    if isinstance(error, lost):
        return {"error": "ActorLost", "message": _first_line(error)}
    return {"error": "internal", "message": f"{type(error).__name__}: {_first_line(error)}"}


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


async def _serve(bridge: Bridge, path: Path, on_ready: Callable[[], None]) -> None:
    """Answers calls until SIGTERM."""
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def one(line: bytes) -> None:
            answer = await _answer(bridge, json.loads(line))
            with contextlib.suppress(OSError):
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()

        try:
            while is_own_peer(writer) and (line := await reader.readline()):
                task = asyncio.create_task(one(line))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
        finally:
            writer.close()

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.set_default_executor(ThreadPoolExecutor(THREADS))
    server = await asyncio.start_unix_server(connected, path, limit=LINE_BYTES)
    bridge.follow_nodes()
    on_ready()
    await stop.wait()
    server.close()
    for task in tasks:
        task.cancel()


def main() -> None:
    """Joins Ray, says where it is, serves until SIGTERM."""
    home = Path(sys.argv[1])
    if len(sys.argv) > 2 and sys.argv[2] == "local":
        os.environ.update(environment(home))
        os.environ.pop("RAY_ADDRESS", None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import ray

    line = sys.stdin.readline()
    if not line:  # Ray's head did not start
        return
    record = parse_record(line)
    instance = instance_id(home)
    ray.init(
        address=record.address,
        namespace=namespace(instance),
        log_to_driver=False,
        configure_logging=False,
    )
    bridge = Bridge(instance, ray.get_runtime_context().get_node_id())
    address = str(ray.get_runtime_context().gcs_address)
    record = replace(record, address=address)
    asyncio.run(_serve(bridge, record.socket, lambda: add_bridge(home, record)))
    ray.shutdown()


def _on(node: str) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node, soft=False)


if __name__ == "__main__":
    main()
