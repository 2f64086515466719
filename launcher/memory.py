"""How much memory a variant takes: weights, key-value cache, overhead. Pure arithmetic.

The first honest version: the weights are the files' sizes where they are known; the cache follows
from the architecture; the overhead is the engine's own figure. `docs/memory.md` says how far it
agrees with what model cards state.
"""

from __future__ import annotations

from paddock.registry.spec import Architecture, Variant

# Bits that one weight takes, for files whose size nobody states. GGUF block formats carry their
# scales: mixtral.md's figures for the K-quants, 32-weight blocks with a float16 scale for the
# older ones (Q4_0: 4 + 16/32). Int4 and Int8 are GPTQ in groups of 128: a float16 scale and a
# packed zero each.
BITS = {
    "Q2_K": 2.5625,
    "Q3_K_M": 3.4375,
    "Q4_0": 4.5,
    "Q4_K_M": 4.5,
    "Q5_0": 5.5,
    "Q5_K_M": 5.5,
    "Q6_K": 6.5625,
    "Q8_0": 8.5,
    "Int4": 4 + (16 + 4) / 128,
    "Int8": 8 + (16 + 8) / 128,
    "fp8": 8.0,
    "none": 16.0,
}


def weights_bytes(variant: Variant, architecture: Architecture) -> int:
    """Bytes of the weights: as stated by the spec, else parameters × bits of the quantization."""
    if variant.size_bytes is not None:
        return variant.size_bytes
    return round(architecture.parameters * BITS.get(variant.quantization, 16.0) / 8)


def slot_tokens(context: int, step: int) -> int:
    """Tokens of cache that an engine keeps for a slot of `context`: a whole multiple of `step`."""
    return -(-context // step) * step


def cache_bytes(
    architecture: Architecture, tokens: int, element_bytes: tuple[float, float] = (2.0, 2.0)
) -> int:
    """Bytes of the key-value cache for `tokens` tokens.

    tokens × layers × key-value heads × head size × (bytes of a key + bytes of a value), the size
    of the two tensors that grouped-query attention keeps (arXiv:2305.13245). A sliding window is
    not counted on, because llama.cpp keeps the whole context for Mixtral.
    """
    values = tokens * architecture.layers * architecture.key_value_heads * architecture.head_dim
    return round(values * sum(element_bytes))
