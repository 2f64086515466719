"""What a spec is made of: the names of files, a GGUF's header, config.json. No network, no disk."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import date
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paddock.registry.catalog import specs_root
from paddock.registry.custom import to_yaml
from paddock.registry.derive import Derived, RepositoryContents, derive, to_read
from paddock.registry.derive.repository import size_of
from paddock.registry.errors import CorruptFile, NoSpec
from paddock.registry.gguf import read_header
from paddock.registry.reader import parse_spec
from paddock.registry.reference import Reference
from tests.fakes import ARRAY, STRING, Memory, entry, gguf, model_header, text, u32

# The same examples each time, however slow the machine is.
FUZZ = settings(derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
TINY = specs_root() / "weights" / "tiny-mixtral"
TODAY = date(2026, 11, 21)
COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPO = Reference("huggingface", "keeper/zoo-GGUF")
CONFIG = json.loads((TINY / "pytorch" / "none" / "config.json").read_text())
BERT = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "hidden_size": 384,
    "intermediate_size": 1536,
    "num_attention_heads": 12,
    "num_hidden_layers": 6,
    "max_position_embeddings": 512,
    "vocab_size": 30522,
    "torch_dtype": "float32",
}
TOOLS = "{% if tools %}{{ tools }}{% endif %}{{ messages }}<think>"


def from_gguf(header: bytes, *names: str, reference: Reference = REPO, **texts: Any) -> Derived:
    """What is derived of a repository of GGUF files, all with this header."""
    files = {name: 1000 * number for number, name in enumerate(names or ("zoo.Q4_0.gguf",), 1)}
    read = to_read(reference, files)
    found = read_header(Memory(header))
    return derive(
        RepositoryContents(reference, COMMIT, files, (), texts, found, read.gguf[0]), TODAY
    )


def from_config(
    config: Mapping[str, Any] | None,
    files: Mapping[str, int] | None = None,
    texts: Mapping[str, Any] | None = None,
) -> Derived:
    """What is derived of a repository in safetensors."""
    held = {"config.json": 1, "model.safetensors": 8_150_000, **(files or {})}
    chosen = [name for name in held if name.endswith(".safetensors")]
    told = {"config.json": config, **(texts or {})}
    reference = Reference("huggingface", "keeper/zoo")
    return derive(RepositoryContents(reference, COMMIT, held, chosen, told), TODAY)


def test_the_bundled_model_is_derived_as_its_spec_states_it() -> None:
    """Of its eight files and one header comes the architecture that was written by hand."""
    files = {path.name: path.stat().st_size for path in (TINY / "ggufv2").iterdir()}
    read = to_read(REPO, files)
    assert read.gguf == ("tiny-mixtral.Q2_K.gguf",)
    header = read_header(Memory((TINY / "ggufv2" / read.gguf[0]).read_bytes()))
    found = derive(RepositoryContents(REPO, COMMIT, files, (), {}, header, read.gguf[0]), TODAY)
    written = parse_spec((specs_root() / "llm" / "tiny-mixtral.yaml").read_bytes(), "x")
    stated = written.architecture.model_dump(exclude={"name"})
    assert found.spec.architecture.model_dump(exclude={"name"}) == stated
    assert found.spec.context_length == written.context_length
    assert found.spec.abilities == written.abilities
    assert (found.spec.languages, found.spec.license) == (("en",), "apache-2.0")
    assert found.spec.recommended == ("Q4_K_M", "Q5_K_M")
    (weights,) = found.spec.weights
    assert weights.sources[0].file_template == "tiny-mixtral.{quantization}.gguf"
    assert weights.sources[0].revision == COMMIT
    assert dict(weights.size_bytes) == {name.split(".")[1]: size for name, size in files.items()}
    assert found.risk("ggufv2") == ""


def test_a_derived_spec_can_be_registered_as_it_is_printed() -> None:
    """Its YAML gives the same spec again, whatever strangers have written into the header."""
    odd = "a: b\n\x07# \x85{quantization}\u2028' \""
    header = model_header(template=TOOLS)
    found = from_gguf(header, "zoo.Q4_0.gguf", "zoo.Q8_0.gguf")
    assert parse_spec(to_yaml(found.spec).encode(), "x") == found.spec
    described = gguf(
        [
            entry("general.architecture", STRING, text("llama")),
            entry("general.description", STRING, text(odd)),
            entry("general.license", STRING, text(odd)),
            *(u32(f"llama.{name}", 64) for name in ("context_length", "embedding_length")),
            u32("llama.block_count", 1),
            u32("llama.attention.head_count", 2),
            u32("llama.vocab_size", 10),
        ]
    )
    found = from_gguf(described)
    assert "\n" not in found.spec.description
    assert parse_spec(to_yaml(found.spec).encode(), "x") == found.spec
    assert Derived.from_json(json.loads(json.dumps(found.to_json()))) == found


@pytest.mark.parametrize(
    ("names", "entries"),
    [
        (["zoo.Q4_K_M.gguf", "zoo.Q8_0.gguf"], [("zoo.{quantization}.gguf", "Q4_K_M Q8_0")]),
        (["zoo-q4_k_m.gguf", "zoo-fp16.gguf"], [("zoo-{quantization}.gguf", "q4_k_m fp16")]),
        (
            ["Q8_0/zoo-Q8_0.gguf", "BF16/zoo-BF16.gguf"],
            [("{quantization}/zoo-{quantization}.gguf", "Q8_0 BF16")],
        ),
        (
            ["zoo-UD-Q4_K_XL.gguf", "zoo-IQ3_XXS.gguf", "zoo.i1-IQ1_S.gguf"],
            [("zoo-{quantization}.gguf", "UD-Q4_K_XL IQ3_XXS"), ("zoo.i1-IQ1_S.gguf", "i1-IQ1_S")],
        ),
        (
            ["zoo.Q8_0-00001-of-00002.gguf", "zoo.Q8_0-00002-of-00002.gguf", "zoo.Q2_K.gguf"],
            [("zoo.Q2_K.gguf", "Q2_K"), ("zoo.Q8_0-00001-of-00002.gguf", "Q8_0")],
        ),
        (["Q4_0/zoo.gguf", "zoo-v1.5.Q5_0.gguf"],
         [("Q4_0/zoo.gguf", "Q4_0"), ("zoo-v1.5.Q5_0.gguf", "Q5_0")]),
        (["model-F16-Q4_0.gguf"], [("model-F16-Q4_0.gguf", "Q4_0")]),
        (["MXFP4/gpt-zoo-MXFP4_MOE.gguf"], [("MXFP4/gpt-zoo-MXFP4_MOE.gguf", "MXFP4_MOE")]),
    ],
)  # fmt: skip
def test_names_of_files_tell_the_quantizations(
    names: list[str], entries: list[tuple[str, str]]
) -> None:
    """Names that differ in it alone are one entry; a split file is one by its first part."""
    found = from_gguf(model_header(), *names)
    told = [(w.sources[0].file_template, " ".join(w.quantizations)) for w in found.spec.weights]
    assert sorted(told) == sorted(entries)
    for variant in found.spec.variants:
        assert variant.sources[0].file in names
    sizes = sum(size for w in found.spec.weights for _, size in w.size_bytes)
    assert sizes == sum(1000 * number for number in range(1, len(names) + 1))


@pytest.mark.parametrize(
    ("names", "note"),
    [
        (["zoo.Q4_0.gguf", "mmproj-F16.gguf"], "mmproj-F16.gguf is no model of its own"),
        (["zoo.Q4_0.gguf", "zoo.imatrix.gguf"], "zoo.imatrix.gguf is no model of its own"),
        (["zoo.Q4_0.gguf", "zoo (1).Q8_0.gguf"], "the name holds what no spec may"),
        (["zoo.Q4_0.gguf", "other.q4_0.gguf"], "other.q4_0.gguf is left out: another file"),
        (["zoo.Q4_0.gguf", "zoo.gguf"], "zoo.gguf is left out: its name tells no quantization"),
        (["zoo.Q4_0.gguf", "zoo.Q8_0-00001-of-00002.gguf"], "zoo.Q8_0-00002-of-00002.gguf is not"),
        (["zoo.Q4_0.gguf", "zoo.Q8_0-00001-of-00000.gguf"], "it is a part of nothing"),
        (["zoo.Q4_0.gguf", "zoo.Q8_0-00001-of-99999.gguf"], "it is a part of nothing"),
    ],
)
def test_files_that_are_no_variant_are_left_out_and_noted(names: list[str], note: str) -> None:
    """Projectors, odd names, doubles and lacking parts do not spoil the rest."""
    found = from_gguf(model_header(), *names)
    assert any(note in one for one in found.notes), found.notes
    assert found.spec.variants[0].sources[0].file == "zoo.Q4_0.gguf"


def test_a_file_that_is_named_is_the_only_one() -> None:
    """An address of one file gives one variant, by the type in its header if the name is mute."""
    one = Reference("huggingface", "keeper/zoo", "main", "zoo.gguf")
    header = gguf(
        [
            entry("general.architecture", STRING, text("llama")),
            u32("general.file_type", 15),
            *(u32(f"llama.{name}", 64) for name in ("context_length", "embedding_length")),
            u32("llama.block_count", 1),
            u32("llama.attention.head_count", 2),
            u32("llama.vocab_size", 10),
        ]
    )
    found = from_gguf(header, "zoo.gguf", "zoo.Q8_0.gguf", reference=one)
    (variant,) = found.spec.variants
    assert (variant.quantization, variant.sources[0].file) == ("Q4_K_M", "zoo.gguf")
    second = Reference("huggingface", "keeper/zoo", "main", "zoo.Q8_0-00002-of-00002.gguf")
    split = (f"zoo.Q8_0-0000{number}-of-00002.gguf" for number in (1, 2))
    (variant,) = from_gguf(header, "zoo.Q4_0.gguf", *split, reference=second).spec.variants
    assert variant.sources[0].file == "zoo.Q8_0-00001-of-00002.gguf"
    lacking = Reference("huggingface", "keeper/zoo", "main", "lion.gguf")
    with pytest.raises(NoSpec, match=r"lion\.gguf is not there"):
        to_read(lacking, {"zoo.gguf": 1})
    with pytest.raises(NoSpec, match=r"is no model of its own"):
        to_read(Reference("path", "/m", None, "mmproj.gguf"), {"mmproj.gguf": 1})


def test_abilities_come_from_the_template() -> None:
    """A template means chat, and what it mentions the rest; without one that is noted."""
    assert from_gguf(model_header(template=TOOLS)).spec.abilities == (
        "generate", "chat", "tools", "reasoning",
    )  # fmt: skip
    plain = from_gguf(model_header(template="{{ messages }}"))
    assert plain.spec.abilities == ("generate", "chat")
    beside = from_gguf(model_header(template="{{ messages }}", tool_template=TOOLS))
    assert "tools" in beside.spec.abilities
    bare = from_gguf(model_header())
    assert bare.spec.abilities == ("generate",)
    assert any(note.startswith("chat: zoo.Q4_0.gguf has no chat template") for note in bare.notes)


@pytest.mark.parametrize(
    ("header", "type_", "ability"),
    [
        (model_header("bert", pooling_type=1), "embedding", "embed"),
        (model_header("bert", pooling_type=0), "embedding", "embed"),
        (model_header("qwen3", pooling_type=3), "embedding", "embed"),
        (model_header("bert", pooling_type=4), "rerank", "rerank"),
        (model_header("qwen3", pooling_type=0), "LLM", "generate"),
    ],
)
def test_pooling_tells_vectors_from_text(header: bytes, type_: str, ability: str) -> None:
    """RANK is a reranker; any other, and encoders without one, give embeddings."""
    spec = from_gguf(header).spec
    assert (spec.type, spec.abilities[0]) == (type_, ability)


def test_numbers_of_a_header_become_the_architecture() -> None:
    """Experts, window, heads that differ by layer, and a head's own width."""
    heads = entry("llama.attention.head_count_kv", ARRAY, struct.pack("<IQ2I", 4, 2, 1, 4))
    header = model_header(
        expert_count=4,
        expert_used_count=2,
        expert_feed_forward_length=128,
        attention__key_length=96,
        attention__sliding_window=512,
        attention__head_count_kv=None,
    )
    # The list of heads is put behind the count of entries, which grows by one.
    count = struct.unpack("<Q", header[16:24])[0]
    header = header[:16] + struct.pack("<Q", count + 1) + heads + header[24:]
    found = from_gguf(header)
    shape = found.spec.architecture
    assert (shape.experts, shape.experts_per_token, shape.intermediate_size) == (4, 2, 128)
    assert (shape.head_dim, shape.key_value_heads, shape.sliding_window) == (96, 4, 512)
    assert shape.tied_embeddings  # no output.weight
    assert shape.attention_layers == 2  # five heads: two layers of four, rounded up


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"context_length": None}, "has no llama.context_length"),
        ({"context_length": 0}, "has no llama.context_length"),
        ({"block_count": None}, "has no llama.block_count"),
        ({"attention__head_count": None}, "has no llama.attention.head_count"),
        ({"attention__head_count_kv": 3}, "does not fit together: architecture.key_value_heads"),
    ],
)
def test_what_is_needed_and_missing_is_named(changes: dict[str, Any], says: str) -> None:
    """The error has the reference, the file and the key, and the way out."""
    with pytest.raises(NoSpec, match=says) as caught:
        from_gguf(model_header(**changes))
    assert str(caught.value).startswith("hf:keeper/zoo-GGUF: zoo.Q4_0.gguf ")
    assert str(caught.value).endswith("paddock register --help")


