"""Reads a model from GGUF files: quantizations from their names, everything else from a header."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paddock.registry.derive.gguf_files import Gguf, name_label, projectors_of
from paddock.registry.derive.layers import MOST_LAYERS, gguf_layers
from paddock.registry.derive.repository import (
    MOST_SHARDS,
    Failure,
    RepositoryContents,
    Shape,
    abilities_by,
    languages_of,
    one_line,
    reckon,
    scaled_context,
    size_of,
    source_at,
)
from paddock.registry.formats import FORMATS, GGUF
from paddock.registry.gguf import GgufArray, GgufHeader
from paddock.registry.spec_fields import PLACEHOLDER

# llama.h of llama.cpp, enum llama_ftype.
_FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K",
    11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S",
    17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS",
    23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M",
    30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4_MOE",
}  # fmt: skip
FILE_TYPE_NUMBERS = {name: number for number, name in _FILE_TYPES.items()}
_TOOL_TEMPLATE = "tokenizer.chat_template.tool_use"
_RANK = 4
# GGUF's names of networks that give vectors and no text.
_ENCODERS = {
    "bert", "modern-bert", "neo-bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2",
    "jina-bert-v3", "eurobert", "gemma-embedding", "t5encoder",
}  # fmt: skip


def gguf_weights(
    repository: RepositoryContents, models: Sequence[Gguf], shape: Shape
) -> list[dict[str, Any]]:
    """One entry for the files whose names differ only in the quantization, and one per other file.

    The largest group stands first. Each has the fields of a spec's `Weights`.
    """
    groups: dict[str, dict[str, Gguf]] = {}
    taken: set[str] = set()
    for model in models:
        label = model.quantization or _by_type(repository, model)
        if label is None or label.casefold() in taken:
            label = name_label(model.file, taken)
        if label is None:
            shape.notes.append(f"{model.file} is left out: its name cannot be told from another's")
            continue
        taken.add(label.casefold())
        single = len(model.parts) > 1 or label not in model.file
        key = model.file if single else model.file.replace(label, PLACEHOLDER)
        groups.setdefault(key, {})[label] = model
    projectors = projectors_of(repository.files, repository.kinds)
    ordered = sorted(groups.items(), key=lambda group: -len(group[1]))
    return [
        {
            "format": GGUF,
            "size": size_of(shape.architecture["parameters"]),
            "quantizations": list(group),
            "engines": list(FORMATS[GGUF].engines),
            "sources": [
                source_at(
                    repository, template if len(group) > 1 else next(iter(group.values())).file
                )
            ],
            "size_bytes": {label: max(1, model.size_bytes) for label, model in group.items()},
            **({"projectors": projectors} if projectors else {}),
        }
        for template, group in ordered
    ]


def _by_type(repository: RepositoryContents, model: Gguf) -> str | None:
    """The quantization in the header, if it is the header of this file."""
    if repository.header is None or repository.header_file != model.file:
        return None
    kind = repository.header.metadata.get("general.file_type")
    return _FILE_TYPES.get(kind) if isinstance(kind, int) else None


class _Header:
    """Numbers of a GGUF header by their names below the architecture's."""

    def __init__(self, reference: str, repository: RepositoryContents) -> None:
        assert repository.header is not None
        self.header = repository.header
        self.fail = Failure(reference, repository.header_file)
        self.notes: list[str] = []
        self.name = self.text("general.architecture")
        if not self.name:
            raise self.fail("has no general.architecture")

    def text(self, key: str) -> str:
        value = self.header.metadata.get(key)
        return one_line(value) if isinstance(value, str) else ""

    def number(self, key: str) -> int | None:
        """A whole number; where it differs between layers, the largest."""
        full = f"{self.name}.{key}"
        value: Any = self.header.metadata.get(full)
        array = self.header.arrays.get(full)
        if array is not None:
            items = array.items or ()
            if not items or not all(isinstance(item, int) for item in items):
                raise self.fail(f"has {full} as {array.length} values that are no whole numbers")
            value = int(max(items))
            if min(items) != value:
                self.notes.append(f"{key} differs between layers: the largest, {value}, counts")
        if value is None:
            return None
        if type(value) is not int or not 0 <= value <= 1 << 53:
            raise self.fail(f"has {str(value)[:40]} as {full}")
        return value

    def quietly(self, key: str) -> int | None:
        """The same without a note: where each layer's own value counts."""
        before = len(self.notes)
        value = self.number(key)
        del self.notes[before:]
        return value

    def listed(self, key: str) -> tuple[int, ...] | None:
        """A number or flag for each layer, where the header lists them."""
        array = self.header.arrays.get(f"{self.name}.{key}")
        items = (array.items if array else None) or ()
        if not all(isinstance(item, int) and 0 <= item <= 1 << 53 for item in items):
            raise self.fail(f"has {self.name}.{key} as values that are no whole numbers")
        return tuple(map(int, items)) or None

    def needed(self, key: str) -> int:
        value = self.number(key)
        if not value:
            raise self.fail(f"has no {self.name}.{key}")
        return value


