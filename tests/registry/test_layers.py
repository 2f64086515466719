"""What derived specs know of layers: windows, latent rows, states, shared caches."""

from __future__ import annotations

from typing import Any

import pytest

from paddock.registry.derive.layers import config_layers, gguf_layers

# name, layers, config.json's numbers as the models' authors publish them, fields.
CONFIGS: list[tuple[str, int, dict[str, Any], dict[str, Any]]] = [
    ("LlamaForCausalLM", 32, {"hidden_size": 4096}, {}),
    (
        "Gemma3ForConditionalGeneration",
        34,
        {"sliding_window": 1024},
        {"sliding_layers": 29},
    ),
    ("Gemma2ForCausalLM", 26, {"sliding_window": 4096}, {"sliding_layers": 13}),
    (
        "GptOssForCausalLM",
        4,
        {"sliding_window": 128, "layer_types": ["sliding_attention", "full_attention"] * 2},
        {"sliding_layers": 2},
    ),
    (
        "Exaone4ForCausalLM",
        8,
        {"sliding_window": 4096, "sliding_window_pattern": "LLLG"},
        {"sliding_layers": 6},
    ),
    (
        "Qwen2ForCausalLM",
        28,
        {"sliding_window": 4096, "use_sliding_window": False, "sliding_window_pattern": 4},
        {},
    ),
    (
        "Gemma4ForConditionalGeneration",
        6,
        {
            "sliding_window": 512,
            "layer_types": ["sliding_attention"] * 5 + ["full_attention"],
            "global_head_dim": 512,
            "num_global_key_value_heads": 2,
            "num_kv_shared_layers": 2,
            "use_double_wide_mlp": True,
            "hidden_size_per_layer_input": 256,
        },
        {
            "wide_shared_layers": True,
            "sliding_layers": 5,
            "global_head_dim": 512,
            "global_key_value_heads": 2,
            "kv_shared_layers": 2,
            "hidden_size_per_layer_input": 256,
        },
    ),
    (
        "DeepseekV3ForCausalLM",
        61,
        {
            "kv_lora_rank": 512,
            "q_lora_rank": 1536,
            "qk_rope_head_dim": 64,
            "qk_nope_head_dim": 128,
            "v_head_dim": 128,
            "first_k_dense_replace": 3,
            "intermediate_size": 18_432,
            "moe_intermediate_size": 2048,
            "n_shared_experts": 1,
        },
        {
            "dense_layers": 3,
            "dense_intermediate_size": 18_432,
            "shared_intermediate_size": 2048,
            "kv_lora_rank": 512,
            "q_lora_rank": 1536,
            "qk_rope_head_dim": 64,
            "head_dim": 192,
            "v_head_dim": 128,
        },
    ),
    (
        "Qwen3NextForCausalLM",
        48,
        {
            "full_attention_interval": 4,
            "linear_num_value_heads": 32,
            "linear_num_key_heads": 16,
            "linear_key_head_dim": 128,
            "linear_value_head_dim": 128,
            "linear_conv_kernel_dim": 4,
        },
        {
            "recurrent_layers": 36,
            "recurrent_state": 524_288 + 24_576,
            "linear_key_size": 2048,
            "linear_value_size": 4096,
        },
    ),
    (
        "JambaForCausalLM",
        32,
        {
            "hidden_size": 4096,
            "attn_layer_period": 8,
            "attn_layer_offset": 4,
            "mamba_d_state": 16,
            "mamba_d_conv": 4,
            "mamba_expand": 2,
        },
        {"recurrent_layers": 28, "recurrent_state": 8192 * 16 + 3 * 8192},
    ),
    (
        "NemotronHForCausalLM",
        4,
        {
            "hybrid_override_pattern": "M-M*",
            "ssm_state_size": 128,
            "conv_kernel": 4,
            "mamba_num_heads": 128,
            "mamba_head_dim": 80,
            "n_groups": 8,
        },
        {
            "attention_layers": 1,
            "recurrent_layers": 2,
            "recurrent_state": 10_240 * 128 + 3 * (10_240 + 2 * 8 * 128),
        },
    ),
    (
        "Lfm2ForCausalLM",
        3,
        {"hidden_size": 2048, "conv_L_cache": 3, "layer_types": ["conv", "conv", "full_attention"]},
        {"recurrent_layers": 2, "recurrent_state": 4096},
    ),
    # What nobody states saves nothing.
    ("UnknownForCausalLM", 4, {"layer_types": ["mamba", "attention"] * 2}, {}),
    ("UnknownForCausalLM", 4, {"sliding_window": 64, "layer_types": "sliding"}, {}),
    ("UnknownForCausalLM", 4, {"kv_lora_rank": "512", "num_kv_shared_layers": -3}, {}),
]


