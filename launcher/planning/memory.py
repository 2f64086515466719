"""How much memory the weights of a variant take. Pure arithmetic.

They are the files' sizes where those are known; the cache is `cache.py`'s, the overhead the
engine's own figure. `docs/memory.md` says how far it agrees with what model cards state.
"""

from __future__ import annotations

import re

from paddock.registry.sizes.files import files_bytes, linear_elements
from paddock.registry.sizes.tensors import knows_tensors
from paddock.registry.spec import Architecture, Variant

# Bits that one weight takes, for files whose size nobody states. GGUF block formats carry their
# scales: mixtral.md's figures for the K-quants, 32-weight blocks with a float16 scale for the
# older ones (Q4_0: 4 + 16/32). Int4 and Int8 are GPTQ in groups of 128: a float16 scale and a
# packed zero each. The other block formats are as ggml-common.h of llama.cpp lays them out; of the
# IQ types, which come in three sizes, the largest counts.
BITS = {
    "none": 16.0,
    "F32": 32.0,
    "F16": 16.0,
    "FP16": 16.0,
    "BF16": 16.0,
    "fp8": 8.0,
    "Q2_K": 2.5625,
    "Q3_K": 3.4375,
    "Q4_0": 4.5,
    "Q4_1": 5.0,
    "Q4_K": 4.5,
    "Q5_0": 5.5,
    "Q5_1": 6.0,
    "Q5_K": 5.5,
    "Q6_K": 6.5625,
    "Q8_0": 8.5,
    "Q8_K": 9.125,
    "IQ1": 1.75,
    "IQ2": 2.5,
    "IQ3": 3.4375,
    "IQ4": 4.5,
    "TQ1_0": 1.6875,
    "TQ2_0": 2.0625,
    "MXFP4": 4.25,
    "MXFP8": 8.25,
    "NVFP4": 4.5,
    "Int3": 3 + (16 + 3) / 128,
    "Int4": 4 + (16 + 4) / 128,
    "Int8": 8 + (16 + 8) / 128,
    # MLX: groups of 64 with a float16 scale and bias.
    **{f"{bits}bit": bits + 32 / 64 for bits in (2, 3, 4, 5, 6, 8)},
}
# By bitsandbytes, of plain files while they are read: NF4 in blocks of 64 with a float32 scale
# (arXiv:2305.14314), and rows of bytes with one (arXiv:2208.07339).
AT_LOAD = {"4-bit": 4 + 32 / 64, "8-bit": 8.0}
_TYPE = re.compile(r"(?:^|[^A-Za-z])(?:I?Q|TQ|MXFP|FP)([1-8])(?:$|[^0-9])", re.IGNORECASE)
_BITS = {name.casefold(): bits for name, bits in BITS.items()}


def weight_bits(quantization: str) -> float:
    """Bits of one weight by the quantization's name, without case; 16 for a name that says nothing.

    Of mixtures such as Q4_K_M, UD-Q4_K_XL or IQ3_XXS the type that they are named after counts; of
    a publisher's own labels, such as Q8 or a file's whole name, the digit of the first type.
    """
    name = quantization.casefold().removeprefix("ud-").removeprefix("i1-").replace("-bit", "bit")
    while name not in _BITS and "_" in name:
        name = name.rpartition("_")[0]
    if name in _BITS:
        return _BITS[name]
    digit = _TYPE.search(quantization)
    return int(digit[1]) + 0.5 if digit else 16.0


def weights_bytes(variant: Variant, architecture: Architecture) -> int:
    """Bytes of the files: as stated, else by the network's tensors, else parameters × bits."""
    if variant.size_bytes is not None:
        return variant.size_bytes
    follows = files_bytes(variant.format, variant.quantization, architecture)
    if follows is not None:
        return follows
    at_load = variant.format == "pytorch" and variant.quantization in AT_LOAD
    bits = BITS["none"] if at_load else weight_bits(variant.quantization)
    return round(architecture.parameters * bits / 8)


def loaded_bytes(
    variant: Variant,
    architecture: Architecture,
    stored: int,
    element_bytes: float | None = None,
) -> int:
    """Bytes of the weights in memory, of `stored` in files: less, if quantized while read.

    Embeddings and the head stay as they are in the files. Weights that are not quantized take
    `element_bytes` each, where the engine is told of another type than the files have.
    """
    if variant.format != "pytorch":
        return stored
    bits = AT_LOAD.get(variant.quantization)
    if bits is None:
        # Files are in 16 or 32 bits; what a spec states of parameters is rounded, the ratio is not.
        in_files = 4.0 if stored > 3 * architecture.parameters else 2.0
        if element_bytes is None or variant.quantization != "none":
            return stored
        return round(stored * element_bytes / in_files)
    if knows_tensors(architecture):
        layers = linear_elements(architecture)
        apart = architecture.parameters - layers
    else:
        apart = 2 * architecture.vocabulary_size * architecture.hidden_size
        layers = max(0, architecture.parameters - apart)
    return min(stored, round(apart * 2 + layers * bits / 8))


def slot_tokens(context: int, step: int) -> int:
    """Tokens of cache that an engine keeps for a slot of `context`: a whole multiple of `step`."""
    return -(-context // step) * step
