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
from paddock.registry.gguf import GgufKind, read_header, read_kind
from paddock.registry.reader import parse_spec
from paddock.registry.reference import Reference
from tests.fakes import ARRAY, STRING, Memory, entry, gguf, model_header, tensor, text, u32

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


def typed(type_: str, architecture: str = "") -> bytes:
    """A GGUF that says that it is of a type, such as an adapter."""
    named = [entry("general.architecture", STRING, text(architecture))] if architecture else []
    return gguf([*named, entry("general.type", STRING, text(type_))], [tensor("a", (4, 2))])


PROJECTOR, MATRIX = typed("mmproj", "clip"), typed("imatrix")


def from_gguf(header: bytes, *names: str, reference: Reference = REPO, **texts: Any) -> Derived:
    """What is derived of a repository of GGUF files, all with this header but for companions."""
    files = {name: 1000 * number for number, name in enumerate(names or ("zoo.Q4_0.gguf",), 1)}
    companions = {"mmproj": PROJECTOR, "imatrix": MATRIX}
    headers = {
        name: next((data for word, data in companions.items() if word in name), header)
        for name in files
    }
    return from_files(headers, files, reference, **texts)


def from_files(
    headers: Mapping[str, bytes],
    sizes: Mapping[str, int] | None = None,
    reference: Reference = REPO,
    **texts: Any,
) -> Derived:
    """What is derived of a repository of these GGUF files, of which headers are read as needed."""
    files = dict(sizes or {name: len(data) for name, data in headers.items()})
    kinds: dict[str, GgufKind | str] = {}
    read = to_read(reference, files)
    while read.kinds:
        for name in read.kinds:
            try:
                kinds[name] = read_kind(Memory(headers[name]))
            except CorruptFile as error:
                kinds[name] = error.reason
        read = to_read(reference, files, kinds)
    found = read_header(Memory(headers[read.gguf[0]]))
    contents = RepositoryContents(reference, COMMIT, files, (), texts, found, read.gguf[0], kinds)
    return derive(contents, TODAY)


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
    assert to_read(REPO, files).kinds == ("tiny-mixtral.Q2_K.gguf",)
    headers = {name: (TINY / "ggufv2" / name).read_bytes() for name in files}
    found = from_files(headers)
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
        ],
        [tensor("a", (4, 2))],
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
        ],
        [tensor("a", (4, 2))],
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
    with pytest.raises(NoSpec, match=r"is no model of its own, but a projector"):
        from_gguf(PROJECTOR, "mmproj.gguf", reference=Reference("path", "/m", None, "mmproj.gguf"))


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
    with pytest.raises(NoSpec, match=r"zoo\.Q4_0\.gguf is no model of its own, but a LoRA adapter"):
        from_gguf(typed("adapter", "llama"))
    with pytest.raises(NoSpec, match="a projector"):
        from_gguf(model_header("clip"))
    with pytest.raises(NoSpec, match="a vocabulary without weights"):
        from_gguf(gguf([entry("general.architecture", STRING, text("llama"))]))
    with pytest.raises(NoSpec, match=r"has no general\.architecture"):
        from_gguf(gguf([], [tensor("a", (4, 2))]))


BIG, DRAFT = model_header(block_count=30), model_header("gemma4-assistant", block_count=4)
EAGLE = model_header("eagle3", block_count=1)
SMALL_MODEL = model_header("qwen2", block_count=5, embedding_length=64, attention__head_count=2)


