"""What replicas that are still on their way will take: it is not free, though nobody holds it yet.

Two launches at once would otherwise both be promised the same memory. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from paddock.engines.base import Host
from paddock.launcher.planning.place import Place
from paddock.launcher.planning.plan import LaunchPlan, MemoryEstimate, PlannedGpu


@dataclass(frozen=True)
class Reservation:
    """One replica, mostly not ready yet; `held_bytes` of the host's memory it has already."""

    model_id: str
    node: str
    memory: MemoryEstimate
    gpus: tuple[PlannedGpu, ...] = ()
    held_bytes: int = 0

    @property
    def host_bytes(self) -> int:
        """What it will still take of the host's memory; weights that are mapped make way."""
        memory = self.memory
        own = memory.cache_bytes + memory.overhead_bytes
        if memory.gpus:
            own = memory.offload_bytes
        elif not memory.paged:
            own += memory.weights_bytes
        return max(0, own - self.held_bytes)


def subtract_reservations(host: Host, coming: Sequence[Reservation]) -> Host:
    """The host with what comes to it taken off what is free, and noted in `reserved`.

    Of a GPU all that a replica will take counts, what it has already as well: drivers do not tell.
    """
    of_host: dict[str, int] = {}
    of_gpu: dict[str, int] = {}
    reserved: dict[str, int] = {}
    for one in coming:
        if one.node != host.node:
            continue
        of_host[one.model_id] = of_host.get(one.model_id, 0) + one.host_bytes
        for gpu in one.gpus:
            of_gpu[gpu.uuid] = of_gpu.get(gpu.uuid, 0) + one.memory.gpu_bytes
        taken = one.host_bytes + one.memory.gpu_bytes * len(one.gpus)
        if taken:
            reserved[one.model_id] = reserved.get(one.model_id, 0) + taken
    if not reserved:
        return host
    gpus = tuple(
        replace(gpu, free_bytes=max(0, gpu.free_bytes - of_gpu.get(gpu.uuid, 0)))
        for gpu in host.gpus
    )
    free = max(0, host.memory_free_bytes - sum(of_host.values()))
    return replace(host, memory_free_bytes=free, gpus=gpus, reserved=reserved)


def with_holdings(host: Host, serving: Sequence[Reservation]) -> Host:
    """The host with what replicas that serve hold of it noted in `used`, for refusals."""
    used: dict[str, dict[str, int]] = {}
    for one in serving:
        if one.node != host.node:
            continue
        of_host = one.memory.offload_bytes if one.memory.gpus else one.memory.total_bytes
        amounts = {"": one.held_bytes or of_host}
        amounts |= {gpu.uuid: one.memory.gpu_bytes for gpu in one.gpus}
        for place, size in amounts.items():
            models = used.setdefault(place, {})
            models[one.model_id] = models.get(one.model_id, 0) + size
    return replace(host, used=used) if used else host


def subtract_places(host: Host, plan: LaunchPlan, places: Sequence[Place]) -> Host:
    """The host without the memory that replicas of the plan will take at these places."""
    memory = plan.memory.model_copy(update={"replicas": 1})
    return subtract_reservations(
        host, [Reservation(plan.model_id, place.node, memory, place.gpus) for place in places]
    )


def explain_reservations(host: Host) -> str:
    """What is reserved of the host, for a reason or a refusal; empty if nothing is."""
    amounts = [f"{size / 1e9:.2f} GB for {name}" for name, size in sorted(host.reserved.items())]
    return f"reserved: {' and '.join(amounts)}, still starting" if amounts else ""
