"""What a configuration leaves out because its class in Transformers has it as the default.

The table beside this module is written by `tools/class_defaults.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

TABLE = Path(__file__).with_name("class_defaults.json")
NAMES: Mapping[str, tuple[str, ...]] = {
    "layers": ("num_hidden_layers", "n_layer", "num_layers", "n_layers"),
    "hidden_size": ("hidden_size", "n_embd", "d_model", "dim"),
    "expert_size": ("moe_intermediate_size",),
    "intermediate_size": (
        "intermediate_size", "ffn_hidden_size", "n_inner", "ffn_dim", "d_ff", "hidden_dim",
    ),
    "attention_heads": ("num_attention_heads", "n_head", "num_heads", "n_heads"),
    "key_value_heads": (
        "num_key_value_heads", "num_kv_heads", "n_head_kv", "n_kv_heads", "kv_n_heads",
        "num_key_value_heads_per_layer", "num_query_groups",
    ),
    "grouped_heads": ("multi_query_group_num",),
    "head_dim": ("head_dim",),
    "vocabulary_size": ("vocab_size", "padded_vocab_size"),
    "experts": ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"),
    "experts_per_token": (
        "num_experts_per_tok", "num_experts_per_token", "moe_top_k", "moe_k", "top_k_experts",
    ),
    "sliding_window": ("sliding_window",),
    "context": (
        "max_position_embeddings", "n_positions", "seq_length", "max_sequence_length",
        "max_seq_len", "model_max_length",
    ),
}  # fmt: skip
"""The keys of one number in config.json, which differ between authors."""
_LAYERS = (
    "kv_lora_rank", "q_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim",
    "index_head_dim", "index_n_heads", "global_head_dim", "num_global_key_value_heads",
    "num_kv_shared_layers", "hidden_size_per_layer_input", "use_double_wide_mlp",
    "linear_num_value_heads", "linear_num_key_heads", "linear_key_head_dim",
    "linear_value_head_dim", "linear_conv_kernel_dim", "conv_L_cache", "full_attention_interval",
    "sliding_window_pattern", "attn_layer_period", "attn_layer_offset", "first_k_dense_replace",
    "moe_layer_start_index", "shared_expert_intermediate_size", "n_shared_experts",
    "moe_num_shared_experts", "mamba_d_state", "ssm_state_size", "state_size", "mamba_d_conv",
    "conv_kernel", "mamba_expand", "expand", "mamba_n_heads", "mamba_num_heads", "mamba_d_head",
    "mamba_head_dim", "mamba_d_ssm", "mamba_n_groups", "n_groups",
)  # fmt: skip
_FLAGS = (
    "multi_query", "multi_query_attention", "new_decoder_architecture", "tie_word_embeddings",
    "use_sliding_window", "num_labels",
)  # fmt: skip
KEYS = frozenset((*(key for keys in NAMES.values() for key in keys), *_LAYERS, *_FLAGS))
"""Keys of a config.json that a derived spec depends on."""


@cache
def _table() -> Mapping[str, Mapping[str, Any]]:
    table: Mapping[str, Mapping[str, Any]] = json.loads(TABLE.read_text("utf-8"))
    return table


def class_defaults(model_type: object, below: object) -> tuple[str, Mapping[str, Any]]:
    """The type of the language model and the defaults of its class.

    `model_type` is that of the whole configuration, `below` that of the language model in it, where
    it is stated. Both are empty for a type that Transformers does not have.
    """
    table = _table()
    name = below if isinstance(below, str) else model_type
    row = table.get(name, {}) if isinstance(name, str) else {}
    while isinstance(name, str) and isinstance(row.get("text_config"), str):
        name = row["text_config"]
        row = table.get(name, {})
    return (str(name), row) if row else ("", {})