@pytest.mark.parametrize(("name", "layers", "config", "fields"), CONFIGS)
def test_a_configuration_tells_what_layers_keep(
    name: str, layers: int, config: dict[str, Any], fields: dict[str, Any]
) -> None:
    """By the words and numbers of each family; what is missing or odd counts as not stated."""
    assert config_layers(name, layers, config) == fields


def of_header(name: str, layers: int, **numbers: Any) -> dict[str, Any]:
    """The fields by the numbers of a header, with two underscores for a dot."""
    values = {key.replace("__", "."): value for key, value in numbers.items()}

    def number(key: str) -> int | None:
        value = values.get(key)
        return max(value) if isinstance(value, list) else value

    def listed(key: str) -> list[int] | None:
        value = values.get(key)
        return value if isinstance(value, list) else None

    return gguf_layers(name, layers, number, listed)


HEADS = {"attention__head_count": 8, "attention__head_count_kv": 2}


@pytest.mark.parametrize(
    ("name", "layers", "numbers", "fields"),
    [
        ("llama", 4, HEADS, {}),
        ("phi3", 4, {**HEADS, "attention__sliding_window": 2047}, {}),
        (
            "cohere2moe",
            6,
            {**HEADS, "attention__sliding_window": 64},
            {"sliding_window": 64, "sliding_layers": 4},
        ),
        (
            "gemma3",
            6,
            {**HEADS, "attention__sliding_window": 64, "attention__sliding_window_pattern": 3},
            {"sliding_window": 64, "sliding_layers": 4},
        ),
        ("gemma3", 6, {**HEADS, "attention__sliding_window": 0}, {}),
        ("gemma2", 4, HEADS, {"sliding_window": 4096, "sliding_layers": 2}),
        # The layer that drafts is in the file, and keeps nothing.
        ("glm4moe", 5, {**HEADS, "nextn_predict_layers": 1}, {"attention_layers": 4}),
        # Old files have no latent row.
        (
            "deepseek2",
            4,
            {
                "attention__head_count": 8,
                "attention__head_count_kv": 8,
                "attention__kv_lora_rank": 512,
                "attention__key_length": 192,
                "attention__value_length": 128,
            },
            {"v_head_dim": 128},
        ),
        (
            "deci",
            4,
            {"attention__head_count": 8, "attention__head_count_kv": [8, 4, 0, 1]},
            {"key_value_heads": 8, "attention_layers": 2},
        ),
        (
            "nemotron_h",
            4,
            {
                "attention__head_count": 8,
                "attention__head_count_kv": [0, 0, 2, 0],
                "feed_forward_length": [0, 64, 0, 0],
                "ssm__inner_size": 64,
                "ssm__state_size": 16,
                "ssm__conv_kernel": 4,
                "ssm__group_count": 2,
            },
            {
                "attention_layers": 1,
                "recurrent_layers": 2,
                "recurrent_state": 64 * 16 + 3 * (64 + 2 * 2 * 16),
            },
        ),
        (
            "rwkv7",
            2,
            {"attention__head_count": 0, "embedding_length": 256, "wkv__head_size": 64},
            {"recurrent_layers": 2, "recurrent_state": 256 * 2 + 256 * 64},
        ),
        (
            "kimi-linear",
            4,
            {
                "attention__head_count": 8,
                "attention__head_count_kv": [0, 0, 0, 8],
                "kda__head_dim": 128,
                "ssm__conv_kernel": 4,
            },
            {"recurrent_layers": 3, "recurrent_state": 8 * 128 * (9 + 128)},
        ),
        ("gemma3n", 35, HEADS, {"kv_shared_layers": 15}),
    ],
)
def test_a_header_tells_what_layers_keep(
    name: str, layers: int, numbers: dict[str, Any], fields: dict[str, Any]
) -> None:
    """By the keys that llama.cpp reads, with its defaults where a header is silent."""
    assert of_header(name, layers, **numbers) == fields
