"""Sizes of files that follow from an architecture, against files that exist."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench.llama_memory import architecture_of
from paddock.registry.sizes.files import files_bytes, gguf_bytes, linear_elements
from paddock.registry.sizes.tensors import count_parameters, knows_tensors, network_tensors
from paddock.registry.spec import Architecture, ModelSpec
from tests.catalog import CATALOG
from tests.headers import HEADERS, tensor_shapes, write_header

EVERY = pytest.mark.parametrize("spec", list(CATALOG), ids=CATALOG.names())
GB = 10**9
SIZE_ERROR = 0.015

GEMMA_3_270M = Architecture(
    name="Gemma3ForCausalLM",
    layers=18,
    hidden_size=640,
    intermediate_size=2048,
    attention_heads=4,
    key_value_heads=1,
    head_dim=256,
    vocabulary_size=262_144,
    parameters=268_098_176,
    active_parameters=268_098_176,
    sliding_window=512,
    sliding_layers=15,
    tied_embeddings=True,
)

# GB as the files' cards state them: bartowski's of gemma-3-4b-it, Llama-3.1-70B and Qwen3-30B-A3B,
# TensorBlock's of gemma-3-1b-it, whose rows fill no blocks of 256; steampunque's and KikoCis's of
# gemma-4-31b-it.
PUBLISHED = {
    ("gemma-3-it", "4"): {
        "bf16": 7.77, "Q8_0": 4.13, "Q6_K_L": 3.35, "Q6_K": 3.19, "Q5_K_L": 2.99, "Q5_K_M": 2.83,
        "Q5_K_S": 2.76, "Q4_K_L": 2.65, "Q4_1": 2.56, "Q4_K_M": 2.49,
    },
    ("gemma-3-1b-it", "1"): {
        "Q2_K": 0.690, "Q3_K_S": 0.689, "Q3_K_M": 0.722, "Q3_K_L": 0.752, "Q4_0": 0.720,
        "Q4_K_S": 0.781,
    },
    ("llama-3.1-instruct", "70"): {
        "Q8_0": 74.98, "Q6_K": 57.89, "Q5_K_L": 50.60, "Q5_K_M": 49.95, "Q5_K_S": 48.66,
        "Q4_K_L": 43.30, "Q4_K_M": 42.52, "Q4_K_S": 40.35, "Q4_0": 40.12, "Q3_K_XL": 38.06,
        "IQ4_XS": 37.90, "Q3_K_L": 37.14, "Q3_K_M": 34.27, "IQ3_M": 31.94, "Q3_K_S": 30.91,
    },
    ("qwen3", "30"): {
        "bf16": 61.10, "Q8_0": 32.48, "Q6_K_L": 25.26, "Q6_K": 25.10, "Q5_K_L": 21.94,
        "Q5_K_M": 21.74, "Q5_K_S": 21.10,
    },
    ("gemma-4", "31"): {"f16": 61.4, "Q4_K_M": 18.7, "IQ3_XS": 13.1},
}  # fmt: skip

# The types whose rules have not changed since December 2023, when the card's files were made.
UNCHANGED = ("Q4_0", "Q5_0", "Q6_K", "Q8_0")


def test_gemma_270m_is_as_large_as_its_file() -> None:
    """The Q4_K_M of Gemma 3 270M has 253,113,024 bytes."""
    assert gguf_bytes("Q4_K_M", GEMMA_3_270M) == pytest.approx(253_113_024, rel=SIZE_ERROR)


@pytest.mark.parametrize(
    ("model", "size", "quantization", "stated"),
    [(*key, name, gb) for key, row in PUBLISHED.items() for name, gb in row.items()],
)
def test_sizes_are_those_of_published_files(
    model: str, size: str, quantization: str, stated: float
) -> None:
    """Within 1.5 % of what the cards of published files state."""
    computed = gguf_bytes(quantization, CATALOG.lookup(model).shape(size))
    assert computed is not None
    assert computed / GB == pytest.approx(stated, rel=SIZE_ERROR, abs=0.005)


@pytest.mark.parametrize(
    ("model", "size", "quantization", "stated"),
    [
        ("gemma-4", "31", "UD-IQ3_XXS", 11.84),
        ("gemma-4", "31", "UD-IQ2_M", 10.75),
        ("gemma-4", "31", "UD-IQ2_XXS", 8.53),
        ("deepseek-r1", "671", "UD-IQ1_S", 131),
        ("deepseek-r1", "671", "UD-IQ1_M", 158),
        ("deepseek-r1", "671", "UD-IQ2_XXS", 183),
    ],
)
def test_types_chosen_by_layer_are_nearly_the_mixtures(
    model: str, size: str, quantization: str, stated: float
) -> None:
    """Unsloth's files, as their makers state them, are within 6 % of the nearest mixture."""
    computed = gguf_bytes(quantization, CATALOG.lookup(model).shape(size))
    assert computed is not None
    assert computed / GB == pytest.approx(stated, rel=0.06)