def test_a_projector_or_adapter_by_another_name_is_no_model() -> None:
    """What the header says counts, not what the file is called."""
    adapter = gguf(
        [
            entry("general.architecture", STRING, text("llama")),
            entry("general.type", STRING, text("adapter")),
        ]
    )
    with pytest.raises(NoSpec, match="adapter"):
        from_gguf(adapter)
    with pytest.raises(NoSpec, match="clip"):
        from_gguf(model_header("clip"))
    with pytest.raises(NoSpec, match=r"has no general\.architecture"):
        from_gguf(gguf())


def test_a_card_tells_licence_and_languages_where_the_header_does_not() -> None:
    """And where neither does, that is a note and not a guess."""
    card = (
        "---\nlicense: other\nlicense_name: zoo-1.0\nlanguage: [en, multilingual, 'x y']\n---\nHi"
    )
    spec = from_gguf(model_header(), **cast(Any, {"README.md": card})).spec
    assert (spec.license, spec.languages) == ("zoo-1.0", ("en", "multilingual"))
    for broken in ("# no front", "---\n[\n---\n", "---\n- a\n---\n", "---\nlicense: [3]\n", None):
        found = from_gguf(model_header(), **cast(Any, {"README.md": broken}))
        assert (found.spec.license, found.spec.languages) == ("unknown", ("und",))
        assert any("license" in note for note in found.notes)


