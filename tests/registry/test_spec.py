"""The spec's types: sizes, selection of variants, sources, rules between fields."""

import copy
import json
import pickle
from typing import Any

import pytest
from pydantic import ValidationError

from paddock.registry.catalog import Catalog
from paddock.registry.errors import BadValue, UnknownName
from paddock.registry.spec import ModelSpec, Source, Variant
from paddock.registry.spec_fields import parse_size

QUANTIZATIONS = ("Q2_K", "Q3_K_M", "Q4_0", "Q4_K_M", "Q5_0", "Q5_K_M", "Q6_K", "Q8_0")
NO_SIZES = ("", "x", "46,7", "46__7", "4_6_7", ".5", "7.", "-7", "+7", "1e3", "0", "0.0", "7 b")
# The first seven is Arabic, which int() would take; the rest are what JSON and Python may send.
ODD_SIZES = ("\u0667", "7\n8", "123456", "nan", True, float("inf"), 1e-05)


@pytest.fixture(scope="module")
def mixtral() -> ModelSpec:
    return Catalog.load().lookup("mixtral-v0.1")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("46_7", "46_7"),
        ("46.7", "46_7"),
        ("46.70", "46_7"),
        (" 46_7 ", "46_7"),
        ("46.7B", "46_7"),
        ("0_5b", "0_5"),
        ("0_004", "0_004"),
        ("0.004", "0_004"),
        ("7", "7"),
        ("7.0", "7"),
        ("07", "7"),
        ("467", "467"),
        (7, "7"),
        (46.7, "46_7"),
    ],
)
def test_a_size_has_one_canonical_text(text: Any, size: str) -> None:
    """However a user writes a size, it becomes the same text, and that text stays as it is."""
    assert parse_size(text) == size
    assert parse_size(size) == size


@pytest.mark.parametrize("text", [*NO_SIZES, *ODD_SIZES])
def test_what_is_no_size_is_refused(text: Any) -> None:
    """Junk, zero, signs and foreign digits are a `BadValue` that names the size."""
    with pytest.raises(BadValue, match="size"):
        parse_size(text)


def test_variants_are_every_quantization_of_every_weights(mixtral: ModelSpec) -> None:
    """Expansion keeps the file's order and gives each variant its file, engines and bytes."""
    assert [variant.label for variant in mixtral.variants] == [
        "mixtral-v0.1 46_7 pytorch none",
        "mixtral-v0.1 46_7 pytorch 4-bit",
        "mixtral-v0.1 46_7 pytorch 8-bit",
        "mixtral-v0.1 46_7 gptq Int4",
        *(f"mixtral-v0.1 46_7 ggufv2 {quantization}" for quantization in QUANTIZATIONS),
    ]
    (wanted,) = mixtral.select(format="ggufv2", quantization="Q4_K_M")
    assert wanted.engines == ("llama.cpp",)
    assert wanted.size_bytes == 26_440_000_000
    assert [source.file for source in wanted.sources] == ["mixtral-8x7b-v0.1.Q4_K_M.gguf"]
    assert wanted.sources[0].id == "TheBloke/Mixtral-8x7B-v0.1-GGUF"


def test_the_quantization_is_filled_into_ids_too() -> None:
    """A repository per quantization is named by a placeholder in the id."""
    source = Source(hub="huggingface", id="Qwen/Qwen3-0.6B-GPTQ-{quantization}")
    assert source.fill("Int8").id == "Qwen/Qwen3-0.6B-GPTQ-Int8"
    assert source.fill("Int8").file is None


@pytest.mark.parametrize(
    ("wanted", "labels"),
    [
        ({}, 12),
        ({"format": "GGUFv2"}, 8),
        ({"size": "46.7"}, 12),
        ({"quantization": "q4_k_m"}, 1),
        ({"quantization": "int4"}, 1),
        ({"format": "pytorch", "size": "46_7B", "quantization": "NONE"}, 1),
    ],
)
def test_selection_ignores_case_and_spelling_of_sizes(
    mixtral: ModelSpec, wanted: dict[str, str], labels: int
) -> None:
    """Formats and quantizations match without case, sizes in any of their spellings."""
    assert len(mixtral.select(**wanted)) == labels


