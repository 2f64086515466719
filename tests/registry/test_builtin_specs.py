"""The specs that ship with Paddock say what their models' cards say."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from paddock.registry.catalog import default_folders, specs_root
from paddock.registry.derive.repository import engines_of
from paddock.registry.spec import Architecture, ModelSpec
from tests.catalog import CATALOG

EVERY = pytest.mark.parametrize("spec", list(CATALOG), ids=CATALOG.names())

# fmt: off
FAMILIES = (
    "qwen2.5", "qwen2.5-instruct", "qwen3", "qwen3.5", "qwen3.6", "llama-2-chat",
    "llama-3-instruct", "llama-3.1-instruct", "llama-3.2-vision-instruct", "llama-3.3-instruct",
    "mistral-instruct-v0.3", "mixtral-v0.1", "gemma-3-it", "gemma-4", "deepseek-v3",
    "deepseek-r1", "deepseek-r1-distill-qwen", "deepseek-r1-distill-llama", "phi-2",
    "phi-3-mini-4k-instruct", "glm4-chat", "glm-4.5", "glm-5", "gpt-oss", "minimax-m2",
    "kimi-k2.5", "yi-1.5-chat", "internvl3", "qwen2.5-vl-instruct", "qwen3-vl-instruct",
    "qwen2.5-coder-instruct", "qwen3-coder", "code-llama", "bge-m3", "bge-large-en-v1.5",
    "gte-large", "jina-embeddings-v3", "Qwen3-Embedding-0.6B", "bge-reranker-v2-m3",
    "jina-reranker-v2", "Qwen3-Reranker-0.6B",
)
# fmt: on

# Their publishers name these after the parameters that one token passes through; Gemma 4's small
# ones without the embeddings that each layer has for itself.
ACTIVE_ONLY = {
    "qwen1.5-moe-chat": ("2_7",),
    "qwen2-moe-instruct": ("14",),
    "gemma-4": ("2", "4"),
}


def parameters(shape: Architecture, experts: int) -> int:
    """Parameters of a Mixtral with so many experts per layer, counted tensor by tensor."""
    embeddings = shape.vocabulary_size * shape.hidden_size * (1 if shape.tied_embeddings else 2)
    queries = 2 * shape.hidden_size * shape.attention_heads * shape.head_dim  # and the output
    keys = 2 * shape.hidden_size * shape.key_value_heads * shape.head_dim  # and the values
    feed_forward = experts * 3 * shape.hidden_size * shape.intermediate_size  # w1, w2, w3
    router, norms = shape.hidden_size * shape.experts, 2 * shape.hidden_size
    layer = queries + keys + feed_forward + router + norms
    return embeddings + shape.layers * layer + shape.hidden_size


def test_every_built_in_file_loads() -> None:
    """No file that ships is wrong, and each is named after its model."""
    assert CATALOG.problems == ()
    files = [path for folder in default_folders() for path in folder.glob("*.y*ml")]
    assert {path.stem for path in files} == set(CATALOG.names())
    assert {"mixtral-v0.1", "mixtral-instruct-v0.1", "tiny-mixtral"} <= set(CATALOG.names())


def test_the_catalogue_holds_what_people_launch() -> None:
    """At least 80 language models, 25 embedding models and 12 rerankers are built in."""
    types = Counter(spec.type for spec in CATALOG)
    assert types["LLM"] >= 80
    assert types["embedding"] >= 25
    assert types["rerank"] >= 12


@pytest.mark.parametrize("name", FAMILIES)
def test_known_families_are_found(name: str) -> None:
    """The families that people ask for by name are there."""
    assert CATALOG.lookup(name).name.casefold() == name.casefold()


@EVERY
def test_a_spec_lies_in_the_folder_of_its_type(spec: ModelSpec) -> None:
    """Language models, embedding models and rerankers have a folder each."""
    assert CATALOG.path(spec.name).parent.name == spec.type.lower()


@EVERY
def test_ids_are_those_of_a_hub(spec: ModelSpec) -> None:
    """Each source on a hub is owner/name, and a pinned Hugging Face revision is a whole commit."""
    for source in (source for variant in spec.variants for source in variant.sources):
        assert "{" not in f"{source.id}{source.file}"
        if source.hub in {"huggingface", "modelscope"}:
            assert re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", source.id)
        if source.hub == "huggingface" and source.revision:
            assert re.fullmatch(r"[0-9a-f]{40}", source.revision)


@EVERY
def test_engines_are_those_of_the_format(spec: ModelSpec) -> None:
    """No variant names an engine that cannot read its format, or serves no models of its type."""
    for weights in spec.weights:
        known = {*engines_of(weights.format, spec.type), *engines_of(weights.format, "LLM")}
        assert set(weights.engines) <= known
        if "sentence-transformers" in weights.engines:  # by a head, or by tokens after a prompt
            head = spec.architecture.name.endswith("ForSequenceClassification")
            told = spec.ranking is not None and spec.ranking.true_token is not None
            assert spec.type == "embedding" or (spec.type == "rerank" and (head or told))


def test_models_of_one_family_have_one_prompt() -> None:
    """It stands in each of their specs."""
    for names in (
        [f"Qwen3-Reranker-{size}" for size in ("0.6B", "4B", "8B")],
        [f"Qwen3-Embedding-{size}" for size in ("0.6B", "4B", "8B")],
    ):
        specs = [CATALOG.lookup(name) for name in names]
        assert specs[0].ranking or specs[0].embedding
        assert len({(spec.ranking, spec.embedding) for spec in specs}) == 1


@EVERY
def test_a_stated_shape_is_of_the_stated_size(spec: ModelSpec) -> None:
    """A size is the parameters in billions, as its publisher rounds them, or the active ones."""
    for size in spec.sizes:
        shape, billions = spec.shape(size), float(size.replace("_", "."))
        if not shape.reckoned and size not in ACTIVE_ONLY.get(spec.name, ()):
            assert shape.parameters / 1e9 == pytest.approx(billions, rel=0.4)


@EVERY
def test_recommended_quantizations_can_be_selected(spec: ModelSpec) -> None:
    """What a spec recommends exists."""
    for quantization in spec.recommended:
        assert spec.select(quantization=quantization)


@pytest.mark.parametrize("name", ["mixtral-v0.1", "mixtral-instruct-v0.1", "tiny-mixtral"])
def test_stated_parameters_follow_from_the_shape(name: str) -> None:
    """The totals are those of the architecture's tensors, in all and per token."""
    shape = CATALOG.lookup(name).architecture
    assert shape.parameters == parameters(shape, shape.experts)
    assert shape.active_parameters == parameters(shape, shape.experts_per_token)