@pytest.mark.parametrize(
    ("headers", "models", "notes"),
    [
        (
            {
                "zoo-Q4_K_M.gguf": BIG + bytes(3000),
                "zoo-Q8_0.gguf": BIG + bytes(5000),
                "zoo-BF16.gguf": BIG + bytes(9000),
                "mtp-zoo.gguf": DRAFT,
                "MTP/zoo-Q8_0-MTP.gguf": DRAFT,
                "MTP/zoo-BF16-MTP.gguf": DRAFT + bytes(50),
            },
            {"zoo-Q4_K_M.gguf", "zoo-Q8_0.gguf", "zoo-BF16.gguf"},
            ["speculative decoding: MTP/zoo-Q8_0-MTP.gguf, mtp-zoo.gguf, MTP/zoo-BF16-MTP.gguf"],
        ),
        ({"zoo-Q8_0.gguf": BIG, "zoo-F16.gguf": EAGLE}, {"zoo-Q8_0.gguf"},
         ["speculative decoding: zoo-F16.gguf"]),
        ({"zoo-Q8_0.gguf": BIG, "zoo-Q4_0.gguf": BIG, "draft/zoo-Q8_0.gguf": SMALL_MODEL},
         {"zoo-Q8_0.gguf", "zoo-Q4_0.gguf"}, ["speculative decoding: draft/zoo-Q8_0.gguf"]),
        ({"zoo-Q8_0.gguf": BIG, "zoo-Q4_0.gguf": BIG, "lion-Q2_K.gguf": SMALL_MODEL},
         {"zoo-Q8_0.gguf", "zoo-Q4_0.gguf"},
         ["lion-Q2_K.gguf is left out: it is another model (qwen2, 5 layers of 64)"]),
        ({"zoo-lora-F16.gguf": typed("adapter", "llama"), "zoo-Q8_0.gguf": BIG},
         {"zoo-Q8_0.gguf"}, ["zoo-lora-F16.gguf is no model of its own, but a LoRA adapter"]),
        ({"zoo-F16.gguf": typed("adapter", "llama"), "zoo-Q8_0.gguf": BIG},
         {"zoo-Q8_0.gguf"}, ["zoo-F16.gguf is no model of its own, but a LoRA adapter"]),
        ({"Q4_0.gguf": typed("imatrix"), "zoo.Q4_K_M.gguf": BIG},
         {"zoo.Q4_K_M.gguf"}, ["Q4_0.gguf is no model of its own, but an importance matrix"]),
        ({"zoo-chat-v2-imatrix.gguf": BIG}, {"zoo-chat-v2-imatrix.gguf"}, []),
        ({"zoo-mmproj-tuned-Q4_0.gguf": BIG}, {"zoo-mmproj-tuned-Q4_0.gguf"}, []),
        ({"steer.gguf": model_header("controlvector"), "zoo.Q4_0.gguf": BIG},
         {"zoo.Q4_0.gguf"}, ["steer.gguf is no model of its own, but a control vector"]),
        ({"voice-Q8_0.gguf": model_header("wavtokenizer-dec"), "zoo.Q4_0.gguf": BIG},
         {"zoo.Q4_0.gguf"}, ["voice-Q8_0.gguf is no model of its own, but a vocoder"]),
        ({"zoo.Q4_0.gguf": b"version https://git-lfs.github.com/spec/v1\n", "zoo.Q8_0.gguf": BIG},
         {"zoo.Q8_0.gguf"}, ["zoo.Q4_0.gguf is no whole GGUF: not a GGUF file but a Git LFS"]),
    ],
)  # fmt: skip
def test_files_are_what_their_headers_say(
    headers: dict[str, bytes], models: set[str], notes: list[str]
) -> None:
    """Drafters, adapters, matrices and other models beside a model are not taken for it."""
    found = from_files(headers)
    assert {variant.sources[0].file for variant in found.spec.variants} == models
    assert found.spec.architecture.layers == 30
    for note in notes:
        assert any(one.startswith(note) for one in found.notes), found.notes


def test_a_projector_is_found_by_its_header() -> None:
    """Whatever it is called; a model with the word in its name is none."""
    found = from_files(
        {"zoo.Q4_0.gguf": BIG, "eyes-BF16.gguf": PROJECTOR, "eyes-F16.gguf": PROJECTOR}
    )
    assert found.spec.weights[0].projectors == ("eyes-BF16.gguf", "eyes-F16.gguf")


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (["zoo_Q8.gguf", "zoo_Q5.gguf"], {"Q8", "Q5"}),
        (["zoo-55IQ2_XXS-34Q2_K.gguf"], {"55IQ2_XXS-34Q2_K"}),
        (["zoo-IQ4_KS.gguf", "zoo-IQ2_KT.gguf"], {"IQ4_KS", "IQ2_KT"}),
        (["zoo-smol-IQ4_KSS.gguf", "zoo-Q8_0_R8.gguf"], {"smol-IQ4_KSS", "Q8_0_R8"}),
        (["zoo-Q4_K_P.gguf", "zoo-Q4_K_M.gguf"], {"Q4_K_P", "Q4_K_M"}),
        (["zoo.Q4_K_M_v2.gguf", "zoo-FP8.gguf"], {"Q4_K_M", "FP8"}),
        (["zoo.Q4_0.gguf", "other.q4_0.gguf"], {"Q4_0", "other.q4_0"}),
        (["zoo.Q4_0.gguf", "zoo.gguf"], {"Q4_0", "zoo"}),
        (["zoo-abliterated-Q4_0.gguf", "zoo-Q4_0.gguf"], {"Q4_0", "zoo-Q4_0"}),
        (["a/zoo.gguf", "b/zoo.gguf"], {"zoo", "b-zoo"}),
    ],
)
def test_every_file_has_a_label_by_which_it_can_be_chosen(
    names: list[str], labels: set[str]
) -> None:
    """A publisher's own label; else, or where another file has the same, the file's name."""
    found = from_gguf(model_header(), *names)
    assert {variant.quantization for variant in found.spec.variants} == labels
    assert {variant.sources[0].file for variant in found.spec.variants} == set(names)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["x.Q8_0.gguf.part1of2", "x.Q8_0.gguf.part2of2"],
         r"x\.Q8_0\.gguf in 2 parts.*cat x\.Q8_0\.gguf\.part1of2 x\.Q8_0\.gguf\.part2of2 > "),
        (["x.gguf-split-a", "x.gguf-split-b", "x.gguf-split-c", "x.gguf-split-d"], r"in 4 parts"),
        (["x.gguf.part-aa", "x.gguf.part-ab"], r"x\.gguf in 2 parts"),
        (["x.gguf.001", "x.gguf.002"], r"x\.gguf in 2 parts"),
        (["model.safetensors.part1", "model.safetensors.part2"], r"model\.safetensors in 2 parts"),
    ],
)  # fmt: skip
def test_parts_that_are_to_be_joined_are_told_so(names: list[str], says: str) -> None:
    """With the command that joins them."""
    with pytest.raises(NoSpec, match=says):
        to_read(REPO, dict.fromkeys(names, 1000))


