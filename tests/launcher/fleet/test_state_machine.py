"""Launches, ends, crashes, hangs, lost nodes and failing calls in any order: nothing goes wrong.

Whatever has happened, once the troubles are over: each replica that is wanted runs in one actor
and serves, no other actor lives, the state file holds what is listed, no memory stays promised,
every termination has returned, and no request holds a slot. At no time do two starts of a replica
serve, unless one of them was out of sight.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from paddock.launcher.cluster.cluster import ActorLost, ActorUnavailable, RayFailed
from paddock.launcher.fleet import fleet as fleet_module
from paddock.launcher.fleet.activity import Lease
from paddock.launcher.fleet.store import to_document
from paddock.registry.errors import PaddockError
from tests.fakes import FakeActor
from tests.launcher.fleet.conftest import Mute, World, hurry

UIDS = ("a", "b")
CALLS = ("start", "start late", "begin", "watch", "stop", "end", "find", "actors", "nodes")
ERRORS = (ActorLost("x"), ActorUnavailable("x"), RuntimeError("x"), TimeoutError("x"))
INDEX = st.integers(0, 11)
"""Which actor: how many live is a matter of time, and what is drawn must not be."""
TURNS = 30
SETTLED_SECONDS = 10.0


class Fleets(RuleBasedStateMachine):
    """One home over the lives of several gateways."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self._patch = pytest.MonkeyPatch()
        hurry(self._patch.setattr)
        self._patch.setattr(fleet_module, "TERMINATE_SECONDS", 60.0)
        self.loop = asyncio.new_event_loop()
        self.world = World(Path(self._folder.name), "n1", "n2")
        self.ending: list[asyncio.Task[None]] = []
        self.leases: list[Lease] = []
        self.unseen: set[str] = set()
        """Actors that were cut off, or on a lost node: they are ended once they are seen again."""

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Runs it, then gives everything else some turns."""

        async def run() -> Any:
            result = await work
            for _ in range(TURNS):
                await asyncio.sleep(0)
            await asyncio.sleep(0.002)
            return result

        return self.loop.run_until_complete(asyncio.wait_for(run(), SETTLED_SECONDS))

    async def quietly(self, work: Awaitable[Any]) -> None:
        """Does what may be refused."""
        with suppress(PaddockError, RuntimeError, TimeoutError):
            await asyncio.wait_for(work, 5.0)

    @property
    def actors(self) -> list[FakeActor]:
        """Those that live, in a stable order."""
        return [self.world.cluster.alive[name] for name in sorted(self.world.cluster.alive)]

    @initialize()
    def begin(self) -> None:
        """The first gateway."""
        self.do(self.world.start())

    @rule(uid=st.sampled_from(UIDS), replicas=st.integers(1, 3))
    def launch(self, uid: str, replicas: int) -> None:
        """Somebody launches."""
        self.do(self.quietly(self.world.launch(uid, replicas)))

    @rule(uid=st.sampled_from(UIDS))
    def terminate(self, uid: str) -> None:
        """Somebody ends a model, and does not wait."""

        async def begin() -> None:
            self.ending.append(asyncio.create_task(self.quietly_end(uid)))

        self.do(begin())

    async def quietly_end(self, uid: str) -> None:
        with suppress(PaddockError):
            await self.world.fleet.terminate(uid)

    @rule(uid=st.sampled_from(UIDS))
    def grow(self, uid: str) -> None:
        """Somebody adds a replica."""
        self.do(self.quietly(self.world.fleet.add_replicas(uid, 1)))

    @rule(uid=st.sampled_from(UIDS), number=st.integers(0, 3))
    def shrink(self, uid: str, number: int) -> None:
        """Somebody removes a replica, and does not wait."""

        async def begin() -> None:
            work = self.quietly(self.world.fleet.remove_replica(uid, str(number)))
            self.ending.append(asyncio.create_task(work))

        self.do(begin())

    @rule(uid=st.sampled_from(UIDS))
    def ask(self, uid: str) -> None:
        """Somebody asks a model, and gives up if there is no slot soon."""

        async def ask() -> None:
            with suppress(PaddockError, TimeoutError):
                async with asyncio.timeout(0.005):
                    lease = await self.world.fleet.ensure_ready(uid)
                    lease.attach(Mute(), lambda _: None)
                    self.leases.append(lease)

        self.do(ask())

    @rule()
    def answer(self) -> None:
        """The requests are done."""
        for lease in self.leases:
            lease.release()
        self.leases.clear()

    @rule(index=INDEX, cause=st.sampled_from(("engine_killed", "oom", "bad_option")))
    def crash(self, index: int, cause: str) -> None:
        """An engine ends."""
        self.of(index, lambda actor: actor.fail(cause))

    @rule(index=INDEX)
    def hang(self, index: int) -> None:
        """An engine hangs."""
        self.of(index, lambda actor: actor.hang())

    @rule(index=INDEX)
    def kill(self, index: int) -> None:
        """An actor is killed."""
        self.of(index, lambda actor: self.world.cluster.kill(actor.actor))

    @rule(index=INDEX)
    def cut_off(self, index: int) -> None:
        """An actor cannot be reached."""

        def cut(actor: FakeActor) -> None:
            self.world.cluster.partitioned.add(actor.actor)
            self.unseen.add(actor.actor)
            actor.wake()

        self.of(index, cut)

    def of(self, index: int, change: Callable[[FakeActor], None]) -> None:
        """Does it to one of the actors that live now, if any do."""
        if actors := self.actors:
            self.do(self.at_once(lambda: change(actors[index % len(actors)])))

    @rule()
    def join(self) -> None:
        """All actors can be reached again."""
        self.world.cluster.partitioned.clear()
        self.do(asyncio.sleep(0))

    @rule(node=st.sampled_from(("n1", "n2")))
    def lose_node(self, node: str) -> None:
        """A node is lost."""
        self.unseen |= {one.actor for one in self.actors if one.node == node}
        self.do(self.at_once(lambda: self.world.cluster.lose_node(node)))

    @rule(node=st.sampled_from(("n1", "n2")))
    def return_node(self, node: str) -> None:
        """A node is back."""
        self.do(self.at_once(lambda: self.world.cluster.return_node(node)))

    @rule()
    def break_bridge(self) -> None:
        """The bridge dies."""
        self.do(self.at_once(self.world.cluster.break_bridge))

    @rule()
    def end_ray(self) -> None:
        """All of Ray dies."""
        self.do(self.at_once(self.world.cluster.end_ray))

    @rule()
    def restart(self) -> None:
        """The gateway is killed, and all who waited for it; the next one begins."""

        async def restart() -> None:
            for task in self.ending:
                task.cancel()
            await asyncio.gather(*self.ending, return_exceptions=True)
            self.ending.clear()
            self.leases.clear()
            await self.world.restart()

        self.do(restart())

    @rule(call=st.sampled_from(CALLS), error=st.sampled_from(ERRORS), times=st.integers(1, 3))
    def trouble(self, call: str, error: Exception, times: int) -> None:
        """The next calls fail."""
        self.world.cluster.trouble(call, *[error] * times)
        self.do(asyncio.sleep(0))

    @rule()
    def no_ray(self) -> None:
        """Ray does not start the next time."""
        self.world.cluster.trouble("connect", RayFailed("no"))

    @rule(broken=st.booleans())
    def state_file(self, broken: bool) -> None:
        """The state file cannot be written, or can again."""
        self.world.store.broken = broken
        self.do(asyncio.sleep(0))

    async def at_once(self, change: Any) -> None:
        change()

    @invariant()
    def no_replica_serves_twice(self) -> None:
        """One start of a replica serves at most; what comes back into sight ends soon."""
        serving = self._serving(lambda actor: actor.actor not in self.unseen)
        assert len(serving) == len(set(serving)), serving
        cut_off = self.world.cluster.partitioned
        seen = self._serving(lambda actor: actor.actor not in cut_off)
        if len(seen) != len(set(seen)):
            self.do(self.world.until(lambda: not self._doubled()))

    def _serving(self, counts: Callable[[FakeActor], bool]) -> list[str]:
        """The replicas of the actors that are ready on nodes that can be seen, and count."""
        return [
            one.status.replica_id
            for one in self.actors
            if one.status.state == "ready"
            and one.node not in self.world.cluster.lost
            and counts(one)
        ]

    def _doubled(self) -> bool:
        serving = self._serving(lambda _: True)
        return len(serving) != len(set(serving))

    def teardown(self) -> None:
        """The troubles are over: everything is as it is wanted."""
        try:
            if hasattr(self.world, "fleet"):
                self.do(self.settle())
        finally:
            if hasattr(self.world, "fleet"):
                self.do(self.world.die())
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
            self.loop.close()
            self._patch.undo()
            self._folder.cleanup()

    async def settle(self) -> None:
        world = self.world
        world.cluster.troubles.clear()
        world.cluster.partitioned.clear()
        for node in list(world.cluster.lost):
            world.cluster.return_node(node)
        world.store.broken = False
        keeper = world.fleet._reconciler
        try:
            await world.until(self.is_settled)
        except TimeoutError:
            ledger = keeper.ledger
            known = [f"{name} {one.ended} {one.node}" for name, one in ledger.sightings.items()]
            rows = [record for one in ledger.deployments.values() for record in one.replicas]
            raise AssertionError(
                f"alive {sorted(world.cluster.alive)}; known {known}; "
                f"busy {list(keeper._effects)}; lost {keeper._lost_nodes}; rows {rows}"
            ) from None
        await asyncio.wait_for(asyncio.gather(*self.ending), SETTLED_SECONDS)
        wanted = sorted(map(_written, keeper.ledger.deployments.values()), key=_uid)
        while await self.written() != wanted:  # noqa: ASYNC110 - within the deadline of `do`
            await asyncio.sleep(0.001)
        assert world.fleet._reservations() == []
        self.answer()
        assert world.fleet._loads() == {}

    async def written(self) -> list[Any]:
        """What the state file has."""
        return sorted(map(_written, await self.world.store.load()), key=_uid)

    def is_settled(self) -> bool:
        """Whether what runs is what is wanted."""
        keeper = self.world.fleet._reconciler
        if not keeper.is_complete:
            return False
        wanted = set()
        for deployment in keeper.ledger.deployments.values():
            if deployment.wanted == "gone":
                return False
            for record in deployment.replicas:
                if record.is_leaving:
                    return False
                if not record.given_up:
                    wanted.add(record.actor)
        alive = self.world.cluster.alive
        return set(alive) == wanted and all(
            replica.state in {"ready", "failed"}
            for model in self.world.fleet.models()
            for replica in model.replicas
        )


def _uid(document: Any) -> str:
    return str(document["uid"])


def _written(deployment: Any) -> Any:
    """As the state file has it: JSON, without the clock of one gateway."""
    return json.loads(json.dumps(to_document(deployment)))


Fleets.TestCase.settings = settings(
    max_examples=60,
    phases=(Phase.generate,),
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
TestFleets = Fleets.TestCase