@pytest.mark.parametrize(
    ("wanted", "kind", "close", "of"),
    [
        ({"format": "gguf"}, "format", "ggufv2", "mixtral-v0.1"),
        ({"size": "467"}, "size", "46_7", "mixtral-v0.1"),
        ({"quantization": "Q4KM"}, "quantization", "Q4_K_M", "mixtral-v0.1"),
        ({"format": "ggufv2", "quantization": "Q4"}, "quantization", "Q4_0", "mixtral-v0.1 ggufv2"),
    ],
)
def test_an_unknown_value_is_answered_with_near_ones(
    mixtral: ModelSpec, wanted: dict[str, str], kind: str, close: str, of: str
) -> None:
    """The error names the field, the nearest values that exist, and what they belong to."""
    with pytest.raises(UnknownName) as caught:
        mixtral.select(**wanted)
    assert (caught.value.kind, caught.value.of) == (kind, of)
    assert close in caught.value.close


def test_plain_safetensors_can_be_quantized_while_they_are_read() -> None:
    """Of every language model, though no spec lists it; from the same files, and of no others."""
    catalog = Catalog.load()
    qwen = catalog.lookup("qwen2.5-instruct")
    (plain,) = qwen.select(format="pytorch", size="7", quantization="none")
    (made,) = qwen.select(size="7", quantization="4-BIT")
    assert made == plain.model_copy(update={"quantization": "4-bit"})
    assert made not in qwen.variants
    for name, wanted in (
        ("qwen2.5-instruct", {"format": "ggufv2"}),
        ("bge-m3", {}),
        ("qwen2.5-instruct", {"quantization": "5-bit"}),
    ):
        with pytest.raises(UnknownName):
            catalog.lookup(name).select(**{"quantization": "8-bit", **wanted})


def test_a_combination_that_does_not_exist_lists_what_does(mixtral: ModelSpec) -> None:
    """A quantization of another format is refused with those of the format asked for."""
    with pytest.raises(UnknownName) as caught:
        mixtral.select(format="gptq", size="46_7", quantization="Q4_K_M")
    assert caught.value.kind == "quantization"
    assert caught.value.known == ("Int4",)
    assert caught.value.of == "mixtral-v0.1 gptq 46_7"


def test_a_bad_size_is_refused_before_anything_is_matched(mixtral: ModelSpec) -> None:
    """A size that is none is a `BadValue`, even beside an unknown format."""
    with pytest.raises(BadValue):
        mixtral.select(format="nonsense", size="big")


@pytest.mark.parametrize(
    ("hub", "id"),
    [
        ("huggingface", "mixtral"),
        ("huggingface", "a/b/c"),
        ("huggingface", "../b"),
        ("huggingface", "a/.."),
        ("huggingface", "a/b--c"),
        ("huggingface", "a/b?x=1"),
        ("huggingface", "a/b#"),
        ("huggingface", "a/{other}"),
        ("modelscope", "a/b\n"),
        ("modelscope", "/a"),
        ("modelscope", "ä/b"),
        ("local", "/etc/passwd"),
        ("local", "a/../b"),
        ("local", "../a"),
        ("local", "a//b"),
        ("local", "a/"),
        ("local", ".hidden"),
        ("local", "~/a"),
        ("local", "C:\\a"),
    ],
)
def test_ids_outside_their_grammar_are_refused(hub: Any, id: str) -> None:
    """No id can leave its hub's naming or the folder of the specs."""
    with pytest.raises(ValidationError):
        # Surrounding white space is dropped from ids, so a newline inside stands in for it.
        Source(hub=hub, id=id.replace("\n", "\nx"))


@pytest.mark.parametrize(
    "name", ["../x.gguf", "/x.gguf", "a/../x.gguf", "x y.gguf", "{other}.gguf", "a..gguf"]
)
def test_file_templates_stay_within_the_repository(name: str) -> None:
    """A file template is a plain relative name with no placeholder but the quantization."""
    with pytest.raises(ValidationError):
        Source(hub="huggingface", id="a/b", file_template=name)


@pytest.mark.parametrize("revision", ["../main", "a b", "-x", "refs/../x", "a..b", "a//b", ""])
def test_revisions_outside_their_grammar_are_refused(revision: str) -> None:
    """A revision is a branch, tag or commit, not a path that climbs."""
    with pytest.raises(ValidationError):
        Source(hub="huggingface", id="a/b", revision=revision)


