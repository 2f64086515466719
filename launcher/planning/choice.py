"""Which variant, engine and host a launch takes, of those that can serve what was left open. Pure.

The memory that a machine has decides, and not what of it is free: the same command on the same
machine chooses the same. `docs/choices.md` has the rules in words, and a table of what follows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from paddock.engines.base import Host
from paddock.engines.evidence import NO_EVIDENCE, Measurement
from paddock.launcher.planning.budget import SHARE, fits_memory, share_of, with_free
from paddock.launcher.planning.capacity import CONTEXTS, in_place, settle
from paddock.launcher.planning.expect import Key, newest_measurements, tokens_per_second
from paddock.launcher.planning.memory import AT_LOAD, weight_bits
from paddock.launcher.planning.pairs import Candidate
from paddock.launcher.planning.plan import LaunchRequest, MemoryEstimate
from paddock.registry.spec import ModelSpec

QUICK_TOKENS_PER_SECOND = 3.0
"""A little slower than people read."""
QUICK_PARAMETERS = 9.5e9
"""Of a dense model on a processor, at most: about 8 billion."""
QUICK_ACTIVE_PARAMETERS = 4.5e9
"""Of a mixture of experts, at most: about 4 billion that are active."""
ALIKE = ("q4_k_m", "q4_k_l", "ud-q4_k_xl", "q4_k", "q4_k_s")
"""Quantizations that lose little for their size, best first."""
LONG_CONTEXT = CONTEXTS[1]
NOT_QUANTIZED = frozenset(("none", "f32", "f16", "fp16", "bf16"))
LEAST_BITS = 2.5
"""With fewer a model says little that makes sense: it is chosen if nothing else fits."""
FOUR_BITS, TWELVE_BITS = 4.0, 12.0
ALIKE_BYTES = 2**28
"""Machines of one kind differ by less of what they say is their memory."""

Level = Literal[0, 1, 2]
"""It fits the share of the memory that the launch may take; else `SHARE` of it; else not even that.
"""
Tier = Literal[0, 1, 2, 3]
"""Quantized to 4 bits or more; to fewer; not at all; only while 16 bits are read, which saves no
download and computes slower."""


@dataclass(frozen=True)
class Verdict:
    """What a candidate is worth: see `Level` and `Tier`.

    `has_long_context`: a context that is long enough for most of what agents begin with fits too.
    `speed` is in tokens/s; 0: not known.
    """

    level: Level
    quick: bool
    has_long_context: bool
    tier: Tier
    speed: float
    needed_bytes: int


class Judge:
    """Judges candidates for one request. What is reckoned once for a variant is kept."""

    def __init__(self, request: LaunchRequest, spec: ModelSpec) -> None:
        self._request = request
        self._spec = spec
        self._reckoned: dict[tuple[str, str, int, int], MemoryEstimate] = {}
        self._newest: dict[int, dict[Key, Measurement]] = {}
        self._keys: dict[tuple[object, ...], tuple[object, ...]] = {}
        self._machines: dict[int, tuple[object, ...]] = {}

    def verdict(self, candidate: Candidate) -> Verdict:
        """The candidate in the memory that its host has."""
        request, shape = self._request, self._spec.shape(candidate.variant.size)
        if "quantization" in request.automatic:  # solved for what is free
            allowed = with_free(candidate, SHARE, of_total=False)
        else:
            allowed = with_free(candidate, share_of(request))
        memory = self._memory(allowed)
        level: Level = 0 if fits_memory(memory, candidate) else 2
        if level and not candidate.gpus and not request.automatic:
            larger = self._memory(with_free(candidate, SHARE))
            level = 1 if larger.fits else 2
        if not level and weight_bits(candidate.variant.quantization) < LEAST_BITS:
            level = 1
        speed = tokens_per_second(candidate, shape, self._measured(candidate.host))
        return Verdict(
            level,
            self._is_quick(candidate, speed),
            not level and fits_memory(self._memory(allowed, LONG_CONTEXT), candidate),
            self.tier(candidate),
            speed,
            memory.needed_bytes,
        )

    def fits_now(self, candidate: Candidate) -> bool:
        """Whether what is free holds the candidate with its least context."""
        return fits_memory(self._memory(candidate), candidate)

    def needed_bytes(self, candidate: Candidate) -> int:
        """What the candidate takes with its least context and slots, wherever it lies."""
        memory = self._memory(candidate)
        return memory.needed_bytes + memory.offload_bytes

    def key(self, candidate: Candidate) -> tuple[object, ...]:
        """Best first: see the module. The same on nodes that are about the same machine."""
        host = candidate.host
        machine = self._machines.get(id(host))
        if machine is None:
            machine = self._machines[id(host)] = _machine(host, bool(self._request.automatic))
        variant, engine, loaded_bytes = candidate.variant, candidate.engine, candidate.loaded_bytes
        here, devices = candidate.weights.here, candidate.devices
        kind = (
            id(variant),
            engine.name,
            here,
            loaded_bytes,
            bool(candidate.gpus),
            devices,
            machine,
        )
        if kind not in self._keys:
            self._keys[kind] = self._find_key(candidate)
        return self._keys[kind]

    def _find_key(self, candidate: Candidate) -> tuple[object, ...]:
        verdict, shape = self.verdict(candidate), self._spec.shape(candidate.variant.size)
        is_here, on_gpus = candidate.weights.here, bool(candidate.gpus)
        if verdict.level:
            few = weight_bits(candidate.variant.quantization) < LEAST_BITS
            least = verdict.needed_bytes
            return verdict.level, not is_here, not on_gpus, few, least, verdict.tier
        size = -shape.parameters if verdict.quick else shape.active_parameters
        return (
            0,
            not on_gpus,
            not is_here,
            not verdict.quick,
            verdict.tier,
            not verdict.has_long_context,
            size,
            *self._preference(candidate, verdict.tier),
            not (on_gpus and candidate.engine.made_for_gpus),
        )

    def _preference(self, candidate: Candidate, tier: Tier) -> tuple[object, ...]:
        """The order of quantizations of one size."""
        name = candidate.variant.quantization
        recommended = [one.casefold() for one in self._spec.recommended]
        place = _place(name.casefold(), recommended)
        if "quantization" in self._request.automatic or tier == 1 or self._spec.type != "LLM":
            most = 0 if "quantization" in self._request.automatic else place
            return most, -candidate.loaded_bytes
        return place, _place(name.casefold(), ALIKE), weight_bits(name), candidate.loaded_bytes

    def tier(self, candidate: Candidate) -> Tier:
        """How much its quantization loses."""
        variant, loaded_bytes = candidate.variant, candidate.loaded_bytes
        if self._spec.type != "LLM":  # vectors suffer from a quantization, and models are small
            return 0
        if variant.format in {"pytorch", "bnb"} and variant.quantization in AT_LOAD:
            return 3
        bits = weight_bits(variant.quantization)
        if bits >= TWELVE_BITS and variant.quantization.casefold() not in NOT_QUANTIZED:
            return 0  # AWQ-Lite and the like
        if bits >= TWELVE_BITS:  # unless the files say otherwise: gpt-oss has MXFP4 in its own
            bits = 8 * loaded_bytes / self._spec.shape(variant.size).parameters
        if bits >= TWELVE_BITS:
            return 2
        return 0 if bits >= FOUR_BITS else 1

    def _is_quick(self, candidate: Candidate, speed: float) -> bool:
        if candidate.gpus or self._spec.type != "LLM":
            return True
        shape = self._spec.shape(candidate.variant.size)
        dense = shape.active_parameters == shape.parameters
        limit = QUICK_PARAMETERS if dense else QUICK_ACTIVE_PARAMETERS
        return shape.active_parameters <= limit and not 0 < speed < QUICK_TOKENS_PER_SECOND

    def _memory(self, candidate: Candidate, least_context: int = CONTEXTS[-1]) -> MemoryEstimate:
        """What it takes with the least context and slots: by formula, which does not change."""
        variant, engine = candidate.variant, candidate.engine
        key = (variant.label, engine.name, candidate.loaded_bytes, least_context)
        if key not in self._reckoned:
            allowed = with_free(candidate, share_of(self._request))
            fit = settle(
                self._request,
                self._spec,
                replace(allowed, host=replace(allowed.host, evidence=NO_EVIDENCE)),
            )
            context, slots = fit.wishes
            context = context or min(least_context, self._spec.context_length)
            self._reckoned[key] = fit.in_host(context, slots or 1)
        return in_place(candidate, self._reckoned[key])

    def _measured(self, host: Host) -> dict[Key, Measurement]:
        key = id(host.evidence)
        if key not in self._newest:
            self._newest[key] = newest_measurements(host.evidence.measured.values())
        return self._newest[key]


def rank(
    request: LaunchRequest, spec: ModelSpec, candidates: Iterable[Candidate]
) -> list[Candidate]:
    """The candidates, best first."""
    return sorted(candidates, key=Judge(request, spec).key)


def choose(
    request: LaunchRequest, spec: ModelSpec, candidates: Sequence[Candidate]
) -> tuple[Candidate, Verdict]:
    """The best candidate; of the nodes that can serve the same, one that has room for it now."""
    judge = Judge(request, spec)
    first = min(candidates, key=judge.key)
    same = [
        one
        for one in candidates
        if one.variant is first.variant and one.engine.name == first.engine.name
    ]
    best = min(
        same,
        key=lambda one: (
            not judge.fits_now(one),
            not one.gpus,
            not one.weights.here,
            -one.free_bytes,
        ),
    )
    return best, judge.verdict(best)


def _machine(host: Host, by_free: bool) -> tuple[object, ...]:
    """What the worth of a candidate on the host depends on."""
    memory = host.memory_free_bytes if by_free else host.memory_total_bytes // ALIKE_BYTES
    gpus = [(one.name, one.free_bytes if by_free else one.total_bytes) for one in host.gpus]
    bandwidth = round(math.log(host.memory_bandwidth or 1.0), 1)  # in steps of 10 %
    return memory, bandwidth, id(host.evidence), *gpus


def _place(name: str, order: Sequence[str]) -> int:
    return order.index(name) if name in order else len(order)
