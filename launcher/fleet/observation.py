"""What is known of the actors that run, and of the requests that replicas serve: frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from paddock.launcher.replicas.status import ReplicaStatus


@dataclass(frozen=True)
class Ended:
    """How an actor ended.

    Attributes:
        diagnosis: why; None: it stopped because it was told to.
        is_clean: neither a process of the actor nor one of its engine is left.
        is_engine_gone: no process of its engine is left; the actor has said so.
        is_blameless: it went with its node, or with all of Ray, or could not begin for want of
            them: the replica has not failed.
        wait_seconds: how long the next start waits at least.
    """

    diagnosis: dict[str, Any] | None = None
    is_clean: bool = False
    is_engine_gone: bool = False
    is_blameless: bool = False
    wait_seconds: float = 0.0


@dataclass(frozen=True)
class Sighting:
    """What is known of one actor. Times are on the event loop's clock.

    Attributes:
        status: the last that it told; None before the first word.
        heard_at: when that was.
        is_reachable: whether the last attempt to hear from it succeeded.
        ready_since: since when this gateway has seen it ready without a break.
        ended: how it ended, once it has.
    """

    actor: str
    node: str
    status: ReplicaStatus | None = None
    heard_at: float = 0.0
    is_reachable: bool = True
    ready_since: float | None = None
    ended: Ended | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing of it is left."""
        return self.ended is not None and self.ended.is_clean

    @property
    def may_have_engine(self) -> bool:
        """Whether an engine of it may live, and hold its memory."""
        return self.ended is None or not (self.ended.is_clean or self.ended.is_engine_gone)


@dataclass(frozen=True)
class Observation:
    """The actors that are known, by name, and what stands in their way.

    Attributes:
        busy: actors and model ids for which an action is being carried out.
        lost_nodes: Ray's ids of nodes that count as dead.
        is_complete: the actors that live have been listed; before that, one that is not known may
            live all the same.
    """

    actors: Mapping[str, Sighting] = field(default_factory=dict)
    busy: frozenset[str] = frozenset()
    lost_nodes: frozenset[str] = frozenset()
    is_complete: bool = True


@dataclass(frozen=True)
class ReplicaLoad:
    """The requests that a replica serves now.

    Attributes:
        in_flight: how many.
        slots: how many it can serve side by side.
        quiet_seconds: for how long its engine has had requests, and sent nothing to any of them.
        probed_at: when it was last asked whether it still works.
    """

    in_flight: int = 0
    slots: int = 1
    quiet_seconds: float = 0.0
    probed_at: float = 0.0


Activity = Mapping[str, ReplicaLoad]
"""What the gateway knows of its requests: replica id → load. No entry: no request."""
