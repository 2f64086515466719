"""What layers keep: the sums that llama.cpp printed for published models, and other rules."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench.llama_memory import architecture_of
from paddock.engines.base import CacheRules
from paddock.engines.llama_cpp import LlamaCpp, LlamaCppOptions
from paddock.launcher.planning.cache import CacheGroup, cache_bytes, cache_groups
from paddock.registry.spec import Architecture
from tests.headers import HEADERS, write_header

MIB = 1024 * 1024
# The "KV buffer size" and "RS buffer size" of xllamacpp 2026.10.11549, summed; MiB of float16.
PRINTED = [
    ("Llama 3.1 8B", 8192, 4, 4096.0),
    ("Qwen2.5 7B", 32_768, 1, 1792.0),
    ("Qwen3 30B-A3B", 8192, 1, 768.0),
    ("Gemma 2 9B", 1024, 1, 336.0),
    ("Gemma 2 9B", 32_768, 1, 6132.0),
    ("Gemma 3 12B", 1024, 1, 384.0),
    ("Gemma 3 12B", 8192, 4, 3968.0),
    ("Gemma 3n E4B", 8192, 1, 96.0),
    ("Gemma 4 31B", 8192, 1, 1840.0),
    ("Gemma 4 E2B", 65_536, 1, 396.0),
    ("DeepSeek V2 Lite", 32_768, 1, 972.0),
    ("Mamba 0.8B", 8192, 4, 42.75),
    ("Mamba 2 1.3B", 1024, 1, 98.39),
    ("Granite 4 H Tiny", 8192, 1, 119.37),
    ("Falcon H1 7B", 8192, 4, 1943.22),
    ("Qwen3-Next 80B-A3B", 8192, 1, 267.38),
    ("LFM2 1.2B", 8192, 4, 384.62),
    ("gpt-oss 20B", 8192, 1, 210.0),
    ("Phi 3 mini", 8192, 1, 3072.0),
    ("GLM 4.5 Air", 8192, 1, 1472.0),
]


def shape_of(name: str, folder: Path) -> Architecture:
    """The architecture derived from the header of a published model, with a short vocabulary."""
    header = replace(HEADERS[name], vocabulary=1024)
    return architecture_of(write_header(folder / "header.gguf", header))


@pytest.mark.parametrize(("name", "context", "slots", "mib"), PRINTED)
def test_the_cache_is_what_llama_cpp_prints(
    tmp_path: Path, name: str, context: int, slots: int, mib: float
) -> None:
    """A spec derived from a header has all that the cache's size follows from."""
    shape = shape_of(name, tmp_path)
    rules = LlamaCpp().cache_rules(shape, LlamaCppOptions())
    assert cache_bytes(shape, context, slots, rules=rules) / MIB == pytest.approx(mib, abs=0.02)


def test_an_engine_of_which_nothing_is_known_saves_nothing(tmp_path: Path) -> None:
    """Windows count in full, and latent attention by its full keys and values."""
    gemma = shape_of("Gemma 3 12B", tmp_path)
    assert cache_bytes(gemma, 8192) == 8192 * 48 * 8 * 256 * 4
    deepseek = shape_of("DeepSeek V2 Lite", tmp_path)
    assert cache_bytes(deepseek, 1) == 27 * 16 * (192 + 128) * 2
    assert cache_bytes(deepseek, 1, rules=CacheRules(latent=True)) == 27 * (512 + 64) * 2


def test_groups_tell_kinds_of_layers(tmp_path: Path) -> None:
    """Whole attention, windows and states, with the layers of each."""
    assert cache_groups(shape_of("Gemma 4 E2B", tmp_path)) == (
        CacheGroup(3, 512, 512),
        CacheGroup(12, 256, 256, window=512),
    )
    assert cache_groups(shape_of("Qwen3-Next 80B-A3B", tmp_path)) == (
        CacheGroup(12, 512, 512),
        CacheGroup(36, state=128 * 4096 + 3 * (4096 + 2 * 16 * 128)),
    )


def test_an_encoder_keeps_nothing_in_llama_cpp(tmp_path: Path) -> None:
    """BERT and its like see a whole input at once."""
    shape = shape_of("Llama 3.1 8B", tmp_path).model_copy(update={"name": "bert"})
    rules = LlamaCpp().cache_rules(shape, LlamaCppOptions())
    assert cache_bytes(shape, 512, rules=rules) == 0


def test_a_family_without_windows_in_llama_cpp_keeps_the_context(tmp_path: Path) -> None:
    """A window in the spec saves nothing where llama.cpp has no cache for it."""
    update = {"name": "MistralForCausalLM", "sliding_window": 4096, "sliding_layers": 32}
    shape = shape_of("Llama 3.1 8B", tmp_path).model_copy(update=update)
    rules = LlamaCpp().cache_rules(shape, LlamaCppOptions())
    assert cache_bytes(shape, 32_768, rules=rules) == cache_bytes(shape, 32_768)


def test_in_pooling_a_window_saves_nothing(tmp_path: Path) -> None:
    """A micro-batch is longer than the context there."""
    shape = shape_of("Gemma 3 12B", tmp_path)
    rules = LlamaCpp().cache_rules(shape, LlamaCppOptions(), pooled=True)
    assert cache_bytes(shape, 8192, rules=rules) == cache_bytes(shape, 8192)
