"""GGUF files of many architectures without weights: a header, and a hole as long as the tensors.

Numbers are those of published models; tensor names and shapes are those that llama.cpp's loader
asks for (src/models/*.cpp, load_arch_tensors).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
from gguf.quants import quant_shape_to_byte_shape

MATRIX = gguf.GGMLQuantizationType.Q8_0
TensorShapes = Iterator[tuple[str, tuple[int, ...]]]
"""Names, and dimensions in GGUF's order: the row's length first."""


@dataclass(frozen=True)
class Header:
    """One architecture: its metadata below `name.`, and the tensors that its loader asks for."""

    name: str
    vocabulary: int
    numbers: Mapping[str, Any]
    tensors: Callable[[Header], TensorShapes]
    tied: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Facts that only `tensors` needs."""

    def __getitem__(self, key: str) -> Any:
        return self.extra[key] if key in self.extra else self.numbers[key]

    def get(self, key: str, default: Any = None) -> Any:
        """A number, or `default`."""
        return self.extra.get(key, self.numbers.get(key, default))

    @property
    def layers(self) -> int:
        """The number of layers."""
        return int(self["block_count"])

    @property
    def width(self) -> int:
        """The width of the residual stream."""
        return int(self["embedding_length"])


def write_header(path: Path, header: Header, matrix: gguf.GGMLQuantizationType = MATRIX) -> Path:
    """Writes the header, with matrices of a type, and extends the file to its full size.

    Returns its path.
    """
    writer = gguf.GGUFWriter(path, header.name)
    for key, value in header.numbers.items():
        _add(writer, f"{header.name}.{key}", value)
    _add_vocabulary(writer, header.vocabulary)
    size = 0
    for name, shape in tensor_shapes(header):
        plain = len(shape) < 2 or shape[0] % 32 or name.endswith(("_norm.weight", "bias"))
        kind = gguf.GGMLQuantizationType.F32 if plain or "_inp" in name else matrix
        rows = tuple(reversed(shape))
        stored = quant_shape_to_byte_shape(rows, kind) if kind is MATRIX else rows
        dtype = _dtype(kind)
        length = math.prod(stored) * dtype.itemsize
        writer.add_tensor_info(name, stored, dtype, length, raw_dtype=kind)
        size += -(-length // 32) * 32
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    with path.open("r+b") as file:
        end = -(-path.stat().st_size // 32) * 32
        file.truncate(end + size)
    return path


def _dtype(kind: gguf.GGMLQuantizationType) -> Any:
    import numpy as np

    types = {MATRIX: np.uint8, gguf.GGMLQuantizationType.F16: np.float16}
    return np.dtype(types.get(kind, np.float32))


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, list(value))


def _add_vocabulary(writer: gguf.GGUFWriter, count: int) -> None:
    """A vocabulary of the kind `llama`, which needs no merges."""
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    kinds = [2, 3, 3] + [6] * 256
    writer.add_tokenizer_model("llama")
    writer.add_token_list(special + [f"t{n}" for n in range(count - len(special))])
    writer.add_token_scores([0.0] * count)
    writer.add_token_types(kinds + [1] * (count - len(special)))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)


def tensor_shapes(header: Header) -> TensorShapes:
    """Every tensor, in no order."""
    width = header.width
    yield "token_embd.weight", (width, header.vocabulary)
    norm = "token_embd_norm.weight" if header.name == "lfm2" else "output_norm.weight"
    if header.name != "rwkv7":
        yield norm, (width,)
    if not header.tied:
        yield "output.weight", (width, header.vocabulary)
    yield from header.tensors(header)


def _norms(layer: int, *names: str, size: int) -> TensorShapes:
    for name in names:
        yield f"blk.{layer}.{name}.weight", (size,)


