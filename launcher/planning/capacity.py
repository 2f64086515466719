"""Context and slots of a launch: as requested, else what the machine's memory holds. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from paddock.engines.base import EngineOptions
from paddock.launcher.planning.budget import MACHINE_SHARE, SHARE, fits_memory, with_free
from paddock.launcher.planning.pairs import Candidate
from paddock.launcher.planning.placement import to_gpu_memory
from paddock.launcher.planning.plan import LaunchRequest, MemoryEstimate
from paddock.launcher.planning.reckon import Setup, reckon
from paddock.launcher.planning.subject import subject_of
from paddock.registry.errors import BadValue, UnknownName
from paddock.registry.spec import ModelSpec

CONTEXTS = (32_768, 16_384, 8192)
"""Contexts of one request that a launch chooses among, if the model has them."""
AGENTS = "an agent's first prompt has 7,000 to 20,000 tokens"
CONTEXT_STEP = 1024
"""Tokens by which a context is solved for the free memory."""
SLOTS = 4
"""Slots that a launch chooses at most."""


@dataclass(frozen=True)
class Fit:
    """A candidate with settled options, for trying contexts and slots."""

    request: LaunchRequest
    spec: ModelSpec
    best: Candidate
    options: EngineOptions

    @property
    def wishes(self) -> tuple[int | None, int | None]:
        """Context and slots that the request or the engine's own options name."""
        by_option, slots = self.best.engine.context_and_slots(self.options)
        return by_option or self.request.context_length, slots

    @property
    def longest_context(self) -> int:
        """What the model was trained for, or what the engine's options extend that to."""
        return self.best.engine.longest_context(self.options, self.spec.context_length)

    def memory(self, context: int, slots: int) -> MemoryEstimate:
        """What the replicas need, with a context of so many tokens for each of so many slots."""
        return in_place(self.best, self.in_host(context, slots))

    def in_host(self, context: int, slots: int) -> MemoryEstimate:
        """The same, were all of it in the host's memory."""
        best = self.best
        gpus = [best.gpus[0].name] * best.devices.count if best.gpus else ()
        subject = None
        if best.host.evidence.measured or best.host.evidence.asked:
            subject = subject_of(
                best.variant,
                best.engine.name,
                self.options,
                best.host,
                gpus,
                self.request.projector,
            )
        setup = Setup(
            self.spec.shape(best.variant.size),
            best.loaded_bytes,
            best.engine,
            self.options,
            self.spec.type != "LLM",
            best.weights.size_bytes if best.weights.size_known else None,
            subject,
            best.host.evidence,
            len(gpus),
        )
        return reckon(setup, context, slots, best.free_bytes, self.request.replicas)

    def within(self, best: Candidate) -> Fit:
        """The same on a candidate with other memory."""
        return replace(self, best=best)


def in_place(candidate: Candidate, memory: MemoryEstimate) -> MemoryEstimate:
    """What was reckoned by `Fit.in_host`, in the memory in which the candidate lies."""
    if candidate.gpus:
        return to_gpu_memory(memory, candidate.gpus, candidate.devices)
    return memory.model_copy(update={"free_bytes": candidate.host.memory_free_bytes})


def settle(request: LaunchRequest, spec: ModelSpec, candidate: Candidate) -> Fit:
    """The candidate with the requested options, and the engine's choice of the others.

    Options that this engine does not have are left out: another engine's are refused later.
    """
    engine = candidate.engine
    try:
        requested = engine.options.parse(engine.name, request.engine_options)
    except (BadValue, UnknownName):
        requested = engine.options()
    copied = candidate.loaded_bytes * request.replicas
    return Fit(request, spec, candidate, engine.fill_defaults(requested, candidate.host, copied))


def choose_context_and_slots(fit: Fit) -> tuple[int, int, list[str]]:
    """Context and slots: as requested, else the most of `CONTEXTS` and `SLOTS` that fit.

    By the memory that the launch may take of what the machine has; a context of `auto` by what is
    free.

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
    longest = fit.longest_context
    if context is not None and context > longest:
        reason = f"{spec.name} was trained for {spec.context_length} at most"
        if longest > spec.context_length:
            reason += f", which its RoPE scaling extends to {longest}"
        raise BadValue("context length", context, reason)
    reasons: list[str] = []
    # However much the weights take that were asked for: what nobody asked for takes no more.
    allowed = fit.within(with_free(fit.best, MACHINE_SHARE))
    if request.automatic:
        allowed = fit.within(with_free(fit.best, SHARE, of_total=False))
    if context is None and "context_length" in request.automatic:
        context = _longest(allowed, slots or 1)
        reasons.append(f"context {context}: the longest that the free memory holds")
    elif context is None:
        context = _choose_context(allowed, slots or 1)
        reasons.append(f"context {context}: {_explain_context(context, longest)}")
    if slots is None:
        slots = SLOTS
        while slots > 1 and not _fits(allowed, context, slots):
            slots //= 2
        budget = "the free memory" if request.automatic else "the memory for it"
        reasons.append(
            f"slots {slots}: {budget} holds their caches; more only if they are asked for"
            if slots == SLOTS
            else f"slots {slots}: as many as {budget} holds"
        )
    return context, slots, reasons


def _fits(fit: Fit, context: int, slots: int) -> bool:
    return fits_memory(fit.memory(context, slots), fit.best)


def _choose_context(fit: Fit, slots: int) -> int:
    contexts = sorted({min(one, fit.longest_context) for one in CONTEXTS}, reverse=True)
    return next((one for one in contexts if _fits(fit, one, slots)), contexts[-1])


def _longest(fit: Fit, slots: int) -> int:
    """The longest context that fits, in steps of `CONTEXT_STEP`; that at least."""
    most, step = fit.longest_context, max(CONTEXT_STEP, fit.best.engine.context_step)
    if _fits(fit, most, slots):
        return most
    low, high = 1, -(-most // step)  # in steps: `low` fits or is the least, `high` does not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _fits(fit, middle * step, slots) else (low, middle)
    return min(low * step, most)


def _explain_context(context: int, longest: int) -> str:
    if context == longest:
        return "all that the model has"
    if context == CONTEXTS[0]:
        return f"of {longest}; {AGENTS}"
    return f"of {longest}, because the memory for it holds no more; {AGENTS}"
