"""What is due, as a table: what is wanted, what is seen, and what follows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from paddock.launcher.fleet import decide as decisions
from paddock.launcher.fleet.decide import (
    AHEAD_SECONDS,
    LONGEST_DELAY,
    PERMANENT,
    PROBE_SECONDS,
    QUIET_SECONDS,
    SETTLED_SECONDS,
    Drop,
    Forget,
    GiveUp,
    MarkServed,
    Probe,
    Restart,
    Settle,
    Start,
    Stop,
    decide,
    delay,
    next_look,
)
from paddock.launcher.fleet.deployment import Deployment, Generation, Policy, deploy
from paddock.launcher.fleet.observation import Ended, Observation, ReplicaLoad, Sighting
from paddock.launcher.planning.place import Place
from paddock.launcher.replicas.status import ReplicaStatus
from tests.launcher.replicas.test_replica import echo

NOW = 1000.0
PLAN = echo()
KILLED = {"cause": "engine_killed", "message": "killed"}


def deployment(count: int = 1, **changes: Any) -> Deployment:
    """One of `count` replicas on this node; changes are of its only replica, or its own."""
    plan = PLAN.model_copy(update={"model_id": "m"})
    made = deploy(plan, tuple(Place("local", "here") for _ in range(count)), {}, 0.0)
    own = {name: changes.pop(name) for name in ("wanted", "policy") if name in changes}
    for record in made.replicas:
        made = made.with_replica(replace(record, **changes))
    return replace(made, **own)


def seen(one: Deployment, state: Any = "ready", number: int = 0, **changes: Any) -> Sighting:
    """A sighting of the actor of one of its replicas."""
    record = one.replicas[number]
    status = ReplicaStatus(record.id, state=state, endpoint="http://e" if state == "ready" else "")
    return Sighting(record.actor, record.place.node, status, **changes)


def due(
    one: Deployment,
    *sightings: Sighting,
    load: ReplicaLoad | None = None,
    **observation: Any,
) -> list[Any]:
    """What is due for it."""
    actors = {sighting.actor: sighting for sighting in sightings}
    activity = {one.replicas[0].id: load} if load is not None else {}
    return decide([one], Observation(actors=actors, **observation), activity, NOW)


def names(actions: list[Any]) -> list[str]:
    """The kinds of the actions."""
    return [type(action).__name__ for action in actions]


def test_wanted_replica_without_an_actor_is_started() -> None:
    """By the name of its generation and start."""
    one = deployment()
    record = one.replicas[0]
    assert due(one) == [Start("m", record.id, record.actor)]
    assert record.actor == f"m-rep0@{one.generations[0].id}.0"


@pytest.mark.parametrize(
    ("changes", "observation"),
    [
        ({}, {"is_complete": False}),
        ({"restart_at": NOW + AHEAD_SECONDS + 1}, {}),
        ({"given_up": True}, {}),
        ({"wanted": "on_demand"}, {}),
        ({}, {"busy": frozenset(("m",))}),
    ],
)
def test_nothing_is_started_that_may_live_is_not_due_or_not_wanted(
    changes: dict[str, Any], observation: dict[str, Any]
) -> None:
    """Before the actors are listed, before its time, given up, unloaded, or busy."""
    assert due(deployment(**changes), **observation) == []


def test_actor_is_begun_ahead_of_its_time() -> None:
    """Its process needs a moment; what it is told to do waits."""
    assert names(due(deployment(restart_at=NOW + AHEAD_SECONDS))) == ["Start"]


def test_start_waits_until_nothing_of_the_one_before_is_left() -> None:
    """It would hold its memory twice; what a lost node holds is out of sight."""
    one = deployment(start=1, place=Place("n2", "n2"))
    old = Sighting(f"m-rep0@{one.generations[0].id}.0", "n1", ended=Ended(KILLED))
    assert names(due(one, old)) == ["Stop"]
    assert names(due(one, old, lost_nodes=frozenset(("n1",)))) == ["Start", "Stop"]
    clean = replace(old, ended=Ended(KILLED, is_clean=True))
    assert names(due(one, clean)) == ["Start"]


def test_start_does_not_wait_for_an_actor_whose_engine_is_gone() -> None:
    """It holds no memory worth the time; what is left of it is ended meanwhile."""
    one = deployment(start=1)
    old = Sighting(
        f"m-rep0@{one.generations[0].id}.0", "local", ended=Ended(KILLED, is_engine_gone=True)
    )
    assert names(due(one, old)) == ["Start", "Stop"]


@pytest.mark.parametrize(
    ("policy", "record", "failure", "expected"),
    [
        ({}, {}, {}, Restart),
        ({"restart": "always"}, {}, {"exit_code": 0}, Restart),
        ({}, {}, {"exit_code": 0}, GiveUp),
        ({}, {}, {"exit_code": 1}, Restart),
        ({"restart": "never"}, {}, {}, GiveUp),
        ({"restart_tries": 3}, {"failures": 2}, {}, Restart),
        ({"restart_tries": 3}, {"failures": 3}, {}, GiveUp),
        ({"restart_tries": 0}, {}, {}, GiveUp),
        ({}, {"has_served": False}, {}, GiveUp),
        *(({"restart": "always"}, {}, {"cause": cause}, GiveUp) for cause in sorted(PERMANENT)),
    ],
)
def test_what_follows_the_end_of_an_actor(
    policy: dict[str, Any], record: dict[str, Any], failure: dict[str, Any], expected: type
) -> None:
    """The policy, whether it served, and whether the next start would fail alike."""
    one = deployment(policy=Policy(**policy), **{"has_served": True, **record})
    (action,) = due(one, replace(seen(one), ended=Ended({**KILLED, **failure})))
    assert isinstance(action, expected)


def test_first_start_that_went_with_ray_is_tried_once_more() -> None:
    """It says nothing of the model; a model that ends Ray each time is not tried for ever."""
    lost = Ended({"cause": "node_lost", "message": "m"}, is_blameless=True)
    one = deployment(has_served=False)
    assert names(due(one, replace(seen(one), ended=lost))) == ["Restart"]
    again = deployment(has_served=False, restarts=1, start=1)
    assert names(due(again, replace(seen(again), ended=lost))) == ["GiveUp"]


def test_end_that_is_nobodys_failure_counts_for_no_tries() -> None:
    """And the next start waits as long as is asked for."""
    one = deployment(failures=3, policy=Policy(restart_tries=3))
    lost = Ended({"cause": "node_lost", "message": "m"}, is_blameless=True, wait_seconds=50.0)
    (restart,) = due(one, replace(seen(one), ended=lost))
    assert (restart.failures, restart.at) == (3, NOW + 50.0)


def test_end_with_its_node_is_no_failure() -> None:
    """The next start is due as after the first failure, however many there were."""
    one = deployment(has_served=True, failures=7, policy=Policy(restart_tries=8))
    (action,) = due(one, replace(seen(one), ended=Ended(KILLED, is_blameless=True)))
    assert action.failures == 7
    (action,) = due(one, seen(one), lost_nodes=frozenset(("local",)))
    assert (type(action), action.failures) == (Restart, 7)
    assert action.diagnosis["cause"] == "node_lost"


def test_delays_double_to_their_limit_and_depend_on_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """1, 2, 4 … 300 seconds, each shorter by up to a quarter, and the same when asked again."""
    monkeypatch.setattr(decisions, "FIRST_DELAY", 1.0)
    delays = [delay("m-rep0", failures) for failures in range(1, 40)]
    assert delays == [delay("m-rep0", failures) for failures in range(1, 40)]
    for number, seconds in enumerate(delays):
        full = min(LONGEST_DELAY, 2.0**number)
        assert 0.75 * full <= seconds <= full
    assert delay("m-rep0", 1) != delay("m-rep1", 1)


@pytest.mark.parametrize("state", ["ready", "starting", "failed"])
def test_unwanted_actor_is_stopped(state: str) -> None:
    """Whatever it does: terminated, unloaded, given up, or of another generation."""
    for changes in ({"wanted": "gone"}, {"wanted": "on_demand"}, {"given_up": True}):
        one = deployment(**changes)
        assert names(due(one, seen(one, state))) == ["Stop"]
    one = deployment()
    other = Sighting("m-rep0@ffffffff.0", "local", seen(one, state).status)
    assert names(due(one, other)) == ["Stop"]
    assert names(due(replace(one, replicas=()), other)) == ["Stop"]


def test_replica_of_which_nothing_is_left_is_dropped_and_then_its_model_forgotten() -> None:
    """Only once the actors that live are known."""
    one = deployment(wanted="gone")
    assert due(one) == [Drop("m", "m-rep0")]
    assert due(one, is_complete=False) == []
    assert due(one, replace(seen(one), ended=Ended(None, is_clean=True))) == [Drop("m", "m-rep0")]
    assert names(due(one, replace(seen(one), ended=Ended(KILLED)))) == ["Stop"]
    assert due(one.without_replica("m-rep0")) == [Forget("m")]


def test_replica_that_leaves_finishes_its_requests_within_a_limit() -> None:
    """Then it is stopped, and dropped."""
    one = deployment(is_leaving=True, leave_at=NOW + 10)
    assert due(one, seen(one), load=ReplicaLoad(in_flight=1)) == []
    assert names(due(one, seen(one), load=ReplicaLoad(in_flight=0))) == ["Stop"]
    late = deployment(is_leaving=True, leave_at=NOW - 1)
    assert names(due(late, seen(late), load=ReplicaLoad(in_flight=1))) == ["Stop"]
    gone = deployment(is_leaving=True, leave_at=NOW + 10, wanted="gone")
    assert names(due(gone, seen(gone), load=ReplicaLoad(in_flight=1))) == ["Stop"]
    assert due(one) == [Drop("m", "m-rep0")]


def test_engine_that_hangs_is_stopped_as_such() -> None:
    """Nothing graceful is expected of it."""
    one = deployment(has_served=True)
    assert due(one, seen(one, "unhealthy")) == [
        Stop(one.replicas[0].actor, "local", "its engine hangs", is_hung=True)
    ]


def test_first_service_and_long_service_are_noted() -> None:
    """After the first, failures lead to restarts; after ten minutes they are forgiven."""
    fresh, failed = deployment(), deployment(has_served=True, failures=2)
    assert due(fresh, seen(fresh)) == [MarkServed("m", "m-rep0")]
    assert due(failed, seen(failed, ready_since=NOW - SETTLED_SECONDS + 1)) == []
    assert due(failed, seen(failed, ready_since=NOW - SETTLED_SECONDS)) == [Settle("m", "m-rep0")]


@pytest.mark.parametrize(
    ("load", "expected"),
    [
        (ReplicaLoad(1, 4, QUIET_SECONDS), [False]),
        (ReplicaLoad(4, 4, QUIET_SECONDS), [True]),
        (ReplicaLoad(1, 4, QUIET_SECONDS - 1), []),
        (ReplicaLoad(0, 4, QUIET_SECONDS), []),
        (ReplicaLoad(1, 4, QUIET_SECONDS, probed_at=NOW - PROBE_SECONDS + 1), []),
    ],
)
def test_replica_is_probed_where_requests_hear_nothing(
    load: ReplicaLoad, expected: list[bool]
) -> None:
    """Not by a request of its own where all slots are taken; not too often."""
    one = deployment(has_served=True)
    probes = due(one, seen(one), load=load)
    assert [action.is_full for action in probes if isinstance(action, Probe)] == expected


def test_replica_that_is_not_heard_of_is_left_alone() -> None:
    """It may serve all the same: a slow heartbeat stops nothing."""
    one = deployment(has_served=True)
    quiet = ReplicaLoad(1, 4, QUIET_SECONDS)
    assert due(one, replace(seen(one), is_reachable=False), load=quiet) == []


def test_attached_models_wait_for_no_ray() -> None:
    """There is no actor to be listed."""
    from paddock.launcher.planning.plan import Attached

    plan = PLAN.model_copy(update={"attached": Attached(url="http://e/v1", model="x")})
    one = deployment()
    one = replace(one, generations=(Generation(one.generations[0].id, plan),))
    assert names(due(one, is_complete=False)) == ["Start"]
    assert due(one, seen(one, "failed")) == []
    gone = replace(one, wanted="gone")
    assert names(due(gone, is_complete=False)) == ["Drop"]


def test_next_look_is_when_something_is_due_by_itself() -> None:
    """A restart, the end of a drain, a probe, forgiveness; None where only an event can tell."""
    waiting = deployment(restart_at=NOW + AHEAD_SECONDS + 7)
    assert next_look((waiting,), Observation(), {}, NOW) == NOW + 7
    leaving = deployment(is_leaving=True, leave_at=NOW + 3)
    known = Observation({leaving.replicas[0].actor: seen(leaving)})
    assert next_look((leaving,), known, {}, NOW) == NOW + 3
    one = deployment(has_served=True)
    known = Observation({one.replicas[0].actor: seen(one, ready_since=NOW)})
    assert next_look((one,), known, {}, NOW) is None
    busy = {"m-rep0": ReplicaLoad(1, 4)}
    assert next_look((one,), known, busy, NOW) == NOW + PROBE_SECONDS


def test_deciding_twice_says_the_same() -> None:
    """It changes nothing that it is given, and has no memory."""
    one = deployment(3, has_served=True)
    sightings = (seen(one, "ready"), seen(one, "unhealthy", 1))
    assert due(one, *sightings) == due(one, *sightings)
