"""What the layers of a model keep in memory, from a GGUF header or a config.json.

Each function gives fields of `Architecture`, without those that do not matter. Keys of headers and
their defaults are those that llama.cpp reads (src/llama-arch.cpp, src/llama-model.cpp,
src/models/*.cpp); keys of configurations are those of Transformers' configuration classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

# Every how many layers one sees the whole context, where the header does not say; and whether it
# is the first of them rather than the last (load_swa_pattern in src/models/*.cpp).
_PERIODS = {
    "afmoe": (4, False), "cohere2": (4, False), "cohere2moe": (4, True), "exaone-moe": (4, False),
    "exaone4": (4, False), "gemma2": (2, False), "gemma3": (6, False), "gemma3n": (5, False),
    "gemma4": (0, False), "gpt-oss": (2, False), "granite-swa": (0, False), "laguna": (4, True),
    "lfm2": (1, False), "lfm2moe": (1, False), "llama4": (4, False), "mellum": (4, False),
    "mimo2": (0, False), "muse-glimmer": (4, False), "olmo2": (4, False), "plamo3": (8, False),
    "smallthinker": (4, True), "step35": (0, False),
}  # fmt: skip
_FIXED_WINDOWS = {"gemma2": 4096, "exaone-moe": 128, "llama4": 8192, "smallthinker": 4096}
_RECURRENT = {"mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"}
_INTERVALS = {"qwen3next", "qwen35", "qwen35moe"}
_CACHED_LAYERS = {"gemma3n": 20}
"""Layers with a cache of their own, where the header does not say how many share."""

MOST_LAYERS = 1024
"""llama.cpp takes 512 (LLAMA_MAX_LAYERS)."""

Number = Callable[[str], int | None]


def gguf_layers(
    name: str, layers: int, number: Number, listed: Callable[[str], Sequence[int] | None]
) -> dict[str, Any]:
    """The fields by a header of the architecture `name`.

    `number` reads a whole number below the architecture's name, `listed` one value for each layer.
    """
    counted = layers - (number("nextn_predict_layers") or 0)  # drafts are not loaded
    heads = _each(listed("attention.head_count"), number("attention.head_count"), layers)
    kv_heads = _each(listed("attention.head_count_kv"), number("attention.head_count_kv"), layers)
    if not any(kv_heads):
        kv_heads = heads
    width = number("embedding_length") or 0
    state = _gguf_state(number, width, max(heads, default=0))
    recurrent = _gguf_recurrent(name, layers, kv_heads, number, listed) if state else set()
    attending = {n for n in range(counted) if kv_heads[n] and n not in recurrent}
    if name == "falcon-h1":  # each layer does both
        attending = set(range(counted))
    elif name.startswith("nemotron_h"):  # the rest of its layers are feed-forward parts
        inner = _each(listed("feed_forward_length"), number("feed_forward_length"), layers)
        attending -= {n for n in attending if inner[n]}
        recurrent -= {n for n in recurrent if inner[n]}
    recurrent &= set(range(counted))
    found: dict[str, Any] = {}
    if recurrent:
        found |= {"recurrent_layers": len(recurrent), "recurrent_state": state}
    found |= _gguf_heads(number)
    sliding = _gguf_sliding(name, layers, number, listed) & attending
    window = number("attention.sliding_window")
    window = _FIXED_WINDOWS.get(name, 0) if window is None else window
    if sliding and window:
        found |= {"sliding_window": window, "sliding_layers": len(sliding)}
        found |= _by_window(kv_heads, sliding, attending - sliding, number)
    elif len({kv_heads[n] for n in attending}) > 1:
        # Layers with fewer heads count as parts of layers with the most.
        most = max(kv_heads[n] for n in attending)
        found["key_value_heads"] = most
        found["attention_layers"] = -(-sum(kv_heads[n] for n in attending) // most)
    if "attention_layers" not in found and len(attending) != layers - len(recurrent):
        found["attention_layers"] = len(attending)
    shared = number("attention.shared_kv_layers") or layers - _CACHED_LAYERS.get(name, layers)
    if shared > 0:
        found["kv_shared_layers"] = shared
    if own := number("embedding_length_per_layer_input"):
        found["hidden_size_per_layer_input"] = own
    if recurrent and name in _INTERVALS:
        keys = (number("ssm.group_count") or 0) * (number("ssm.state_size") or 0)
        found |= _linear_sizes(keys, number("ssm.inner_size") or 0)
    return found | _gguf_feed_forward(number)


def _linear_sizes(keys: int, values: int) -> dict[str, Any]:
    return {"linear_key_size": keys, "linear_value_size": values} if keys and values else {}


def _gguf_feed_forward(number: Number) -> dict[str, Any]:
    """What a mixture has beside its experts: first layers without, and a part for every token."""
    found: dict[str, Any] = {}
    if not number("expert_count"):
        return found
    if dense := number("leading_dense_block_count"):
        inner = number("feed_forward_length") or None
        found |= {"dense_layers": dense, "dense_intermediate_size": inner}
    inner = number("expert_feed_forward_length") or number("feed_forward_length") or 0
    shared = number("expert_shared_feed_forward_length")
    if shared := shared or inner * (number("expert_shared_count") or 0):
        found["shared_intermediate_size"] = shared
    return found


def _each(listed: Sequence[int] | None, number: int | None, layers: int) -> list[int]:
    values = list(listed) if listed else [number or 0] * layers
    return (values + [0] * layers)[:layers]


def _gguf_heads(number: Number) -> dict[str, Any]:
    """Sizes of keys and values; with a latent row those of the full ones."""
    key, value = number("attention.key_length"), number("attention.value_length")
    full_key, full_value = number("attention.key_length_mla"), number("attention.value_length_mla")
    rank = number("attention.kv_lora_rank")
    found: dict[str, Any] = {}
    if rank and key and full_key and full_value and key > rank:
        found |= {
            "key_value_heads": number("attention.head_count"),
            "head_dim": full_key,
            "v_head_dim": full_value,
            "kv_lora_rank": rank,
            "qk_rope_head_dim": key - rank,
        }
        if queries := number("attention.q_lora_rank"):
            found["q_lora_rank"] = queries
    elif value and value != key:
        found["v_head_dim"] = value
    if index := number("attention.indexer.key_length"):
        found |= {
            "index_head_dim": index,
            "index_heads": number("attention.indexer.head_count") or 0,
        }
    return found


def _gguf_sliding(
    name: str, layers: int, number: Number, listed: Callable[[str], Sequence[int] | None]
) -> set[int]:
    """The layers for which llama.cpp has a cache of a window."""
    if name not in _PERIODS or (name == "exaone4" and layers != 64):
        return set()
    key = "attention.sliding_window_pattern"
    if pattern := listed(key):
        return {n for n, slides in enumerate(pattern[:layers]) if slides}
    period, whole_first = _PERIODS[name]
    if name not in {"lfm2", "lfm2moe"}:
        period = number(key) or period
    if not period:
        return set()
    if name in {"lfm2", "lfm2moe"}:
        return set(range(layers))
    whole = 0 if whole_first else period - 1
    return {n for n in range(layers) if n % period != whole}


def _by_window(
    kv_heads: Sequence[int], sliding: set[int], whole: set[int], number: Number
) -> dict[str, Any]:
    """Heads and their sizes where layers with a window have others."""
    found: dict[str, Any] = {}
    size, sliding_size = number("attention.key_length"), number("attention.key_length_swa")
    if size and sliding_size and size != sliding_size:
        found |= {"head_dim": sliding_size, "global_head_dim": size}
    heads, whole_heads = (max((kv_heads[n] for n in some), default=0) for some in (sliding, whole))
    if heads and whole_heads and heads != whole_heads:
        found |= {"key_value_heads": heads, "global_key_value_heads": whole_heads}
    return found


def _gguf_recurrent(
    name: str,
    layers: int,
    kv_heads: Sequence[int],
    number: Number,
    listed: Callable[[str], Sequence[int] | None],
) -> set[int]:
    if name in _RECURRENT or name == "falcon-h1":
        return set(range(layers))
    if flags := listed("attention.recurrent_layers"):
        return {n for n, is_recurrent in enumerate(flags[:layers]) if is_recurrent}
    if name in _INTERVALS:
        interval = number("full_attention_interval") or 4
        return {n for n in range(layers) if (n + 1) % interval}
    return {n for n in range(layers) if not kv_heads[n]}


def _gguf_state(number: Number, width: int, heads: int) -> int:
    """Numbers that a recurrent layer keeps (n_embd_r and n_embd_s in src/llama-hparams.cpp)."""
    if size := number("wkv.head_size"):
        shifted = number("token_shift_count")
        return width * (2 if shifted is None else shifted) + width * size
    if length := number("shortconv.l_cache"):
        return width * (length - 1)
    kernel = number("ssm.conv_kernel") or 0
    if size := number("kda.head_dim"):
        return heads * size * (3 * max(0, kernel - 1) + size)
    return _mamba_state(
        number("ssm.inner_size") or 0,
        number("ssm.state_size") or 0,
        kernel,
        number("ssm.group_count") or 0,
    )


def _mamba_state(inner: int, state: int, kernel: int, groups: int) -> int:
    return inner * state + max(0, kernel - 1) * (inner + 2 * groups * state)


# Words of layer_types and layers_block_type in config.json.
_SLIDING = {"sliding_attention", "chunked_attention"}
_EVERY = {"Gemma2": 2, "Gemma3n": 5, "Gemma3": 6}
"""Every how many layers one sees the whole context, where the configuration does not say."""
_STATEFUL = {"linear_attention", "mamba", "conv", "recurrent"}


def config_layers(name: str, layers: int, config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields by the values of a config.json, of the class `name`."""
    found: dict[str, Any] = {}
    kinds = _kinds(name, layers, config)
    state = _config_state(config)
    recurrent = sum(kind in _STATEFUL for kind in kinds) if state else 0
    if "FalconH1" in name and state:
        recurrent = layers
        found["attention_layers"] = layers
    elif kinds and (idle := kinds.count("none")):
        found["attention_layers"] = layers - idle - recurrent
    if recurrent:
        found |= {"recurrent_layers": recurrent, "recurrent_state": state}
    has_window = config.get("use_sliding_window") is not False and _whole(config, "sliding_window")
    if sliding := sum(kind in _SLIDING for kind in kinds) if has_window else 0:
        found["sliding_layers"] = sliding
    rank, rope = _whole(config, "kv_lora_rank"), _whole(config, "qk_rope_head_dim")
    if rank and rope and (nope := _whole(config, "qk_nope_head_dim")):
        found |= {"kv_lora_rank": rank, "qk_rope_head_dim": rope, "head_dim": nope + rope}
    for field, keys in (
        ("v_head_dim", ("v_head_dim",)),
        ("q_lora_rank", ("q_lora_rank",)),
        ("index_head_dim", ("index_head_dim",)),
        ("index_heads", ("index_n_heads",)),
        ("global_head_dim", ("global_head_dim",)),
        ("global_key_value_heads", ("num_global_key_value_heads",)),
        ("kv_shared_layers", ("num_kv_shared_layers",)),
        ("hidden_size_per_layer_input", ("hidden_size_per_layer_input",)),
    ):
        if value := _whole(config, *keys):
            found[field] = value
    if recurrent and (heads := _whole(config, "linear_num_value_heads")):
        keys_size = _whole(config, "linear_num_key_heads") * _whole(config, "linear_key_head_dim")
        values_size = heads * _whole(config, "linear_value_head_dim")
        found |= _linear_sizes(keys_size, values_size)
    if found.get("kv_shared_layers") and config.get("use_double_wide_mlp") is True:
        found["wide_shared_layers"] = True
    return found | _config_feed_forward(config)


