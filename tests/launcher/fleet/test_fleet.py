"""The life of models, from the outside: what is wanted is kept, whatever fails."""

from __future__ import annotations

import asyncio
import socket
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from paddock.engines.base import Detection
from paddock.launcher.cluster.cluster import ActorLost, ActorUnavailable, RayFailed
from paddock.launcher.fleet import decide, reconciler
from paddock.launcher.fleet import fleet as fleet_module
from paddock.launcher.fleet.deployment import deploy
from paddock.launcher.planning.place import Place
from paddock.launcher.planning.plan import Attached, LaunchRequest
from paddock.launcher.replicas.attach_request import AttachRequest
from paddock.launcher.replicas.diagnosis import Diagnosis, Failure
from paddock.registry.errors import (
    BadValue,
    Cancelled,
    EndNotWritten,
    LaunchFailed,
    NoEngine,
    NoRoom,
    NotLaunched,
    NotReady,
    StateNotWritten,
    StillEnding,
    UidInUse,
    UnknownName,
)
from tests.launcher.fleet.conftest import DEADLINE, Mute, World, asking, hosts, within


async def test_launch_gets_ready_and_its_end_leaves_nothing(world: World) -> None:
    """An actor for each replica, by a name with its generation; none, and no row, afterwards."""
    status = await world.ready(replicas=2)
    assert [one.state for one in status.replicas] == ["ready", "ready"]
    assert all("@" in name for name in world.cluster.alive)
    await within(world.fleet.terminate("m"))
    assert world.cluster.alive == {}
    assert world.fleet.models() == ()
    await world.restart()
    assert world.fleet.models() == ()


async def test_ids_are_taken_until_their_model_has_failed(world: World) -> None:
    """A second launch of an id is refused, and replaces a model that has failed."""
    await world.ready()
    with pytest.raises(UidInUse):
        await world.launch()
    world.cluster.holds.add("m-rep0")
    await within(world.fleet.terminate("m"))
    await world.launch()
    await world.until(lambda: world.cluster.running("m-rep0"))
    world.actor().fail("load_failed")
    with pytest.raises(LaunchFailed):
        await within(world.fleet.wait("m"))
    world.cluster.holds.clear()
    await world.ready()
    assert len(world.cluster.alive) == 1


async def test_row_of_a_model_before_does_not_take_the_next_one_with_it(world: World) -> None:
    """It is removed in the background, and an id may be launched again at once."""
    for _ in range(5):
        await world.ready()
        await within(world.fleet.terminate("m"))
        await world.launch()
        await within(world.fleet.wait("m"))
        await world.until(lambda: not world.fleet._reconciler.ledger._dirty)
        assert [one.uid for one in await world.store.load()] == ["m"]
        await within(world.fleet.terminate("m"))


@pytest.mark.parametrize("cause", ["engine_killed", "engine_exited", "oom"])
async def test_engine_that_ends_comes_back(world: World, cause: str) -> None:
    """In an actor of its own, with the same plan; the restart is counted, and its cause told."""
    before = await world.ready()
    first = world.actor()
    first.fail(cause, exit_code=9)
    await world.until(lambda: world.fleet.get("m").restarts == 1)
    await world.serves()
    after = world.fleet.get("m")
    assert world.actor() is not first
    assert after.plan == before.plan
    assert (after.replicas[0].last_failure or {})["cause"] == cause
    assert after.diagnosis is None
    texts = [event.text for event in world.fleet.events("m")]
    assert any(cause in text and "starts again in" in text for text in texts)


async def test_broken_request_learns_why_its_engine_died(world: World) -> None:
    """The cause is that of this very death, be it noted yet or not, and not of one before."""
    await world.ready()
    for cause in ("engine_killed", "engine_exited"):
        await world.serves()
        lease = await within(world.fleet.ensure_ready("m"))
        asking = asyncio.create_task(world.fleet.verdict(lease))
        await asyncio.sleep(0)
        world.actor().fail(cause)
        assert (await within(asking) or {})["cause"] == cause
        lease.release()


@pytest.mark.parametrize(("fault", "between"), [("fail", []), ("hang", ["unhealthy"])])
async def test_replica_that_is_started_again_is_never_shown_as_failed(
    world: World, fault: str, between: list[str]
) -> None:
    """Nor as stopped: who watches would take the model for lost."""
    await world.ready()
    before = world.fleet.bus.number
    getattr(world.actor(), fault)()
    await world.until(lambda: world.fleet.get("m").restarts == 1)
    await world.serves()
    changes = [one.change for one in world.fleet.bus.since(before) or []]
    expected = [*between, "pending", "ready"]
    assert [one.model.state for one in changes if one.kind == "model"] == expected
    assert [one.replica.state for one in changes if one.replica and one.kind == "replica"] == (
        expected
    )
    assert {one.replica.next_try_at is None for one in changes if one.replica} == {True, False}


async def test_launch_that_fails_is_never_shown_as_waiting(world: World) -> None:
    """From its start on it is on its way, then failed."""
    world.cluster.holds.add("m-rep0")
    await world.launch()
    await world.until(lambda: world.cluster.running("m-rep0"))
    world.actor().become("starting")
    await world.until(lambda: world.state() == "starting")
    before = world.fleet.bus.number
    world.actor().fail("corrupt_file")
    await world.until(lambda: world.state() == "failed")
    changes = [one.change for one in world.fleet.bus.since(before) or []]
    assert [one.model.state for one in changes] == ["failed", "failed"]


