"""Reads a model in safetensors or pickles from config.json and the files beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from paddock.registry.derive.class_defaults import NAMES, class_defaults
from paddock.registry.derive.layers import MOST_LAYERS, config_layers
from paddock.registry.derive.repository import (
    CONFIG,
    OLD_GPTQ,
    SENTENCES,
    TEMPLATES,
    TOKENIZER,
    Failure,
    RepositoryContents,
    Shape,
    abilities_by,
    engines_of,
    reckon,
    scaled_context,
    size_of,
    source_at,
)

# Values of model_type in config.json that stand for encoders.
_ENCODER_TYPES = {
    "bert", "roberta", "xlm-roberta", "distilbert", "mpnet", "electra", "albert", "camembert",
    "deberta", "deberta-v2", "modernbert", "nomic_bert", "new", "ernie", "eurobert",
}  # fmt: skip
_WIDTHS = {"float32": 4, "float16": 2, "bfloat16": 2, "float8_e4m3fn": 1}
_PARTS = ("attn_config", "ffn_config")
"""Parts of a configuration that hold further numbers of its layers (MPT, DBRX)."""
_STRETCHED = {"longrope", "su", "llama3"}
"""Kinds of RoPE scaling whose stated context is the extended one."""


class _Config:
    """Numbers of a config.json; where it has several models, those of the language model."""

    def __init__(self, reference: str, repository: RepositoryContents) -> None:
        self.fail = Failure(reference, CONFIG)
        config = repository.texts.get(CONFIG)
        if not isinstance(config, dict):
            raise self.fail("is not there, or no JSON that can be read")
        self.top: Mapping[str, Any] = config
        self.inner: Mapping[str, Any] = {}
        outer: Mapping[str, Any] = config
        for name in ("thinker_config", "text_config", "llm_config", "language_config"):
            below = outer.get(name)
            if isinstance(below, dict):
                outer = self.inner = below
        parts = (outer.get(name) for name in _PARTS)
        self.parts = {k: v for part in parts if isinstance(part, dict) for k, v in part.items()}
        model_type = self.top.get("model_type")
        self.type, self.defaults = class_defaults(model_type, self.inner.get("model_type"))
        self.filled: dict[str, int] = {}

    @property
    def values(self) -> dict[str, Any]:
        """All values of the language model, those that its class fills in included."""
        return {**self.defaults, **self.top, **self.parts, **self.inner}

    def get(self, key: str) -> Any:
        value = self.stated(key)
        is_stated = key in self.inner or key in self.top or key in self.parts
        return self.defaults.get(key) if value is None and not is_stated else value

    def stated(self, key: str) -> Any:
        value = self.inner.get(key)
        value = self.parts.get(key) if value is None else value
        return self.top.get(key) if value is None else value

    def number(self, name: str) -> int | None:
        for key in NAMES[name]:
            value = self.stated(key)
            if isinstance(value, list) and value and all(type(item) is int for item in value):
                value = max(value)
            if value is None:
                continue
            if type(value) is not int or not 0 <= value <= 1 << 53:
                raise self.fail(f"has {str(value)[:40]} as {key}")
            return value
        for key in NAMES[name]:
            if self.get(key) is not None:
                self.filled[key] = self.defaults[key]
                return self.filled[key]
        return None

    def needed(self, name: str) -> int:
        value = self.number(name)
        if not value:
            raise self.fail(f"has no {' or '.join(NAMES[name][:2])}")
        return value

    def key_value_heads(self, heads: int) -> int:
        """Heads that share a key and a value count as one."""
        multi_query = self.get("multi_query") is True
        if multi_query and self.get("new_decoder_architecture") is not True:
            return 1
        if self.stated("attn_type") == "multiquery_attention":
            return 1
        if self.get("multi_query_attention") is not False:
            grouped = self.number("grouped_heads")
        else:
            grouped = None
        return self.number("key_value_heads") or grouped or heads

    @property
    def scaling(self) -> Mapping[str, Any]:
        """How RoPE is scaled to a longer context; empty where it is not."""
        for key in ("rope_scaling", "rope_parameters"):
            value = self.stated(key)
            if isinstance(value, dict) and isinstance(value.get("full_attention"), dict):
                value = value["full_attention"]
            if isinstance(value, dict) and value:
                return value
        return {}


def from_config(reference: str, repository: RepositoryContents) -> Shape:
    """The model that a config.json describes. Raises `NoSpec` for what it lacks."""
    notes: list[str] = []
    config = _Config(reference, repository)
    hidden, heads = config.needed("hidden_size"), config.needed("attention_heads")
    layers = config.needed("layers")
    if layers > MOST_LAYERS:
        raise config.fail(f"has {layers} layers, over {MOST_LAYERS}")
    experts = config.number("experts") or 0
    inner = (config.number("expert_size") if experts else None) or config.number(
        "intermediate_size"
    )
    if not inner:
        inner = 4 * hidden
        notes.append(f"intermediate_size is not told: 4 × {hidden} stands for it")
    windowed = config.get("use_sliding_window") is not False
    name = _architecture_name(config)
    architecture: dict[str, Any] = {
        "name": name,
        "layers": layers,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "attention_heads": heads,
        "key_value_heads": config.key_value_heads(heads),
        "head_dim": config.number("head_dim") or max(1, hidden // heads),
        "vocabulary_size": config.needed("vocabulary_size"),
        "experts": experts,
        "experts_per_token": (config.number("experts_per_token") or experts) if experts else 0,
        "sliding_window": (config.number("sliding_window") or None) if windowed else None,
        "tied_embeddings": config.get("tie_word_embeddings") is True,
    }
    architecture |= config_layers(name, layers, config.values)
    type_ = _type(config, repository, name)
    template, where = _template(repository)
    abilities = abilities_by(type_, template, where, notes)
    if type_ == "LLM" and isinstance(config.top.get("vision_config"), dict):
        abilities.append("vision")
    context = _context(config, repository, type_)
    if type_ == "LLM":
        context = _extended(config, context, notes)
    if config.filled:
        filled = ", ".join(f"{key} {value}" for key, value in config.filled.items())
        notes.append(f"{CONFIG} leaves out {filled}: the defaults of Transformers' {config.type}")
    shape = Shape(architecture, context, type_, abilities, notes=notes)
    _weigh(config, repository, shape)
    return shape


def _architecture_name(config: _Config) -> str:
    classes = config.top.get("architectures") or config.inner.get("architectures")
    if not isinstance(classes, list) or not classes or not isinstance(classes[0], str):
        raise config.fail("has no architectures")
    return str(classes[0])


def _type(config: _Config, repository: RepositoryContents, name: str) -> str:
    labels = config.get("id2label")
    if name.endswith("ForSequenceClassification"):
        count = len(labels) if isinstance(labels, dict) else config.get("num_labels") or 1
        if count != 1:
            raise config.fail(f"is of {name} with {count} labels: a reranker has one")
        return "rerank"
    pooled = "modules.json" in repository.files or "1_Pooling/config.json" in repository.files
    if pooled or SENTENCES in repository.files:
        return "embedding"
    if name.endswith(("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")):
        return "LLM"
    if str(config.get("model_type")) in _ENCODER_TYPES:
        return "embedding"
    raise config.fail(f"is of {name}, which neither generates, nor embeds, nor ranks")


def _context(config: _Config, repository: RepositoryContents, type_: str) -> int:
    positions = config.number("context")
    sentences, tokenizer = (repository.texts.get(name) for name in (SENTENCES, TOKENIZER))
    if type_ != "LLM" and (longest := _limit(sentences, "max_seq_length")):
        return longest
    limit = _limit(tokenizer, "model_max_length")
    if positions and limit and type_ != "LLM":
        return min(positions, limit)  # RoBERTa's 514 positions take 512 tokens
    if not positions and not limit:
        raise config.fail("has no max_position_embeddings, and tokenizer_config.json no limit")
    return positions or limit


def _extended(config: _Config, context: int, notes: list[str]) -> int:
    """The context to which RoPE's scaling extends the one that the model was trained with."""
    scaling = config.scaling
    kind = str(scaling.get("rope_type") or scaling.get("type") or "")
    # Gemma 3 states the context that its scaling has led to.
    if kind in _STRETCHED or "gemma3" in str(config.top.get("model_type")):
        return context
    original = scaling.get("original_max_position_embeddings")
    longer = scaled_context(kind, scaling.get("factor"), original, context)
    if longer > context:
        notes.append(f"context: {context} × {kind} scaling, {longer}")
    return longer