def test_transformers_models_are_derived_from_config() -> None:
    """The bundled model's numbers again, with parameters from the length of its files."""
    tokenizer = {"chat_template": TOOLS}
    found = from_config(CONFIG, texts={"tokenizer_config.json": tokenizer})
    spec = found.spec
    (weights,) = spec.weights
    assert (weights.format, weights.quantizations) == ("pytorch", ("none",))
    assert weights.engines == ("Transformers", "vLLM", "SGLang")
    shape = spec.architecture
    assert (shape.name, shape.layers, shape.experts) == ("MixtralForCausalLM", 2, 8)
    assert shape.parameters == 4_075_000
    assert shape.active_parameters == 4_075_000 - (4_068_608 - 1_709_312)
    assert spec.context_length == 2048
    assert spec.abilities == ("generate", "chat", "tools", "reasoning")
    assert spec.name == "zoo"


def test_parameters_that_nobody_states_are_reckoned() -> None:
    """From the numbers, which for the bundled model gives its exact count."""
    config = {key: value for key, value in CONFIG.items() if key != "dtype"}
    found = from_config(config)
    assert found.spec.architecture.parameters == 4_068_608
    assert found.spec.architecture.active_parameters == 1_709_312
    assert any("reckoned" in note for note in found.notes)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, ("gptq", "Int4")),
        ({"quantization_config": {"quant_method": "gptq", "bits": 8}}, ("gptq", "Int8")),
        ({"quantization_config": {"quant_method": "awq", "bits": 4}}, ("awq", "Int4")),
        ({"quantization_config": {"quant_method": "fp8"}}, ("fp8", "fp8")),
        ({"quantization_config": {"quant_method": "mxfp4"}}, ("pytorch", "none")),
        (
            {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
            ("bnb", "Int4"),
        ),
        (
            {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}},
            ("bnb", "Int8"),
        ),
        ({"quantization": {"bits": 4, "group_size": 64}}, ("mlx", "4bit")),
    ],
)
def test_quantized_weights_have_the_format_that_their_config_names(
    changes: dict[str, Any], told: tuple[str, str]
) -> None:
    """By the names that the built-in specs use."""
    (weights,) = from_config({**CONFIG, **changes}).spec.weights
    assert (weights.format, weights.quantizations[0]) == told


