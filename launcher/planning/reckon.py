"""The one reckoner of memory: what replicas of a variant take with an engine. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from paddock.engines.base import Engine, EngineOptions
from paddock.launcher.planning.cache import cache_bytes
from paddock.launcher.planning.memory import slot_tokens
from paddock.launcher.planning.plan import MemoryEstimate
from paddock.registry.spec import Architecture

UNADAPTED_OVERHEAD_BYTES = 1_000_000_000
"""Where no engine for the format has an adapter: a process with a deep-learning runtime."""


@dataclass(frozen=True)
class Setup:
    """An engine with settled options, and the architecture and size of the weights in memory.

    `engine` and `options` are None where no engine for the format has an adapter. `pooled`: the
    model embeds or ranks.
    """

    architecture: Architecture
    loaded_bytes: int
    engine: Engine | None = None
    options: EngineOptions | None = None
    pooled: bool = False


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
    return MemoryEstimate(
        weights_bytes=setup.loaded_bytes,
        cache_bytes=cache_bytes(
            architecture,
            tokens,
            slots,
            engine.cache_element_bytes(options),
            engine.cache_rules(architecture, options, setup.pooled),
        ),
        overhead_bytes=engine.overhead_bytes(architecture, options, tokens, slots, setup.pooled),
        free_bytes=free_bytes,
        paged=engine.pages(options),
        replicas=replicas,
    )