async def test_silent_engine_is_probed_now_and_then(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a rest between two probes: one that is only busy would soon count as hung."""
    monkeypatch.setattr(decide, "PROBE_SECONDS", 0.001)
    await world.ready()
    lease = await within(world.fleet.ensure_ready("m"))
    monkeypatch.setattr(decide, "QUIET_SECONDS", 0.0)
    lease.attach(Mute(), lambda _: None)
    probe = ("probe", world.actor().actor)
    await world.until(lambda: world.cluster.calls.count(probe) >= 3)
    monkeypatch.setattr(decide, "PROBE_SECONDS", 3600.0)
    probes = world.cluster.calls.count(probe)
    await world.looks(3)
    assert world.cluster.calls.count(probe) <= probes + 1  # which was under way
    lease.release()


async def test_restart_waits_its_time_and_says_when(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its actor is there before that, and begins nothing; the cause and the time are told."""
    await world.ready()
    monkeypatch.setattr(decide, "FIRST_DELAY", 300.0)
    monkeypatch.setattr(decide, "AHEAD_SECONDS", 300.0)
    world.actor().fail("oom")
    await world.until(lambda: world.fleet.get("m").restarts and world.cluster.running("m-rep0"))
    await world.until(lambda: len(world.cluster.alive) == 1)
    (replica,) = world.fleet.get("m").replicas
    assert (replica.state, (replica.last_failure or {})["cause"]) == ("pending", "oom")
    assert replica.next_try_at is not None
    assert 0 < replica.next_try_at - time.time() <= 300.0
    assert world.actor().status.state == "pending"
    await within(world.fleet.terminate("m"))
    assert world.cluster.alive == {}


async def test_actor_that_is_killed_comes_back(world: World) -> None:
    """As its engine does."""
    await world.ready(replicas=2)
    world.cluster.kill(world.actor("m-rep1").actor)
    await world.until(lambda: world.fleet.get("m").restarts == 1)
    await world.serves("m-rep0", "m-rep1")


async def test_first_start_that_fails_is_reported_and_not_tried_again(world: World) -> None:
    """Whoever launches is told; nothing of it is left but the row with the diagnosis."""
    world.cluster.holds.add("m-rep0")
    await world.launch()
    await world.until(lambda: world.cluster.running("m-rep0"))
    world.actor().fail("oom")
    with pytest.raises(LaunchFailed):
        await within(world.fleet.wait("m"))
    await world.until(lambda: not world.cluster.alive)
    assert world.state() == "failed"
    await world.restart()
    assert world.state() == "failed"
    assert world.cluster.alive == {}


@pytest.mark.parametrize(
    ("options", "failure"),
    [
        ({"restart": "never"}, {"cause": "engine_killed"}),
        ({}, {"cause": "weights_mismatch"}),
        ({}, {"cause": "engine_exited", "exit_code": 0}),
        ({"restart_tries": 0}, {"cause": "engine_killed"}),
    ],
)
async def test_what_is_not_to_be_tried_again_is_given_up(
    world: World, options: dict[str, Any], failure: dict[str, Any]
) -> None:
    """The policy, a cause that would come again, or an orderly exit: failed, with the cause."""
    await world.ready(**options)
    world.actor().fail(**failure)
    await world.until(lambda: world.state() == "failed")
    assert (world.fleet.get("m").diagnosis or {})["cause"] == failure["cause"]
    await world.until(lambda: not world.cluster.alive)


async def test_always_starts_again_after_an_orderly_exit_too(world: World) -> None:
    """`--restart always`."""
    await world.ready(restart="always")
    world.actor().fail("engine_exited", exit_code=0)
    await world.until(lambda: world.fleet.get("m").restarts == 1)
    await world.serves()


async def test_tries_are_limited(world: World) -> None:
    """After so many failures in a row there is no other start."""
    await world.ready(restart_tries=2)
    for number in (1, 2):
        world.actor().fail()
        await world.until(lambda: world.fleet.get("m").restarts == number)  # noqa: B023
        await world.serves()
    world.actor().fail()
    await world.until(lambda: world.state() == "failed")
    assert world.fleet.get("m").restarts == 2


@pytest.mark.parametrize(
    ("field", "value"),
    [("restart", "sometimes"), ("restart_tries", -1), ("silence_seconds", 0.0)],
)
async def test_policies_that_do_not_exist_are_refused(world: World, field: str, value: Any) -> None:
    """By their name, and nothing is begun."""
    with pytest.raises((UnknownName, BadValue), match=str(value)):
        await world.launch(**{field: value})
    assert world.fleet.models() == ()


async def test_replica_that_hangs_gets_no_requests_and_is_started_again(world: World) -> None:
    """Its requests are told, its actor is ended, and a new one serves."""
    await world.ready()
    lease = await within(world.fleet.ensure_ready("m"))
    reasons: list[str] = []
    lease.on_revoked = reasons.append
    first = world.actor()
    first.hang()
    await world.until(lambda: world.fleet.get("m").restarts == 1)
    await world.serves()
    assert reasons == ["hangs"]
    assert first.stopped
    lease.release()


async def test_requests_wait_for_a_model_that_comes_back(world: World) -> None:
    """A model that has served is waited for; one that is yet to get ready is not."""
    world.cluster.holds.add("m-rep0")
    await world.launch()
    with pytest.raises(NotReady):
        await within(world.fleet.ensure_ready("m"))
    await world.until(lambda: world.cluster.running("m-rep0"))
    world.actor().become("ready")
    await within(world.fleet.wait("m"))
    await world.until(lambda: world.fleet.get("m").recovering)
    world.actor().fail()
    await world.until(lambda: world.state() != "ready")
    asking = asyncio.create_task(world.fleet.ensure_ready("m"))
    await world.until(lambda: world.fleet.get("m").restarts and world.cluster.running("m-rep0"))
    assert not asking.done()
    world.actor().become("ready")
    lease = await within(asking)
    assert lease.replica.endpoint == world.actor().status.endpoint
    lease.release()


async def test_termination_that_fails_is_done_again(world: World) -> None:
    """Whatever the actor or Ray answers, the end is tried until nothing is left (B2)."""
    await world.ready(replicas=2)
    world.cluster.trouble("stop", RuntimeError("OSError"), ActorUnavailable("away"))
    world.cluster.trouble("end", RuntimeError("internal"), TimeoutError(), ActorLost("gone"))
    await within(world.fleet.terminate("m"))
    assert world.cluster.alive == {}


async def test_actor_that_does_not_answer_is_ended_by_force(world: World) -> None:
    """It is asked once to stop its engine; then all of it is ended, and the model is gone."""
    await world.ready()
    actor = world.actor()
    world.cluster.trouble(f"stop {actor.actor}", TimeoutError())
    await within(world.fleet.terminate("m"))
    assert not actor.stopped
    assert world.cluster.calls[-1] == ("end", actor.actor)
    assert world.cluster.alive == {}
    assert world.fleet.models() == ()


async def test_termination_says_when_it_takes_longer_and_can_be_repeated(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is never said to be done while something lives; asked again, it goes on."""
    await world.ready()
    name = world.actor().actor
    world.cluster.partitioned.add(name)
    monkeypatch.setattr(fleet_module, "TERMINATE_SECONDS", 0.05)
    with pytest.raises(StillEnding, match="m-rep0"):
        await within(world.fleet.terminate("m"))
    assert world.state() == "stopping"
    with pytest.raises(UidInUse):
        await world.launch()
    monkeypatch.undo()
    world.cluster.partitioned.clear()
    await within(world.fleet.terminate("m"))
    assert world.cluster.alive == {}
    with pytest.raises(NotLaunched):
        world.fleet.get("m")


async def test_what_runs_here_ends_though_a_foreign_cluster_is_away(
    cluster_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its engine is a process of this machine; what runs elsewhere stays to be ended later."""
    world, cluster = cluster_world, cluster_world.cluster
    cluster.external = True
    await world.ready(replicas=2)
    near, far = sorted(cluster.alive.values(), key=lambda one: one.node != "local")
    assert far.node != "local"
    killed: list[str] = []

    def end_actor(_: str, actor: str) -> list[int]:
        killed.append(actor)
        del cluster.alive[actor]
        return []

    async def away() -> None:
        raise RayFailed("the cluster does not answer")

    monkeypatch.setattr(reconciler, "end_actor", end_actor)
    with monkeypatch.context() as patch:
        patch.setattr(cluster, "connect", away)
        patch.setattr(fleet_module, "TERMINATE_SECONDS", 0.5)
        cluster.break_bridge()
        with pytest.raises(StillEnding, match=far.status.replica_id):
            await within(world.fleet.terminate("m"))
        await world.until(lambda: killed)
    await within(world.fleet.terminate("m"))
    assert killed == [near.actor]
    assert cluster.alive == {}


async def test_termination_goes_on_in_the_next_gateway(world: World) -> None:
    """A gateway that dies within it leaves no model that is `stopped` for ever (3.2)."""
    await world.ready()
    world.cluster.partitioned.add(world.actor().actor)
    ending = asyncio.create_task(world.fleet.terminate("m"))
    await world.until(lambda: world.state() == "stopping")
    ending.cancel()
    world.cluster.partitioned.clear()
    await world.restart()
    await world.until(lambda: not world.fleet.models())
    assert world.cluster.alive == {}


async def test_launch_is_called_off_at_any_point(world: World) -> None:
    """Before Ray is there, while the actor begins, and while the weights come."""
    held = asyncio.Event()
    connect = world.cluster.connect

    async def slow() -> None:
        await held.wait()
        await connect()

    world.cluster.connect = slow  # type: ignore[method-assign]
    await world.launch()
    await world.until(lambda: world.fleet.get("m").replicas[0].note == "starting Ray")
    waiting = asyncio.create_task(world.fleet.wait("m"))
    await within(world.fleet.terminate("m"))
    with pytest.raises(Cancelled):
        await within(waiting)
    held.set()
    world.cluster.holds.add("m-rep0")
    await world.launch()
    await world.until(lambda: world.cluster.running("m-rep0"))
    await within(world.fleet.terminate("m"))
    assert world.cluster.alive == {}


async def test_relaunch_never_meets_the_actor_of_the_launch_before(world: World) -> None:
    """Though that one lives on after a partition: it is ended when it is seen again (B3)."""
    await world.ready(engine_options={"slots": 4})
    old = world.actor()
    world.cluster.partitioned.add(old.actor)
    world.fleet.doubt("m", "m-rep0")
    old_gone = asyncio.create_task(world.fleet.terminate("m"))
    await world.until(lambda: world.state() == "stopping")
    world.cluster.partitioned.clear()
    await within(old_gone)
    await world.ready(engine_options={"slots": 7})
    assert world.actor() is not old
    assert world.actor().plan["slots"] == world.fleet.get("m").plan.slots == 7


async def test_actor_that_no_row_wants_is_ended_whenever_it_is_seen(world: World) -> None:
    """Also long after the start of the gateway."""
    await world.ready()
    actor = world.actor()
    orphan = type(actor)(world.cluster, "gone-rep0@00000000.0", "local", {})
    world.cluster.alive[orphan.actor] = orphan
    await world.until(lambda: orphan.actor not in world.cluster.alive)
    assert world.actor() is actor


async def test_models_of_an_earlier_gateway_are_taken_up(world: World) -> None:
    """What lives is followed and not started again; what died meanwhile is started."""
    await world.ready("a")
    await world.ready("b")
    kept = world.actor("a-rep0")
    await world.die()
    world.cluster.kill(world.actor("b-rep0").actor)
    await world.start()
    await world.serves("a-rep0", "b-rep0")
    assert world.actor("a-rep0") is kept


async def test_adoption_survives_a_ray_that_fails_at_first(world: World) -> None:
    """Listing the actors is tried until it succeeds; then every model is followed (B4)."""
    await world.ready()
    await world.die()
    world.cluster.trouble("connect", RayFailed("no"), RayFailed("no"))
    world.cluster.trouble("actors", ActorLost("Ray is gone"), RuntimeError("internal"))
    await world.start()
    assert not world.fleet.adopted
    await world.serves()
    assert world.fleet.adopted


async def test_after_a_reboot_what_was_wanted_starts(world: World) -> None:
    """No Ray, no actor: only the rows are there."""
    await world.ready(replicas=2)
    await world.die()
    world.cluster.end_ray()
    await world.start()
    await world.serves("m-rep0", "m-rep1")
    assert world.fleet.get("m").restarts == 0


async def test_lost_bridge_ends_nothing(world: World) -> None:
    """The models can be asked all the time, in the same actors; nothing counts as a failure."""
    await world.ready(replicas=2)
    actors = set(world.cluster.alive)
    world.cluster.trouble("connect", RayFailed("no"), RayFailed("no"))
    world.cluster.break_bridge()
    lease = await within(world.fleet.ensure_ready("m"))
    lease.release()
    await world.until(lambda: world.cluster.connected)
    await world.serves("m-rep0", "m-rep1")
    assert set(world.cluster.alive) == actors
    assert world.fleet.get("m").restarts == 0


async def test_slow_heartbeat_stops_nothing(world: World) -> None:
    """A replica that is not heard of is `unreachable`, gets requests, and is ready again later."""
    await world.ready()
    actor = world.actor()
    world.cluster.partitioned.add(actor.actor)
    actor.wake()
    await world.until(lambda: world.state() == "unreachable")
    assert world.fleet.ready("m").replicas[0].endpoint == actor.status.endpoint
    lease = await within(world.fleet.ensure_ready("m"))
    lease.release()
    world.cluster.partitioned.clear()
    await world.serves()
    assert world.actor() is actor


async def test_lost_ray_is_nobodys_failure(world: World) -> None:
    """All replicas start anew at once, however often they have failed before."""
    await world.ready(replicas=2, restart_tries=1)
    for number in (1, 2, 3):
        world.cluster.end_ray()
        await world.until(lambda: world.fleet.get("m").restarts == 2 * number)  # noqa: B023
        await world.serves("m-rep0", "m-rep1")


async def test_replicas_are_spread_and_move_from_a_lost_node(cluster_world: World) -> None:
    """Each on a node of its own; what a lost node had starts elsewhere, and nothing doubles."""
    world = cluster_world
    await world.ready(replicas=3)
    names = ["m-rep0", "m-rep1", "m-rep2"]
    assert sorted(world.actor(name).node for name in names) == ["local", "n1", "n2"]
    lost = next(name for name in names if world.actor(name).node == "n1")
    old = world.actor(lost)
    world.cluster.lose_node("n1")
    await world.until(lambda: world.state(lost) == "ready" and len(world.cluster.alive) == 4)
    (new,) = [one for one in world.cluster.running(lost) if one is not old]
    assert new.node in {"local", "n2"}
    assert world.fleet.get("m").replicas[names.index(lost)].node == new.node
    world.cluster.return_node("n1")
    await world.until(lambda: old.actor not in world.cluster.alive)
    await world.serves(*names)


async def test_actor_that_is_lost_with_its_node_has_not_failed(cluster_world: World) -> None:
    """Ray may tell of the actor before it tells of the node."""
    world = cluster_world
    await world.ready(replicas=3)
    (old,) = [one for one in world.cluster.alive.values() if one.node == "n1"]
    world.cluster.lost.add("n1")
    world.cluster.trouble(f"watch {old.actor}", ActorLost("the actor died"))
    old.wake()
    name = old.status.replica_id
    await world.until(
        lambda: world.state(name) == "ready" and len(world.cluster.running(name)) == 2
    )
    status = world.fleet.get("m").replicas[int(name[-1])]
    assert (status.last_failure or {})["cause"] == "node_lost"
    record = world.fleet._reconciler.ledger.deployments["m"].replica(name)
    assert record is not None
    assert (record.failures, record.restarts) == (0, 1)


async def test_replicas_move_to_the_nodes_of_a_cluster_that_was_started_anew(
    cluster_world: World,
) -> None:
    """Its nodes have other ids, and those of before are in no list at all."""
    world = cluster_world
    await world.ready(replicas=3)
    world.cluster.end_ray()
    world.cluster._hosts = hosts("n3", "n4")
    names = ["m-rep0", "m-rep1", "m-rep2"]
    await world.until(lambda: {one.node for one in world.cluster.alive.values()} > {"n3"})
    await world.serves(*names)
    assert {world.actor(name).node for name in names} <= {"local", "n3", "n4"}


async def test_launch_is_waited_for_while_nothing_is_heard_of_it(world: World) -> None:
    """Its actor may start yet: it is neither ready nor failed, and its memory is promised."""
    world.cluster.holds.add("m-rep0")
    await world.launch()
    await world.until(lambda: world.cluster.running("m-rep0"))
    world.actor().become("starting")
    await world.until(lambda: world.state() == "starting")
    world.cluster.partitioned.add(world.actor().actor)
    world.actor().wake()
    record = world.fleet._reconciler.ledger.deployments["m"].replicas[0]
    sightings = world.fleet._reconciler.ledger.sightings
    await world.until(lambda: not sightings[record.actor].is_reachable)
    waiting = asyncio.create_task(world.fleet.wait("m"))
    await world.looks(3)
    assert not waiting.done()
    assert len(world.fleet._reservations()) == 1
    world.cluster.partitioned.clear()
    world.actor().become("ready")
    assert (await within(waiting)).state == "ready"


async def test_actor_that_never_begins_is_given_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A launch ends, whatever its node does."""
    monkeypatch.setattr(reconciler, "BEGIN_LIMIT", 0.1)
    world.cluster.trouble("begin", *(ActorUnavailable("no answer") for _ in range(1000)))
    await world.launch()
    with pytest.raises(LaunchFailed, match="has not begun within"):
        await within(world.fleet.wait("m"))
    await world.until(lambda: not world.cluster.alive)


async def test_care_goes_on_whatever_a_call_raises(world: World) -> None:
    """A full disk keeps a bridge from starting, too; who follows an actor tries again."""
    await world.ready()
    world.cluster.trouble("connect", *(OSError(28, "No space left on device") for _ in range(3)))
    world.cluster.break_bridge()
    await world.until(lambda: world.state() == "unreachable")
    await world.serves()
    world.actor().fail()
    await world.until(lambda: world.fleet.get("m").restarts == 1)
    await world.serves()


async def test_engine_that_is_not_heard_of_and_listens_is_left_alone(world: World) -> None:
    """One failed request says nothing of its other streams; refused connections do."""
    await world.ready()
    actor = world.actor()
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    actor.become("ready", endpoint=f"http://127.0.0.1:{port}")
    await world.until(lambda: world.fleet.get("m").replicas[0].endpoint == actor.status.endpoint)
    world.cluster.partitioned.add(actor.actor)
    actor.wake()
    await world.until(lambda: world.state() == "unreachable")
    world.fleet.doubt("m")
    await world.until(lambda: not any("doubt" in name for name in world.fleet._reconciler._effects))
    assert world.state() == "unreachable"
    server.close()
    await server.wait_closed()
    world.fleet.doubt("m")
    await world.until(lambda: world.fleet.get("m").restarts == 1)


async def test_engine_that_refuses_connections_is_dead_whatever_its_actor_says(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An actor that is stopped tells nothing: its model would be `ready` for ever."""
    monkeypatch.setattr(reconciler, "EXIT_REPORT_SECONDS", 0.01)
    await world.ready()
    old = world.actor()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{free.getsockname()[1]}"
    old.become("ready", endpoint=endpoint)
    await world.until(lambda: world.fleet.get("m").replicas[0].endpoint == endpoint)
    world.fleet.doubt("m")
    await world.until(lambda: world.fleet.get("m").restarts == 1)
    await world.serves()
    # Nor need a request come, where nothing is heard of the actor.
    actor = world.actor()
    actor.become("ready", endpoint=endpoint)
    await world.until(lambda: world.fleet.get("m").replicas[0].endpoint == endpoint)
    world.cluster.partitioned.add(actor.actor)
    actor.wake()
    await world.until(lambda: world.fleet.get("m").restarts == 2)


async def test_what_is_taken_up_is_waited_for(world: World) -> None:
    """Just after its start a gateway does not say of a model that serves that it does not."""
    await world.ready()
    await world.restart()
    await within(world.fleet.until_taken_up())
    assert world.state() == "ready"
    await within(world.fleet.until_taken_up())


async def test_machine_that_goes_down_is_no_models_failure(world: World) -> None:
    """What ends while the gateway leaves is not judged: the next one starts it."""
    await world.ready(restart="never")
    world.fleet.leave()
    world.actor().fail("engine_exited", exit_code=0)
    await world.until(lambda: world.state() != "ready")
    await world.die()
    world.cluster.end_ray()
    await world.start()
    await world.serves()


async def test_want_of_ray_and_of_room_is_nobodys_failure(world: World) -> None:
    """However few tries a model has."""
    await world.ready(restart_tries=1)
    world.cluster.trouble("connect", *(RayFailed("no Ray") for _ in range(4)))
    world.cluster.end_ray()
    await world.serves()
    record = world.fleet._reconciler.ledger.deployments["m"].replicas[0]
    assert record.failures == 0


async def test_lost_node_is_waited_for_where_there_is_no_room(cluster_world: World) -> None:
    """Its replicas are tried again until some node can take them; the others serve on."""
    world = cluster_world
    await world.ready(replicas=3)
    full = [replace(one, memory_free_bytes=0) for one in world.cluster._hosts]
    free, world.cluster._hosts = world.cluster._hosts, full
    world.cluster.lose_node("n2")
    await world.until(lambda: world.fleet.get("m").restarts > 1)
    assert world.fleet.ready("m").state == "ready"
    world.cluster._hosts = free
    await world.until(lambda: all(r.state == "ready" for r in world.fleet.get("m").replicas))


async def test_replica_that_leaves_finishes_its_requests(world: World) -> None:
    """It gets no more, and ends once its last one is done."""
    await world.ready(replicas=2)
    leases = [await within(world.fleet.ensure_ready("m")) for _ in range(2)]
    (held,) = [one for one in leases if one.replica.replica_id == "m-rep0"]
    for lease in leases:
        if lease is not held:
            lease.release()
    removing = asyncio.create_task(world.fleet.remove_replica("m", "0", 1000.0))
    await world.until(lambda: world.state() == "stopping")
    for _ in range(3):
        other = await within(world.fleet.ensure_ready("m"))
        assert other.replica.replica_id == "m-rep1"
        other.release()
    assert world.cluster.running("m-rep0")
    held.release()
    assert await within(removing) == 1
    assert not world.cluster.running("m-rep0")
    assert world.fleet.get("m").plan.replicas == 1
    with pytest.raises(BadValue, match="last one"):
        await world.fleet.remove_replica("m", "1")


async def test_numbers_of_replicas_are_never_used_again(world: World) -> None:
    """An id never stands for two copies, over a restart of the gateway too."""
    await world.ready(replicas=2)
    await within(world.fleet.remove_replica("m", "1"))
    await world.restart()
    await world.serves()
    assert await within(world.fleet.add_replicas("m", 1)) == ("m-rep2",)
    await world.serves("m-rep0", "m-rep2")


async def test_state_file_that_cannot_be_written_refuses_and_forgets_nothing(
    world: World,
) -> None:
    """A launch is refused, and succeeds later; what is ended is ended (3.5 to 3.8)."""
    await world.ready("a")
    world.store.broken = True
    with pytest.raises(StateNotWritten):
        await world.launch("b")
    world.actor("a-rep0").fail()
    await world.until(lambda: world.fleet.get("a").restarts == 1)
    await world.serves("a-rep0")
    world.actor("a-rep0").fail("corrupt_file")
    await world.until(lambda: world.state("a-rep0") == "failed")
    with pytest.raises(StateNotWritten):
        await world.launch("a")
    assert world.state("a-rep0") == "failed"
    with pytest.raises(EndNotWritten, match=r"'a' has ended, but .* is locked"):
        await within(world.fleet.terminate("a"))
    assert world.cluster.alive == {}
    world.store.broken = False
    await world.until(lambda: world.fleet._reconciler.ledger.is_written("a"))
    await world.ready("b")
    await world.restart()
    await world.until(lambda: [one.uid for one in world.fleet.models()] == ["b"])


async def test_stop_ends_everything_though_nothing_can_be_written(world: World) -> None:
    """`paddock stop` hangs on nothing."""
    await world.ready("a", 2)
    await world.ready("b")
    world.store.broken = True
    await within(world.fleet.shutdown())
    assert world.cluster.alive == {}


async def test_plan_with_an_engine_that_is_gone_fails_alone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are served; the diagnosis names the engine and a command."""
    await world.ready("a")
    await world.ready("b")
    await world.die()
    world.cluster.end_ray()
    with sqlite3.connect(world.home / "paddock.db") as file:
        file.execute(
            "UPDATE deployments SET document = replace(document, ?, ?) WHERE uid = 'a'",
            ('"engine":"echo"', '"engine":"gone"'),
        )
    file.close()
    await world.start()
    await world.serves("b-rep0")
    diagnosis = world.fleet.get("a").diagnosis or {}
    assert diagnosis["cause"] == "engine_missing"
    assert "gone" in diagnosis["message"]
    assert "paddock launch" in diagnosis["next_command"]
    await world.die()
    monkeypatch.setattr(fleet_module, "engine_names", lambda: ["echo", "gone"])
    await world.start()
    await world.serves("a-rep0")
    assert world.fleet.get("a").diagnosis is None


async def test_row_that_cannot_be_read_fails_alone(world: World) -> None:
    """It is listed with the reason, can be ended, and the others are served."""
    await world.ready("a")
    await world.ready("b")
    await world.die()
    with sqlite3.connect(world.home / "paddock.db") as file:
        file.execute("""UPDATE deployments SET document = '{"uid": "a"}' WHERE uid = 'a'""")
    file.close()
    await world.start()
    await world.serves("b-rep0")
    assert "cannot be read" in (world.fleet.get("a").diagnosis or {})["message"]
    await within(world.fleet.terminate("a"))
    assert [one.uid for one in world.fleet.models()] == ["b"]


async def test_what_is_promised_is_not_free(world: World) -> None:
    """A replica that is on its way, or waits for its next start, keeps its memory reserved."""
    world.cluster.holds.add("m-rep0")
    await world.launch()
    (reserved,) = world.fleet._reservations()
    assert reserved.host_bytes > 0
    await world.until(lambda: world.cluster.running("m-rep0"))
    world.actor().become("ready")
    await within(world.fleet.wait("m"))
    assert world.fleet._reservations() == []


async def test_bug_in_one_action_ends_no_others_care(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It becomes the replica's failure, with the error, and the other model is kept."""
    await world.ready("a")

    def broken(*_: Any) -> Any:
        raise KeyError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(world.fleet._reconciler, "_config", broken)
        await world.launch("b")
        with pytest.raises(LaunchFailed) as failure:
            await within(world.fleet.wait("b"))
    assert failure.value.diagnosis["cause"] == "internal"
    world.actor("a-rep0").fail()
    await world.until(lambda: world.fleet.get("a").restarts == 1)
    await world.serves("a-rep0")


async def test_attached_model_that_is_away_for_a_moment_is_not_replaced(world: World) -> None:
    """A launch of its id is refused, and its key stays; attaching it anew is not (B5)."""
    plan = (await world.fleet.plan(asking("big"))).model_copy(
        update={"attached": Attached(url="http://127.0.0.1:9/v1", model="x"), "model_id": "big"}
    )
    world.fleet._reconciler.ledger.keys.write("big", "secret")
    await world.fleet._reconciler.ledger.add(deploy(plan, (Place.of(plan),), {}, 1.0))
    await world.until(lambda: world.state("big-rep0") == "failed")
    with pytest.raises(UidInUse):
        await world.launch("big")
    assert world.fleet._reconciler.ledger.keys.read("big") == "secret"
    world.fleet._refuse_used("big", attaching=True)
    await within(world.fleet.terminate("big"))
    with pytest.raises(OSError, match="big"):
        world.fleet._reconciler.ledger.keys.read("big")


async def test_silent_endpoints_that_are_attached_hold_up_no_other_work(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is asked for minutes, in no thread that plans, keys and metrics need."""
    answered = threading.Event()

    def silent(_: AttachRequest) -> None:
        answered.wait(DEADLINE)
        raise Failure(Diagnosis("endpoint_unreachable", "does not answer in time"))

    monkeypatch.setattr(fleet_module, "plan_attached", silent)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
    request = AttachRequest.parse({"endpoint": "http://127.0.0.1:1"})
    attaches = [asyncio.create_task(world.fleet.attach(request)) for _ in range(6)]
    try:
        await asyncio.sleep(0)
        async with asyncio.timeout(DEADLINE / 2):
            assert await asyncio.to_thread(threading.get_ident) != threading.get_ident()
        assert not any(attach.done() for attach in attaches)
    finally:
        answered.set()
    results = await asyncio.gather(*attaches, return_exceptions=True)
    assert {type(result) for result in results} == {LaunchFailed}


async def test_plan_is_the_same_for_a_dry_run_and_a_launch(world: World) -> None:
    """One planning path: what is shown is what is done."""
    shown = await world.fleet.plan(asking("m", 2))
    status = await world.ready("m", 2)
    assert shown.model_copy(update={"memory": status.plan.memory}) == status.plan


def with_llama(world: World, free_bytes: int) -> None:
    """The nodes have llama.cpp, the bundled weights and so much free memory."""
    files = {"weights/tiny-mixtral/ggufv2/tiny-mixtral.Q4_K_M.gguf": 2_600_000}
    world.cluster._hosts = [
        replace(
            host,
            memory_free_bytes=free_bytes,
            engines={**host.engines, "llama.cpp": Detection("1")},
            files=files,
        )
        for host in world.cluster._hosts
    ]


LARGE = {"model_engine": "llama.cpp", "engine_options": {"n_parallel": 256, "repack": True}}


async def test_what_is_given_up_to_fit_is_what_the_deployment_keeps(world: World) -> None:
    """Its request is the smaller one: a replica that is placed anew must fit as well."""
    with_llama(world, 120_000_000)
    request = LaunchRequest.parse(model_name="tiny-mixtral", **LARGE, fit=True)
    with pytest.raises(NoRoom) as refusal:
        await within(world.fleet.launch(request.model_copy(update={"fit": False})))
    assert refusal.value.commands
    shown = await world.fleet.plan(request)
    assert shown.memory.fits
    assert any(reason.startswith("to fit what is free: slots") for reason in shown.reasons)
    await within(world.fleet.launch(request))
    status = await within(world.fleet.wait("tiny-mixtral"))
    assert status.plan.slots == shown.slots < 256
    kept = world.fleet._reconciler.ledger.deployments["tiny-mixtral"].request
    assert kept["engine_options"]["n_parallel"] == shown.slots
    assert kept["fit"]


async def take_memory(world: World, replica_id: str, free_bytes: int) -> None:
    """Others take memory before the engine of a replica starts."""
    await world.until(lambda: world.cluster.running(replica_id))
    with_llama(world, free_bytes)
    world.actor(replica_id).fail("oom_host")


async def test_memory_that_others_take_meanwhile_is_met_once_with_what_fits(world: World) -> None:
    """A launch with `fit` is never shown as failed for it; the plan is the smaller one then."""
    with_llama(world, 1_000_000_000)
    request = LaunchRequest.parse(model_name="tiny-mixtral", **LARGE, fit=True)
    world.cluster.holds.add("tiny-mixtral-rep0")
    planned = (await within(world.fleet.launch(request))).plan
    before = world.fleet.bus.number
    await world.until(lambda: world.cluster.running("tiny-mixtral-rep0"))
    world.cluster.holds.clear()
    await take_memory(world, "tiny-mixtral-rep0", 120_000_000)
    status = await within(world.fleet.wait("tiny-mixtral"))
    assert status.plan.slots < planned.slots == 256
    assert status.plan.memory.fits
    changes = [one.change for one in world.fleet.bus.since(before) or []]
    assert "failed" not in {one.model.state for one in changes if one.model}
    texts = [one.text for one in world.fleet.events("tiny-mixtral")]
    assert any("to fit what is free: slots" in text for text in texts)


async def test_memory_that_others_take_twice_is_a_failure(world: World) -> None:
    """With the cause, and nothing is left of it."""
    with_llama(world, 1_000_000_000)
    request = LaunchRequest.parse(model_name="tiny-mixtral", model_uid="m", **LARGE, fit=True)
    world.cluster.holds.add("m-rep0")
    await within(world.fleet.launch(request))
    await world.until(lambda: world.cluster.running("m-rep0"))
    first = world.actor()
    await take_memory(world, "m-rep0", 120_000_000)
    await world.until(lambda: world.cluster.running("m-rep0") not in ([], [first]))
    await take_memory(world, "m-rep0", 120_000_000)
    with pytest.raises(LaunchFailed) as failure:
        await within(world.fleet.wait("m"))
    assert failure.value.diagnosis["cause"] == "oom_host"
    assert not world.cluster.running("m-rep0")


@pytest.mark.parametrize("wishes", [{"fit": True}, {}])
async def test_nothing_fits_any_more(world: World, wishes: dict[str, Any]) -> None:
    """Whether what fits was asked for or not: the memory is the cause."""
    with_llama(world, 1_000_000_000)
    request = LaunchRequest.parse(model_name="tiny-mixtral", model_uid="m", **LARGE, **wishes)
    world.cluster.holds.add("m-rep0")
    await within(world.fleet.launch(request))
    await take_memory(world, "m-rep0", 1_000_000)
    with pytest.raises(LaunchFailed) as failure:
        await within(world.fleet.wait("m"))
    assert failure.value.diagnosis["cause"] == "oom_host"


async def test_forced_launch_begins_whatever_is_free(world: World) -> None:
    """The refusal of others then names who holds the memory."""
    with_llama(world, 50_000_000)
    request = LaunchRequest.parse(model_name="tiny-mixtral", **LARGE, force=True)
    await within(world.fleet.launch(request))
    await within(world.fleet.wait("tiny-mixtral"))
    other = LaunchRequest.parse(model_name="tiny-mixtral", model_uid="other", **LARGE)
    with pytest.raises(NoRoom) as refusal:
        await within(world.fleet.launch(other))
    assert refusal.value.used["tiny-mixtral"] > 0


async def test_plan_may_need_an_engine_that_a_launch_does_not_find(world: World) -> None:
    """The plan says what installs it; the launch is refused. A GPU is only ever planned for."""
    request = LaunchRequest.parse(model_name="qwen2.5-instruct", model_engine="vLLM", size="0_5")
    with pytest.raises(NoEngine):
        await within(world.fleet.launch(request))
    plan = await within(world.fleet.plan(request))
    assert plan.install == "paddock engine install vllm"
    assumed = request.model_copy(update={"assume_gpu": 24 * 10**9})
    assert (await within(world.fleet.plan(assumed))).memory.free_bytes == 24 * 10**9
    with pytest.raises(BadValue, match="for plans only"):
        await within(world.fleet.launch(assumed))
