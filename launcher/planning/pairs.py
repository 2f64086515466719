"""Pairs of variant, engine and host: those that can serve, and how far the others came."""

from __future__ import annotations

from dataclasses import dataclass, field

from paddock.engines.base import Devices, Engine, Gpu, Host
from paddock.launcher.planning.placement import (
    choose_gpus,
)
from paddock.launcher.planning.plan import (
    PlannedWeights,
)
from paddock.registry.spec import Variant

# How far a pair of variant and engine came before it was refused. Of an engine's many refusals,
# the one that came furthest is the one worth reading.
NO_ADAPTER, NOT_HERE, WRONG_FORMAT, NOT_LISTED, REFUSED, NO_WEIGHTS = range(6)


@dataclass(frozen=True)
class Candidate:
    """What can be served. `gpus` are those to choose `devices` from; none: the processor."""

    variant: Variant
    engine: Engine
    host: Host
    weights: PlannedWeights
    loaded_bytes: int
    gpus: tuple[Gpu, ...]
    devices: Devices

    @property
    def free_bytes(self) -> int:
        """Of the memory that a replica would lie in, before any does."""
        if not self.gpus:
            return self.host.memory_free_bytes
        each = self.devices.count
        return each * choose_gpus(self.gpus, each, 1, 0)[1]


@dataclass
class Search:
    """What the pairing of variants, engines and hosts found."""

    servable: list[Candidate] = field(default_factory=list)
    refusals: dict[str, tuple[int, str]] = field(default_factory=dict)

    def refuse(self, engine: str, stage: int, reason: str) -> None:
        """Notes a refusal; of an engine's many, the one that came furthest counts."""
        if engine not in self.refusals or self.refusals[engine][0] < stage:
            self.refusals[engine] = stage, reason

    @property
    def refused(self) -> dict[str, str]:
        """Engine → why it was passed over, without those that could serve."""
        served = {candidate.engine.name for candidate in self.servable}
        return {name: reason for name, (_, reason) in self.refusals.items() if name not in served}


@dataclass(frozen=True)
class Pair:
    """A variant on an engine on a host."""

    variant: Variant
    engine: Engine
    host: Host
