"""What the layers of a model keep between steps: keys and values, latent rows, states. Pure.

Layers of one kind are a group. `docs/memory.md` holds the sums against llama.cpp's own.
"""

from __future__ import annotations

from dataclasses import dataclass

from paddock.engines.base import CacheRules
from paddock.registry.spec import Architecture

STATE_BYTES = 4
"""One number of a recurrent state: float32 (llama.cpp's src/llama-model.cpp, create_memory)."""


@dataclass(frozen=True)
class CacheGroup:
    """Layers that keep the same.

    Attributes:
        keys: numbers in the keys of one layer for one token.
        values: numbers in its values for one token.
        window: tokens that they look back; None: the whole context.
        state: numbers that one layer keeps for each slot, whatever its context.
    """

    layers: int
    keys: int = 0
    values: int = 0
    window: int | None = None
    state: int = 0


def cache_groups(architecture: Architecture, latent: bool = False) -> tuple[CacheGroup, ...]:
    """The groups of layers, without those that keep nothing.

    Grouped-query attention keeps key-value heads × head size of each (arXiv:2305.13245);
    multi-head latent attention, if `latent`, one row of kv_lora_rank + qk_rope_head_dim and no
    values (arXiv:2405.04434; llama.cpp's src/llama-kv-cache.cpp), else full keys and values. An
    indexer keeps one key more.
    """
    a = architecture
    # Layers that share are the last ones; those before them alternate as all do.
    keeping = max(0, a.attending - a.kv_shared_layers)
    whole = -(-keeping * max(0, a.attending - a.sliding_layers) // max(1, a.attending))
    sliding = keeping - whole
    key, value = a.key_value_heads * a.head_dim, a.key_value_heads * (a.v_head_dim or a.head_dim)
    if latent and a.kv_lora_rank:
        key, value = a.kv_lora_rank + (a.qk_rope_head_dim or 0), 0
    global_heads = a.global_key_value_heads or a.key_value_heads
    global_key, global_value = key, value
    if a.global_head_dim or a.global_key_value_heads:
        global_key = global_value = global_heads * (a.global_head_dim or a.head_dim)
    index = a.index_head_dim or 0
    groups = (
        CacheGroup(whole, global_key + index, global_value),
        CacheGroup(sliding, key + index, value, a.sliding_window),
        CacheGroup(a.recurrent_layers, state=a.recurrent_state),
    )
    return tuple(group for group in groups if group.layers)


def cache_bytes(
    architecture: Architecture,
    context: int,
    slots: int = 1,
    element_bytes: tuple[float, float] = (2.0, 2.0),
    rules: CacheRules = CacheRules(),  # noqa: B008 — frozen
) -> int:
    """Bytes that all slots keep, each with `context` tokens, in an engine with these rules."""
    if not rules.kept:
        return 0
    of_key, of_value = element_bytes
    total = 0.0
    for group in cache_groups(architecture, rules.latent):
        tokens = context
        if group.window is not None:
            tokens = rules.window_tokens(context, group.window)
        row = group.keys * of_key + group.values * of_value
        # An engine whose cache takes no bytes (echo, encoders) keeps no state either.
        state = group.state * STATE_BYTES if of_key or of_value else 0
        total += group.layers * (tokens * row + state)
    return round(slots * total)
