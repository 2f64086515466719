"""What people see of a deployment: made from what is wanted and what is known of its actors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from paddock.launcher.fleet.deployment import Deployment, ReplicaRecord
from paddock.launcher.fleet.observation import Sighting
from paddock.launcher.planning.plan import LaunchPlan
from paddock.launcher.replicas.status import ReplicaStatus, State

# From least to most along; a model stands where its least advanced live replica stands.
_ON_THE_WAY: tuple[State, ...] = ("pending", "downloading", "starting")


@dataclass(frozen=True)
class ModelStatus:
    """A snapshot of one deployment, with its policy."""

    uid: str
    plan: LaunchPlan
    created: float
    replicas: tuple[ReplicaStatus, ...]
    stopping: bool = False
    recovering: bool = False
    restart: str = "on-failure"
    restart_tries: int | None = None
    silence_seconds: float | None = None

    @property
    def state(self) -> State:
        """Ready if any replica is; else how far the least advanced one that lives is."""
        if self.stopping:
            return "stopping"
        states = {replica.state for replica in self.replicas}
        for state in ("ready", *_ON_THE_WAY, "unhealthy", "unreachable", "failed"):
            if state in states:
                return state
        return "stopped"

    @property
    def diagnosis(self) -> dict[str, Any] | None:
        """Why it failed: the diagnosis of the first replica that is not started again."""
        failed = [r.diagnosis for r in self.replicas if r.state == "failed"]
        return next((one for one in failed if one is not None), None)

    @property
    def starting(self) -> bool:
        """Whether some replica is still on its way."""
        return any(replica.state in _ON_THE_WAY for replica in self.replicas)

    @cached_property
    def can_serve(self) -> bool:
        """Whether a request has somewhere to go, be it to a replica that is not heard of."""
        return not self.stopping and any(r.endpoint is not None for r in self.replicas)

    @cached_property
    def chat(self) -> dict[str, Any]:
        """How its replicas chat (`replicas/prompt.py`); empty while none has said it."""
        return next((one.chat for one in self.replicas if one.chat is not None), {})

    @cached_property
    def abilities(self) -> tuple[str, ...]:
        """What it can do: the plan's abilities, but for those that its chat template denies."""
        denied = set()
        if self.chat.get("source") == "none":
            denied = {"chat", "tools"}
        elif self.chat.get("tools") is False:
            denied = {"tools"}
        return tuple(name for name in self.plan.abilities if name not in denied)

    @property
    def restarts(self) -> int:
        """How often its replicas were started again, in all."""
        return sum(replica.restarts for replica in self.replicas)


def model_status(
    deployment: Deployment, sightings: Mapping[str, Sighting], now: float, wall: float
) -> ModelStatus:
    """The snapshot of a deployment at `now` on the loop's clock, which is `wall` since 1970."""
    replicas = tuple(
        replica_status(deployment, record, sightings.get(record.actor), now, wall)
        for record in deployment.replicas
    )
    wanted = [one for one in deployment.replicas if deployment.wants(one) and not one.given_up]
    return ModelStatus(
        uid=deployment.uid,
        plan=deployment.plan,
        created=deployment.created,
        replicas=replicas,
        stopping=deployment.wanted == "gone",
        recovering=any(record.has_served for record in wanted),
        restart=deployment.policy.restart,
        restart_tries=deployment.policy.restart_tries,
        silence_seconds=deployment.policy.silence_seconds,
    )


def replica_status(
    deployment: Deployment,
    record: ReplicaRecord,
    sighting: Sighting | None,
    now: float,
    wall: float,
) -> ReplicaStatus:
    """The snapshot of one replica: what its actor told, and what the fleet knows beyond that."""
    last = sighting.status if sighting is not None and sighting.status is not None else None
    ended = sighting.ended if sighting is not None else None
    status = replace(
        last or ReplicaStatus(record.id),
        replica_id=record.id,
        restarts=record.restarts,
        # Of an end that is not noted in the record yet, whoever waits for its cause learns it here.
        last_failure=(ended.diagnosis if ended is not None else None) or record.diagnosis,
        node=record.place.node,
        node_name=record.place.node_name,
        gpus=tuple(gpu.index for gpu in record.place.gpus),
    )
    over = replace(status, endpoint=None, pid=None, ready_at=None)
    if not deployment.wants(record):
        return replace(status, state="stopping", endpoint=None)
    if record.given_up:
        return replace(over, state="failed", diagnosis=record.diagnosis)
    is_early = record.restart_at is not None and now < record.restart_at
    if is_early or sighting is None or ended is not None:
        next_try_at = None
        if record.restart_at is not None:
            next_try_at = wall + max(0.0, record.restart_at - now)
        return replace(
            over,
            state="pending",
            note=_waiting(record) if record.diagnosis is not None else status.note,
            diagnosis=None,
            next_try_at=next_try_at,
        )
    if status.state == "stopping":
        return replace(status, state="unhealthy", endpoint=None)  # and started again
    if not sighting.is_reachable:
        # Whoever waits for a launch waits on: what is not heard of has not begun to serve.
        state = status.state if status.state in _ON_THE_WAY else "unreachable"
        return replace(status, state=state, note="nothing is heard of its actor")
    return status


def _waiting(record: ReplicaRecord) -> str:
    cause = (record.diagnosis or {}).get("cause", "")
    return f"starts again after {cause}, try {record.failures}" if record.failures else ""
