"""Which type llama.cpp gives each tensor: held against its own rules, and told by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from gguf import GGUFReader

from bench.mixtures import KEPT, MODELS, QUANTIZED, network_of, tensors_of
from paddock.registry.sizes.mixtures import (
    BLOCKS,
    FILE_TYPES,
    Mixture,
    Network,
    Tensor,
    arrange,
    assign_types,
    mixture_bytes,
    tensors_bytes,
)

TINY = Path(__file__).parents[2] / "specs" / "weights" / "tiny-mixtral" / "ggufv2"
NETWORK = Network(layers=32, heads_per_key=1)


def types(mixture: Mixture, *tensors: Tensor, network: Network = NETWORK) -> dict[str, str]:
    """The types of tensors by name."""
    return {tensor.name: kind for tensor, kind in assign_types(arrange(tensors), network, mixture)}


@pytest.mark.parametrize("title", MODELS)
def test_sizes_are_those_of_llama_cpp_itself(title: str) -> None:
    """Every model in every type of file has the size that llama.cpp's own rules give it."""
    kept = json.loads(KEPT.read_text())[title]
    header, arrangement = MODELS[title], tensors_of(MODELS[title])
    sizes = {
        name: mixture_bytes(arrangement, network_of(header), Mixture(name)) for name in QUANTIZED
    }
    assert sizes == kept


@pytest.mark.parametrize("title", MODELS)
@pytest.mark.parametrize("imatrix", [False, True])
def test_groups_of_tensors_add_up(title: str, imatrix: bool) -> None:
    """The quick sum over groups is the sum over tensors."""
    header, arrangement = MODELS[title], tensors_of(MODELS[title])
    for name in FILE_TYPES:
        mixture = Mixture(name, imatrix)
        every = assign_types(arrangement, network_of(header), mixture)
        assert mixture_bytes(arrangement, network_of(header), mixture) == tensors_bytes(every)


@pytest.mark.parametrize("path", sorted(TINY.glob("*.gguf")), ids=lambda path: path.stem)
def test_a_real_file_has_these_types_and_this_size(path: Path) -> None:
    """llama.cpp's files of tiny-mixtral have these types, and this size to the byte."""
    reader = GGUFReader(path)
    types = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    arrangement = arrange(
        Tensor(tensor.name, tuple(map(int, tensor.shape))) for tensor in reader.tensors
    )
    network, mixture = Network(2, 2, experts=8), Mixture(path.stem.rpartition(".")[2])
    assigned = assign_types(arrangement, network, mixture)
    assert {tensor.name: kind for tensor, kind in assigned} == types
    size = reader.data_offset + mixture_bytes(arrangement, network, mixture)
    assert path.stat().st_size == size


def test_a_row_that_does_not_fill_blocks_takes_another_type() -> None:
    """Rows that are no multiple of 256 fall back to blocks of 32, and then to 16 bits."""
    tensors = [Tensor(f"blk.0.ssm_{n}.weight", (row, 8)) for n, row in enumerate((512, 96, 40))]
    found = types(Mixture("Q4_K_M"), *tensors)
    assert list(found.values()) == ["Q4_K", "Q5_0", "F16"]
    assert types(Mixture("IQ2_XS"), tensors[1]) == {"blk.0.ssm_1.weight": "IQ4_NL"}


def test_norms_routers_and_vectors_stay_in_float32() -> None:
    """What llama.cpp never quantizes counts four bytes a number."""
    tensors = [
        Tensor("blk.0.attn_norm.weight", (256,)),
        Tensor("blk.0.ffn_gate_inp.weight", (256, 8)),
        Tensor("blk.0.attn_q.bias", (256,)),
        Tensor("blk.0.ssm_conv1d.weight", (4, 256)),
    ]
    assert set(types(Mixture("Q8_0"), *tensors).values()) == {"F32"}


def test_an_embedding_that_is_the_output_layer_too_gets_its_type() -> None:
    """Tied embeddings are kept as well as an output layer would be."""
    embedding = Tensor("token_embd.weight", (256, 512))
    head = Tensor("output.weight", (256, 512))
    assert types(Mixture("Q4_K_M"), embedding) == {embedding.name: "Q6_K"}
    assert types(Mixture("Q4_K_M"), embedding, head) == {
        embedding.name: "Q4_K",
        head.name: "Q6_K",
    }


def test_an_importance_matrix_changes_first_layers() -> None:
    """Q4_0 with a matrix has Q4_1 in the first eighth; IQ4_XS without one has Q5_K there."""
    downs = [Tensor(f"blk.{layer}.ffn_down.weight", (256, 256)) for layer in range(32)]
    assert list(types(Mixture("Q4_0", imatrix=True), *downs).values()).count("Q4_1") == 4
    assert list(types(Mixture("Q4_0"), *downs).values()).count("Q4_1") == 0
    assert list(types(Mixture("IQ4_XS"), *downs).values()).count("Q5_K") == 4
    assert list(types(Mixture("IQ4_XS", imatrix=True), *downs).values()).count("Q5_K") == 0


@pytest.mark.parametrize(
    ("name", "mixture"),
    [
        ("q4_k_m", Mixture("Q4_K_M")),
        ("Q4_K", Mixture("Q4_K_M")),
        ("fp16", Mixture("F16")),
        ("Q4_K_L", Mixture("Q4_K_M", outer="Q8_0")),
        ("i1-Q4_K_S", Mixture("Q4_K_S", imatrix=True)),
        ("IQ2_XXS", Mixture("IQ2_XXS", imatrix=True)),
        ("MXFP4", Mixture("MXFP4_MOE")),
        ("UD-Q4_K_XL", Mixture("Q4_K_M", imatrix=True)),
        ("UD-IQ2_M", Mixture("IQ2_M", imatrix=True)),
        ("UD-something", None),
        ("Q9_K", None),
    ],
)
def test_a_quantizations_name_tells_its_mixture(name: str, mixture: Mixture | None) -> None:
    """Names are read without case; of rules that nobody publishes the nearest known count."""
    assert Mixture.named(name) == mixture


def test_every_type_of_file_is_of_known_blocks() -> None:
    """No rule names a type without a layout."""
    assert set(FILE_TYPES.values()) <= set(BLOCKS)
