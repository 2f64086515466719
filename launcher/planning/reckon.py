"""The one reckoner of memory: what replicas of a variant take with an engine. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from paddock.engines.base import Engine, EngineOptions
from paddock.engines.evidence import NO_EVIDENCE, PROCESSOR, Asked, Evidence, Measurement, Subject
from paddock.launcher.planning.cache import cache_bytes
from paddock.launcher.planning.memory import slot_tokens
from paddock.launcher.planning.plan import MemoryEstimate
from paddock.registry.spec import Architecture

FULL_BATCH = 512
"""Tokens of a prompt after which the buffers of every engine here have their full size."""
UNADAPTED_OVERHEAD_BYTES = 1_000_000_000
"""Where no engine for the format has an adapter: a process with a deep-learning runtime."""


@dataclass(frozen=True)
class Setup:
    """An engine with settled options, and the architecture and size of the weights in memory.

    `engine` and `options` are None where no engine for the format has an adapter. `pooled`: the
    model embeds or ranks. With a `subject`, of any context and slots, the `evidence` of it counts;
    `stored_bytes` are those of the files, None where that is a guess; `gpus` is their number.
    """

    architecture: Architecture
    loaded_bytes: int
    engine: Engine | None = None
    options: EngineOptions | None = None
    pooled: bool = False
    stored_bytes: int | None = None
    subject: Subject | None = None
    evidence: Evidence = NO_EVIDENCE
    gpus: int = 0


def reckon(
    setup: Setup, context: int, slots: int, free_bytes: int, replicas: int = 1
) -> MemoryEstimate:
    """What replicas need, each with `slots` requests of `context` tokens side by side.

    An engine keeps its cache in steps: each slot gets the context rounded up to one. `free_bytes`
    is of the memory that the replicas would lie in.
    """
    engine, options, architecture = setup.engine, setup.options, setup.architecture
    if engine is None or options is None:
        return MemoryEstimate(
            weights_bytes=setup.loaded_bytes,
            cache_bytes=cache_bytes(architecture, context, slots),
            overhead_bytes=UNADAPTED_OVERHEAD_BYTES,
            free_bytes=free_bytes,
            replicas=replicas,
        )
    tokens = slot_tokens(context, engine.context_step)
    estimate = MemoryEstimate(
        weights_bytes=setup.loaded_bytes,
        cache_bytes=cache_bytes(
            architecture,
            tokens,
            slots,
            engine.cache_element_bytes(options),
            engine.cache_rules(architecture, options, setup.pooled),
        ),
        overhead_bytes=engine.overhead_bytes(architecture, options, tokens, slots, setup.pooled)
        + setup.gpus * engine.gpu_bytes,
        free_bytes=free_bytes,
        paged=engine.pages(options),
        replicas=replicas,
    )
    if setup.subject is None:
        return estimate
    subject = replace(setup.subject, context_length=context, slots=slots)
    asked = setup.evidence.asked.get(subject)
    stored = setup.stored_bytes
    if asked is not None and stored is not None and asked.file_bytes != stored:
        asked = None
    if asked is not None:
        estimate = estimate.model_copy(
            update={
                "weights_bytes": asked.weights_bytes,
                "cache_bytes": asked.cache_bytes,
                "overhead_bytes": asked.compute_bytes + asked.process_bytes,
                "source": "engine",
                "at": asked.at,
            }
        )
    measured = setup.evidence.measured.get(subject)
    if measured is None or (stored is not None and not measured.is_of(stored)):
        return estimate
    return replace_measured(estimate, measured, asked, engine.allocates_cache)


def replace_measured(
    estimate: MemoryEstimate, measured: Measurement, asked: Asked | None, allocates_cache: bool
) -> MemoryEstimate:
    """The estimate with what was measured in the place of what the replica has exercised.

    A cache that grows with requests stays reckoned, all slots full, and so do buffers that no
    prompt of `FULL_BATCH` tokens has filled yet. Weights in pages of files were not measured.
    """
    in_pages = estimate.paged and measured.subject.device == PROCESSOR
    mapped = asked.mapped_bytes if asked else estimate.weights_bytes if in_pages else 0
    at_start = estimate.weights_bytes - mapped
    if allocates_cache:
        at_start += estimate.cache_bytes
    beside = measured.start_bytes - at_start
    if beside < 0:  # the weights are not where they were thought to be: nothing follows
        return estimate
    grown = 0 if allocates_cache else estimate.cache_bytes
    beside = max(beside, measured.peak_bytes - at_start - grown)
    if measured.longest_prompt < FULL_BATCH:
        beside = beside + asked.compute_bytes if asked else max(beside, estimate.overhead_bytes)
    return estimate.model_copy(
        update={
            "overhead_bytes": beside,
            "source": "measured",
            "at": measured.at,
            "machine": measured.machine,
        }
    )