def test_an_old_gptq_repository_tells_in_a_file_of_its_own() -> None:
    """quantize_config.json, where config.json says nothing."""
    texts = {"quantize_config.json": {"bits": 4, "group_size": 128}}
    found = from_config(CONFIG, {"quantize_config.json": 1}, texts)
    assert found.spec.weights[0].format == "gptq"


VISION = {
    "architectures": ["ZooForConditionalGeneration"],
    "vision_config": {"hidden_size": 7},
    "text_config": {key: value for key, value in CONFIG.items() if key != "architectures"},
}


@pytest.mark.parametrize(
    ("config", "files", "texts", "told"),
    [
        (BERT, {"modules.json": 1}, {}, ("embedding", ("embed",), 512)),
        (BERT, {"1_Pooling/config.json": 1}, {}, ("embedding", ("embed",), 512)),
        (
            BERT,
            {"sentence_bert_config.json": 1},
            {"sentence_bert_config.json": {"max_seq_length": 256}},
            ("embedding", ("embed",), 256),
        ),
        (BERT, {}, {}, ("embedding", ("embed",), 512)),
        (
            {**BERT, "max_position_embeddings": 514},
            {},
            {"tokenizer_config.json": {"model_max_length": 512}},
            ("embedding", ("embed",), 512),
        ),
        (CONFIG, {"modules.json": 1}, {}, ("embedding", ("embed",), 2048)),
        (
            {**BERT, "architectures": ["BertForSequenceClassification"], "num_labels": 1},
            {},
            {},
            ("rerank", ("rerank",), 512),
        ),
        (VISION, {}, {}, ("LLM", ("generate", "vision"), 2048)),
    ],
)
def test_config_tells_what_a_model_is_for(
    config: dict[str, Any],
    files: dict[str, int],
    texts: dict[str, Any],
    told: tuple[str, tuple[str, ...], int],
) -> None:
    """Embeddings by their modules, rerankers by their head, vision by its configuration."""
    spec = from_config(config, files, texts).spec
    assert (spec.type, spec.abilities, spec.context_length) == told
    assert ("SGLang" in spec.weights[0].engines) == (told[0] == "LLM")


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (None, "config.json is not there, or no JSON"),
        ([], "config.json is not there, or no JSON"),
        ({}, "config.json has no hidden_size or n_embd"),
        ({**CONFIG, "hidden_size": "x"}, "has x as hidden_size"),
        ({**CONFIG, "hidden_size": True}, "has True as hidden_size"),
        ({**CONFIG, "hidden_size": -1}, "has -1 as hidden_size"),
        ({**CONFIG, "hidden_size": 2**60}, "as hidden_size"),
        ({**CONFIG, "max_position_embeddings": None}, "has no max_position_embeddings"),
        ({**CONFIG, "architectures": []}, "has no architectures"),
        ({**CONFIG, "architectures": ["../xForCausalLM"]}, "architecture.name"),
        ({**CONFIG, "architectures": ["ZooForDepth"]}, "neither generates, nor embeds, nor ranks"),
        ({**CONFIG, "quantization_config": {"quant_method": "magic"}}, "'magic'"),
        ({**CONFIG, "quantization_config": {"quant_method": "gptq", "bits": 5}}, "'gptq' with 5"),
        ({**CONFIG, "quantization_config": {"quant_method": "awq", "bits": [4]}}, "'awq' with [4]"),
        ({**CONFIG, "quantization_config": {"quant_method": ["gptq"], "bits": 4}}, "['gptq']"),
        ({**BERT, "model_type": ["bert"]}, "neither generates, nor embeds, nor ranks"),
        ({**BERT, "model_type": {"a": 1}}, "neither generates, nor embeds, nor ranks"),
        (
            {**BERT, "architectures": ["BertForSequenceClassification"], "num_labels": 3},
            "with 3 labels",
        ),
    ],
)
def test_a_config_that_tells_too_little_is_refused(config: Any, says: str) -> None:
    """The error names config.json and what it lacks."""
    with pytest.raises(NoSpec) as caught:
        from_config(config)
    assert says in str(caught.value)
    assert caught.value.file == "config.json"