def from_header(reference: str, repository: RepositoryContents) -> Shape:
    """The model that a header describes. Raises `NoSpec` for what it lacks."""
    header = _Header(reference, repository)
    kind = header.text("general.type") or "model"
    if kind != "model" or header.name == "clip":
        raise header.fail(
            f"is no model by itself but of the type {kind if kind != 'model' else 'clip'}"
        )
    layers, hidden = header.needed("block_count"), header.needed("embedding_length")
    if layers > MOST_LAYERS:
        raise header.fail(f"has {layers} as {header.name}.block_count, over {MOST_LAYERS}")
    kept = gguf_layers(header.name, layers, header.quietly, header.listed)
    heads = header.quietly("attention.head_count") or (1 if "recurrent_layers" in kept else 0)
    if not heads:
        raise header.fail(f"has no {header.name}.attention.head_count")
    kv_heads = header.quietly("attention.head_count_kv") or heads
    experts = header.number("expert_count") or 0
    feed_forward = header.number("feed_forward_length")
    inner = (header.number("expert_feed_forward_length") if experts else None) or feed_forward
    if not inner:
        inner = 4 * hidden
        header.notes.append(f"feed_forward_length is not told: 4 × {hidden} stands for it")
    architecture = {
        "name": header.name,
        "layers": layers,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "attention_heads": heads,
        "key_value_heads": kv_heads,
        "head_dim": header.number("attention.key_length") or max(1, hidden // heads),
        "vocabulary_size": _words(header),
        "experts": experts,
        "experts_per_token": (header.number("expert_used_count") or experts) if experts else 0,
        "sliding_window": header.number("attention.sliding_window") or None,
        "tied_embeddings": not repository.header.has_output if repository.header else False,
        **kept,
    }
    _count(architecture, repository.header, header)
    pooling = header.number("pooling_type") or 0
    type_ = "LLM"
    if pooling == _RANK:
        type_ = "rerank"
    elif pooling or header.name in _ENCODERS:
        type_ = "embedding"
    metadata = repository.header.metadata if repository.header else {}
    # llama.cpp takes the second for requests with tools.
    named = (metadata.get("tokenizer.chat_template"), metadata.get(_TOOL_TEMPLATE))
    template = "\n".join(text for text in named if isinstance(text, str))
    shape = Shape(
        architecture,
        _context(header),
        type_,
        abilities_by(
            type_,
            template,
            repository.header_file,
            header.notes,
        ),
        header.text("general.license"),
        languages_of(header.header.arrays.get("general.languages", GgufArray(0)).items or ()),
        header.text("general.description")[:300],
        header.notes,
    )
    if projectors := projectors_of(repository.files, repository.kinds):
        shape.notes.append(f"vision: with --multimodal-projector {projectors[0]}; else texts alone")
    return shape


def _context(header: _Header) -> int:
    """The context, with RoPE's scaling if the header says from what."""
    context, metadata = header.needed("context_length"), header.header.metadata
    kind = header.text(f"{header.name}.rope.scaling.type")
    original = metadata.get(f"{header.name}.rope.scaling.original_context_length")
    if kind == "linear" and not original:  # Gemma 3 states the context that it has led to
        return context
    factor = metadata.get(f"{header.name}.rope.scaling.factor")
    longer = scaled_context(kind, factor, original, context)
    if longer > context:
        header.notes.append(f"context: {context} × {kind} scaling, {longer}")
    return longer


def _words(header: _Header) -> int:
    words = header.header.arrays.get("tokenizer.ggml.tokens", GgufArray(0)).length
    count = words or header.number("vocab_size")
    if not count:
        raise header.fail(f"has neither tokenizer.ggml.tokens nor {header.name}.vocab_size")
    return count


def _count(architecture: dict[str, Any], tensors: GgufHeader | None, header: _Header) -> None:
    """Adds the parameters: counted from the tensors, or else computed from the layers' numbers."""
    parts = tensors.metadata.get("split.count", 1) if tensors else 1
    if tensors is None or not tensors.parameters or (type(parts) is int and parts > MOST_SHARDS):
        reckon(architecture, header.notes)
        return
    architecture["parameters"] = tensors.parameters
    used, experts = architecture["experts_per_token"], architecture["experts"]
    idle = tensors.expert_parameters * (experts - used) // experts if experts else 0
    architecture["active_parameters"] = max(1, tensors.parameters - idle)
