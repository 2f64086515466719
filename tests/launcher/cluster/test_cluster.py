"""The gateway's side of a real local Ray, in one Ray for all tests of the file."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from unittest.mock import ANY

import psutil
import pytest

from paddock.launcher.cluster.cluster import (
    CHILDREN,
    ActorLost,
    ActorUnavailable,
    Cluster,
    Handle,
    RayFailed,
)
from paddock.launcher.cluster.connection import Connection
from paddock.launcher.cluster.head import Record
from paddock.launcher.cluster.sweep import end_ray
from paddock.launcher.hosts import processes
from paddock.launcher.hosts.host import LOCAL
from paddock.launcher.replicas.status import ReplicaConfig, ReplicaStatus
from paddock.registry.settings import Settings, read_settings
from tests.conftest import open_to_others
from tests.launcher.replicas.test_replica import echo

pytestmark = pytest.mark.ray

DEADLINE = 60.0


@pytest.fixture(scope="module")
def ray_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home for the tests' Ray, which is ended with all that belongs to it."""
    folder = tmp_path_factory.mktemp("cluster")
    yield folder
    end_ray(folder, processes.STOP_GRACE)
    for child in CHILDREN:
        child.wait(DEADLINE)
    assert processes.belonging(processes.instance_id(folder)) == []


@pytest.fixture
async def cluster(ray_home: Path) -> AsyncIterator[Cluster]:
    """A connection to the file's Ray."""
    cluster = Cluster(read_settings(environ={"PADDOCK_HOME": str(ray_home)}))
    await cluster.connect()
    yield cluster
    await cluster.leave()


async def launch(
    cluster: Cluster, actor: str, node: str = LOCAL, **options: object
) -> tuple[Handle, ReplicaStatus]:
    """Starts an echo engine in an actor and waits until it is ready."""
    config = ReplicaConfig(
        replica_id=actor,
        plan=echo(**options).to_json(),
        home=str(cluster.home),
        instance=cluster.instance,
    )
    handle = await cluster.start(actor, config, node)
    status = await handle.begin()
    async with asyncio.timeout(DEADLINE):
        while status.state != "ready":
            status = await handle.watch(status.version)
    return handle, status


async def test_a_stopped_actor_is_ended_with_all_that_is_its_own(cluster: Cluster) -> None:
    """`end` returns when an actor under SIGSTOP, its warden, its engine and its child are gone."""
    handle, status = await launch(cluster, "m-rep0@a.1", child=True, ignore_term=True)
    engine = psutil.Process(status.pid)
    own = [engine, *engine.children(), *engine.parents()[:2]]
    os.kill(own[-1].pid, signal.SIGSTOP)
    with pytest.raises(TimeoutError):
        await handle.stop(0.2)
    with pytest.raises(ActorUnavailable):
        await handle.invoke("tail", 0.2, lines=1)
    await cluster.end("m-rep0@a.1", LOCAL)
    assert [process for process in own if not processes.gone(process, 0.1)] == []
    assert await cluster.find("m-rep0@a.1") is None
    assert await cluster.actors() == set()
    with pytest.raises(ActorLost):
        await handle.watch(0)
    await cluster.end("m-rep0@a.1", LOCAL)  # one that is gone is no error


async def test_what_a_replica_raises_is_told_as_its_error(cluster: Cluster) -> None:
    """An error inside a replica is a `RuntimeError` with its text, and the actor lives on."""
    handle, status = await launch(cluster, "m-rep1@a.1")
    with pytest.raises(RuntimeError, match="TypeError"):
        await handle.invoke("tail", 10.0, lines="many")
    assert (await handle.watch(status.version - 1)).state == "ready"
    assert await cluster.actors() == {"m-rep1@a.1"}
    assert (await handle.stop(DEADLINE)).state == "stopped"
    await cluster.end("m-rep1@a.1", LOCAL)


async def test_no_node_is_lost_while_all_live(cluster: Cluster) -> None:
    """The nodes that live are not among the lost ones."""
    assert await cluster.lost_nodes() == set()


def own(cluster: Cluster, role: str) -> psutil.Process:
    """The one process of this role."""
    (process,) = processes.belonging(cluster.instance, {role})
    return process