def test_a_repository_of_both_has_both() -> None:
    """GGUF and safetensors are variants of one model; a wrong config.json costs only the latter."""
    files = {"zoo.Q4_0.gguf": 10, "model.safetensors": 20, "config.json": 1, "code.py": 1}
    header = read_header(Memory(model_header()))

    def both(config: Any) -> Derived:
        texts = {"config.json": config}
        chosen = ("model.safetensors",)
        return derive(
            RepositoryContents(REPO, COMMIT, files, chosen, texts, header, "zoo.Q4_0.gguf"), TODAY
        )

    found = both(CONFIG)
    assert [w.format for w in found.spec.weights] == ["ggufv2", "pytorch"]
    assert found.risk("ggufv2") == ""
    assert "code.py" in found.risk("pytorch")
    found = both({})
    assert [w.format for w in found.spec.weights] == ["ggufv2"]
    assert any("the safetensors are left out: config.json" in note for note in found.notes)
    assert not found.code


def test_what_would_run_code_is_told() -> None:
    """Classes of the repository's own, Python files, pickles, and what could not be looked at."""
    assert not from_config(CONFIG).risk("pytorch")
    mapped = from_config({**CONFIG, "auto_map": {"AutoModel": "x.Y"}})
    assert "auto_map in config.json" in mapped.risk("pytorch")
    mapped = from_config(CONFIG, texts={"processor_config.json": {"auto_map": {"A": "x"}}})
    assert "auto_map in processor_config.json" in mapped.risk("pytorch")
    scripted = from_config(CONFIG, {f"code{number}.py": 1 for number in range(5)})
    assert "code0.py, code1.py, code2.py and 2 more" in scripted.risk("pytorch")
    unread = from_config(CONFIG, texts={"tokenizer_config.json": None})
    assert "tokenizer_config.json, which could not be read" in unread.risk("pytorch")
    reference = Reference("huggingface", "keeper/zoo")
    files = {"config.json": 1, "pytorch_model.bin": 100, "training_args.bin": 5}
    pickled = derive(
        RepositoryContents(reference, COMMIT, files, (), {"config.json": CONFIG}), TODAY
    )
    assert pickled.risk("pytorch") == "pickled weights and no safetensors (pytorch_model.bin)"
    assert dict(pickled.spec.weights[0].size_bytes) == {"none": 100}


