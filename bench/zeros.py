"""Folders of safetensors whose weights are zeros: as long as a real model's, and nothing to bring.

The files are sparse, so that they take no disk. The tokenizer is tiny-mixtral's.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TOKENIZER = Path(__file__).parent.parent / "specs/weights/tiny-mixtral/pytorch/none"
SHAPE: Mapping[str, Any] = {
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 1024,
    "max_position_embeddings": 8192,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "dtype": "bfloat16",
    "torch_dtype": "bfloat16",
    "vocab_size": 32_000,
}
DENSE: Mapping[str, Any] = {
    **SHAPE,
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "intermediate_size": 2816,
    "num_hidden_layers": 12,
}
MIXTURE: Mapping[str, Any] = {
    **SHAPE,
    "architectures": ["MixtralForCausalLM"],
    "model_type": "mixtral",
    "intermediate_size": 3072,
    "num_hidden_layers": 10,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
}


def write_zeros(folder: Path, config: Mapping[str, Any]) -> Path:
    """A folder with a model of zeros in bfloat16, `DENSE` or `MIXTURE`; returns it."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TOKENIZER / name, folder)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in tensors(config).items():
        begin, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    return folder


def tensors(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a Llama's or a Mixtral's weights, as Transformers publishes them."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    narrow = hidden * config["num_key_value_heads"] // config["num_attention_heads"]
    words = (config["vocab_size"], hidden)
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": words}
    for number in range(config["num_hidden_layers"]):
        layer = f"model.layers.{number}"
        for name, rows in (("q", hidden), ("k", narrow), ("v", narrow), ("o", hidden)):
            shapes[f"{layer}.self_attn.{name}_proj.weight"] = (rows, hidden)
        for name in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{layer}.{name}.weight"] = (hidden,)
        experts = config.get("num_local_experts", 0)
        for expert in range(experts):
            part = f"{layer}.block_sparse_moe.experts.{expert}"
            shapes[f"{part}.w1.weight"] = shapes[f"{part}.w3.weight"] = (inner, hidden)
            shapes[f"{part}.w2.weight"] = (hidden, inner)
        if experts:
            shapes[f"{layer}.block_sparse_moe.gate.weight"] = (experts, hidden)
        else:
            for name in ("gate", "up"):
                shapes[f"{layer}.mlp.{name}_proj.weight"] = (inner, hidden)
            shapes[f"{layer}.mlp.down_proj.weight"] = (hidden, inner)
    return {**shapes, "model.norm.weight": (hidden,), "lm_head.weight": words}
