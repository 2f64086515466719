"""The tensors of a network, by its architecture: names as in GGUF files, shapes from the row. Pure.

Names and shapes are those of llama.cpp's loader (src/models/*.cpp, load_arch_tensors) and of its
conversion from Transformers (conversion/*.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from paddock.registry.sizes.mixtures import Network, Tensor
from paddock.registry.spec import Architecture

Shapes = Iterator[tuple[str, tuple[int, ...]]]
SENTENCEPIECE_TOKEN_BYTES = 23
"""One token in the header of a file: llama.cpp's models/ggml-vocab-llama-spm.gguf takes 22.6."""
PAIRS_TOKEN_BYTES = 45
"""The same with the merges of byte-pair encoding: ggml-vocab-qwen2.gguf takes 39, -llama-bpe 61."""
LEAST_SHARE, MOST_SHARE = 0.8, 1.05
"""How much of the stated parameters the tensors may hold: an encoder of pictures is not among them,
and publishers round."""
_HEADER_BYTES = 8192
"""Numbers and a chat template."""
_SMALL_VOCABULARY = 70_000
"""Vocabularies up to here are SentencePiece's as a rule."""


@dataclass(frozen=True)
class _Family:
    """What networks of one family have in each layer, beside what the architecture's numbers say.

    Attributes:
        fused: parts that are one matrix: `qkv`, and `up` of gate and up.
        biases: matrices with a bias.
        norms: vectors as wide as the network.
        head_norms: whether queries and keys are normalised.
        gated_queries: whether queries come with a gate as wide as they are.
        gated: whether the feed-forward part has a gate.
        drafts: layers behind the last one that draft tokens, which conversion keeps.
        pieces: whether the vocabulary is SentencePiece's whatever its size.
    """

    fused: frozenset[str] = frozenset()
    biases: tuple[str, ...] = ()
    norms: tuple[str, ...] = ("attn_norm", "ffn_norm")
    head_norms: bool = False
    gated_queries: bool = False
    gated: bool = True
    drafts: int = 0
    pieces: bool = False


_QKV = ("attn_q", "attn_k", "attn_v")
_LLAMA = _Family()
_QWEN2 = _Family(biases=_QKV)
_QWEN3 = _Family(head_norms=True)
_GEMMA = _Family(
    norms=("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"),
    head_norms=True,
    pieces=True,
)
_GLM = _Family(fused=frozenset({"qkv", "up"}), biases=("attn_qkv",))
_GLM4 = _Family(fused=frozenset({"up"}), norms=_GEMMA.norms)
_GLM4_MOE = _Family(biases=_QKV, norms=("attn_norm", "post_attention_norm"), drafts=1)
_NEXT = _Family(norms=("attn_norm", "post_attention_norm"), head_norms=True, gated_queries=True)
_PHI2 = _Family(
    biases=(*_QKV, "attn_output", "ffn_up", "ffn_down"),
    norms=("attn_norm",),
    gated=False,
)
_GPT_OSS = _Family(biases=(*_QKV, "attn_output"), norms=_GLM4_MOE.norms)

# By classes of Transformers and by llama.cpp's names.
_FAMILIES = {
    **dict.fromkeys(
        (
            "llama", "ernie4_5", "ernie4_5-moe", "deepseek2", "deepseek32", "LlamaForCausalLM",
            "MistralForCausalLM", "MixtralForCausalLM", "InternLM3ForCausalLM",
            "BaichuanForCausalLM", "MiniCPMForCausalLM", "MiniCPM3ForCausalLM",
            "Ernie4_5ForCausalLM", "Ernie4_5_MoeForCausalLM", "DeepseekV2ForCausalLM",
            "DeepseekV3ForCausalLM", "DeepseekV32ForCausalLM", "KimiK25ForConditionalGeneration",
        ),
        _LLAMA,
    ),
    **dict.fromkeys(
        ("glm-dsa", "GlmMoeDsaForCausalLM", "Glm4MoeLiteForCausalLM"), _Family(drafts=1)
    ),
    **dict.fromkeys(
        (
            "qwen2", "qwen2moe", "qwen2vl", "seed_oss", "Qwen2ForCausalLM", "Qwen2MoeForCausalLM",
            "Qwen2VLForConditionalGeneration", "Qwen2_5_VLForConditionalGeneration",
            "SeedOssForCausalLM",
        ),
        _QWEN2,
    ),
    **dict.fromkeys(
        (
            "qwen3", "qwen3moe", "qwen3vl", "qwen3vlmoe", "minimax-m2", "Qwen3ForCausalLM",
            "Qwen3MoeForCausalLM", "Qwen3VLForConditionalGeneration",
            "Qwen3VLMoeForConditionalGeneration", "Qwen3OmniMoeForConditionalGeneration",
            "MiniMaxM2ForCausalLM",
        ),
        _QWEN3,
    ),
    **dict.fromkeys(
        (
            "qwen3next", "qwen35", "qwen35moe", "Qwen3NextForCausalLM",
            "Qwen3_5ForConditionalGeneration", "Qwen3_5MoeForConditionalGeneration",
        ),
        _NEXT,
    ),
    **dict.fromkeys(
        (
            "gemma2", "gemma3", "Gemma2ForCausalLM", "Gemma3ForCausalLM",
            "Gemma3ForConditionalGeneration",
        ),
        _GEMMA,
    ),
    **dict.fromkeys(
        (
            "gemma4", "Gemma4ForCausalLM", "Gemma4ForConditionalGeneration",
            "Gemma4UnifiedForConditionalGeneration",
        ),
        _Family(norms=_GEMMA.norms, head_norms=True),
    ),
    **dict.fromkeys(("chatglm", "ChatGLMModel", "GlmForCausalLM"), _GLM),
    **dict.fromkeys(("glm4", "Glm4ForCausalLM", "Glm4vForConditionalGeneration"), _GLM4),
    **dict.fromkeys(
        ("glm4moe", "Glm4MoeForCausalLM", "Glm4vMoeForConditionalGeneration"), _GLM4_MOE
    ),
    **dict.fromkeys(("gpt-oss", "GptOssForCausalLM"), _GPT_OSS),
    **dict.fromkeys(("phi2", "PhiForCausalLM"), _PHI2),
    **dict.fromkeys(("phi3", "Phi3ForCausalLM"), _Family(fused=frozenset({"qkv", "up"}))),
    **dict.fromkeys(
        ("qwen", "QWenLMHeadModel"), _Family(fused=frozenset({"qkv"}), biases=("attn_qkv",))
    ),
}  # fmt: skip
_OF_80_LAYERS = frozenset(
    {"llama", "qwen2", "LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM"}
)