def _limit(data: Any, key: str) -> int:
    """A number of tokens, or 0; tokenizers without a limit state a number like 10**30."""
    value = data.get(key) if isinstance(data, dict) else None
    return value if type(value) is int and 0 < value < 1 << 31 else 0


def _template(repository: RepositoryContents) -> tuple[str, str]:
    """The chat template and the file that has it; empty where there is none."""
    plain, wrapped = (repository.texts.get(name) for name in TEMPLATES)
    if isinstance(plain, str) and plain.strip():
        return plain, TEMPLATES[0]
    for name, data in ((TEMPLATES[1], wrapped), (TOKENIZER, repository.texts.get(TOKENIZER))):
        text = data.get("chat_template") if isinstance(data, dict) else None
        if isinstance(text, list):  # a list of templates, one of them perhaps for tools
            text = "\n".join(
                str(entry["template"])
                for entry in text
                if isinstance(entry, dict) and "template" in entry
            )
        if isinstance(text, str) and text.strip():
            return text, name
    return "", TOKENIZER


def _weigh(config: _Config, repository: RepositoryContents, shape: Shape) -> None:
    """Adds the parameters: from the files' length if their type is known, else computed."""
    dtype = str(config.get("dtype") or config.get("torch_dtype") or "").removeprefix("torch.")
    width = _WIDTHS.get(dtype)
    packed = config.get("quantization_config") or config.get("quantization")
    total = sum(repository.files[n] for n in repository.chosen if n.endswith(".safetensors"))
    if not width or packed or not total or OLD_GPTQ in repository.files:
        reckon(shape.architecture, shape.notes)
        return
    architecture = shape.architecture
    reckon(architecture, [])
    every, active = architecture["parameters"], architecture["active_parameters"]
    architecture["parameters"] = max(1, total // width)
    idle = min(every - active, architecture["parameters"] - 1)
    architecture["active_parameters"] = architecture["parameters"] - idle
    shape.notes.append(f"parameters: the length of its files, at {width} bytes each")


def stored_weights(
    reference: str,
    repository: RepositoryContents,
    pickles: Sequence[str],
    shape: Shape,
) -> dict[str, Any]:
    """The variant in safetensors, or else in pickles. Raises `NoSpec` for an unknown format."""
    format_, quantization = _format(reference, repository)
    engines = engines_of(format_, shape.type)
    names = [name for name in repository.chosen if name.endswith(".safetensors")] or pickles
    return {
        "format": format_,
        "size": size_of(shape.architecture["parameters"]),
        "quantizations": [quantization],
        "engines": list(engines),
        "sources": [source_at(repository)],
        "size_bytes": {quantization: max(1, sum(repository.files[name] for name in names))},
    }


def _format(reference: str, repository: RepositoryContents) -> tuple[str, str]:
    """Format and quantization, by the names that the built-in specs use."""
    config = _Config(reference, repository)
    packed = config.get("quantization_config")
    if not isinstance(packed, dict):
        mlx, old = config.get("quantization"), repository.texts.get(OLD_GPTQ)
        if isinstance(mlx, dict) and type(mlx.get("bits")) is int:
            return "mlx", f"{mlx['bits']}bit"
        if not isinstance(old, dict):
            return "pytorch", "none"
        packed = {"quant_method": "gptq", **old}
    method, bits = str(packed.get("quant_method")), packed.get("bits")
    known = type(bits) is int and bits in {2, 3, 4, 8}
    if method == "bitsandbytes":
        bits, known = 4 if packed.get("load_in_4bit") is True else 8, True
    by_method = {
        "gptq": ("gptq", f"Int{bits}"),
        "awq": ("awq", f"Int{bits}"),
        "bitsandbytes": ("bnb", f"Int{bits}"),
        "fp8": ("fp8", "fp8"),
        "fbgemm_fp8": ("fp8", "fp8"),
        "mxfp4": ("pytorch", "none"),  # the loader itself unpacks it
    }
    if method not in by_method or (by_method[method][1].startswith("Int") and not known):
        label = f"{method[:40]!r} with {str(bits)[:10]} bits"
        raise config.fail(f"has the quantization {label}, which is no format of Paddock's")
    return by_method[method]
