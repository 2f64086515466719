"""Weights quantized to four or eight bits by bitsandbytes, in their files or while they are read.

Transformers keeps a mixture's experts in stacked tensors, which bitsandbytes passes over without a
word: nearly all of Mixtral would stay as it is. Defuser, which GPTQModel brings, turns them back
into layers before anything is read. Each layer is then quantized while it is read, or read
quantized from its file; `left` counts the weights that still are not.
"""

from __future__ import annotations

import logging
from typing import Any

import torch

PLAIN = 0.1
"""More than this part of the layers' weights left unquantized is a failed load."""


def unfuse(model_type: str) -> None:
    """Changes the class of a model with experts: each expert becomes layers, as files name them."""
    from defuser import replace_fused_blocks

    # It would warn at every product that its input has another type.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    replace_fused_blocks(model_type)


def prepare(model_type: str, bits: int, compute_dtype: str) -> dict[str, Any]:
    """Arguments for `from_pretrained`. Changes the class of a model with experts."""
    from transformers import BitsAndBytesConfig

    unfuse(model_type)
    config = BitsAndBytesConfig(
        load_in_4bit=bits == 4,
        load_in_8bit=bits == 8,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=getattr(torch, compute_dtype),
    )
    return {"quantization_config": config}


def left(model: Any) -> tuple[float, list[str]]:
    """The part of the weights that is not quantized, and their names, without embeddings and head.

    A quantized weight always has a type of bytes.
    """
    ends = {model.get_input_embeddings(), model.get_output_embeddings()}
    excluded = {
        id(weight) for module in ends if module is not None for weight in module.parameters()
    }
    plain, all_bytes, names = 0, 0, []
    for name, weight in model.named_parameters():
        if id(weight) in excluded:
            continue
        size = weight.numel() * weight.element_size()
        all_bytes += size
        if weight.dtype.is_floating_point and weight.dim() > 1:
            plain += size
            names.append(name)
    return plain / max(1, all_bytes), names


def misshapen(model: Any) -> list[str]:
    """Layers whose weights differ in shape from the model's. No load checks that."""
    from bitsandbytes.nn import Linear4bit, Linear8bitLt

    names = []
    for name, layer in model.named_modules():
        if not isinstance(layer, Linear4bit | Linear8bitLt):
            continue
        packed = getattr(layer.weight, "quant_state", None)
        shape = tuple(layer.weight.shape if packed is None else packed.shape)
        if shape != (layer.out_features, layer.in_features):
            names.append(f"{name}.weight")
    return names
