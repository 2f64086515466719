"""What an actor is told of its replica, and what it says of it: plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from paddock.launcher.hosts import processes
from paddock.launcher.replicas.health import (
    HEALTH_SECONDS,
)

State = Literal[
    "pending",  # wanted, and not begun; or waiting for its next start
    "downloading",
    "starting",
    "ready",
    "unhealthy",  # its engine hangs, and is about to be ended
    "unreachable",  # nothing is heard of it; it may serve all the same
    "stopping",
    "stopped",
    "failed",  # and not started again
]


@dataclass(frozen=True)
class ReplicaConfig:
    """What a replica needs to know. Durations are seconds.

    Attributes:
        actor: the name of the actor that it runs in; its processes carry it.
        silence: how long a starting engine may neither log nor compute anything.
        gpus: the driver's indices of the GPUs that it has.
        relay: whether the gateway is on another node, and reaches the engine through a relay.
        health_seconds: between two looks at the health of an engine that serves.
    """

    replica_id: str
    plan: dict[str, Any]
    home: str
    instance: str
    stop_grace: float = processes.STOP_GRACE
    hub_timeout: float = 5.0
    silence: float = 120.0
    relay: bool = False
    gpus: tuple[int, ...] = ()
    actor: str = ""
    health_seconds: float = HEALTH_SECONDS


@dataclass(frozen=True)
class ReplicaStatus:
    """A snapshot. `version` grows with every change; `endpoint` is set while ready.

    `took` is what its engine has taken, from when it is ready: `weights_bytes` of the files,
    `start_bytes`, `peak_bytes`, `load_seconds` (`engines/evidence.py`, `Measurement`).
    `chat` says how it was started to chat (`prompt.py`, `Prompt.to_json`).
    `key` is what `endpoint` asks for, and never leaves the gateway. While it downloads, `files` are
    `weights.progress.FileProgress` as dicts; speed and time left are None where they are not known.
    The last six are the fleet's, not the actor's: how often it was started again and after what,
    when the next start is due (in seconds since 1970), and where it runs.
    """

    replica_id: str
    version: int = 0
    state: State = "pending"
    note: str = ""
    came_bytes: int = 0
    total_bytes: int | None = None
    bytes_per_second: float | None = None
    seconds_left: float | None = None
    files: tuple[dict[str, Any], ...] = ()
    endpoint: str | None = None
    key: str = field(default="", repr=False)
    pid: int | None = None
    log: str = ""
    started_at: float = 0.0
    ready_at: float | None = None
    diagnosis: dict[str, Any] | None = None
    actor_pid: int | None = None
    took: dict[str, Any] | None = None
    chat: dict[str, Any] | None = None
    restarts: int = 0
    last_failure: dict[str, Any] | None = None
    next_try_at: float | None = None
    node: str = ""
    node_name: str = ""
    gpus: tuple[int, ...] = ()

    @cached_property
    def start(self) -> str:
        """What tells one start of the replica from the next."""
        return f"{self.replica_id} {self.endpoint}"