@pytest.fixture
def lost(cluster: Cluster) -> asyncio.Event:
    """Set when the cluster says that it is lost."""
    event = asyncio.Event()
    cluster.on_lost = event.set
    return event


async def test_a_killed_bridge_costs_nothing_but_a_new_one(
    cluster: Cluster, lost: asyncio.Event
) -> None:
    """Ray, actor and engine go on without a bridge, and the same handle works over the next."""
    handle, status = await launch(cluster, "m-rep2@a.1")
    record = cluster.record()
    assert record is not None
    own(cluster, processes.BRIDGE).kill()
    async with asyncio.timeout(DEADLINE):
        await lost.wait()
    with pytest.raises(ActorUnavailable):
        await handle.tail(1)
    await cluster.connect()
    again = cluster.record()
    assert again is not None
    assert (again.head, again.folder) == (record.head, record.folder)
    assert (await handle.watch(0)).pid == status.pid
    await cluster.end(handle.actor, LOCAL)


async def test_a_bridge_that_hangs_is_replaced(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next gateway ends a bridge that does not answer, and starts another on the same Ray."""
    monkeypatch.setattr("paddock.launcher.cluster.cluster.OPEN_SECONDS", 0.2)
    handle, status = await launch(cluster, "m-rep3@a.1")
    bridge = own(cluster, processes.BRIDGE)
    bridge.suspend()
    with pytest.raises(ActorUnavailable):
        await handle.invoke("tail", 0.2, lines=1)
    monkeypatch.undo()
    await cluster.leave()
    monkeypatch.setattr("paddock.launcher.cluster.cluster.OPEN_SECONDS", 1.0)
    await cluster.connect()
    assert not bridge.is_running() or bridge.status() == psutil.STATUS_ZOMBIE
    assert (await handle.watch(0)).pid == status.pid
    await cluster.end(handle.actor, LOCAL)


async def test_a_bridge_that_comes_to_hang_is_replaced(
    cluster: Cluster, lost: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gateway that runs notices it, ends it without asking again, and goes on over another."""
    handle, status = await launch(cluster, "m-rep4@a.1")
    await cluster.leave()
    quick = partial(Connection, beat_seconds=1.0)
    monkeypatch.setattr("paddock.launcher.cluster.cluster.Connection", quick)
    await cluster.connect()
    asked: list[Record] = []
    ask = cluster._open

    async def open_(record: Record) -> Connection | None:
        asked.append(record)
        return await ask(record)

    monkeypatch.setattr(cluster, "_open", open_)
    bridge = own(cluster, processes.BRIDGE)
    bridge.suspend()
    async with asyncio.timeout(DEADLINE):
        await lost.wait()
    assert not cluster.connected
    await cluster.connect()
    assert [record.bridge for record in asked] == [(own(cluster, processes.BRIDGE).pid, ANY)]
    assert processes.gone(bridge, 0.1)
    assert (await handle.watch(0)).pid == status.pid
    await cluster.end(handle.actor, LOCAL)


@pytest.mark.parametrize("name", ["gcs_server", "raylet"])
async def test_a_dead_ray_is_noticed_and_replaced(
    cluster: Cluster, lost: asyncio.Event, name: str
) -> None:
    """A dead head is told; `connect` ends what it left, engines too, and starts another Ray."""
    handle, status = await launch(cluster, f"m-{name}@a.1", child=True, ignore_term=True)
    engine = psutil.Process(status.pid)
    rest = [engine, *engine.children(), *engine.parents()[:2]]
    record = cluster.record()
    assert record is not None
    (part,) = [p for p in map(psutil.Process, record.head) if p.name() == name]
    part.kill()
    async with asyncio.timeout(DEADLINE):
        await lost.wait()
    assert not cluster.connected
    await cluster.connect()
    assert [process for process in rest if not processes.gone(process, 0.1)] == []
    with pytest.raises(ActorLost):
        await handle.begin()
    handle, _ = await launch(cluster, f"m-{name}@a.1")
    await cluster.end(handle.actor, LOCAL)


def test_only_its_user_can_reach_ray_and_the_bridge(cluster: Cluster) -> None:
    """Ray's folder is open to all, and lies with the bridge's socket in one that is not."""
    record = cluster.record()
    assert record is not None
    assert Path(record.folder).stat().st_mode & 0o777 == 0o700
    assert {path.name for path in Path(record.folder).iterdir()} == {"bridge", "ray"}
    assert cluster.home.stat().st_mode & 0o777 == 0o700
    assert {path.name for path in cluster.home.rglob("ray*.*")} == {
        "ray.json",
        "ray-head.log",
        "ray-bridge.log",
    }
    assert open_to_others(cluster.home) == set()


class Slow(Cluster):
    """Its head has started a part of Ray, and writes no record."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.parts: list[psutil.Process] = []
        self.folder = Path()

    def _spawn(self, role: str, module: str, argument: str) -> subprocess.Popen[bytes]:
        code = "import signal; signal.pause()"
        if role == processes.RAY:
            self.folder = Path(argument)
            code = (
                "import subprocess, sys, signal;"
                f"part = subprocess.Popen([sys.executable, '-c', {code!r}]);"
                "print(part.pid, flush=True); signal.pause()"
            )
        child = subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self.parts.append(psutil.Process(child.pid))
        assert child.stdout is not None
        with child.stdout as out:
            if role == processes.RAY:
                self.parts.append(psutil.Process(int(out.readline())))
        CHILDREN.append(child)
        return child


@pytest.mark.parametrize("end", ["called off", "too late"])
async def test_a_ray_that_has_not_started_leaves_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """All that its head has started ends with it, and its folder goes."""
    cluster, waits = Slow(read_settings()), asyncio.Event()

    async def wait(*_: object) -> None:
        waits.set()
        if end == "too late":
            raise TimeoutError
        await asyncio.Event().wait()

    monkeypatch.setattr(cluster, "_until", wait)
    connecting = asyncio.create_task(cluster.connect())
    async with asyncio.timeout(DEADLINE):
        await waits.wait()
    if end == "called off":
        connecting.cancel()
    with pytest.raises((asyncio.CancelledError, RayFailed)):
        await connecting
    assert len(cluster.parts) == 3
    left = [process for process in cluster.parts if not processes.gone(process, DEADLINE)]
    for process in left:
        process.kill()
    assert left == []
    assert not cluster.folder.exists()


async def test_a_cluster_that_says_nothing_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It accepts the connection; who waits meanwhile gets the same failure, and no second try."""
    monkeypatch.setattr("paddock.launcher.cluster.cluster.JOIN_SECONDS", 3.0)
    tries = []
    attempt = Cluster._connect

    async def counted(cluster: Cluster) -> None:
        tries.append(cluster)
        await attempt(cluster)

    monkeypatch.setattr(Cluster, "_connect", counted)
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        address = f"127.0.0.1:{deaf.getsockname()[1]}"
        environ = {"PADDOCK_HOME": str(tmp_path / "other"), "RAY_ADDRESS": address}
        cluster = Cluster(read_settings(environ=environ))
        failures = await asyncio.gather(
            cluster.connect(), cluster.connect(), return_exceptions=True
        )
    says = f"the Ray cluster at {address} (RAY_ADDRESS) did not answer within 3 s"
    assert [str(failure) for failure in failures] == [says, says]
    assert len(tries) == 1
    psutil.wait_procs(processes.belonging(cluster.instance), timeout=30)
    assert processes.belonging(cluster.instance) == []


async def test_an_address_where_nobody_listens_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`RayFailed` names the address and the variable that it came from, within its limit."""
    monkeypatch.setattr("paddock.launcher.cluster.cluster.JOIN_SECONDS", 3.0)
    environ = {"PADDOCK_HOME": str(tmp_path / "other"), "RAY_ADDRESS": "127.0.0.1:9"}
    cluster = Cluster(read_settings(environ=environ))
    with pytest.raises(RayFailed, match=r"127\.0\.0\.1:9 \(RAY_ADDRESS\)"):
        await cluster.connect()
    # What was killed may be a moment from its end.
    psutil.wait_procs(processes.belonging(cluster.instance), timeout=30)
    assert processes.belonging(cluster.instance) == []
    assert not cluster.connected