def test_specs_are_frozen_hashable_and_travel(mixtral: ModelSpec) -> None:
    """A spec cannot be changed, and comes back equal from pickle, copy and JSON."""
    with pytest.raises(ValidationError):
        mixtral.name = "other"  # type: ignore[misc]
    assert len({mixtral, pickle.loads(pickle.dumps(mixtral))}) == 1  # noqa: S301
    assert copy.deepcopy(mixtral) == mixtral
    assert ModelSpec.model_validate_json(mixtral.model_dump_json()) == mixtral
    variant = mixtral.variants[0]
    assert Variant.model_validate(json.loads(variant.model_dump_json())) == variant


def test_sizes_of_files_read_as_a_mapping(mixtral: ModelSpec) -> None:
    """In JSON, `size_bytes` is an object by quantization, as in the YAML."""
    assert mixtral.model_dump()["weights"][1]["size_bytes"] == {}
    assert mixtral.model_dump(mode="json")["weights"][2]["size_bytes"]["Q2_K"] == 15_640_000_000


def described(architecture: dict[str, Any], *sizes: Any) -> dict[str, Any]:
    """What a YAML file might say of a model with these sizes; a pair adds an architecture."""
    pairs = [size if isinstance(size, tuple) else (size, None) for size in sizes]
    source = {"hub": "huggingface", "id": "a/b"}
    common = {"format": "pytorch", "quantizations": ["none"], "engines": ["vLLM"]}
    return {
        "name": "m",
        "description": "A model.",
        "license": "MIT",
        "released": "2024-01-01",
        "languages": ["en"],
        "abilities": ["generate"],
        "context_length": 4096,
        "architecture": architecture,
        "weights": [
            {**common, "size": size, "sources": [source], **({"architecture": own} if own else {})}
            for size, own in pairs
        ],
    }


def test_numbers_that_nobody_states_are_reckoned_from_the_size() -> None:
    """A name alone is enough; the spec says that the rest is reckoned, and for each size anew."""
    spec = ModelSpec.model_validate(described({"name": "FooForCausalLM"}, 0.5, "7"))
    assert spec.architecture == spec.shape("0_5")
    small, large = spec.shape("0_5"), spec.shape("7")
    assert small.reckoned
    assert large.reckoned
    assert (small.parameters, large.parameters) == (500_000_000, 7_000_000_000)
    assert (large.name, large.layers, large.hidden_size) == ("FooForCausalLM", 33, 4224)
    assert ModelSpec.model_validate_json(spec.model_dump_json(exclude_defaults=True)) == spec


def test_a_stated_width_is_kept() -> None:
    """The length of an embedding model's vectors may be known where nothing else is."""
    spec = ModelSpec.model_validate(described({"name": "Foo", "hidden_size": "1024"}, "0_6"))
    assert spec.shape("0_6").hidden_size == spec.architecture.hidden_size == 1024
    assert spec.architecture.reckoned


def test_each_size_may_state_its_own_shape(mixtral: ModelSpec) -> None:
    """A size's own numbers are taken for all weights of that size; others are reckoned."""
    own = mixtral.architecture.model_dump(exclude_defaults=True)
    spec = ModelSpec.model_validate(described({"name": own["name"]}, ("46_7", own), "141"))
    assert spec.sizes == ("46_7", "141")
    assert spec.shape("46_7") == spec.architecture == mixtral.architecture
    assert spec.shape("141").reckoned
    assert spec.shape("141").parameters == 141_000_000_000


def test_one_stated_shape_holds_for_every_size(mixtral: ModelSpec) -> None:
    """Where only the model states numbers, they are those of each of its sizes."""
    assert mixtral.shape("46_7") is mixtral.architecture


@pytest.mark.parametrize("left", [["name", "layers"], ["name", "hidden_size", "layers"]])
def test_half_a_shape_is_refused(left: list[str], mixtral: ModelSpec) -> None:
    """Beyond name and width, it is all numbers or none: half of them is a mistake."""
    own = mixtral.architecture.model_dump(exclude_defaults=True)
    data = described({name: own[name] for name in left}, "46_7")
    with pytest.raises(ValidationError, match="head_dim"):
        ModelSpec.model_validate(data)
