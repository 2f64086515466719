"""The memory that a replica may hold before its warden ends it: its plan and a margin. Pure.

One request must never take the machine: a grammar or a batch without bounds costs its replica,
which comes back. The limit counts memory that no file backs, so that mapped weights count for
nothing. On a GPU it is the host's memory alone.
"""

from __future__ import annotations

from paddock.launcher.planning.plan import LaunchPlan, MemoryEstimate

MARGIN_SHARE = 0.25
"""Of what the plan counts: formulas of engines that cannot be asked are off by up to that."""
LEAST_MARGIN = 2_000_000_000
GPU_HOST_BYTES = 8_000_000_000
"""What an engine may hold in the host's memory beside what it offloads: plans do not count it."""
RESERVE_SHARE = 0.05
"""Of the machine's memory, which is left to the system if the plan itself leaves it."""


def loading_limit(plan: LaunchPlan, total_bytes: int) -> int:
    """The limit in bytes until the engine is ready, on a machine of `total_bytes`; 0: none.

    Some engines hold a weight twice while they quantize, pack or move it.
    """
    if plan.memory_limit is not None:
        return plan.memory_limit
    twice = plan.memory.weights_bytes if not plan.memory.gpus else _host_bytes(plan.memory)
    return _with_margin(_host_bytes(plan.memory) + twice, total_bytes)


def serving_limit(plan: LaunchPlan, total_bytes: int, held_bytes: int, has_cache: bool) -> int:
    """The limit in bytes of an engine that held `held_bytes` when it was ready; 0: none.

    What it has taken by then stays, and its cache may still fill, unless it has it already.
    """
    if plan.memory_limit is not None:
        return plan.memory_limit
    memory = plan.memory
    grows = 0 if memory.gpus else memory.overhead_bytes + (0 if has_cache else memory.cache_bytes)
    return _with_margin(max(_host_bytes(memory), held_bytes + grows), total_bytes)


def _host_bytes(memory: MemoryEstimate) -> int:
    if memory.gpus:
        return memory.offload_bytes + GPU_HOST_BYTES
    return memory.total_bytes - (memory.weights_bytes if memory.paged else 0)


def _with_margin(planned_bytes: int, total_bytes: int) -> int:
    limit = planned_bytes + max(round(MARGIN_SHARE * planned_bytes), LEAST_MARGIN)
    most = round((1 - RESERVE_SHARE) * total_bytes)
    return max(planned_bytes, min(limit, most))
