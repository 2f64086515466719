"""What `paddock stop` says while it waits."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import psutil
import pytest

from paddock.cli import stop
from paddock.cli.errors import exit_code
from paddock.cli.output import Output
from paddock.launcher.cluster.cluster import RayFailed
from paddock.launcher.cluster.head import FILE, Record
from paddock.launcher.cluster.sweep import end_all
from paddock.launcher.fleet.deployment import Deployment, deploy
from paddock.launcher.fleet.store import SqliteStore
from paddock.launcher.hosts.host import LOCAL
from paddock.launcher.hosts.processes import ACTOR_VARIABLE, INSTANCE_VARIABLE, instance_id
from paddock.launcher.planning.place import Place
from paddock.registry.errors import ModelsLeft, ReplicasLeft
from paddock.registry.settings import Settings, read_settings
from tests.conftest import Paddock
from tests.fakes import FakeActor, FakeCluster
from tests.launcher.replicas.test_replica import echo

T = TypeVar("T")


@pytest.fixture
def gateway() -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends when its stdin does, in place of a gateway."""
    command = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def test_a_gateway_that_finishes_requests_is_waited_for_in_words(
    gateway: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command says that it waits and for how long, and ends nothing by force."""
    monkeypatch.setattr(stop, "QUIET_SECONDS", 0.05)
    lines: list[str] = []

    class Ending(Output):
        def talk(self, text: str) -> None:
            lines.append(text)
            assert gateway.stdin is not None
            gateway.stdin.close()

    assert stop._end_gateway(psutil.Process(gateway.pid), 30.0, Ending(False)) == []
    assert len(lines) == 1
    assert "30 s" in lines[0]


def test_a_gateway_that_does_not_end_is_ended_by_force(
    gateway: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After its time its process is gone, and its number is told."""
    monkeypatch.setattr(stop, "QUIET_SECONDS", 0.05)
    own = psutil.Process(gateway.pid)
    assert stop._end_gateway(own, 0.1, Output(True)) == [gateway.pid]
    assert not own.is_running()


class Left:
    """A home whose gateway is dead, and the foreign cluster on which its replicas are."""

    def __init__(self, home: Path, patch: pytest.MonkeyPatch) -> None:
        self.cluster = FakeCluster([])
        self.cluster.external = True
        self.address = ""
        self.record = home / FILE
        self._home = home
        instance_id(home)
        Record("10.0.0.1:6379", str(home / "gone"), {}).write(home)
        patch.setattr("paddock.launcher.cluster.cluster.Cluster", self._join)

    def _join(self, settings: Settings) -> FakeCluster:
        self.address = settings.ray_address
        return self.cluster

    def deploy(self, *nodes: str) -> Deployment:
        """A model with a replica on each of these nodes."""
        plan = echo()
        places = tuple(Place(node, node) for node in nodes)
        made = deploy(plan.model_copy(update={"model_id": "m"}), places, {}, 1.0)
        self._store(lambda store: store.save(made))
        for record in made.replicas:
            actor = FakeActor(self.cluster, record.actor, record.place.node, {})
            self.cluster.alive[record.actor] = actor
        return made

    def rows(self) -> tuple[Deployment, ...]:
        """What the state file has."""
        return self._store(lambda store: store.load())

    def _store(self, work: Callable[[SqliteStore], Awaitable[T]]) -> T:
        async def run() -> T:
            store = SqliteStore(self._home / "paddock.db")
            try:
                return await work(store)
            finally:
                await store.close()

        return asyncio.run(run())

    def stop(self) -> set[str]:
        """`paddock stop` after the gateway; the models that it has ended."""
        models: set[str] = set()
        stop._sweep(read_settings(), models)
        return models


@pytest.fixture
def left(home: Path, monkeypatch: pytest.MonkeyPatch) -> Left:
    return Left(home, monkeypatch)


def test_every_replica_of_a_foreign_cluster_is_tried(left: Left) -> None:
    """By the address in the home's record; those that cannot be ended are named, and stay known."""
    first, second, third = left.deploy("n1", "n2", "n3").replicas
    left.cluster.partitioned.add(second.actor)
    with pytest.raises(ReplicasLeft, match=r"m-rep1 may still run .* 10\.0\.0\.1:6379") as error:
        left.stop()
    assert left.address == "10.0.0.1:6379"
    assert error.value.replicas == (second.id,)
    assert exit_code(error.value) == 1
    assert set(left.cluster.alive) == {second.actor}
    assert {actor for _, actor in left.cluster.calls} == {first.actor, third.actor}
    (row,) = left.rows()
    assert row.wanted == "gone"
    left.cluster.partitioned.clear()
    assert left.stop() == {"m"}
    assert left.cluster.alive == {}
    assert left.rows() == ()
    assert not left.record.exists()


def test_replicas_here_end_though_the_foreign_cluster_is_away(home: Path, left: Left) -> None:
    """With the worker of that Ray; those on other nodes are named each time that it is stopped."""
    near, far = left.deploy(LOCAL, "n1").replicas
    own = {INSTANCE_VARIABLE: instance_id(home), ACTOR_VARIABLE: near.actor}
    warden = "import signal; print('runs', flush=True); signal.pause()"
    worker = (
        "import signal, subprocess;"
        f"subprocess.Popen([{sys.executable!r}, '-c', {warden!r}], env={own!r}); signal.pause()"
    )
    with subprocess.Popen(
        ["ray::Replica", "-c", worker], executable=sys.executable, env={}, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"runs\n"
            for _ in range(2):
                left.cluster.trouble("connect", RayFailed("no answer"))
                with pytest.raises(ReplicasLeft, match="no answer") as error:
                    left.stop()
                assert error.value.replicas == (far.id,)
            process.wait(30)
        finally:
            process.kill()
            end_all(home, 0.0)
    left.record.unlink()
    assert left.stop() == set()
    assert left.rows() == ()


@pytest.mark.parametrize("command", ["serve", "list", "launch tiny-mixtral -en echo"])
def test_a_home_that_cannot_be_written_is_refused_in_one_line(
    paddock: Paddock, command: str
) -> None:
    """It is named with the reason and the way out; no traceback."""
    home = "/proc/paddock"  # not even root can make it
    done = paddock.run(*command.split(), PADDOCK_HOME=home)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert home in line
    assert "PADDOCK_HOME" in line


def test_stop_in_a_home_where_nothing_has_run_makes_none(paddock: Paddock) -> None:
    """`stop` without a home leaves it so."""
    assert not paddock.json("stop")["stopped"]
    assert not paddock.home.exists()


@pytest.mark.parametrize("spoil", ["not a database", "newer"])
def test_state_file_that_cannot_be_used_is_told_after_all_has_ended(home: Path, spoil: str) -> None:
    """It is not said that nothing was changed: the processes are gone."""
    home.mkdir()
    instance_id(home)
    path = home / "paddock.db"
    if spoil == "newer":
        with closing(sqlite3.connect(path)) as file:
            file.execute("PRAGMA user_version = 99")
    else:
        path.write_text("no database at all, but long enough to be looked at as one" * 100)
    (home / "jobs").mkdir()
    with pytest.raises(ModelsLeft, match=r"all has ended.* paddock stop once more") as error:
        stop._sweep(read_settings(), set())
    assert exit_code(error.value) == 1
    assert not (home / "jobs").exists()