def test_weights_that_are_pointers_are_told_so() -> None:
    """A clone without Git LFS has a text in the place of each file of weights."""
    files = {"config.json": 1, "model.safetensors": 134}
    assert to_read(REPO, files).heads == ("model.safetensors",)
    foreign = {"model.safetensors": "a Git LFS pointer to a file of 9 bytes"}
    contents = RepositoryContents(
        REPO, COMMIT, files, ("model.safetensors",), {"config.json": CONFIG}, foreign=foreign
    )
    with pytest.raises(NoSpec, match=r"model\.safetensors is no safetensors file but a Git LFS"):
        derive(contents, TODAY)


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


GEMMA3: dict[str, Any] = {
    "architectures": ["Gemma3ForConditionalGeneration"],
    "model_type": "gemma3",
    "text_config": {
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "model_type": "gemma3_text",
        "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 1024,
    },
    "torch_dtype": "bfloat16",
    "vision_config": {"hidden_size": 1152, "num_attention_heads": 16, "num_hidden_layers": 27},
}
FALCON: dict[str, Any] = {
    "architectures": ["FalconForCausalLM"],
    "model_type": "falcon",
    "hidden_size": 4544,
    "multi_query": True,
    "new_decoder_architecture": False,
    "num_attention_heads": 71,
    "num_hidden_layers": 32,
    "vocab_size": 65024,
}


def test_what_a_config_leaves_out_is_its_classs_default() -> None:
    """Gemma 3's numbers of heads and its context stand in no config.json of its authors."""
    found = from_config(GEMMA3)
    shape = found.spec.architecture
    assert (shape.attention_heads, shape.key_value_heads, shape.head_dim) == (8, 4, 256)
    assert (shape.sliding_window, shape.sliding_layers) == (1024, 29)
    assert found.spec.context_length == 131_072  # which its RoPE scaling has led to
    assert "vision" in found.spec.abilities
    (note,) = (one for one in found.notes if one.startswith("config.json leaves out"))
    assert "num_attention_heads 8" in note
    assert note.endswith("the defaults of Transformers' gemma3_text")
    unnamed = {**GEMMA3, "text_config": dict(GEMMA3["text_config"])}
    del unnamed["text_config"]["model_type"]
    assert from_config(unnamed).spec.architecture == shape
    stated = {**CONFIG, "sliding_window": None}
    assert from_config(stated).spec.architecture.sliding_window is None
    with pytest.raises(NoSpec, match="has no num_attention_heads"):
        from_config({**GEMMA3, "model_type": "zoo", "text_config": {"hidden_size": 8}})


