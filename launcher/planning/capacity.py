"""Context, slots and memory of a launch: as requested, else the most that the host has."""

from __future__ import annotations

from dataclasses import dataclass

from paddock.engines.base import EngineOptions
from paddock.launcher.planning.pairs import Candidate
from paddock.launcher.planning.placement import (
    gpus_of_replicas,
    memory_refusal,
    to_gpu_memory,
)
from paddock.launcher.planning.plan import (
    LaunchRequest,
    MemoryEstimate,
)
from paddock.launcher.planning.reckon import Setup, reckon
from paddock.launcher.planning.reservations import explain_reservations
from paddock.launcher.planning.subject import subject_of
from paddock.registry.errors import BadValue, NoRoom
from paddock.registry.spec import ModelSpec

# Context and slots that a launch gets when the user names none: at most this many slots, with no
# more than this share of the free memory for the caches of all of them, and a context no shorter
# than this (or than the model's own) to make room.
SLOTS = 4
CACHE_SHARE = 0.25
LEAST_CONTEXT = 4096


@dataclass(frozen=True)
class Fit:
    """A candidate with settled options, for trying contexts and slots."""

    request: LaunchRequest
    spec: ModelSpec
    best: Candidate
    options: EngineOptions

    def memory(self, context: int, slots: int) -> MemoryEstimate:
        """What the replicas need, with a context of so many tokens for each of so many slots."""
        best = self.best
        setup = Setup(
            self.spec.shape(best.variant.size),
            best.loaded_bytes,
            best.engine,
            self.options,
            self.spec.type != "LLM",
            best.weights.size_bytes if best.weights.here or best.variant.size_bytes else None,
            subject_of(
                best.variant,
                best.engine.name,
                self.options,
                best.host,
                [best.gpus[0].name] * best.devices.count if best.gpus else (),
                self.request.projector,
            ),
            best.host.evidence,
        )
        estimate = reckon(setup, context, slots, best.free_bytes, self.request.replicas)
        return to_gpu_memory(estimate, best.gpus, best.devices) if best.gpus else estimate


def choose_context_and_slots(fit: Fit) -> tuple[int, int, list[str]]:
    """Context and slots: as requested, else the most that the memory holds.

    Raises:
        BadValue: a context beyond the model's, or another than the engine's own option says.
    """
    spec, request = fit.spec, fit.request
    by_option, slots = fit.best.engine.context_and_slots(fit.options)
    if by_option and request.context_length and by_option != request.context_length:
        raise BadValue(
            "context length", request.context_length, f"the engine's own option says {by_option}"
        )
    context = by_option or request.context_length
    if context is not None and context > spec.context_length:
        raise BadValue(
            "context length", context, f"{spec.name} was trained for {spec.context_length} at most"
        )
    reasons: list[str] = []
    if context is None:
        context = spec.context_length
        while context > LEAST_CONTEXT and not fit.memory(context, slots or 1).fits:
            context = max(LEAST_CONTEXT, context // 2)
        full = context == spec.context_length
        reasons.append(
            f"context {context}: "
            + ("all that the model has" if full else f"of {spec.context_length}, to save memory")
        )
    if slots is None:
        slots = SLOTS
        while slots > 1 and not _is_roomy(fit.memory(context, slots)):
            slots //= 2
        reasons.append(
            f"slots {slots}: up to {SLOTS}, while their caches take no more than "
            f"{CACHE_SHARE:.0%} of the free memory"
            if slots > 1
            else "slots 1: the cache of a second would take too much of the free memory"
        )
    return context, slots, reasons


def _is_roomy(memory: MemoryEstimate) -> bool:
    caches = memory.cache_bytes * memory.replicas
    return memory.fits and caches <= CACHE_SHARE * memory.free_bytes


def check_memory(fit: Fit, memory: MemoryEstimate, context: int, slots: int) -> list[str]:
    """Warnings for a tight fit; raises `NoRoom` for what cannot run at all."""
    host, weights = fit.best.host, fit.best.weights
    if not memory.can_run:
        raise memory_refusal(
            memory, gpus_of_replicas(memory, fit.best.gpus), host, _suggest(fit, context, slots)
        )
    if memory.offload_bytes * memory.replicas > host.memory_free_bytes:
        offload_bytes = memory.offload_bytes * memory.replicas
        out = "keep less of the weights off the GPU"
        raise NoRoom("memory", host.name, offload_bytes, host.memory_free_bytes, out)
    if not weights.here and weights.size_bytes > host.disk_free_bytes:
        raise NoRoom(
            "disk",
            host.name,
            weights.size_bytes,
            host.disk_free_bytes,
            "free some, or give weights that are on disk with --model-path",
        )
    if memory.fits:
        return []
    return [
        f"{memory.needed_bytes / 1e9:.2f} GB are needed and {memory.free_bytes / 1e9:.2f} GB "
        f"are free on {host.name}: weights will be read from the disk again and again, "
        "which is slow; a smaller --quantization or a shorter --context-length fits better"
    ]


def _suggest(fit: Fit, context: int, slots: int) -> str:
    """The first change that makes the launch fit, and the memory reserved for others."""
    reserved = explain_reservations(fit.best.host)
    return (
        f"{_first_change_that_fits(fit, context, slots)} ({reserved})"
        if reserved
        else _first_change_that_fits(fit, context, slots)
    )


def _first_change_that_fits(fit: Fit, context: int, slots: int) -> str:
    shorter = context // 2
    while shorter >= fit.best.engine.context_step:
        if fit.memory(shorter, slots).can_run:
            return f"--context-length {shorter} would fit"
        shorter //= 2
    if slots > 1 and fit.memory(context, 1).can_run:
        return "one slot in place of several would fit"
    if fit.request.replicas > 1:
        return "ask for fewer replicas or a smaller --quantization"
    return f"ask for a smaller --quantization; see: paddock estimate {fit.request.model_name}"
