"""Bytes of a variant's files, where the tensors of its architecture are known. Pure.

`docs/memory.md` holds the figures against files.
"""

from __future__ import annotations

import re
from functools import lru_cache

from paddock.registry.formats import GGUF
from paddock.registry.sizes.mixtures import (
    Arrangement,
    Mixture,
    Network,
    Tensor,
    arrange,
    mixture_bytes,
)
from paddock.registry.sizes.tensors import (
    header_bytes,
    knows_tensors,
    network_facts,
    network_tensors,
)
from paddock.registry.spec import Architecture

GROUP = 128
"""Weights that share a scale in published GPTQ and AWQ files."""
_NOT_LINEAR = re.compile(
    r"_norm\.|^token_embd|^output\.|per_layer_token_embd|gate_inp|conv1d|\.bias$"
)


@lru_cache(maxsize=1 << 14)
def files_bytes(format: str, quantization: str, architecture: Architecture) -> int | None:
    """Bytes of the files in a format and quantization; None where they do not follow."""
    if not knows_tensors(architecture):
        return None
    if format == GGUF:
        return gguf_bytes(quantization, architecture)
    return packed_bytes(format, quantization, architecture)


def gguf_bytes(quantization: str, architecture: Architecture) -> int | None:
    """Bytes of a GGUF: its header, and the tensors in the types that llama.cpp gives them.

    None for a name that says no mixture.
    """
    mixture = Mixture.named(quantization)
    if mixture is None:
        return None
    header, arrangement, network = _arrange(architecture)
    return header + mixture_bytes(arrangement, network, mixture)


@lru_cache(maxsize=256)
def _arrange(architecture: Architecture) -> tuple[int, Arrangement, Network]:
    tensors = network_tensors(architecture)
    header = header_bytes(architecture, tensors)
    return header, arrange(tensors), network_facts(architecture)


def packed_bytes(format: str, quantization: str, architecture: Architecture) -> int | None:
    """Bytes of GPTQ, AWQ, bitsandbytes or FP8 files: linear layers are packed, the rest is not.

    Embeddings, the output layer, norms and routers stay in 16 bits, with all that is no part of
    the language model. None for other formats, and for names that say no number of bits.
    """
    pack = {"gptq": _gptq, "awq": _awq, "bnb": _bnb, "fp8": _fp8}.get(format)
    width = _width(format, quantization)
    if pack is None or not width:
        return None
    linear = linear_layers(architecture)
    plain = architecture.parameters - linear_elements(architecture)
    return round(2 * plain + sum(count * pack(tensor, width) for tensor, count in linear))


def _width(format: str, quantization: str) -> int:
    """Bits of a packed weight, by the quantization's name; 0 where it names a mixture."""
    if format == "fp8":
        return 8
    found = re.fullmatch(r"(?:int)?([2348])(?:-?bits?|-w[48]a16)?", quantization.casefold())
    return int(found[1]) if found else 4 if quantization.casefold() == "awq" else 0


@lru_cache(maxsize=256)
def linear_layers(architecture: Architecture) -> tuple[tuple[Tensor, int], ...]:
    """What quantizers of safetensors pack: a tensor of each shape, and how many there are."""
    counts: dict[tuple[int, ...], tuple[Tensor, int]] = {}
    for tensor in network_tensors(architecture, drafts=False):
        if len(tensor.shape) > 1 and _NOT_LINEAR.search(tensor.name) is None:
            first, count = counts.get(tensor.shape, (tensor, 0))
            counts[tensor.shape] = first, count + 1
    return tuple(counts.values())


def linear_elements(architecture: Architecture) -> int:
    """The weights that quantizers pack; the rest stays in 16 bits."""
    every = sum(tensor.elements * count for tensor, count in linear_layers(architecture))
    return min(architecture.parameters, every)


def _gptq(tensor: Tensor, bits: int) -> float:
    """A float16 scale and a packed zero for each group, and the group of each input in int32."""
    matrices = tensor.elements // (tensor.shape[0] * tensor.shape[1])
    return _awq(tensor, bits) + 4 * tensor.shape[0] * matrices


def _awq(tensor: Tensor, bits: int) -> float:
    return tensor.elements * (bits + (16 + bits) / GROUP) / 8


def _bnb(tensor: Tensor, bits: int) -> float:
    """NF4: a scale of 8 bits for 64 weights, and a float32 for 256 scales (arXiv:2305.14314).

    Of 8 bits: a float32 scale for each output (arXiv:2208.07339).
    """
    if bits == 8:
        return tensor.elements + 4 * tensor.elements / tensor.shape[0]
    return tensor.elements * (4 + 8 / 64 + 32 / (64 * 256)) / 8


def _fp8(tensor: Tensor, bits: int) -> float:
    """A float32 scale for each block of 128 × 128 (DeepSeek-V3, arXiv:2412.19437)."""
    return tensor.elements * (1 + 4 / (128 * 128))