def test_a_repository_without_a_model_is_refused() -> None:
    """The error says what was looked for."""
    for files in ({}, {"README.md": 1}, {"training_args.bin": 1}, {"mmproj-F16.gguf": 1}):
        with pytest.raises(NoSpec, match=r"neither \.gguf nor \.safetensors"):
            to_read(REPO, files)


@pytest.mark.parametrize(
    ("parameters", "size"),
    [
        (46_702_792_704, "46_7"),
        (7_241_732_096, "7_2"),
        (7_000_000_000, "7"),
        (671_026_419_200, "671"),
        (99_960_000_000, "100"),
        (494_032_768, "0_49"),
        (4_068_608, "0_0041"),
        (1, "0_0001"),
    ],
)
def test_sizes_are_rounded_as_people_say_them(parameters: int, size: str) -> None:
    """Two digits for small ones, tenths and then whole billions for large ones."""
    assert size_of(parameters) == size


REAL = (TINY / "ggufv2" / "tiny-mixtral.Q2_K.gguf").read_bytes()[:60_000]


@settings(FUZZ, max_examples=400)
@given(st.lists(st.tuples(st.integers(0, 2500), st.integers(0, 255)), min_size=1, max_size=5))
def test_any_header_gives_a_spec_or_is_refused(changes: list[tuple[int, int]]) -> None:
    """A real header whose numbers and names were changed: a spec that survives YAML, or why not."""
    data = bytearray(REAL)
    for at, value in changes:
        data[at] = value
    memory = Memory(bytes(data))
    memory.length = 1 << 40
    try:
        header = read_header(memory)
    except CorruptFile:
        return
    try:
        found = derive(
            RepositoryContents(REPO, COMMIT, {"z.Q4_0.gguf": 9}, (), {}, header, "z.Q4_0.gguf"),
            TODAY,
        )
    except NoSpec:
        return
    assert parse_spec(to_yaml(found.spec).encode(), "x") == found.spec


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*CONFIG, "text_config", "auto_map"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(FUZZ, max_examples=400)
@given(st.dictionaries(st.sampled_from([*CONFIG, "text_config", "quantization"]), JSON, max_size=4))
def test_any_config_gives_a_spec_or_is_refused(changes: dict[str, Any]) -> None:
    """Whatever stands in the configuration, nothing else comes out, and a spec survives YAML."""
    try:
        found = from_config({**CONFIG, **changes}, texts={"tokenizer_config.json": changes})
    except NoSpec:
        return
    assert parse_spec(to_yaml(found.spec).encode(), "x") == found.spec