@EVERY
def test_sizes_are_those_that_specs_state(spec: ModelSpec) -> None:
    """Every size that a spec states follows from its architecture, save by older rules."""
    for variant in spec.variants:
        shape = spec.shape(variant.size)
        computed = files_bytes(variant.format, variant.quantization, shape)
        if variant.size_bytes is None or computed is None:
            continue
        old = variant.format == "ggufv2" and variant.quantization not in UNCHANGED
        if spec.name == "tiny-mixtral" or not old:
            slack = 100_000  # of a tokenizer and a header
            assert computed == pytest.approx(variant.size_bytes, rel=SIZE_ERROR, abs=slack)


@pytest.mark.parametrize(
    ("quantization", "more"),
    [("Q2_K", 0.107), ("Q3_K_M", 0.107), ("Q4_K_M", 0.076), ("Q5_K_M", 0.031)],
)
def test_the_cards_files_are_by_older_rules(quantization: str, more: float) -> None:
    """Today's rules make the experts of Mixtral larger; docs/memory.md says by how much."""
    spec = CATALOG.lookup("mixtral-v0.1")
    (variant,) = spec.select(format="ggufv2", quantization=quantization)
    computed = gguf_bytes(quantization, spec.architecture)
    assert computed is not None
    assert variant.size_bytes is not None
    assert computed / variant.size_bytes - 1 == pytest.approx(more, abs=0.001)


@EVERY
def test_parameters_follow_from_the_shape(spec: ModelSpec) -> None:
    """The tensors hold the stated parameters, save those of a vision encoder."""
    for size in spec.sizes:
        shape = spec.shape(size)
        if not knows_tensors(shape):
            continue
        every, active = count_parameters(shape)
        assert active <= every
        seeing = "vision" in spec.abilities or "ForConditionalGeneration" in shape.name
        if seeing:
            assert every <= 1.001 * shape.parameters < 1.17 * every
        else:
            assert every == pytest.approx(shape.parameters, rel=0.002)


@pytest.mark.parametrize(
    "title",
    [
        "Llama 3.1 8B", "Mixtral 8x7B", "Qwen3 8B", "Qwen3 30B-A3B", "Gemma 2 9B", "Gemma 3 12B",
        "DeepSeek V2 Lite", "DeepSeek V3.2, 12 layers", "Gemma 4 E2B",
    ],
)  # fmt: skip
def test_tensors_are_those_that_llama_cpp_loads(tmp_path: Path, title: str) -> None:
    """Matrices by name and shape are those of a header that llama.cpp takes."""
    header = replace(HEADERS[title], vocabulary=1024)
    shape = architecture_of(write_header(tmp_path / "header.gguf", header))
    if title == "Gemma 4 E2B":  # its later layers are twice as wide, which no header says
        shape = shape.model_copy(update={"intermediate_size": 6144, "wide_shared_layers": True})
    ours = {tensor.name: tensor.shape for tensor in network_tensors(shape, drafts=False)}
    theirs = dict(tensor_shapes(header))
    matrices = {name for name, size in theirs.items() if len(size) > 1}
    assert {name: ours.get(name) for name in matrices} == {n: theirs[n] for n in matrices}
    assert {name for name, size in ours.items() if len(size) > 1} == matrices


def test_gptq_and_awq_leave_embeddings_and_head() -> None:
    """Int4 packs the linear layers; Llama 3.1 8B takes 5.7 GB for its 8 billion parameters."""
    shape = CATALOG.lookup("llama-3.1-instruct").shape("8")
    awq, gptq = files_bytes("awq", "Int4", shape), files_bytes("gptq", "Int4", shape)
    assert awq is not None
    assert gptq is not None
    outer = 2 * 128_256 * 4096
    assert awq > 2 * outer + (shape.parameters - outer) / 2
    assert awq < gptq < 1.01 * awq
    assert awq / GB == pytest.approx(5.73, rel=SIZE_ERROR)
    assert linear_elements(shape) < shape.parameters - outer


def test_tiny_mixtrals_gptq_follows_from_its_shape() -> None:
    """The bundled Int4 checkpoint is as large as its packed layers and plain rest."""
    folder = CATALOG.path("tiny-mixtral").parents[1] / "weights" / "tiny-mixtral" / "gptq" / "Int4"
    file = Path(folder) / "model.safetensors"
    computed = files_bytes("gptq", "Int4", CATALOG.lookup("tiny-mixtral").architecture)
    assert computed == pytest.approx(file.stat().st_size, rel=0.03)


@pytest.mark.parametrize("quantization", ["Int4-Int8Mix", "UD-something", "something"])
def test_mixtures_without_published_rules_do_not_follow(quantization: str) -> None:
    """Where nobody says which tensor has which type, there is no size."""
    shape = CATALOG.lookup("qwen3").shape("8")
    assert files_bytes("gptq", quantization, shape) is None
    assert files_bytes("ggufv2", quantization, shape) is None


def test_what_is_reckoned_or_contradicts_itself_has_no_tensors() -> None:
    """A shape that is guessed, or holds other parameters than it states, tells no size."""
    guessed = Architecture.reckon("7", "LlamaForCausalLM")
    assert files_bytes("ggufv2", "Q4_K_M", guessed) is None
    contradictory = GEMMA_3_270M.model_copy(update={"parameters": 7 * GB})
    assert files_bytes("ggufv2", "Q4_K_M", contradictory) is None
    unknown = GEMMA_3_270M.model_copy(update={"name": "NobodyKnowsForCausalLM"})
    assert files_bytes("ggufv2", "Q4_K_M", unknown) is None
