"""The tiny Qwen3 models of `tiny_decoders.py` as GGUF, as llama.cpp's converter has them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from tests.minilm import read_tensors

WHOLE = {"token_embd": "embed_tokens", "output_norm": "norm"}
LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def write(
    folder: Path,
    target: Path,
    template: str | None = None,
    head: bool = True,
    quantized: bool = False,
) -> Path:
    """The model of a folder; with a `template` a reranker, with the rows of yes and no as `head`.

    `quantized`: matrices as Q8_0.
    """
    config = json.loads((folder / "config.json").read_text())
    words = json.loads((folder / "tokenizer.json").read_text())
    weights = read_tensors((folder / "model.safetensors").read_bytes())
    weights = {name.removeprefix("model."): tensor for name, tensor in weights.items()}
    writer = gguf.GGUFWriter(target, "qwen3")
    writer.add_name("tiny")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    ids = _add_words(writer, words, ends=template is None)
    if template is not None:
        writer.add_pooling_type(gguf.PoolingType.RANK)
        writer.add_classifier_output_labels(["yes", "no"])
        if template:
            writer.add_chat_template([{"name": "rerank", "template": template}])
        if head:
            rows = weights["embed_tokens.weight"][[ids["yes"], ids["no"]]]
            writer.add_tensor("cls.output.weight", np.ascontiguousarray(rows))
    else:
        writer.add_pooling_type(gguf.PoolingType.LAST)
    pairs = dict(WHOLE)
    for layer in range(config["num_hidden_layers"]):
        pairs |= {
            f"blk.{layer}.{ours}": f"layers.{layer}.{theirs}" for ours, theirs in LAYER.items()
        }
    for ours, theirs in pairs.items():
        tensor = weights[f"{theirs}.weight"]
        if quantized and tensor.ndim > 1:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(f"{ours}.weight", gguf.quantize(tensor, kind), raw_dtype=kind)
        else:
            writer.add_tensor(f"{ours}.weight", tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def _add_words(writer: gguf.GGUFWriter, words: dict[str, Any], ends: bool) -> dict[str, int]:
    ids = {**words["model"]["vocab"]}
    kinds = dict.fromkeys(ids.values(), gguf.TokenType.NORMAL)
    for added in words["added_tokens"]:
        ids[added["content"]] = added["id"]
        special = gguf.TokenType.CONTROL if added["special"] else gguf.TokenType.USER_DEFINED
        kinds[added["id"]] = special
    listed = sorted(ids, key=lambda word: ids[word])
    merges = [m if isinstance(m, str) else " ".join(m) for m in words["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(listed)
    writer.add_token_types([kinds[ids[word]] for word in listed])
    writer.add_token_merges(merges)
    # Embedders end each text with this, rerankers their answer with another.
    writer.add_eos_token_id(ids["<|endoftext|>" if ends else "<|im_end|>"])
    writer.add_pad_token_id(ids["<|endoftext|>"])
    writer.add_add_bos_token(False)
    if ends:
        writer.add_add_eos_token(True)
    return ids