def _config_feed_forward(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a mixture has beside its experts: first layers without, and a part for every token."""
    found: dict[str, Any] = {}
    inner, dense = _whole(config, "moe_intermediate_size"), _whole(config, "intermediate_size")
    if not inner:
        return found
    if first := _whole(config, "first_k_dense_replace", "moe_layer_start_index"):
        found |= {"dense_layers": first, "dense_intermediate_size": dense or None}
    shared = _whole(config, "shared_expert_intermediate_size")
    count = _whole(config, "n_shared_experts", "moe_num_shared_experts")
    if shared := shared or inner * count:
        found["shared_intermediate_size"] = shared
    return found


def _whole(config: Mapping[str, Any], *keys: str) -> int:
    """The first of the keys that is a whole number, or 0."""
    for key in keys:
        value = config.get(key)
        if type(value) is int and 0 < value <= 1 << 53:
            return value
    return 0


def _kinds(name: str, layers: int, config: Mapping[str, Any]) -> list[str]:
    """A word for each layer; empty where they are all alike."""
    for key in ("layer_types", "layers_block_type"):
        listed = config.get(key)
        if isinstance(listed, list) and len(listed) == layers:
            return [str(kind) for kind in listed]
    marks = config.get("hybrid_override_pattern")
    if isinstance(marks, str):  # Nemotron-H; what is neither is a feed-forward part
        return [{"M": "mamba", "*": "attention"}.get(mark, "none") for mark in marks[:layers]]
    if period := _whole(config, "attn_layer_period"):
        offset = _whole(config, "attn_layer_offset")
        return ["attention" if n % period == offset else "mamba" for n in range(layers)]
    pattern = config.get("sliding_window_pattern")
    if isinstance(pattern, str) and pattern:  # LLLG
        marked = (pattern[n % len(pattern)] for n in range(layers))
        return ["sliding_attention" if mark == "L" else "full_attention" for mark in marked]
    kind, every = "linear_attention", _whole(config, "full_attention_interval")
    if not every:
        kind, every = "sliding_attention", _whole(config, "sliding_window_pattern")
    if not every:
        every = next((n for family, n in _EVERY.items() if family in name), 0)
    return [kind if (n + 1) % every else "full_attention" for n in range(layers)] if every else []


def _config_state(config: Mapping[str, Any]) -> int:
    """Numbers that one recurrent layer keeps; 0 where the configuration does not tell."""
    if length := _whole(config, "conv_L_cache"):
        return _whole(config, "hidden_size") * (length - 1)
    if heads := _whole(config, "linear_num_value_heads"):
        groups, state = (
            _whole(config, key) for key in ("linear_num_key_heads", "linear_key_head_dim")
        )
        inner = heads * _whole(config, "linear_value_head_dim")
        return _mamba_state(inner, state, _whole(config, "linear_conv_kernel_dim"), groups)
    state = _whole(config, "mamba_d_state", "ssm_state_size", "state_size")
    kernel = _whole(config, "mamba_d_conv", "conv_kernel")
    expanded = _whole(config, "mamba_expand", "expand") * _whole(config, "hidden_size")
    by_heads = _whole(config, "mamba_n_heads", "mamba_num_heads") * _whole(
        config, "mamba_d_head", "mamba_head_dim"
    )
    inner = _whole(config, "mamba_d_ssm") or by_heads or expanded
    return _mamba_state(inner, state, kernel, _whole(config, "mamba_n_groups", "n_groups"))