def _attention(header: Header, layer: int, gate: int = 1) -> TensorShapes:
    """Queries, keys, values and the output; `gate` is 2 where queries come with a gate."""
    heads, kv_heads = (
        _of(header, "attention.head_count", layer),
        _of(header, "attention.head_count_kv", layer),
    )
    key = int(header.get("attention.key_length", header.width // heads))
    value = int(header.get("attention.value_length", key))
    if header.get("attention.key_length_swa") and _windowed(header, layer):
        key = value = int(header["attention.key_length_swa"])
    at = f"blk.{layer}"
    yield f"{at}.attn_q.weight", (header.width, gate * heads * key)
    if header.name == "gemma3n" or layer < _cached(header):
        yield f"{at}.attn_k.weight", (header.width, kv_heads * key)
        yield f"{at}.attn_v.weight", (header.width, kv_heads * value)
    yield f"{at}.attn_output.weight", (heads * value, header.width)
    for name in header.get("head norms", ()):
        yield f"{at}.{name}.weight", (key,)


def _cached(header: Header) -> int:
    return header.layers - int(header.get("attention.shared_kv_layers", 0))


def _of(header: Header, key: str, layer: int) -> int:
    value = header[key]
    return int(value if isinstance(value, int) else value[layer])


def _windowed(header: Header, layer: int) -> bool:
    pattern = header.get("attention.sliding_window_pattern")
    return bool(pattern[layer]) if isinstance(pattern, list) else False


def _dense(header: Header, layer: int) -> TensorShapes:
    width, inner = header.width, _of(header, "feed_forward_length", layer)
    at = f"blk.{layer}"
    if header.get("fused feed-forward"):
        yield f"{at}.ffn_up.weight", (width, 2 * inner)
    else:
        yield f"{at}.ffn_gate.weight", (width, inner)
        yield f"{at}.ffn_up.weight", (width, inner)
    yield f"{at}.ffn_down.weight", (inner, width)


def _experts(header: Header, layer: int) -> TensorShapes:
    width, count = header.width, int(header["expert_count"])
    inner = int(header.get("expert_feed_forward_length", header["feed_forward_length"]))
    at = f"blk.{layer}"
    yield f"{at}.ffn_gate_inp.weight", (width, count)
    yield f"{at}.ffn_gate_exps.weight", (width, inner, count)
    yield f"{at}.ffn_up_exps.weight", (width, inner, count)
    yield f"{at}.ffn_down_exps.weight", (inner, width, count)
    shared = int(header.get("expert_shared_feed_forward_length", 0)) or inner * int(
        header.get("expert_shared_count", 0)
    )
    if shared:
        yield f"{at}.ffn_gate_shexp.weight", (width, shared)
        yield f"{at}.ffn_up_shexp.weight", (width, shared)
        yield f"{at}.ffn_down_shexp.weight", (shared, width)


def _feed_forward(header: Header, layer: int) -> TensorShapes:
    is_dense = layer < int(header.get("leading_dense_block_count", 0))
    yield from (_experts if header.get("expert_count") and not is_dense else _dense)(header, layer)


def _transformer(header: Header) -> TensorShapes:
    """Attention and a feed-forward part, dense or of experts, in each layer."""
    if header.name == "gemma4":
        yield "rope_freqs.weight", (int(header["attention.key_length"]) // 2,)
    for layer in range(header.layers):
        yield from _norms(
            layer, "attn_norm", *header.get("norms", ("ffn_norm",)), size=header.width
        )
        yield from _attention(header, layer)
        yield from _feed_forward(header, layer)
        for name in header.get("biases", ()):
            shape = {
                "attn_output.bias": (header.width,),
                "attn_sinks.weight": (_of(header, "attention.head_count", layer),),
                "ffn_gate_inp.bias": (header["expert_count"],),
                "ffn_gate_exps.bias": (
                    header["expert_feed_forward_length"],
                    header["expert_count"],
                ),
                "ffn_up_exps.bias": (header["expert_feed_forward_length"], header["expert_count"]),
                "ffn_down_exps.bias": (header.width, header["expert_count"]),
                "exp_probs_b.bias": (header["expert_count"],),
            }[name]
            if name != "exp_probs_b.bias" or layer >= header["leading_dense_block_count"]:
                yield f"blk.{layer}.{name}", shape


def _matryoshka(header: Header) -> TensorShapes:
    """Gemma 3n and 4: embeddings for each layer, beside a transformer."""
    width, inner = header.width, int(header["embedding_length_per_layer_input"])
    yield "per_layer_token_embd.weight", (inner * header.layers, header.vocabulary)
    yield "per_layer_model_proj.weight", (width, inner * header.layers)
    yield "per_layer_proj_norm.weight", (inner,)
    old = header.name == "gemma3n"
    if old:
        yield "altup_proj.weight", (width, width, 3)
        yield "altup_unembd_proj.weight", (width, width, 3)
    for layer in range(header.layers):
        at = f"blk.{layer}"
        yield f"{at}.inp_gate.weight", (width, inner)
        yield f"{at}.proj.weight", (inner, width)
        yield f"{at}.post_norm.weight", (width,)
        if old:
            yield f"{at}.altup_correct_coef.weight", (4, 4)
            yield f"{at}.altup_correct_scale.weight", (width,)
            yield f"{at}.altup_predict_coef.weight", (4, 16)
            yield f"{at}.altup_router.weight", (width, 4)
            yield f"{at}.altup_router_norm.weight", (width,)
            yield f"{at}.laurel_l.weight", (width, 64)
            yield f"{at}.laurel_r.weight", (64, width)
            yield f"{at}.laurel_post_norm.weight", (width,)
    yield from _transformer(header)


def _latent(header: Header) -> TensorShapes:
    """DeepSeek V2: keys and values from one latent row."""
    heads, rank = int(header["attention.head_count"]), int(header["attention.kv_lora_rank"])
    rope, key = int(header["rope.dimension_count"]), int(header["attention.key_length_mla"])
    value, width = int(header["attention.value_length_mla"]), header.width
    for layer in range(header.layers):
        at = f"blk.{layer}"
        yield from _norms(layer, "attn_norm", "ffn_norm", size=width)
        yield f"{at}.attn_kv_a_norm.weight", (rank,)
        yield f"{at}.attn_q.weight", (width, heads * key)
        yield f"{at}.attn_kv_a_mqa.weight", (width, rank + rope)
        yield f"{at}.attn_k_b.weight", (key - rope, rank, heads)
        yield f"{at}.attn_v_b.weight", (rank, value, heads)
        yield f"{at}.attn_output.weight", (heads * value, width)
        yield from _feed_forward(header, layer)


def _mamba(header: Header) -> TensorShapes:
    inner, state = int(header["ssm.inner_size"]), int(header["ssm.state_size"])
    kernel, rank, width = header["ssm.conv_kernel"], int(header["ssm.time_step_rank"]), header.width
    for layer in range(header.layers):
        at = f"blk.{layer}"
        yield from _norms(layer, "attn_norm", size=width)
        yield f"{at}.ssm_in.weight", (width, 2 * inner)
        yield f"{at}.ssm_conv1d.weight", (kernel, inner)
        yield f"{at}.ssm_conv1d.bias", (inner,)
        yield f"{at}.ssm_x.weight", (inner, rank + 2 * state)
        yield f"{at}.ssm_dt.weight", (rank, inner)
        yield f"{at}.ssm_dt.bias", (inner,)
        yield f"{at}.ssm_a", (state, inner)
        yield f"{at}.ssm_d", (inner,)
        yield f"{at}.ssm_out.weight", (inner, width)


def _mamba2(header: Header, layer: int) -> TensorShapes:
    inner, state = int(header["ssm.inner_size"]), int(header["ssm.state_size"])
    groups, heads = int(header["ssm.group_count"]), int(header["ssm.time_step_rank"])
    mixed, at = inner + 2 * groups * state, f"blk.{layer}"
    yield f"{at}.ssm_in.weight", (header.width, inner + mixed + heads)
    yield f"{at}.ssm_conv1d.weight", (header["ssm.conv_kernel"], mixed)
    yield f"{at}.ssm_conv1d.bias", (mixed,)
    yield f"{at}.ssm_dt.bias", (heads,)
    yield f"{at}.ssm_a", (1, heads)
    yield f"{at}.ssm_d", (1, heads)
    yield f"{at}.ssm_norm.weight", (inner // groups, groups)
    yield f"{at}.ssm_out.weight", (inner, header.width)


def _pure_mamba2(header: Header) -> TensorShapes:
    for layer in range(header.layers):
        yield from _norms(layer, "attn_norm", size=header.width)
        yield from _mamba2(header, layer)


def _granite(header: Header) -> TensorShapes:
    """Mamba 2 or attention, by the layer, and a feed-forward part."""
    for layer in range(header.layers):
        yield from _norms(layer, "attn_norm", "ffn_norm", size=header.width)
        attends = header["attention.head_count_kv"][layer]
        yield from (_attention if attends else _mamba2)(header, layer)
        yield from _feed_forward(header, layer)


def _falcon(header: Header) -> TensorShapes:
    """Mamba 2 and attention side by side."""
    for layer in range(header.layers):
        yield from _norms(layer, "attn_norm", size=header.width)
        yield f"blk.{layer}.ffn_norm", (header.width,)
        yield from _mamba2(header, layer)
        yield from _attention(header, layer)
        yield from _dense(header, layer)


def _delta_net(header: Header) -> TensorShapes:
    """Qwen3-Next: three layers of gated delta nets, then one that attends."""
    size, width = int(header["ssm.state_size"]), header.width
    keys, values = size * int(header["ssm.group_count"]), int(header["ssm.inner_size"])
    heads = int(header["ssm.time_step_rank"])
    for layer in range(header.layers):
        at = f"blk.{layer}"
        yield from _norms(layer, "attn_norm", "post_attention_norm", size=width)
        if (layer + 1) % int(header["full_attention_interval"]) == 0:
            yield from _attention(header, layer, gate=2)
        else:
            yield f"{at}.attn_qkv.weight", (width, 2 * keys + values)
            yield f"{at}.attn_gate.weight", (width, values)
            yield f"{at}.ssm_conv1d.weight", (header["ssm.conv_kernel"], 2 * keys + values)
            yield f"{at}.ssm_dt.bias", (heads,)
            yield f"{at}.ssm_a", (heads,)
            yield f"{at}.ssm_ba.weight", (width, 2 * heads)
            yield f"{at}.ssm_norm.weight", (size,)
            yield f"{at}.ssm_out.weight", (values, width)
        yield f"{at}.ffn_gate_inp_shexp.weight", (width,)
        yield from _experts(header, layer)


def _short_conv(header: Header) -> TensorShapes:
    """LFM2: short convolutions or attention, by the layer."""
    width = header.width
    for layer in range(header.layers):
        at = f"blk.{layer}"
        yield from _norms(layer, "attn_norm", "ffn_norm", size=width)
        if header["attention.head_count_kv"][layer]:
            yield from _attention(header, layer)
        else:
            yield f"{at}.shortconv.conv.weight", (header["shortconv.l_cache"], width)
            yield f"{at}.shortconv.in_proj.weight", (width, 3 * width)
            yield f"{at}.shortconv.out_proj.weight", (width, width)
        yield from _dense(header, layer)


def _indexed(header: Header) -> TensorShapes:
    """DeepSeek V3.2: latent rows, and an indexer that picks among them."""
    rank, size = int(header["attention.q_lora_rank"]), int(header["attention.indexer.key_length"])
    heads, count = int(header["attention.head_count"]), header["attention.indexer.head_count"]
    for name, shape in _latent(header):
        if not name.endswith("attn_q.weight"):
            yield name, shape
    for layer in range(header.layers):
        at = f"blk.{layer}"
        yield f"{at}.attn_q_a.weight", (header.width, rank)
        yield f"{at}.attn_q_a_norm.weight", (rank,)
        yield f"{at}.attn_q_b.weight", (rank, heads * int(header["attention.key_length_mla"]))
        yield f"{at}.indexer.k_norm.weight", (size,)
        yield f"{at}.indexer.k_norm.bias", (size,)
        yield f"{at}.indexer.proj.weight", (header.width, count)
        yield f"{at}.indexer.attn_k.weight", (header.width, size)
        yield f"{at}.indexer.attn_q_b.weight", (rank, count * size)


def _nemotron(header: Header) -> TensorShapes:
    """Mamba 2, attention or a feed-forward part, by the layer."""
    for layer in range(header.layers):
        yield from _norms(layer, "attn_norm", size=header.width)
        inner = header["feed_forward_length"][layer]
        if inner:
            yield f"blk.{layer}.ffn_up.weight", (header.width, inner)
            yield f"blk.{layer}.ffn_down.weight", (inner, header.width)
        elif header["attention.head_count_kv"][layer]:
            yield from _attention(header, layer)
        else:
            yield from _mamba2(header, layer)


def _jamba(header: Header) -> TensorShapes:
    """Mamba or attention by the layer; experts in every second."""
    mamba: dict[str, list[tuple[str, tuple[int, ...]]]] = {}
    for name, shape in _mamba(header):
        mamba.setdefault(name.split(".")[1], []).append((name, shape))
    state, rank = header["ssm.state_size"], header["ssm.time_step_rank"]
    for layer in range(header.layers):
        at = f"blk.{layer}"
        yield from _norms(layer, "ffn_norm", size=header.width)
        if header["attention.head_count_kv"][layer]:
            yield from _norms(layer, "attn_norm", size=header.width)
            yield from _attention(header, layer)
        else:
            yield from mamba[str(layer)]
            yield f"{at}.ssm_dt_norm.weight", (rank,)
            yield f"{at}.ssm_b_norm.weight", (state,)
            yield f"{at}.ssm_c_norm.weight", (state,)
        yield from (_experts if layer % 2 else _dense)(header, layer)


def _rwkv7(header: Header) -> TensorShapes:
    """RWKV 7: time and channel mixing, no attention."""
    width, inner = header.width, int(header["feed_forward_length"])
    ranks = {name: int(header[f"attention.{name}_lora_rank"]) for name in ("decay", "iclr", "gate")}
    mixed = int(header["attention.value_residual_mix_lora_rank"])
    for end in ("weight", "bias"):
        yield f"token_embd_norm.{end}", (width,)
        yield f"output_norm.{end}", (width,)
    for layer in range(header.layers):
        at = f"blk.{layer}"
        for name in ("attn_norm", "attn_norm_2", "time_mix_ln"):
            yield f"{at}.{name}.weight", (width,)
            yield f"{at}.{name}.bias", (width,)
        for name, rank in (
            ("w", ranks["decay"]),
            ("a", ranks["iclr"]),
            ("v", mixed if layer else ranks["iclr"]),
        ):
            yield f"{at}.time_mix_{name}0.weight", (width,)
            yield f"{at}.time_mix_{name}1.weight", (width, rank)
            yield f"{at}.time_mix_{name}2.weight", (rank, width)
        yield f"{at}.time_mix_g1.weight", (width, ranks["gate"])
        yield f"{at}.time_mix_g2.weight", (ranks["gate"], width)
        yield f"{at}.time_mix_lerp_fused.weight", (width, 1, 1, 6)
        for name in ("k_k", "k_a", "r_k"):
            yield f"{at}.time_mix_{name}.weight", (width,)
        for name in ("key", "value", "receptance", "output"):
            yield f"{at}.time_mix_{name}.weight", (width, width)
        yield f"{at}.channel_mix_lerp_k.weight", (width, 1, 1)
        yield f"{at}.channel_mix_key.weight", (width, inner)
        yield f"{at}.channel_mix_value.weight", (inner, width)


def _numbers(layers: int, width: int, context: int, **more: Any) -> dict[str, Any]:
    """Metadata by key, with dots where `more` has two underscores."""
    numbers = {
        "block_count": layers,
        "embedding_length": width,
        "context_length": context,
        "attention.layer_norm_rms_epsilon": 1e-6,
    }
    return numbers | {key.replace("__", "."): value for key, value in more.items()}


def _heads(heads: int, kv_heads: int | list[int], size: int) -> dict[str, Any]:
    return {
        "attention__head_count": heads,
        "attention__head_count_kv": kv_heads,
        "attention__key_length": size,
        "attention__value_length": size,
    }


_NEMOTRON = "M-M-M-MM-M-M-M*-M-M-M*-M-M-M-M*-M-M-M-M*-M-MM-M-M-M-M-M-"
_QWEN3 = {"head norms": ("attn_q_norm", "attn_k_norm")}
_GEMMA = {"norms": ("post_attention_norm", "ffn_norm", "post_ffw_norm")}

HEADERS: dict[str, Header] = {
    "Llama 3.1 8B": Header(
        "llama",
        128_256,
        _numbers(32, 4096, 131_072, feed_forward_length=14_336, **_heads(32, 8, 128)),
        _transformer,
    ),
    "Mixtral 8x7B": Header(
        "llama",
        32_000,
        _numbers(
            32, 4096, 32_768, feed_forward_length=14_336, expert_count=8, expert_used_count=2,
            **_heads(32, 8, 128),
        ),
        _transformer,
    ),
    "Qwen2.5 7B": Header(
        "qwen2",
        152_064,
        _numbers(28, 3584, 32_768, feed_forward_length=18_944, **_heads(28, 4, 128)),
        _transformer,
    ),
    "Qwen3 8B": Header(
        "qwen3",
        151_936,
        _numbers(36, 4096, 40_960, feed_forward_length=12_288, **_heads(32, 8, 128)),
        _transformer,
        extra=_QWEN3,
    ),
    "Qwen3 30B-A3B": Header(
        "qwen3moe",
        151_936,
        _numbers(
            48, 2048, 40_960, feed_forward_length=6144, expert_count=128, expert_used_count=8,
            expert_feed_forward_length=768, **_heads(32, 4, 128),
        ),
        _transformer,
        extra=_QWEN3,
    ),
    "Gemma 2 9B": Header(
        "gemma2",
        256_000,
        _numbers(
            42, 3584, 8192, feed_forward_length=14_336, attention__sliding_window=4096,
            **_heads(16, 8, 256),
        ),
        _transformer,
        tied=True,
        extra=_GEMMA,
    ),
    "Gemma 3 12B": Header(
        "gemma3",
        262_208,
        _numbers(
            48, 3840, 131_072, feed_forward_length=15_360, attention__sliding_window=1024,
            **_heads(16, 8, 256),
        ),
        _transformer,
        tied=True,
        extra=_GEMMA | _QWEN3,
    ),
    "Gemma 3n E4B": Header(
        "gemma3n",
        262_144,
        _numbers(
            35, 2048, 32_768, feed_forward_length=16_384, attention__sliding_window=512,
            attention__sliding_window_pattern=[n % 5 != 4 for n in range(35)],
            attention__shared_kv_layers=15, embedding_length_per_layer_input=256,
            **_heads(8, 2, 256),
        ),
        _matryoshka,
        tied=True,
        extra=_GEMMA | _QWEN3,
    ),
    "Gemma 4 31B": Header(
        "gemma4",
        262_144,
        _numbers(
            60, 5376, 262_144, feed_forward_length=21_504, attention__sliding_window=1024,
            attention__sliding_window_pattern=[n % 6 != 5 for n in range(60)],
            attention__key_length_swa=256, attention__value_length_swa=256,
            attention__shared_kv_layers=0, embedding_length_per_layer_input=0,
            rope__dimension_count=512, rope__dimension_count_swa=256,
            **_heads(32, [16 if n % 6 != 5 else 4 for n in range(60)], 512),
        ),
        _transformer,
        tied=True,
        extra=_GEMMA | _QWEN3,
    ),
    "Gemma 4 E2B": Header(
        "gemma4",
        262_144,
        _numbers(
            35, 1536, 131_072, attention__sliding_window=512,
            feed_forward_length=[6144 if n < 15 else 12_288 for n in range(35)],
            attention__sliding_window_pattern=[n % 5 != 4 for n in range(35)],
            attention__key_length_swa=256, attention__value_length_swa=256,
            attention__shared_kv_layers=20, embedding_length_per_layer_input=256,
            rope__dimension_count=512, rope__dimension_count_swa=256, **_heads(8, 1, 512),
        ),
        _matryoshka,
        tied=True,
        extra=_GEMMA | _QWEN3,
    ),
    "DeepSeek V2 Lite": Header(
        "deepseek2",
        102_400,
        _numbers(
            27, 2048, 163_840, feed_forward_length=10_944, attention__head_count=16,
            attention__head_count_kv=1, attention__key_length=576, attention__value_length=512,
            attention__key_length_mla=192, attention__value_length_mla=128,
            attention__kv_lora_rank=512, rope__dimension_count=64, expert_count=64,
            expert_used_count=6, expert_feed_forward_length=1408, expert_shared_count=2,
            leading_dense_block_count=1, expert_weights_scale=1.0,
        ),
        _latent,
    ),
    "Mamba 0.8B": Header(
        "mamba",
        50_280,
        _numbers(
            48, 1536, 1_048_576, feed_forward_length=0, attention__head_count=0,
            ssm__inner_size=3072, ssm__state_size=16, ssm__conv_kernel=4, ssm__time_step_rank=96,
        ),
        _mamba,
        tied=True,
    ),
    "Mamba 2 1.3B": Header(
        "mamba2",
        50_288,
        _numbers(
            48, 2048, 1_048_576, feed_forward_length=0, attention__head_count=0,
            ssm__inner_size=4096, ssm__state_size=128, ssm__conv_kernel=4,
            ssm__time_step_rank=64, ssm__group_count=1,
        ),
        _pure_mamba2,
        tied=True,
    ),
    "Granite 4 H Tiny": Header(
        "granitehybrid",
        100_352,
        _numbers(
            40, 1536, 131_072, feed_forward_length=512, expert_count=64, expert_used_count=6,
            expert_shared_feed_forward_length=1024, ssm__inner_size=3072, ssm__state_size=128,
            ssm__conv_kernel=4, ssm__time_step_rank=48, ssm__group_count=1,
            **_heads(12, [4 if n % 10 == 5 else 0 for n in range(40)], 128),
        ),
        _granite,
        tied=True,
    ),
    "Falcon H1 7B": Header(
        "falcon-h1",
        130_048,
        _numbers(
            44, 3072, 262_144, feed_forward_length=12_288, ssm__inner_size=3072,
            ssm__state_size=256, ssm__conv_kernel=4, ssm__time_step_rank=24, ssm__group_count=1,
            **_heads(12, 2, 128),
        ),
        _falcon,
    ),
    "Qwen3-Next 80B-A3B": Header(
        "qwen3next",
        151_936,
        _numbers(
            48, 2048, 262_144, feed_forward_length=5120, expert_count=512, expert_used_count=10,
            expert_feed_forward_length=512, expert_shared_feed_forward_length=512,
            ssm__inner_size=4096, ssm__state_size=128, ssm__conv_kernel=4,
            ssm__time_step_rank=32, ssm__group_count=16, full_attention_interval=4,
            rope__dimension_count=64, **_heads(16, 2, 256),
        ),
        _delta_net,
        extra=_QWEN3,
    ),
    "LFM2 1.2B": Header(
        "lfm2",
        65_536,
        _numbers(
            16, 2048, 128_000, feed_forward_length=8192, shortconv__l_cache=3,
            **_heads(32, [8 if n in {2, 5, 8, 10, 12, 14} else 0 for n in range(16)], 64),
        ),
        _short_conv,
        tied=True,
        extra=_QWEN3,
    ),
    "gpt-oss 20B": Header(
        "gpt-oss",
        201_088,
        _numbers(
            24, 2880, 131_072, feed_forward_length=2880, expert_count=32, expert_used_count=4,
            expert_feed_forward_length=2880, attention__sliding_window=128, **_heads(64, 8, 64),
        ),
        _transformer,
        extra={
            "norms": ("post_attention_norm",),
            "biases": (
                "attn_output.bias", "attn_sinks.weight", "ffn_gate_inp.bias",
                "ffn_gate_exps.bias", "ffn_up_exps.bias", "ffn_down_exps.bias",
            ),
        },
    ),
    "Phi 3 mini": Header(
        "phi3",
        32_064,
        _numbers(
            32, 3072, 4096, feed_forward_length=8192, attention__sliding_window=2047,
            rope__dimension_count=96, **_heads(32, 32, 96),
        ),
        _transformer,
        extra={"fused feed-forward": True},
    ),
    "GLM 4.5 Air": Header(
        "glm4moe",
        151_552,
        _numbers(
            46, 4096, 131_072, feed_forward_length=10_944, expert_count=128, expert_used_count=8,
            expert_feed_forward_length=1408, expert_shared_count=1, leading_dense_block_count=1,
            rope__dimension_count=64, **_heads(96, 8, 128),
        ),
        _transformer,
        extra={"norms": ("post_attention_norm",), "biases": ("exp_probs_b.bias",)},
    ),
    "Command R7B": Header(
        "cohere2",
        256_000,
        _numbers(
            32, 4096, 132_096, feed_forward_length=14_336, attention__sliding_window=4096,
            attention__layer_norm_epsilon=1e-5, logit_scale=0.25, **_heads(32, 8, 128),
        ),
        _transformer,
        tied=True,
        extra={"norms": ()},
    ),
    "DeepSeek V3.2, 12 layers": Header(
        "deepseek32",
        129_280,
        _numbers(
            12, 7168, 163_840, feed_forward_length=18_432, attention__head_count=128,
            attention__head_count_kv=1, attention__key_length=576, attention__value_length=512,
            attention__key_length_mla=192, attention__value_length_mla=128,
            attention__kv_lora_rank=512, attention__q_lora_rank=1536, rope__dimension_count=64,
            attention__indexer__head_count=64, attention__indexer__key_length=128,
            attention__indexer__top_k=2048, expert_count=32, expert_used_count=8,
            expert_feed_forward_length=2048, expert_shared_count=1, leading_dense_block_count=3,
            expert_weights_scale=2.5, expert_gating_func=2,
        ),
        _indexed,
    ),
    "Nemotron Nano 9B v2": Header(
        "nemotron_h",
        131_072,
        _numbers(
            56, 4480, 131_072, attention__layer_norm_epsilon=1e-5,
            feed_forward_length=[15_680 if mark == "-" else 0 for mark in _NEMOTRON],
            ssm__inner_size=10_240, ssm__state_size=128, ssm__conv_kernel=4,
            ssm__time_step_rank=128, ssm__group_count=8,
            **_heads(40, [8 if mark == "*" else 0 for mark in _NEMOTRON], 128),
        ),
        _nemotron,
    ),
    "Jamba Mini": Header(
        "jamba",
        65_536,
        _numbers(
            32, 4096, 262_144, feed_forward_length=14_336, expert_count=16, expert_used_count=2,
            ssm__inner_size=8192, ssm__state_size=16, ssm__conv_kernel=4,
            ssm__time_step_rank=256, **_heads(32, [8 if n % 8 == 4 else 0 for n in range(32)], 128),
        ),
        _jamba,
    ),
    "RWKV 7 2.9B": Header(
        "rwkv7",
        65_536,
        _numbers(
            32, 2560, 1_048_576, feed_forward_length=10_240, attention__head_count=0,
            attention__layer_norm_epsilon=1e-5, wkv__head_size=64, token_shift_count=2,
            attention__decay_lora_rank=96, attention__iclr_lora_rank=96,
            attention__gate_lora_rank=320, attention__value_residual_mix_lora_rank=64,
        ),
        _rwkv7,
    ),
}  # fmt: skip
"""Published models, by name."""
