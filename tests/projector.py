"""A projector for tiny-mixtral's pictures: the smallest of LLaVA's kind, with random weights."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

HIDDEN, WIDTH, HEADS, PATCH, SIDE, TEXT = 64, 128, 4, 14, 28, 256
PATCHES = (SIDE // PATCH) ** 2
"""Tokens that a picture becomes."""


def write_projector(target: Path) -> None:
    """Writes a vision encoder of one layer and the two layers that lead to the text's width."""
    random = np.random.default_rng(0)
    writer = gguf.GGUFWriter(target, "clip")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", "mlp")
    writer.add_bool("clip.use_gelu", True)
    numbers = {
        "image_size": SIDE,
        "patch_size": PATCH,
        "embedding_length": HIDDEN,
        "feed_forward_length": WIDTH,
        "projection_dim": TEXT,
        "block_count": 2,
        "attention.head_count": HEADS,
    }
    for name, number in numbers.items():
        writer.add_uint32(f"clip.vision.{name}", number)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-5)
    writer.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
    writer.add_array("clip.vision.image_std", [0.5, 0.5, 0.5])

    def add(name: str, *shape: int) -> None:
        writer.add_tensor(name, (random.standard_normal(shape) * 0.02).astype(np.float32))

    add("v.class_embd", HIDDEN)
    add("v.patch_embd.weight", HIDDEN, 3, PATCH, PATCH)
    add("v.position_embd.weight", PATCHES + 1, HIDDEN)
    for name in ("v.pre_ln", "v.post_ln"):
        add(f"{name}.weight", HIDDEN)
        add(f"{name}.bias", HIDDEN)
    for layer in range(2):
        for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
            add(f"v.blk.{layer}.{name}.weight", HIDDEN, HIDDEN)
            add(f"v.blk.{layer}.{name}.bias", HIDDEN)
        for name in ("ln1", "ln2"):
            add(f"v.blk.{layer}.{name}.weight", HIDDEN)
            add(f"v.blk.{layer}.{name}.bias", HIDDEN)
        add(f"v.blk.{layer}.ffn_down.weight", WIDTH, HIDDEN)
        add(f"v.blk.{layer}.ffn_down.bias", WIDTH)
        add(f"v.blk.{layer}.ffn_up.weight", HIDDEN, WIDTH)
        add(f"v.blk.{layer}.ffn_up.bias", HIDDEN)
    add("mm.0.weight", TEXT, HIDDEN)
    add("mm.0.bias", TEXT)
    add("mm.2.weight", TEXT, TEXT)
    add("mm.2.bias", TEXT)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
