"""How much memory a launch may take where the user leaves its size open. Pure."""

from __future__ import annotations

from dataclasses import replace

from paddock.engines.base import Gpu
from paddock.launcher.planning.pairs import Candidate
from paddock.launcher.planning.plan import LaunchRequest, MemoryEstimate

MACHINE_SHARE = 0.5
"""Share of the machine's memory for a launch that names neither size nor quantization."""
SHARE = 0.9
"""Share for a launch that does; and of a GPU's memory, in which nothing else has to live."""


def share_of(request: LaunchRequest) -> float:
    """The share of a machine's memory that the launch may take."""
    named = (request.size, request.quantization, request.format, request.model_path)
    specific = any(named) or request.context_length or request.lock or request.automatic
    return SHARE if specific else MACHINE_SHARE


def with_free(candidate: Candidate, host_share: float, of_total: bool = True) -> Candidate:
    """The candidate as if just what a launch may take was free.

    That is a share of the memory that the host has, or of what is free now; of GPUs `SHARE`.
    """
    host = candidate.host
    total = host.memory_total_bytes if of_total else host.memory_free_bytes
    return replace(
        candidate,
        host=replace(host, memory_free_bytes=round(host_share * total)),
        gpus=tuple(_with_free(gpu, of_total) for gpu in candidate.gpus),
    )


def _with_free(gpu: Gpu, of_total: bool) -> Gpu:
    return replace(gpu, free_bytes=round(SHARE * (gpu.total_bytes if of_total else gpu.free_bytes)))


def fits_memory(memory: MemoryEstimate, candidate: Candidate) -> bool:
    """Whether the memory that is free holds it, on GPUs without any left to the host's memory.

    Weights that the request itself leaves there do not count.
    """
    by_itself = candidate.devices.offload_bytes is None and memory.offload_bytes > 0
    return memory.fits and not by_itself