FULL: tuple[dict[str, Any], ...] = (
    CONFIG,
    BERT,
    {**CONFIG, "text_config": {**CONFIG}, "vision_config": {"a": 1}, "auto_map": {"a": "b"}},
    {**CONFIG, "quantization_config": {"quant_method": "gptq", "bits": 4}},
    {**CONFIG, "quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
    {**CONFIG, "quantization": {"bits": 4}},
    {**BERT, "architectures": ["BertForSequenceClassification"], "id2label": {"0": "a"}},
    {**BERT, "architectures": ["BertForSequenceClassification"], "num_labels": 1},
)
TEXTS: dict[str, Any] = {
    "tokenizer_config.json": {"model_max_length": 512, "chat_template": [{"template": TOOLS}]},
    "chat_template.json": {"chat_template": TOOLS},
    "chat_template.jinja": TOOLS,
    "sentence_bert_config.json": {"max_seq_length": 256},
    "quantize_config.json": {"bits": 4},
    "README.md": "---\nlicense: mit\nlanguage: [en]\n---\n",
}
ODD: tuple[Any, ...] = (
    *(None, True, 0, -1, 4, 2**70, 1.5, float("nan"), "", "x", "4", [], [4], ["x"], [[]], [None]),
    *({}, {"a": 1}, [{}], {"bits": [4]}, {"language": 1}),
)


def with_odd(value: Any) -> Iterator[Any]:
    """Copies of a document, each with an odd value at one place."""
    yield from ODD
    inside: Any = enumerate(value) if isinstance(value, list) else ()
    for key, inner in value.items() if isinstance(value, dict) else inside:
        for odd in with_odd(inner):
            copy: Any = dict(value) if isinstance(value, dict) else list(value)
            copy[key] = odd
            yield copy


@pytest.mark.parametrize("config", FULL)
def test_odd_value_at_any_place_is_refused_or_read(config: dict[str, Any]) -> None:
    """A list where a name is expected, or a name in the place of a number, is never a bug."""
    for odd in with_odd(config):
        with suppress(NoSpec):
            from_config(odd)
    for odd in with_odd(TEXTS):
        with suppress(NoSpec):
            from_config(config, texts=odd if isinstance(odd, dict) else {})


def test_latent_attention_is_reckoned_by_its_ranks() -> None:
    """DeepSeek V2 Lite's numbers give its 15.7 billion parameters, of which 2.4 are active."""
    found = from_config(
        {
            "architectures": ["DeepseekV2ForCausalLM"],
            "num_hidden_layers": 27,
            "hidden_size": 2048,
            "intermediate_size": 10_944,
            "moe_intermediate_size": 1408,
            "num_attention_heads": 16,
            "num_key_value_heads": 16,
            "vocab_size": 102_400,
            "n_routed_experts": 64,
            "num_experts_per_tok": 6,
            "kv_lora_rank": 512,
            "q_lora_rank": None,
            "qk_rope_head_dim": 64,
            "qk_nope_head_dim": 128,
            "v_head_dim": 128,
            "max_position_embeddings": 163_840,
        }
    )
    shape = found.spec.architecture
    assert (shape.head_dim, shape.v_head_dim, shape.kv_lora_rank) == (192, 128, 512)
    assert shape.parameters / 1e9 == pytest.approx(15.7, rel=0.05)
    assert shape.active_parameters / 1e9 == pytest.approx(2.4, rel=0.15)
