"""What a user wants served: frozen values that the store keeps and `decide` reads.

A `Deployment` is what is wanted under one model id. A `Generation` is one plan of it. A
`ReplicaRecord` is one wanted copy, with its own place and what became of its starts so far. Each
start of a copy runs in an actor of its own, whose name holds generation and start: no launch and
no restart ever meets the actor of another.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from paddock.launcher.planning.place import Place
from paddock.launcher.planning.plan import LaunchPlan, LaunchRequest
from paddock.registry.errors import UnknownName
from paddock.registry.launch_fields import RestartWhen, fields_by_attribute

Wanted = Literal["serving", "on_demand", "gone"]
_LAUNCH_FIELDS = fields_by_attribute()


@dataclass(frozen=True)
class Policy:
    """How a deployment is kept.

    Attributes:
        restart: when a replica that ended by itself is started again. `on-failure`: not after an
            engine's orderly exit (code 0).
        restart_tries: restarts in a row that may fail before it is given up; None: no limit.
        silence_seconds: how long an engine may say nothing of a request before the gateway gives up
            on it; None: the gateway's own limit (`server/proxy/upstream.py`).
    """

    restart: RestartWhen = "on-failure"
    restart_tries: int | None = None
    silence_seconds: float | None = None

    @classmethod
    def of(cls, request: LaunchRequest) -> Policy:
        """What a launch asks for."""
        values = {one.name: getattr(request, one.name) for one in fields(cls)}
        return cls(**{name: value for name, value in values.items() if value is not None})

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Policy:
        """A policy from names and values.

        Raises:
            UnknownName: a name, or a word for `restart`, that does not exist.
            BadValue: a value of the wrong type or out of range.
        """
        known = [one.name for one in fields(cls)]
        for name in values:
            if name not in known:
                raise UnknownName.among("policy", name, known)
        checked: dict[str, Any] = {
            name: value if value is None else _LAUNCH_FIELDS[name].check(value)
            for name, value in values.items()
        }
        return cls(**checked)

    def to_json(self) -> dict[str, Any]:
        """The policy as JSON."""
        return dict(vars(self))


def new_generation_id() -> str:
    """An id that no other generation has."""
    return secrets.token_hex(4)


@dataclass(frozen=True)
class Generation:
    """One plan of a deployment; `id` is in the names of its actors."""

    id: str
    plan: LaunchPlan

    @classmethod
    def new(cls, plan: LaunchPlan) -> Generation:
        """A generation with an id that no other has."""
        return cls(new_generation_id(), plan)


@dataclass(frozen=True)
class ReplicaRecord:
    """One wanted copy of a model.

    Attributes:
        id: `UID-repN`, the name that people see.
        start: which start of this copy is wanted; grows with each.
        has_served: it was ready once. Before that a failure is reported and not tried again.
        failures: starts or services in a row that failed; 0 again after a while of service.
        restarts: how often it was started again, in all.
        restart_at: when the next start is due, on the event loop's clock; None: at once. Not kept
            over the gateway's end.
        given_up: it is not started again; `diagnosis` says why.
        diagnosis: the cause of its last failure.
        is_leaving: it is to end, and its record with it.
        leave_at: when a leaving replica is ended whatever it still serves, on the loop's clock.
    """

    id: str
    number: int
    generation: str
    place: Place
    start: int = 0
    has_served: bool = False
    failures: int = 0
    restarts: int = 0
    restart_at: float | None = None
    given_up: bool = False
    diagnosis: dict[str, Any] | None = None
    is_leaving: bool = False
    leave_at: float = 0.0

    @property
    def actor(self) -> str:
        """The name of the actor that is to run it."""
        return actor_name(self.id, self.generation, self.start)

    def to_json(self) -> dict[str, Any]:
        """The record as JSON."""
        return {**vars(self), "place": self.place.to_json(), "restart_at": None, "leave_at": 0.0}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ReplicaRecord:
        """The inverse of `to_json`."""
        return cls(**{**data, "place": Place.from_json(data["place"])})


@dataclass(frozen=True)
class Deployment:
    """What is wanted under one model id. `reason` says why it is wanted so, if not by a launch."""

    uid: str
    generations: tuple[Generation, ...]
    replicas: tuple[ReplicaRecord, ...]
    policy: Policy = field(default_factory=Policy)
    wanted: Wanted = "serving"
    request: Mapping[str, Any] = field(default_factory=dict)
    created: float = 0.0
    next_number: int = 0
    reason: str = ""

    @property
    def plan(self) -> LaunchPlan:
        """The plan of the newest generation."""
        return self.generations[-1].plan

    @property
    def is_attached(self) -> bool:
        """Whether somebody else serves it: there is no actor, and it recovers by itself."""
        return self.plan.attached is not None

    @property
    def is_to_fit(self) -> bool:
        """Whether the launch was one of whatever fits."""
        return bool(self.request.get("fit"))

    def planned_anew(self, plan: LaunchPlan) -> Deployment:
        """With another plan in place of that of its one replica, which has not served yet."""
        generations = (*self.generations[:-1], replace(self.generations[-1], plan=plan))
        record = replace(self.replicas[0], place=Place.of(plan))
        return replace(self, generations=generations).with_replica(record)

    def wants(self, record: ReplicaRecord) -> bool:
        """Whether the replica is to run."""
        return self.wanted == "serving" and not record.is_leaving

    def plan_of(self, record: ReplicaRecord) -> LaunchPlan:
        """What the replica's actor is given: its plan, on its node, with its GPUs alone."""
        place = record.place
        plan = place.plan or next(
            (one.plan for one in self.generations if one.id == record.generation), self.plan
        )
        gpus = (place.gpus,) if place.gpus else ()
        own = {"node": place.node, "node_name": place.node_name, "gpus": gpus}
        return plan.model_copy(update=own)

    def replica(self, replica_id: str) -> ReplicaRecord | None:
        """The record of this id; None if there is none."""
        return next((one for one in self.replicas if one.id == replica_id), None)

    def with_replica(self, record: ReplicaRecord) -> Deployment:
        """With the record in place of the one of its id."""
        replicas = tuple(record if one.id == record.id else one for one in self.replicas)
        return replace(self, replicas=replicas)

    def without_replica(self, replica_id: str) -> Deployment:
        """Without the record of this id; the plan counts the rest."""
        replicas = tuple(one for one in self.replicas if one.id != replica_id)
        return replace(self, replicas=replicas).resized()

    def grown(self, places: tuple[Place, ...]) -> Deployment:
        """With one more replica for each place; numbers are never used again."""
        numbers = range(self.next_number, self.next_number + len(places))
        newest = self.generations[-1].id
        added = tuple(
            ReplicaRecord(replica_name(self.uid, number), number, newest, place)
            for number, place in zip(numbers, places, strict=True)
        )
        more = replace(
            self, replicas=(*self.replicas, *added), next_number=self.next_number + len(places)
        )
        return more.resized()

    def resized(self) -> Deployment:
        """With a plan that counts the replicas as they are."""
        newest = self.generations[-1]
        count = len([one for one in self.replicas if not one.is_leaving]) or 1
        memory = newest.plan.memory.model_copy(update={"replicas": count})
        gpus = tuple(one.place.gpus for one in self.replicas) if newest.plan.gpus else ()
        plan = newest.plan.model_copy(update={"replicas": count, "memory": memory, "gpus": gpus})
        return replace(self, generations=(*self.generations[:-1], replace(newest, plan=plan)))


def replica_name(uid: str, number: int | str) -> str:
    """The id of a model's replica."""
    return f"{uid}-rep{number}"


def replica_number(replica_id: str) -> int:
    """The inverse: which of its model's replicas it is."""
    return int(replica_id.rpartition("-rep")[2])


def actor_name(replica_id: str, generation: str, start: int) -> str:
    """The name of the actor of one start of a replica; a model id has no `@`."""
    return f"{replica_id}@{generation}.{start}"


def replica_of(actor: str) -> str:
    """The id of the replica that an actor runs, by its name."""
    return actor.partition("@")[0]


def deploy(
    plan: LaunchPlan, places: tuple[Place, ...], request: Mapping[str, Any], now: float
) -> Deployment:
    """A new deployment of a plan, with a replica for each place."""
    empty = Deployment(plan.model_id, (Generation.new(plan),), (), request=request, created=now)
    return empty.grown(places)