def test_mixtral_is_as_its_cards_say() -> None:
    """Every figure that the model's pages give."""
    spec = CATALOG.lookup("mixtral-v0.1")
    shape = spec.architecture
    assert spec.context_length == 32768
    assert spec.languages == ("en", "fr", "it", "de", "es")
    assert spec.abilities == ("generate",)
    assert (spec.license, spec.released.isoformat()) == ("Apache-2.0", "2023-12-09")
    assert round(shape.parameters / 1e9, 1) == 46.7
    assert round(shape.active_parameters / 1e9, 1) == 12.9
    assert (shape.layers, shape.hidden_size, shape.attention_heads) == (32, 4096, 32)
    assert (shape.key_value_heads, shape.experts, shape.experts_per_token) == (8, 8, 2)
    assert {variant.size for variant in spec.variants} == {"46_7"}
    assert spec.recommended == ("Q4_K_M", "Q5_K_M")


def test_mixtral_comes_from_the_stated_places() -> None:
    """Each variant's hubs, ids, file and engines are those of the model's page."""
    select = CATALOG.lookup("mixtral-v0.1").select
    (half, *_), (gptq,) = select(format="pytorch"), select(format="gptq")
    assert [(source.hub, source.id) for source in half.sources] == [
        ("huggingface", "mistralai/Mixtral-8x7B-v0.1"),
        ("modelscope", "AI-ModelScope/Mixtral-8x7B-v0.1"),
    ]
    assert half.engines == gptq.engines == ("Transformers", "vLLM", "SGLang")
    assert [source.id for source in gptq.sources] == ["TheBloke/Mixtral-8x7B-v0.1-GPTQ"]
    # Decimal gigabytes, from the table of the GGUF card.
    table = {"Q2_K": 15.64, "Q3_K_M": 20.36, "Q4_0": 26.44, "Q4_K_M": 26.44}
    table |= {"Q5_0": 32.23, "Q5_K_M": 32.23, "Q6_K": 38.38, "Q8_0": 49.62}
    files = select(format="ggufv2")
    assert {v.quantization: v.size_bytes for v in files} == {
        quantization: round(size * 1e9) for quantization, size in table.items()
    }
    for variant in files:
        (source,) = variant.sources
        assert (source.hub, source.id) == ("huggingface", "TheBloke/Mixtral-8x7B-v0.1-GGUF")
        assert source.file == f"mixtral-8x7b-v0.1.{variant.quantization}.gguf"
        assert variant.engines == ("llama.cpp",)


def test_the_instruct_sibling_chats_and_has_the_same_shape() -> None:
    """It differs from the base model in abilities and places, not in architecture."""
    base, chat = CATALOG.lookup("mixtral-v0.1"), CATALOG.lookup("mixtral-instruct-v0.1")
    assert chat.abilities == ("generate", "chat")
    assert chat.architecture == base.architecture
    assert [v.quantization for v in chat.variants] == [v.quantization for v in base.variants]
    assert chat.chat_template is None  # the model's own


def test_tiny_mixtral_matches_its_weights() -> None:
    """The bundled model's spec states the shape in the configuration beside its weights."""
    spec = CATALOG.lookup("tiny-mixtral")
    (variant,) = spec.select(format="pytorch", quantization="none")
    config = json.loads((specs_root() / variant.sources[0].id / "config.json").read_text("utf-8"))
    shape = spec.architecture
    assert [shape.name] == config["architectures"]
    assert {
        "num_hidden_layers": shape.layers,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_attention_heads": shape.attention_heads,
        "num_key_value_heads": shape.key_value_heads,
        "vocab_size": shape.vocabulary_size,
        "num_local_experts": shape.experts,
        "num_experts_per_tok": shape.experts_per_token,
        "tie_word_embeddings": shape.tied_embeddings,
        "max_position_embeddings": spec.context_length,
    }.items() <= config.items()


def test_local_sources_lie_beside_the_specs() -> None:
    """A built-in spec's local path is within the folder of the specs."""
    for spec in CATALOG:
        for variant in spec.variants:
            for source in variant.sources:
                if source.hub == "local":
                    path = Path(specs_root(), source.id).resolve()
                    assert path.is_relative_to(specs_root().resolve())
