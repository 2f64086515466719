"""The gateway's side of a Ray cluster that somebody else runs, with a second node."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from paddock.engines.base import Host
from paddock.launcher.cluster.cluster import ActorUnavailable, Cluster
from paddock.launcher.hosts import processes
from paddock.registry.settings import read_settings
from tests.launcher.cluster.test_cluster import CHILDREN, DEADLINE, launch, own

SCRIPT = Path(__file__).parent.parent / "e2e" / "ray_nodes.py"


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """A cluster of two nodes; the environment to join it is among its facts."""
    token = tmp_path_factory.mktemp("foreign") / "token"
    token.write_text("t" * 64)
    environ = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "PADDOCK_HOME": str(token.parent / "home"),
    }
    with subprocess.Popen(
        [sys.executable, str(SCRIPT)],
        env={**os.environ, **environ},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        yield {**json.loads(process.stdout.readline()), "environ": environ}
        process.communicate("", timeout=DEADLINE)
    for child in CHILDREN:
        child.wait(DEADLINE)


@pytest.fixture
async def cluster(nodes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Cluster]:
    """A gateway's connection to it; at the end its bridge is ended too."""
    for variable, value in nodes["environ"].items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("RAY_ADDRESS", nodes["address"])
    cluster = Cluster(read_settings())
    await cluster.connect()
    yield cluster
    await cluster.shutdown()


async def other(cluster: Cluster, *paths: str) -> Host:
    """The facts of the second node."""
    _, host = await cluster.hosts(paths)
    return host


async def test_a_killed_bridge_ends_nothing_on_a_foreign_cluster(
    cluster: Cluster, nodes: dict[str, Any]
) -> None:
    """Actor and engine on another node go on, and the same handle works over the next bridge."""
    handle, status = await launch(cluster, "far-rep0@a.1", node=nodes["other"])
    own(cluster, processes.BRIDGE).kill()
    with pytest.raises(ActorUnavailable):
        await handle.watch(status.version)
    await cluster.connect()
    assert (await handle.watch(0)).pid == status.pid
    assert await cluster.actors() == {"far-rep0@a.1"}
    await cluster.end("far-rep0@a.1", nodes["other"])


async def test_a_stopped_actor_is_ended_on_its_own_node(
    cluster: Cluster, nodes: dict[str, Any]
) -> None:
    """The node's agent kills the actor, warden and engine, and says that they are gone."""
    _, status = await launch(cluster, "far-rep1@a.1", node=nodes["other"], child=True)
    engine = psutil.Process(status.pid)
    rest = [engine, *engine.children(), *engine.parents()[:2]]
    os.kill(rest[-1].pid, signal.SIGSTOP)
    await cluster.end("far-rep1@a.1", nodes["other"])
    assert [process for process in rest if not processes.gone(process, 0.1)] == []
    assert await cluster.actors() == set()


async def test_a_node_tells_its_facts_and_a_dead_one_is_lost(
    cluster: Cluster, nodes: dict[str, Any], tmp_path: Path
) -> None:
    """Facts come with their age and named files; when the node has died, it is among the lost."""
    (tmp_path / "weights").write_bytes(b"12345")
    host = await other(cluster, str(tmp_path / "weights"))
    assert host.node == nodes["other"]
    assert host.files[str(tmp_path / "weights")] == 5
    assert 0.0 <= (await other(cluster)).age_seconds < DEADLINE
    assert await cluster.lost_nodes() == set()
    os.kill(nodes["raylet"], signal.SIGKILL)
    async with asyncio.timeout(DEADLINE):
        while await cluster.lost_nodes() != {nodes["other"]}:  # noqa: ASYNC110 - Ray's to notice
            await asyncio.sleep(0.1)
    with pytest.raises(ActorUnavailable):
        await cluster.end("gone-rep0@a.1", nodes["other"])