@pytest.mark.parametrize(
    ("config", "heads"),
    [
        (FALCON, 1),
        ({**FALCON, "multi_query": False}, 71),
        ({key: value for key, value in FALCON.items() if key != "multi_query"}, 1),
        (
            {**FALCON, "num_attention_heads": 128, "hidden_size": 8192, "num_kv_heads": 8,
             "new_decoder_architecture": True},
            8,
        ),
        (
            {**FALCON, "architectures": ["RWForCausalLM"], "model_type": "RefinedWebModel",
             "max_position_embeddings": 2048},
            1,
        ),
        (
            {"architectures": ["GPTBigCodeForCausalLM"], "model_type": "gpt_bigcode",
             "n_embd": 6144, "n_head": 48, "n_layer": 40, "n_positions": 8192, "vocab_size": 49152},
            1,
        ),
        (
            {"architectures": ["ChatGLMForConditionalGeneration"],
             "model_type": "chatglm", "multi_query_attention": True, "multi_query_group_num": 2,
             "num_attention_heads": 32, "hidden_size": 4096, "num_layers": 28, "seq_length": 32768,
             "padded_vocab_size": 65024},
            2,
        ),
        (
            {"architectures": ["ChatGLMForConditionalGeneration"], "model_type": "chatglm",
             "multi_query_attention": False, "multi_query_group_num": 2, "num_attention_heads": 32,
             "hidden_size": 4096, "num_layers": 28, "seq_length": 2048, "vocab_size": 65024},
            32,
        ),
        (
            {"architectures": ["MptForCausalLM"], "model_type": "mpt", "d_model": 4096,
             "n_heads": 32, "n_layers": 32, "max_seq_len": 2048, "vocab_size": 50432,
             "attn_config": {"attn_type": "multiquery_attention"}},
            1,
        ),
        (
            {"architectures": ["DbrxForCausalLM"], "model_type": "dbrx", "d_model": 6144,
             "n_heads": 48, "n_layers": 40, "max_seq_len": 32768, "vocab_size": 100352,
             "attn_config": {"kv_n_heads": 8}, "ffn_config": {"moe_num_experts": 16}},
            8,
        ),
    ],
)  # fmt: skip
def test_heads_that_share_a_key_are_counted_once(config: dict[str, Any], heads: int) -> None:
    """`multi_query`, its like, and groups that stand in a part of the configuration."""
    assert from_config(config).spec.architecture.key_value_heads == heads


@pytest.mark.parametrize(
    ("scaling", "context"),
    [
        ({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 2048}, 8192),
        ({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}, 4096),
        ({"rope_type": "yarn", "factor": 2}, 4096),
        ({"type": "linear", "factor": 4.0}, 8192),
        ({"type": "dynamic", "factor": 2.0}, 4096),
        ({"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 512}, 2048),
        ({"type": "longrope", "factor": 32.0}, 2048),
        ({"rope_type": "default"}, 2048),
        ({"type": "yarn", "factor": 0.5}, 2048),
        ({"type": "yarn", "factor": "four"}, 2048),
        ({"type": ["yarn"], "factor": 4}, 2048),
        (None, 2048),
        ("yarn", 2048),
    ],
)
def test_rope_scaling_extends_the_context(scaling: Any, context: int) -> None:
    """Of the older key and of the newer; a context that is stated extended stays as it is."""
    assert CONFIG["max_position_embeddings"] == 2048
    for key in ("rope_scaling", "rope_parameters"):
        assert from_config({**CONFIG, key: scaling}).spec.context_length == context


@pytest.mark.parametrize(
    ("kind", "factor", "original", "context"),
    [
        ("yarn", 4.0, 2048, 8192),
        ("yarn", 4.0, None, 8192),
        ("yarn", 4.0, 512, 2048),
        ("linear", 8.0, None, 2048),
        ("linear", 2.0, 2048, 4096),
        ("longrope", 8.0, 256, 2048),
        ("none", 4.0, 2048, 2048),
    ],
)
def test_rope_scaling_of_a_header_extends_the_context(
    kind: str, factor: float, original: int | None, context: int
) -> None:
    """Linear scaling only from a stated context: Gemma 3's headers state the extended one."""
    entries = [
        entry("llama.rope.scaling.type", STRING, text(kind)),
        entry("llama.rope.scaling.factor", 6, struct.pack("<f", factor)),
    ]
    if original:
        entries.append(u32("llama.rope.scaling.original_context_length", original))
    header = model_header()
    count = struct.unpack("<Q", header[16:24])[0] + len(entries)
    header = header[:16] + struct.pack("<Q", count) + b"".join(entries) + header[24:]
    assert from_gguf(header).spec.context_length == context


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
    for files in ({}, {"README.md": 1}, {"training_args.bin": 1}):
        with pytest.raises(NoSpec, match=r"neither \.gguf nor \.safetensors"):
            to_read(REPO, files)
    with pytest.raises(NoSpec, match=r"no file of a model: .*a projector, .* an importance matrix"):
        from_gguf(b"", "mmproj-F16.gguf", "imatrix.gguf")


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