@lru_cache(maxsize=1024)
def knows_tensors(architecture: Architecture) -> bool:
    """Whether the tensors of this architecture are known, and hold the parameters it states."""
    family = _FAMILIES.get(architecture.name)
    if family is None or architecture.reckoned:
        return False
    # Layers with a state have matrices that only these numbers tell.
    has_matrices = (
        family is _NEXT and architecture.linear_key_size and architecture.linear_value_size
    )
    if architecture.recurrent_layers and not has_matrices:
        return False
    every, _ = count_parameters(architecture)
    return LEAST_SHARE <= every / architecture.parameters <= MOST_SHARE


def network_tensors(architecture: Architecture, drafts: bool = True) -> tuple[Tensor, ...]:
    """The tensors of the language model, with those of `drafts` or without; in no order.

    The architecture must be known (`knows_tensors`).
    """
    return tuple(Tensor(name, shape) for name, shape in _Tensors(architecture).all(drafts))


def network_facts(architecture: Architecture) -> Network:
    """What llama.cpp's rules of mixtures ask of the network."""
    a = architecture
    shared = 1 if a.kv_lora_rank else a.key_value_heads
    is_70b = (
        a.name in _OF_80_LAYERS
        and a.layers == 80
        and (a.attention_heads != shared or "wen2" in a.name)
    )
    drafts = _FAMILIES[a.name].drafts
    return Network(a.layers + drafts, a.attention_heads // shared, a.experts, is_70b)


def count_parameters(architecture: Architecture) -> tuple[int, int]:
    """All parameters of the language model, and those that one token passes through."""
    every = idle = 0
    for tensor in network_tensors(architecture, drafts=False):
        every += tensor.elements
        if "_exps." in tensor.name:
            unused = architecture.experts - architecture.experts_per_token
            idle += tensor.elements // architecture.experts * unused
    return every, every - idle


def header_bytes(architecture: Architecture, tensors: tuple[Tensor, ...]) -> int:
    """Bytes of a GGUF's header, nearly: its vocabulary and the list of its tensors."""
    words = architecture.vocabulary_size
    pieces = _FAMILIES[architecture.name].pieces or words <= _SMALL_VOCABULARY
    listed = sum(24 + len(tensor.name) + 8 * len(tensor.shape) for tensor in tensors)
    return (
        _HEADER_BYTES
        + listed
        + words * (SENTENCEPIECE_TOKEN_BYTES if pieces else PAIRS_TOKEN_BYTES)
    )


class _Tensors:
    def __init__(self, architecture: Architecture) -> None:
        self.a = architecture
        self.family = _FAMILIES[architecture.name]

    def all(self, drafts: bool) -> Shapes:
        a = self.a
        yield "token_embd.weight", (a.hidden_size, a.vocabulary_size)
        yield "output_norm.weight", (a.hidden_size,)
        if not a.tied_embeddings:
            yield "output.weight", (a.hidden_size, a.vocabulary_size)
        if own := a.hidden_size_per_layer_input:
            yield "per_layer_token_embd.weight", (own * a.layers, a.vocabulary_size)
            yield "per_layer_model_proj.weight", (a.hidden_size, own * a.layers)
            yield "per_layer_proj_norm.weight", (own,)
        for layer in range(a.layers + (self.family.drafts if drafts else 0)):
            for name, shape in self._layer(layer):
                yield f"blk.{layer}.{name}", shape
                stem = name.removesuffix(".weight")
                if stem in self.family.biases:
                    yield f"blk.{layer}.{stem}.bias", shape[1:]

    def _layer(self, layer: int) -> Shapes:
        a = self.a
        for name in self.family.norms:
            yield f"{name}.weight", (a.hidden_size,)
        if layer >= a.layers:
            yield "nextn.eh_proj.weight", (2 * a.hidden_size, a.hidden_size)
        if a.recurrent_layers and layer < a.layers and not self._is_one_of(layer, a.attending):
            yield from self._delta_net()
        else:
            yield from (self._latent() if a.kv_lora_rank else self._attention(layer))
        if own := a.hidden_size_per_layer_input:
            yield "inp_gate.weight", (a.hidden_size, own)
            yield "proj.weight", (own, a.hidden_size)
            yield "post_norm.weight", (a.hidden_size,)
        yield from self._feed_forward(layer)

    def _is_one_of(self, layer: int, few: int) -> bool:
        """Whether a layer is one of `few` that stand last in groups of equal size."""
        every = self.a.layers // max(1, few)
        return (layer + 1) % max(1, every) == 0 and few > 0

    def _attention(self, layer: int) -> Shapes:
        a, width = self.a, self.a.hidden_size
        whole = self._is_one_of(layer, a.attending - a.sliding_layers)
        size = (a.global_head_dim if whole else None) or a.head_dim
        shared = (a.global_key_value_heads if whole else None) or a.key_value_heads
        queries = a.attention_heads * size * (2 if self.family.gated_queries else 1)
        keys, values = shared * size, shared * (a.v_head_dim or size)
        if "qkv" in self.family.fused:
            yield "attn_qkv.weight", (width, queries + keys + values)
        else:
            yield "attn_q.weight", (width, queries)
            if layer < a.layers - a.kv_shared_layers or not a.kv_shared_layers:
                yield "attn_k.weight", (width, keys)
                # Layers of Gemma 4 with heads of their own use their keys as values.
                if not (whole and a.global_key_value_heads):
                    yield "attn_v.weight", (width, values)
        yield "attn_output.weight", (a.attention_heads * (a.v_head_dim or size), width)
        if self.family.head_norms:
            yield "attn_q_norm.weight", (size,)
            yield "attn_k_norm.weight", (size,)

    def _latent(self) -> Shapes:
        a, width, heads = self.a, self.a.hidden_size, self.a.attention_heads
        rank, rope = a.kv_lora_rank or 0, a.qk_rope_head_dim or 0
        value = a.v_head_dim or a.head_dim
        if a.q_lora_rank:
            yield "attn_q_a.weight", (width, a.q_lora_rank)
            yield "attn_q_a_norm.weight", (a.q_lora_rank,)
            yield "attn_q_b.weight", (a.q_lora_rank, heads * a.head_dim)
        else:
            yield "attn_q.weight", (width, heads * a.head_dim)
        yield "attn_kv_a_mqa.weight", (width, rank + rope)
        yield "attn_kv_a_norm.weight", (rank,)
        yield "attn_k_b.weight", (a.head_dim - rope, rank, heads)
        yield "attn_v_b.weight", (rank, value, heads)
        yield "attn_output.weight", (heads * value, width)
        if a.index_head_dim and a.index_heads and a.q_lora_rank:
            yield "indexer.attn_k.weight", (width, a.index_head_dim)
            yield "indexer.attn_q_b.weight", (a.q_lora_rank, a.index_heads * a.index_head_dim)
            yield "indexer.proj.weight", (width, a.index_heads)

    def _delta_net(self) -> Shapes:
        """A gated delta net (Qwen3-Next and later)."""
        a, width = self.a, self.a.hidden_size
        keys, values = a.linear_key_size or 0, a.linear_value_size or 0
        yield "attn_qkv.weight", (width, 2 * keys + values)
        yield "attn_gate.weight", (width, values)
        yield "ssm_conv1d.weight", (4, 2 * keys + values)
        yield "ssm_ba.weight", (width, 2 * values // 128)
        yield "ssm_out.weight", (values, width)

    def _feed_forward(self, layer: int) -> Shapes:
        a, width = self.a, self.a.hidden_size
        if not a.experts or layer < a.dense_layers:
            inner = a.dense_intermediate_size if a.experts else None
            inner = inner or a.intermediate_size
            if a.wide_shared_layers and layer >= a.layers - a.kv_shared_layers:
                inner *= 2
            yield from self._gated("", inner)
            return
        inner = a.intermediate_size
        yield "ffn_gate_inp.weight", (width, a.experts)
        yield "ffn_gate_exps.weight", (width, inner, a.experts)
        yield "ffn_up_exps.weight", (width, inner, a.experts)
        yield "ffn_down_exps.weight", (inner, width, a.experts)
        if a.shared_intermediate_size:
            yield from self._gated("_shexp", a.shared_intermediate_size)

    def _gated(self, suffix: str, inner: int) -> Shapes:
        width = self.a.hidden_size
        if "up" in self.family.fused:
            yield f"ffn_up{suffix}.weight", (width, 2 * inner)
        else:
            if self.family.gated:
                yield f"ffn_gate{suffix}.weight", (width, inner)
            yield f"ffn_up{suffix}.weight", (width, inner)
        yield f"ffn_down{suffix}.weight", (inner, width)
