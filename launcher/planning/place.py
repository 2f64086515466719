"""Where a replica runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from paddock.launcher.planning.plan import LaunchPlan, PlannedGpu


@dataclass(frozen=True)
class Place:
    """Where one replica runs: a node, and the GPUs that it has there.

    `plan` is its own, where it runs on another node than its generation was planned for: threads,
    and whether the weights are there, differ.
    """

    node: str
    node_name: str
    gpus: tuple[PlannedGpu, ...] = ()
    plan: LaunchPlan | None = None

    @classmethod
    def of(cls, plan: LaunchPlan, number: int = 0) -> Place:
        """The place of the replica of this number in a plan for one node."""
        return cls(plan.node, plan.node_name, plan.gpus_of(number))

    def to_json(self) -> dict[str, Any]:
        """The place as JSON."""
        gpus = [gpu.model_dump(mode="json") for gpu in self.gpus]
        plan = self.plan.to_json() if self.plan is not None else None
        return {"node": self.node, "node_name": self.node_name, "gpus": gpus, "plan": plan}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Place:
        """The inverse of `to_json`."""
        gpus = tuple(PlannedGpu.model_validate(gpu) for gpu in data["gpus"])
        plan = LaunchPlan.from_json(data["plan"]) if data.get("plan") else None
        return cls(data["node"], data["node_name"], gpus, plan)
