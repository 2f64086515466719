"""A fleet over a fake cluster: real planning, real decisions, a real state file, no Ray."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from paddock.engines.base import Host
from paddock.launcher.fleet import activity, decide, fleet, ledger, reconciler
from paddock.launcher.fleet.fleet import Fleet
from paddock.launcher.fleet.status import ModelStatus
from paddock.launcher.fleet.store import SqliteStore
from paddock.launcher.hosts.host import probe_host
from paddock.launcher.planning.plan import LaunchRequest
from paddock.registry.catalog import Catalog
from paddock.registry.errors import StateNotWritten
from paddock.registry.settings import read_settings
from tests.fakes import FakeCluster

DEADLINE = 5.0
catalog = cache(Catalog.load)


@cache
def host() -> Host:
    """This machine."""
    return probe_host(Path("/nowhere"))


def hosts(*names: str) -> list[Host]:
    """This machine, and others like it by these names."""
    return [host(), *(replace(host(), node=name, name=name, address=name) for name in names)]


class FlakyStore(SqliteStore):
    """A state file that cannot be written while it is `broken`."""

    broken = False

    async def save(self, deployment: Any) -> None:
        self._check()
        await super().save(deployment)

    async def remove(self, uid: str) -> None:
        self._check()
        await super().remove(uid)

    def _check(self) -> None:
        if self.broken:
            raise StateNotWritten("paddock.db", "database is locked")


class World:
    """One home folder: its state file, its cluster, and the gateway that runs now."""

    def __init__(self, home: Path, *nodes: str) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.home = home
        self.settings = read_settings(environ={"PADDOCK_HOME": str(home)})
        self.cluster = FakeCluster(hosts(*nodes))
        self.store: FlakyStore
        self.fleet: Fleet

    async def start(self) -> Fleet:
        """A gateway begins."""
        self.store = FlakyStore(self.home / "paddock.db")
        self.fleet = Fleet(self.settings, catalog, self.store, self.cluster)
        await self.fleet.start()
        return self.fleet

    async def die(self) -> None:
        """The gateway is killed: nothing more is written, and nothing is ended."""
        keeper = self.fleet._reconciler
        keeper.ledger._dirty.clear()
        await keeper.close()

    async def restart(self) -> Fleet:
        """The gateway is killed, and the next one begins."""
        await self.die()
        return await self.start()

    async def launch(self, uid: str = "m", replicas: int = 1, **more: Any) -> ModelStatus:
        """Launches echo under this id."""
        return await self.fleet.launch(asking(uid, replicas, **more))

    async def ready(self, uid: str = "m", replicas: int = 1, **more: Any) -> ModelStatus:
        """Launches, and waits until all replicas are ready."""
        await self.launch(uid, replicas, **more)
        return await within(self.fleet.wait(uid))

    def state(self, replica_id: str = "m-rep0") -> str:
        """The state of a replica."""
        status = self.fleet._reconciler.ledger.status(replica_id.rpartition("-rep")[0])
        found = {one.replica_id: str(one.state) for one in status.replicas} if status else {}
        return found.get(replica_id, "none")

    async def until(self, condition: Callable[[], Any]) -> None:
        """Waits for what is to happen."""
        async with asyncio.timeout(DEADLINE):
            while not condition():  # noqa: ASYNC110 - the fake's changes are no events of the fleet
                await asyncio.sleep(0.001)

    async def looks(self, count: int) -> None:
        """Waits until the fleet has looked so often whether anything is due."""
        observe, rounds = self.fleet._reconciler.observation, 0

        def counted() -> Any:
            nonlocal rounds
            rounds += 1
            return observe()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self.fleet._reconciler, "observation", counted)
            # It observes twice a round, and may be within one now.
            await self.until(lambda: rounds > 2 * count)

    async def serves(self, *replicas: str) -> None:
        """Waits until these replicas are ready, each in one actor alone."""
        await self.until(
            lambda: all(
                self.state(one) == "ready" and len(self.cluster.running(one)) == 1
                for one in replicas or ("m-rep0",)
            )
        )

    def actor(self, replica_id: str = "m-rep0") -> Any:
        """The one actor that runs the replica."""
        (actor,) = self.cluster.running(replica_id)
        return actor


def asking(uid: str = "m", replicas: int = 1, **more: Any) -> LaunchRequest:
    """A launch of echo."""
    return LaunchRequest.parse(
        model_name="tiny-mixtral", model_engine="echo", model_uid=uid, replicas=replicas, **more
    )


async def within(waiting: Any) -> Any:
    """What is awaited, within the deadline."""
    return await asyncio.wait_for(waiting, DEADLINE)


class Mute:
    """A connection on which nothing comes; see `activity.EngineConnection`."""

    heard_at: float | None = None
    is_held = False


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is waited for between attempts comes at once."""
    hurry(monkeypatch.setattr)


def hurry(setattr: Callable[..., Any]) -> None:
    """Makes every pause short."""
    setattr(decide, "FIRST_DELAY", 0.001)
    for module in (ledger, reconciler):
        setattr(module, "RETRY_SECONDS", 0.001)
        setattr(module, "LONGEST_RETRY_SECONDS", 0.005)
    setattr(reconciler, "NODES_SECONDS", 0.005)
    setattr(reconciler, "NO_RAY_SECONDS", 0.005)
    setattr(reconciler, "NO_ROOM_SECONDS", 0.005)
    setattr(reconciler, "LOOK_SECONDS", 0.02)
    setattr(reconciler, "SYNC_SECONDS", 0.02)
    setattr(activity, "LOOK_SECONDS", 0.01)
    setattr(fleet, "VERDICT_SECONDS", 0.05)


@pytest.fixture
async def world(home: Path) -> AsyncIterator[World]:
    """A gateway that has begun, on one machine."""
    here = World(home)
    await here.start()
    yield here
    await here.die()


@pytest.fixture
async def cluster_world(home: Path) -> AsyncIterator[World]:
    """A gateway that has begun, on three machines."""
    here = World(home, "n1", "n2")
    await here.start()
    yield here
    await here.die()
