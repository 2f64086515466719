"""llama.cpp's memory beside the weights, by formula. `ask.py` gets the same from llama.cpp itself.

Sources are named by their file in llama.cpp's repository, as of the build in xllamacpp's pin. The
compute buffer is fitted to what it prints; docs/memory.md and tests/engines/test_llama_memory.py
hold it against that.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from paddock.engines.base import CacheRules

if TYPE_CHECKING:
    from paddock.registry.spec import Architecture

CONTEXT_STEP = 256
"""The context of a slot is padded to this (src/llama-context.cpp, GGML_PAD of n_ctx_seq)."""

PROCESS_BYTES = 45_000_000
"""The server without weights, cache, buffers and vocabulary: 36 to 44 MB were measured."""
TOKEN_BYTES = 250
"""One token of the vocabulary, in the tables of src/llama-vocab.cpp: 200 bytes were measured for
one of the kind `llama`, 420 with the merges of byte-pair encoding."""

# Architectures with a cache for windows (src/models/*.cpp: swa_type), by their names in GGUF files
# and by the classes that are converted to them (conversion/*.py). Phi 3, Mistral and Qwen keep the
# whole context in llama.cpp whatever their configuration says.
WINDOWED = frozenset(
    (
        *("afmoe", "cohere2", "cohere2moe", "exaone-moe", "exaone4", "gemma2", "gemma3", "gemma3n"),
        *("gemma4", "gpt-oss", "granite-swa", "laguna", "lfm2", "lfm2moe", "llama4", "mellum"),
        *("mimo2", "muse-glimmer", "olmo2", "plamo3", "smallthinker", "step35"),
        *("AfmoeForCausalLM", "Cohere2ForCausalLM", "Cohere2MoeForCausalLM", "Exaone4ForCausalLM"),
        *("ExaoneMoEForCausalLM", "ExaoneMoeForCausalLM", "Gemma2ForCausalLM"),
        *("Gemma3ForCausalLM", "Gemma3ForConditionalGeneration", "Gemma3nForCausalLM"),
        *("Gemma3nForConditionalGeneration", "Gemma4ForCausalLM"),
        *("Gemma4ForConditionalGeneration", "Gemma4UnifiedForConditionalGeneration"),
        *("GptOssForCausalLM", "LagunaForCausalLM", "Llama4ForCausalLM"),
        *("Llama4ForConditionalGeneration", "MellumForCausalLM", "MiMoV2FlashForCausalLM"),
        *("MiMoV2ForCausalLM", "Olmo3ForCausalLM", "Plamo3ForCausalLM", "SmallThinkerForCausalLM"),
        *("Step3p5ForCausalLM",),
    )
)
# Networks that keep nothing between batches (src/llama-model.cpp, create_memory: nullptr).
_UNCACHED = re.compile(r"bert|gemma-embedding|^(?:dream|llada|rnd1)", re.IGNORECASE)


def cache_rules(architecture: Architecture, ubatch: int) -> CacheRules:
    """Its cache: a window and one micro-batch of the windowed layers, the latent row with MLA.

    The window's cache has min(context, window + n_ubatch) tokens, rounded up to 256
    (src/llama-kv-cache-iswa.cpp; `swa_full` is not set).
    """
    return CacheRules(
        kept=_UNCACHED.search(architecture.name) is None,
        windows=architecture.name in WINDOWED,
        spare=ubatch,
        step=CONTEXT_STEP,
        latent=True,
    )


@dataclass(frozen=True)
class Batch:
    """The work that llama.cpp reserves its buffers for.

    Attributes:
        tokens: those of one micro-batch.
        outputs: tokens for which it computes logits: one of each slot in generation; all in
            pooling (server_output_limits in tools/server/server-context.cpp).
    """

    tokens: int
    outputs: int
    flash_attention: bool = True


def process_bytes(architecture: Architecture) -> int:
    """The process with its vocabulary."""
    return PROCESS_BYTES + TOKEN_BYTES * architecture.vocabulary_size


def output_bytes(architecture: Architecture, batch: Batch) -> int:
    """Bytes of its output buffer, which has a row of logits for each output, in pooling too.

    llama.cpp's own breakdown lacks it: it is made for the slots and grows with the first batch that
    has more outputs (output_reserve in src/llama-context.cpp). 1,900 tokens embedded with a
    vocabulary of 262,144 took 2 GB here and 2 GB in the compute buffer.
    """
    return 4 * batch.outputs * architecture.vocabulary_size


def compute_bytes(architecture: Architecture, context: int, slots: int, batch: Batch) -> int:
    """Bytes of its compute buffer, as its breakdown states it.

    src/llama-context.cpp reserves the graph of one micro-batch. Of its tensors those of one layer
    live at once: for each token some five rows of activations, with the widest of what a layer
    makes of them, and the mask in float16; or at the end the logits.
    """
    a = architecture
    tokens = min(batch.tokens, context * slots)
    mask = 2 * context if a.attending else 0
    if a.sliding_window and a.sliding_layers:
        mask += 2 * cache_rules(a, batch.tokens).window_tokens(context, a.sliding_window)
    if a.index_head_dim:
        mask += 8 * context  # the indexer's scores in float32, and a mask of them
    widest = max(
        _feed_forward(a) * tokens,
        _attention(a) * tokens,
        _recurrence(a) * tokens + slots * a.recurrent_state,
        0 if _UNCACHED.search(a.name) else min(batch.outputs, tokens) * a.vocabulary_size,
    )
    # The embeddings of all layers stay from the first to the last of them, twice.
    own = 2 * a.layers * a.hidden_size_per_layer_input
    numbers = (5 * a.hidden_size + own) * tokens + widest
    if not batch.flash_attention and a.attending:
        # The scores of all heads over the whole context, and a mask in float32.
        scores = (a.attention_heads + 1) * context + 7 * a.hidden_size
        if scores * tokens > numbers:
            numbers, mask = scores * tokens, 0
    return 4 * numbers + mask * tokens


def _feed_forward(a: Architecture) -> int:
    """Gate, up and their product, of each expert in use; and their outputs.

    The outputs take the place of gate and up where they fit there (ggml/src/ggml-alloc.c).
    """
    used = max(1, a.experts_per_token)
    inner = 3 * used * a.intermediate_size
    fits = not a.experts or a.hidden_size <= 2 * a.intermediate_size
    return inner if fits else inner + used * a.hidden_size


def _attention(a: Architecture) -> int:
    """Queries and outputs of all heads, or keys with copies of both; latent keys for each head."""
    if not a.attending:
        return 0
    if a.kv_lora_rank:
        latent = a.kv_lora_rank + (a.qk_rope_head_dim or 0)
        return a.attention_heads * (a.head_dim + 2 * latent)
    size = max(a.head_dim, a.global_head_dim or 0)
    queries, keys = a.attention_heads * size, a.key_value_heads * a.head_dim
    return max(2 * queries, queries + 3 * keys - 2 * a.hidden_size)


def _recurrence(a: Architecture) -> int:
    """Mamba's projections and their copies, for an inner width of twice the hidden one."""
    return 10 * a.hidden_size if a.recurrent_layers else 0
