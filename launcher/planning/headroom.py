"""Whether a plan fits what is free, and what to say where it does not. Pure."""

from __future__ import annotations

from collections.abc import Callable

from paddock.launcher.planning.budget import fits_memory
from paddock.launcher.planning.capacity import Fit
from paddock.launcher.planning.pairs import Candidate
from paddock.launcher.planning.placement import gpus_of_replicas, memory_refusal
from paddock.launcher.planning.plan import LaunchPlan, MemoryEstimate
from paddock.launcher.planning.reservations import explain_reservations
from paddock.registry.errors import NoRoom

AMBER_SHARE = 0.8
"""A plan that takes more of the free memory than this has a warning."""
FORCE = "--force launches it all the same"

Commands = Callable[[], tuple[str, ...]]
"""The commands of what fits, which take some time to find."""


def fits_well(memory: MemoryEstimate, candidate: Candidate) -> bool:
    """Whether all that a plan needs is free where it shall lie."""
    beside = memory.offload_bytes * memory.replicas
    return fits_memory(memory, candidate) and beside <= candidate.host.memory_free_bytes


def check_memory(plan: LaunchPlan, fit: Fit, commands: Commands) -> list[str]:
    """Warnings for a tight fit; raises `NoRoom` for what cannot run, unless that is forced."""
    host, weights, memory = fit.best.host, plan.weights, plan.memory
    forced = fit.request.force
    reserved = explain_reservations(host)
    out = "; ".join(filter(None, [reserved, FORCE]))
    if not memory.can_run and not forced:
        gpus = gpus_of_replicas(memory, fit.best.gpus)
        raise memory_refusal(memory, gpus, host, _advice(fit, out), commands())
    offload_bytes = memory.offload_bytes * memory.replicas
    if offload_bytes > host.memory_free_bytes and not forced:
        raise NoRoom(
            "memory",
            host.name,
            offload_bytes,
            host.memory_free_bytes,
            f"keep less of the weights off the GPU; {out}",
            commands=commands(),
        )
    if not weights.here and weights.size_bytes > host.disk_free_bytes and not forced:
        raise NoRoom(
            "disk",
            host.name,
            weights.size_bytes,
            host.disk_free_bytes,
            f"free some, or give weights that are on disk with --model-path; {FORCE}",
        )
    if not memory.fits:
        return [_explain_excess(fit, memory, () if forced else commands())]
    if memory.needed_bytes > AMBER_SHARE * memory.free_bytes:
        share = memory.needed_bytes / memory.free_bytes
        return [
            f"it takes {share:.0%} of the {memory.free_bytes / 1e9:.2f} GB that are free"
            f"{' on its GPUs' if memory.gpus else f' on {host.name}'}: little is left for others"
        ]
    return []


def _advice(fit: Fit, out: str) -> str:
    return f"see: paddock estimate {fit.request.model_name}; {out}"


def _explain_excess(fit: Fit, memory: MemoryEstimate, commands: tuple[str, ...]) -> str:
    host = fit.best.host
    where = "on its GPUs" if memory.gpus else f"on {host.name}"
    text = (
        f"{memory.needed_bytes / 1e9:.2f} GB are needed and {memory.free_bytes / 1e9:.2f} GB "
        f"are free {where}"
    )
    if memory.can_run:
        text += ": weights will be read from the disk again and again, which is slow"
    return f"{text}; what fits: {' or '.join(commands)}" if commands else text
