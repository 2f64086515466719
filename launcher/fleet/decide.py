"""`decide`: what is to be done so that what runs becomes what is wanted.

Pure: no clock but `now`, no disk, no network, no logging. The reconciler carries the actions out.
Each can be carried out again; whatever comes of it, also a failure, is the next observation.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from paddock.launcher.fleet.deployment import Deployment, Policy, ReplicaRecord, replica_of
from paddock.launcher.fleet.observation import (
    Activity,
    Ended,
    Observation,
    ReplicaLoad,
    Sighting,
)

FIRST_DELAY, LONGEST_DELAY = 1.0, 300.0
"""Seconds until the first restart, and at most between two."""
JITTER = 0.25
"""The part by which a delay may be shorter, so that replicas do not all start at once."""
AHEAD_SECONDS = 5.0
"""How long before a start is due its actor is begun: a process takes a second on a busy machine.
The actor begins to work when it is told to, and not before the time."""
SETTLED_SECONDS = 600.0
"""A replica that has served for so long begins to count its failures anew."""
QUIET_SECONDS = 15.0
"""How long the requests of a replica may hear nothing before it is probed,"""
PROBE_SECONDS = 5.0
"""and how long it is left alone after a probe."""
HANG_CAUSE = "engine_hung"
LOST_MEMORY_CAUSE = "oom_host"
PERMANENT = frozenset(
    (
        "corrupt_file",
        "not_found",
        "gated_repo",
        "token_refused",
        "not_writable",
        "checksum_mismatch",
        "weights_mismatch",
        "unsupported_arch",
        "bad_option",
        "cancelled",
        "engine_missing",
    )
)
"""Causes that the next start would meet again."""


@dataclass(frozen=True)
class Start:
    """Start the actor of a replica, or take up the one that lives."""

    uid: str
    replica: str
    actor: str


@dataclass(frozen=True)
class Stop:
    """Stop an actor and its engine, gracefully, then by force. `because` is for the log."""

    actor: str
    node: str
    because: str
    is_hung: bool = False


@dataclass(frozen=True)
class Probe:
    """Ask a replica whether its engine still computes. `is_full`: not by a request of its own."""

    actor: str
    replica: str
    is_full: bool


@dataclass(frozen=True)
class Restart:
    """Note that an actor ended; the next start is due at `at`, after `failures` in a row."""

    uid: str
    replica: str
    actor: str
    at: float
    failures: int
    diagnosis: dict[str, Any]


@dataclass(frozen=True)
class GiveUp:
    """Note a failure after which there is no other start."""

    uid: str
    replica: str
    actor: str
    diagnosis: dict[str, Any]


@dataclass(frozen=True)
class MarkServed:
    """Note that a replica was ready: from now on it is started again when it fails."""

    uid: str
    replica: str


@dataclass(frozen=True)
class Settle:
    """Note that a replica has served for a while: its failures are forgiven."""

    uid: str
    replica: str


@dataclass(frozen=True)
class Drop:
    """Forget a replica that has left."""

    uid: str
    replica: str


@dataclass(frozen=True)
class Forget:
    """Forget a deployment of which nothing is left."""

    uid: str


Action = Start | Stop | Probe | Restart | GiveUp | MarkServed | Settle | Drop | Forget


def decide(
    deployments: Iterable[Deployment], observation: Observation, activity: Activity, now: float
) -> list[Action]:
    """The actions that are due, in the order in which they are to begin.

    `now` and all times are seconds on one monotonic clock.
    """
    actions: list[Action] = []
    wanted: set[str] = set()
    occupied = _occupied(observation)
    for deployment in deployments:
        wanted |= {record.actor for record in deployment.replicas}
        if deployment.uid in observation.busy:
            continue
        for record in deployment.replicas:
            if record.actor in observation.busy:
                continue
            for action in _of_replica(deployment, record, observation, activity, now):
                # The engine of an earlier start still holds its memory.
                if not isinstance(action, Start) or record.id not in occupied:
                    actions.append(action)
        if deployment.wanted == "gone" and not deployment.replicas:
            actions.append(Forget(deployment.uid))
    for actor, sighting in observation.actors.items():
        if actor not in wanted and actor not in observation.busy and not sighting.is_over:
            actions.append(Stop(actor, sighting.node, "no deployment wants it"))
    return actions


def _occupied(observation: Observation) -> set[str]:
    """The replicas of which an engine may be left that the next must not meet."""
    return {
        replica_of(actor)
        for actor, sighting in observation.actors.items()
        if sighting.may_have_engine and sighting.node not in observation.lost_nodes
    }


def _of_replica(
    deployment: Deployment,
    record: ReplicaRecord,
    observation: Observation,
    activity: Activity,
    now: float,
) -> Iterator[Action]:
    sighting = observation.actors.get(record.actor)
    if sighting is not None and sighting.ended is None and sighting.node in observation.lost_nodes:
        ended = Ended(_lost_node(record), is_blameless=True)
        yield from _restart_or_give_up(deployment, record, ended, now)
    elif not deployment.wants(record) or record.given_up:
        yield from _end_unwanted(deployment, record, sighting, observation, activity, now)
    elif sighting is None:
        if _is_absent(deployment, observation) and is_due(record, now):
            yield Start(deployment.uid, record.id, record.actor)
    elif sighting.ended is not None:
        yield from _restart_or_give_up(deployment, record, sighting.ended, now)
    elif sighting.status is not None and not deployment.is_attached:
        yield from _watch_living(deployment, record, sighting, activity, now)


def _end_unwanted(
    deployment: Deployment,
    record: ReplicaRecord,
    sighting: Sighting | None,
    observation: Observation,
    activity: Activity,
    now: float,
) -> Iterator[Action]:
    """Ends a replica that is not wanted. If it was given up, its record stays."""
    if sighting is not None and not sighting.is_over:
        load = activity.get(record.id, ReplicaLoad())
        leaves = deployment.wanted == "serving" and sighting.ended is None
        if leaves and load.in_flight and now < record.leave_at:
            return  # it leaves once its requests are done
        yield Stop(record.actor, sighting.node, "it is not wanted any more")
    elif record.is_leaving or deployment.wanted == "gone":
        if _is_absent(deployment, observation):
            yield Drop(deployment.uid, record.id)


def _is_absent(deployment: Deployment, observation: Observation) -> bool:
    """Whether an actor that is not known does not live; attached models have none."""
    return observation.is_complete or deployment.is_attached


def _restart_or_give_up(
    deployment: Deployment, record: ReplicaRecord, ended: Ended, now: float
) -> Iterator[Action]:
    """Restarts a replica whose actor has ended, or gives it up, or drops it if it is not wanted."""
    uid, actor = deployment.uid, record.actor
    if not deployment.wants(record):
        yield Drop(uid, record.id)
        return
    # Without a diagnosis, somebody else stopped it.
    diagnosis = ended.diagnosis or {
        "cause": "actor_died",
        "message": "the replica was stopped from outside",
    }
    if not may_shrink(deployment, record, diagnosis) and not may_restart(
        deployment.policy, record, diagnosis, ended.is_blameless
    ):
        yield GiveUp(uid, record.id, actor, diagnosis)
        return
    failures = record.failures + (not ended.is_blameless)
    if may_shrink(deployment, record, diagnosis):  # what is free is what it is planned for then
        yield Restart(uid, record.id, actor, now, failures, diagnosis)
        return
    at = now + max(ended.wait_seconds, delay(record.id, max(1, failures)))
    yield Restart(uid, record.id, actor, at, failures, diagnosis)


def _watch_living(
    deployment: Deployment,
    record: ReplicaRecord,
    sighting: Sighting,
    activity: Activity,
    now: float,
) -> Iterator[Action]:
    status = sighting.status
    assert status is not None
    if status.state == "unhealthy":
        yield Stop(record.actor, sighting.node, "its engine hangs", is_hung=True)
        return
    if status.state != "ready":
        return
    if not record.has_served:
        yield MarkServed(deployment.uid, record.id)
    elif record.failures and now - (sighting.ready_since or now) >= SETTLED_SECONDS:
        yield Settle(deployment.uid, record.id)
    load = activity.get(record.id)
    if load is not None and sighting.is_reachable and needs_probe(load, now):
        yield Probe(record.actor, record.id, load.in_flight >= load.slots)


def needs_probe(load: ReplicaLoad, now: float) -> bool:
    """Whether requests have heard nothing for so long that the engine may hang."""
    rested = now - load.probed_at >= PROBE_SECONDS
    return load.in_flight > 0 and load.quiet_seconds >= QUIET_SECONDS and rested


def may_restart(
    policy: Policy, record: ReplicaRecord, diagnosis: dict[str, Any], is_blameless: bool = False
) -> bool:
    """Whether a replica that failed so is started again.

    Not where its first start failed: that is reported to whoever launches; but one that went with
    its node or with Ray is tried once more. Not where the next start would fail alike.
    """
    if policy.restart == "never" or diagnosis.get("cause") in PERMANENT:
        return False
    if not record.has_served:
        return is_blameless and record.restarts == 0
    if policy.restart == "on-failure" and diagnosis.get("exit_code") == 0:
        return False
    tries = policy.restart_tries
    return is_blameless or tries is None or record.failures < tries


def may_shrink(
    deployment: Deployment, record: ReplicaRecord, diagnosis: Mapping[str, Any] | None
) -> bool:
    """Whether a first start is tried once more, with what fits by then.

    Others took the memory after it was planned, and the launch is one of what fits (`fit`). Not
    where several replicas have one plan.
    """
    return record.start == 0 and _lacks_memory(deployment, record, diagnosis)


def is_to_shrink(deployment: Deployment, record: ReplicaRecord) -> bool:
    """Whether the start that comes is the one of `may_shrink`, for which is to be planned anew."""
    return record.start == 1 and _lacks_memory(deployment, record, record.diagnosis)


def _lacks_memory(
    deployment: Deployment, record: ReplicaRecord, diagnosis: Mapping[str, Any] | None
) -> bool:
    lost = diagnosis is not None and diagnosis.get("cause") == LOST_MEMORY_CAUSE
    alone = len(deployment.replicas) == 1
    return lost and alone and not record.has_served and deployment.is_to_fit


def delay(replica_id: str, failures: int) -> float:
    """Seconds until the next start after so many failures in a row.

    They double from one second to five minutes, and are shorter by up to a quarter, which replica
    and number decide: the same question has the same answer.
    """
    base = min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(failures - 1, 32))
    share = zlib.crc32(f"{replica_id} {failures}".encode()) / 2**32
    return base * (1 - JITTER * share)


def is_due(record: ReplicaRecord, now: float) -> bool:
    """Whether the actor of the next start of a replica is to be begun."""
    return record.restart_at is None or now >= record.restart_at - AHEAD_SECONDS


def next_look(
    deployments: Sequence[Deployment], observation: Observation, activity: Activity, now: float
) -> float | None:
    """When `decide` may say something new though nothing happens; None: only an event can tell."""
    times = []
    for deployment in deployments:
        for record in deployment.replicas:
            sighting = observation.actors.get(record.actor)
            if sighting is None and deployment.wants(record) and not record.given_up:
                at = record.restart_at
                times.append(None if at is None else at - AHEAD_SECONDS)
            if record.is_leaving and sighting is not None:
                times.append(record.leave_at)
            if record.failures and sighting is not None and sighting.ready_since is not None:
                times.append(sighting.ready_since + SETTLED_SECONDS)
    if any(load.in_flight for load in activity.values()):
        times.append(now + PROBE_SECONDS)
    ahead = [at for at in times if at is not None and at > now]
    return min(ahead, default=None)


def _lost_node(record: ReplicaRecord) -> dict[str, Any]:
    return {
        "cause": "node_lost",
        "message": f"the node {record.place.node_name} is lost",
        "next_command": "paddock list",
        "lines": [],
    }
