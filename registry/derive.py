"""Makes a spec of what a repository holds: pure, from its list of files and what was read of them.

`to_read` says which files that takes: small ones, and the header of one GGUF. What a repository
does not tell becomes a note that users are shown; what a spec cannot do without is an error.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from pydantic import ValidationError

from paddock.registry.errors import NoSpec
from paddock.registry.gguf import GgufArray, GgufHeader
from paddock.registry.reference import Reference
from paddock.registry.spec import PLACEHOLDER, ModelSpec, Source

SMALL_BYTES = 4 << 20
"""The largest configuration that is read. Those of tokenizers reach 1 MB."""
CARD_BYTES = 256 << 10
MOST_PARTS = 64
"""Of a file in more parts only the first one's header is read."""
CARD = "README.md"
CONFIG, TOKENIZER = "config.json", "tokenizer_config.json"
TEMPLATES = ("chat_template.jinja", "chat_template.json")
SENTENCES = "sentence_bert_config.json"
OLD_GPTQ = "quantize_config.json"
READ = (CONFIG, TOKENIZER, *TEMPLATES, SENTENCES, OLD_GPTQ)
UNKNOWN_LICENSE, UNKNOWN_LANGUAGE = "unknown", "und"
RECOMMENDED = ("Q4_K_M", "Q5_K_M")

_SPLIT = re.compile(r"(?P<stem>.+)-(?P<part>[0-9]{5})-of-(?P<parts>[0-9]{5})\.gguf", re.IGNORECASE)
_NO_MODEL = re.compile(r"mmproj|imatrix", re.IGNORECASE)
_QUANTIZATION = re.compile(
    r"(?:^|[-._/])"
    r"((?:(?:UD|i1)-)?(?:IQ[1-4]_(?:XXS|XS|S|M|NL)"
    r"|Q[1-8]_(?:K(?:_(?:XXL|XL|L|M|S|XS))?|0_[48]_[48]|[01])"
    r"|TQ[12]_0|MXFP4(?:_MOE)?|NVFP4|BF16|F16|F32|FP16|FP32))"
    r"(?=$|[-._/])",
    re.IGNORECASE,
)
# llama.h of llama.cpp, enum llama_ftype.
_FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K",
    11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S",
    17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS",
    23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M",
    30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4_MOE",
}  # fmt: skip
_RANK = 4
# GGUF's names of networks that give vectors and no text.
_ENCODERS = {
    "bert", "modern-bert", "neo-bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2",
    "jina-bert-v3", "eurobert", "gemma-embedding", "t5encoder",
}  # fmt: skip
# config.json's model_type of the same.
_ENCODER_TYPES = {
    "bert", "roberta", "xlm-roberta", "distilbert", "mpnet", "electra", "albert", "camembert",
    "deberta", "deberta-v2", "modernbert", "nomic_bert", "new", "ernie", "eurobert",
}  # fmt: skip
_FRONT = re.compile(r"\s*---[ \t]*\n(.*?)\n---[ \t]*(?:\n|$)", re.DOTALL)
_PICKLES = re.compile(r"(?:^|/)[^/]*\.(?:bin|pt|pth|ckpt|pkl)$")
_WIDTHS = {"float32": 4, "float16": 2, "bfloat16": 2, "float8_e4m3fn": 1}
_ENGINES = {
    "ggufv2": ("llama.cpp",),
    "pytorch": ("Transformers", "vLLM", "SGLang"),
    "gptq": ("Transformers", "vLLM", "SGLang"),
    "awq": ("Transformers", "vLLM", "SGLang"),
    "fp8": ("vLLM", "SGLang"),
    "bnb": ("Transformers", "vLLM"),
    "mlx": ("MLX",),
}
_NAMES = {  # what one number is called in config.json, by who wrote it
    "layers": ("num_hidden_layers", "n_layer", "num_layers", "n_layers"),
    "hidden_size": ("hidden_size", "n_embd", "d_model", "dim"),
    "expert_size": ("moe_intermediate_size",),
    "intermediate_size": (
        "intermediate_size", "ffn_hidden_size", "n_inner", "ffn_dim", "d_ff", "hidden_dim",
    ),
    "attention_heads": ("num_attention_heads", "n_head", "num_heads", "n_heads"),
    "key_value_heads": (
        "num_key_value_heads", "multi_query_group_num", "num_kv_heads", "n_head_kv",
    ),
    "head_dim": ("head_dim",),
    "vocabulary_size": ("vocab_size", "padded_vocab_size"),
    "experts": ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"),
    "experts_per_token": (
        "num_experts_per_tok", "num_experts_per_token", "moe_top_k", "moe_k", "top_k_experts",
    ),
    "sliding_window": ("sliding_window",),
    "context": (
        "max_position_embeddings", "n_positions", "seq_length", "max_sequence_length",
        "max_seq_len", "model_max_length",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Found:
    """What was found at a reference.

    Attributes:
        commit: names these very files, and no others.
        files: name → bytes, of all files.
        chosen: the files that a variant in safetensors brings; empty where there are none.
        texts: what was read: JSON as it parses, other text as it is.
        header: of the GGUF file `header_file`, summed over its parts.
    """

    reference: Reference
    commit: str
    files: Mapping[str, int]
    chosen: Sequence[str]
    texts: Mapping[str, Any]
    header: GgufHeader | None = None
    header_file: str = ""


@dataclass(frozen=True)
class Derived:
    """A spec that was made of what a repository holds.

    Attributes:
        reference: where that is, in its shortest form.
        commit: which files are meant.
        notes: what the repository does not tell, and what stands for it.
        code: where the code is that would run with a variant that is not GGUF.
        pickles: the pickled weights, where there are no others beside GGUF.
    """

    reference: str
    commit: str
    spec: ModelSpec
    notes: tuple[str, ...] = ()
    code: tuple[str, ...] = ()
    pickles: tuple[str, ...] = ()

    def risk(self, format: str) -> str:
        """What of a variant in this format would run code; empty where nothing would."""
        if format == "ggufv2":
            return ""
        said = []
        if self.code:
            said.append(f"code in the repository ({_few(self.code)})")
        if self.pickles:
            said.append(f"pickled weights and no safetensors ({_few(self.pickles)})")
        return " and ".join(said)

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {
            "reference": self.reference,
            "commit": self.commit,
            "notes": list(self.notes),
            "code": list(self.code),
            "pickles": list(self.pickles),
            "spec": self.spec.model_dump(mode="json", exclude_defaults=True),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Derived:
        """The inverse; numbers may be text. Raises `ValidationError`, `KeyError`, `TypeError`."""
        lists = (tuple(map(str, data[name])) for name in ("notes", "code", "pickles"))
        spec = ModelSpec.model_validate(data["spec"])
        return cls(str(data["reference"]), str(data["commit"]), spec, *lists)


@dataclass(frozen=True)
class Reads:
    """What must be read: small files whole, and of one GGUF file, in its parts, the header."""

    small: tuple[str, ...]
    gguf: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Gguf:
    """A model in one file, or in parts of which `file` is the first."""

    file: str
    parts: tuple[str, ...]
    size_bytes: int
    quantization: str | None


@dataclass
class _Shape:
    """What a header or a configuration says of a model."""

    architecture: dict[str, Any]
    context: int
    type: str
    abilities: list[str]
    license: str = ""
    languages: tuple[str, ...] = ()
    description: str = ""
    notes: list[str] = field(default_factory=list)


def to_read(reference: Reference, files: Mapping[str, int]) -> Reads:
    """Which files tell what a spec needs.

    Raises:
        NoSpec: none of them is a model, or the one that the reference names is not there.
    """
    models, _ = _ggufs(reference, files)
    card = (CARD,) if 0 < files.get(CARD, 0) <= CARD_BYTES else ()
    stored = [name for name in files if name.endswith(".safetensors") or _PICKLES.search(name)]
    small: tuple[str, ...] = ()
    if stored and not reference.file:
        small = tuple(name for name in READ if name in files)
    if not models and not stored:
        what = "has no file of a model: neither .gguf nor .safetensors"
        raise NoSpec(reference.text, "", what)
    if not models:
        return Reads((*small, *card))
    # Any will do: the smallest, and one that is whole rather than one in parts.
    first = min(models, key=lambda model: (len(model.parts), model.size_bytes, model.file))
    parts = first.parts if len(first.parts) <= MOST_PARTS else first.parts[:1]
    return Reads((*small, *card), parts)


def derive(found: Found, today: date) -> Derived:
    """The spec of what was found; `today` stands for a release date, which no repository tells.

    Raises:
        NoSpec: with the file that lacks what a spec needs.
    """
    text = found.reference.text
    models, notes = _ggufs(found.reference, found.files)
    config = found.texts.get(CONFIG)
    code, pickles = _code(found), ()
    stored = bool(found.chosen) and not found.reference.file
    if not stored and not found.reference.file:
        pickles = tuple(name for name in found.files if _PICKLES.search(name))
    shape, weights = None, []
    if models and found.header is not None:
        shape = _from_header(text, found)
        weights += _gguf_weights(found, models, shape)
    if (stored or pickles) and isinstance(config, dict):
        told = _from_config(text, found, config)
        shape = shape or told
        weights += [_stored_weights(text, found, config, pickles, shape)]
    elif (stored or pickles) and shape is None:
        raise NoSpec(text, CONFIG, "is not there, or is no JSON object")
    else:
        code, pickles = (), ()
    if shape is None or not weights:
        raise NoSpec(text, "", "holds no model whose quantization can be told")
    shape.notes[:0] = notes
    return Derived(
        text, found.commit, _spec(found, shape, weights, today), tuple(shape.notes), code, pickles
    )


def _spec(found: Found, shape: _Shape, weights: list[dict[str, Any]], today: date) -> ModelSpec:
    reference, notes = found.reference, shape.notes
    card = _card(found.texts.get(CARD))
    license = shape.license or card.get("license", "")
    languages = shape.languages or tuple(card.get("languages", ()))
    if not license:
        notes.append("license: the repository names none")
    if not languages:
        notes.append("languages: the repository names none")
    notes.append("released: repositories do not tell; the day of this reading stands for it")
    known = {q.casefold(): q for one in weights for q in one["quantizations"]}
    data = {
        "name": _name(reference, weights),
        "type": shape.type,
        "description": shape.description or f"Derived from {reference.text}.",
        "license": license or UNKNOWN_LICENSE,
        "released": today.isoformat(),
        "languages": languages or [UNKNOWN_LANGUAGE],
        "abilities": shape.abilities,
        "context_length": shape.context,
        "architecture": shape.architecture,
        "weights": weights,
        "recommended": [known[q.casefold()] for q in RECOMMENDED if q.casefold() in known],
        "homepage": _homepage(reference),
        "notes": "\n".join([f"Derived from {reference.text} at {found.commit}.", *notes]),
    }
    try:
        return ModelSpec.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        at = ".".join(map(str, first["loc"]))
        source = found.header_file or CONFIG
        raise NoSpec(
            reference.text, source, f"does not fit together: {at}: {first['msg']}"
        ) from None


def _homepage(reference: Reference) -> str | None:
    pages = {
        "huggingface": "https://huggingface.co/",
        "modelscope": "https://modelscope.cn/models/",
    }
    return pages[reference.hub] + reference.id if reference.hub in pages else None


def _name(reference: Reference, weights: list[dict[str, Any]]) -> str:
    """The repository's name; of weights on disk the file's without its quantization."""
    name = posixpath.basename(reference.id)
    if reference.hub == "path" and weights[0]["format"] == "ggufv2":
        stem = posixpath.basename(weights[0]["sources"][0]["file_template"])
        split = _SPLIT.fullmatch(stem)
        stem = split["stem"] if split else stem[: -len(".gguf")]
        stem = stem.replace(PLACEHOLDER, "").replace(weights[0]["quantizations"][0], "")
        name = stem.strip("-._") or name
    plain = re.sub(r"[^A-Za-z0-9_.-]+|\.\.+", "-", name).lstrip("-._")
    return plain[:96] or "model"


def size_of(parameters: int) -> str:
    """Parameters as a spec's size: two digits below ten billion, tenths to a hundred."""
    billions = max(parameters / 1e9, 0.0001)
    if billions >= 10:
        text = f"{billions:.1f}" if billions < 99.95 else f"{billions:.0f}"
    else:
        text = f"{float(f'{billions:.2g}'):.4f}"
    whole, _, fraction = text.partition(".")
    fraction = fraction.rstrip("0")
    return f"{whole}_{fraction}" if fraction else whole


def _few(names: Sequence[str]) -> str:
    more = len(names) - 3
    return ", ".join(names[:3]) + (f" and {more} more" if more > 0 else "")


# GGUF


def _ggufs(reference: Reference, files: Mapping[str, int]) -> tuple[list[_Gguf], list[str]]:
    """The models among the files, smallest first, and what was left out and why."""
    notes: list[str] = []
    found: dict[str, _Gguf] = {}
    named = [name for name in files if name.casefold().endswith(".gguf")]
    for name in sorted(named, key=lambda name: (files[name], name)):
        if reference.file and name != reference.file:
            continue
        if _NO_MODEL.search(posixpath.basename(name)):
            notes.append(f"{name} is no model of its own and is left out")
            continue
        if not _is_plain(reference, name):
            notes.append(f"{name} is left out: the name holds what no spec may")
            continue
        split = _SPLIT.fullmatch(name)
        parts = _parts(split) if split else (name,)
        if parts[0] != name:
            continue
        missing = [part for part in parts if part not in files]
        if missing:
            notes.append(f"{name} is left out: {missing[0]} is not there")
            continue
        found[name] = _Gguf(name, parts, sum(files[part] for part in parts), _quantization(name))
    if reference.file and reference.file not in found:
        why = notes[0].removeprefix(reference.file).strip() if notes else "is not there"
        raise NoSpec(reference.text, reference.file, why)
    return list(found.values()), notes


def _is_plain(reference: Reference, name: str) -> bool:
    try:
        Source(hub=reference.hub, id=reference.id, file_template=name)
    except ValidationError:
        return False
    return "{" not in name


def _parts(split: re.Match[str]) -> tuple[str, ...]:
    count = int(split["parts"])
    name = split[0]
    ending = name[len(split["stem"]) + len("-00001-of-00001") :]
    return tuple(f"{split['stem']}-{n:05}-of-{split['parts']}{ending}" for n in range(1, count + 1))


def _quantization(name: str) -> str | None:
    """The last quantization that a path names."""
    split = _SPLIT.fullmatch(name)
    found = _QUANTIZATION.findall(split["stem"] if split else name[: -len(".gguf")])
    return str(found[-1]) if found else None


def _gguf_weights(found: Found, models: Sequence[_Gguf], shape: _Shape) -> list[dict[str, Any]]:
    """One entry for all files whose names differ in the quantization alone, and one for each other.

    The largest group stands first.
    """
    groups: dict[str, dict[str, _Gguf]] = {}
    taken: set[str] = set()
    for model in models:
        label = model.quantization or _by_type(found, model)
        if label is None:
            shape.notes.append(f"{model.file} is left out: its name tells no quantization")
            continue
        if label.casefold() in taken:
            what = f"{model.file} is left out: another file is {label} too"
            shape.notes.append(f"{what}; its own address names it")
            continue
        taken.add(label.casefold())
        single = len(model.parts) > 1 or label not in model.file
        key = model.file if single else model.file.replace(label, PLACEHOLDER)
        groups.setdefault(key, {})[label] = model
    ordered = sorted(groups.items(), key=lambda group: -len(group[1]))
    return [
        {
            "format": "ggufv2",
            "size": size_of(shape.architecture["parameters"]),
            "quantizations": list(group),
            "engines": list(_ENGINES["ggufv2"]),
            "sources": [
                _source(found, template if len(group) > 1 else next(iter(group.values())).file)
            ],
            "size_bytes": {label: max(1, model.size_bytes) for label, model in group.items()},
        }
        for template, group in ordered
    ]


def _by_type(found: Found, model: _Gguf) -> str | None:
    """The quantization that the header tells, where it is the header of this file."""
    if found.header is None or found.header_file != model.file:
        return None
    kind = found.header.metadata.get("general.file_type")
    return _FILE_TYPES.get(kind) if isinstance(kind, int) else None


def _source(found: Found, file: str | None = None) -> dict[str, Any]:
    reference = found.reference
    revision = reference.revision
    if reference.hub == "huggingface":
        revision = found.commit
    source = {
        "hub": reference.hub,
        "id": reference.id,
        "revision": revision,
        "file_template": file,
    }
    return {key: value for key, value in source.items() if value is not None}


class _Header:
    """Numbers of a GGUF header by their names below the architecture's."""

    def __init__(self, reference: str, found: Found) -> None:
        assert found.header is not None
        self.header = found.header
        self.fail = _Failure(reference, found.header_file)
        self.notes: list[str] = []
        self.name = self.text("general.architecture")
        if not self.name:
            raise self.fail("has no general.architecture")

    def text(self, key: str) -> str:
        value = self.header.metadata.get(key)
        return _line(value) if isinstance(value, str) else ""

    def number(self, key: str) -> int | None:
        """A whole number; of one that differs from layer to layer, the largest."""
        full = f"{self.name}.{key}"
        value: Any = self.header.metadata.get(full)
        array = self.header.arrays.get(full)
        if array is not None:
            items = array.items or ()
            if not items or not all(type(item) is int for item in items):
                raise self.fail(f"has {full} as {array.length} values that are no whole numbers")
            value = max(items)
            if min(items) != value:
                self.notes.append(f"{key} differs between layers: the largest, {value}, counts")
        if value is None:
            return None
        if type(value) is not int or not 0 <= value <= 1 << 53:
            raise self.fail(f"has {str(value)[:40]} as {full}")
        return value

    def needed(self, key: str) -> int:
        value = self.number(key)
        if not value:
            raise self.fail(f"has no {self.name}.{key}")
        return value


@dataclass(frozen=True)
class _Failure:
    """Makes errors about one file."""

    reference: str
    file: str

    def __call__(self, reason: str) -> NoSpec:
        return NoSpec(self.reference, self.file, reason)


def _from_header(reference: str, found: Found) -> _Shape:
    header = _Header(reference, found)
    kind = header.text("general.type") or "model"
    if kind != "model" or header.name == "clip":
        raise header.fail(
            f"is no model by itself but of the type {kind if kind != 'model' else 'clip'}"
        )
    layers, hidden = header.needed("block_count"), header.needed("embedding_length")
    recurrent = header.number("ssm.state_size") is not None
    heads = header.number("attention.head_count") or (1 if recurrent else 0)
    if not heads:
        raise header.fail(f"has no {header.name}.attention.head_count")
    kv_heads = header.number("attention.head_count_kv") or (1 if recurrent else heads)
    if recurrent:
        header.notes.append("the state of its recurrent layers is not counted in the memory")
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
        "tied_embeddings": not found.header.has_output if found.header else False,
    }
    _count(architecture, found.header, header)
    pooling = header.number("pooling_type") or 0
    type_ = "LLM"
    if pooling == _RANK:
        type_ = "rerank"
    elif pooling or header.name in _ENCODERS:
        type_ = "embedding"
    template = found.header.metadata.get("tokenizer.chat_template") if found.header else None
    shape = _Shape(
        architecture,
        header.needed("context_length"),
        type_,
        _abilities(
            type_, template if isinstance(template, str) else "", found.header_file, header.notes
        ),
        header.text("general.license"),
        _languages(header.header.arrays.get("general.languages", GgufArray(0)).items or ()),
        header.text("general.description")[:300],
        header.notes,
    )
    if any(_is_projector(name) for name in found.files):
        shape.notes.append("vision: its projector is not used by llama.cpp here; texts alone")
    return shape


def _is_projector(name: str) -> bool:
    return "mmproj" in posixpath.basename(name).casefold() and name.casefold().endswith(".gguf")


def _words(header: _Header) -> int:
    words = header.header.arrays.get("tokenizer.ggml.tokens", GgufArray(0)).length
    count = words or header.number("vocab_size")
    if not count:
        raise header.fail(f"has neither tokenizer.ggml.tokens nor {header.name}.vocab_size")
    return count


def _count(architecture: dict[str, Any], told: GgufHeader | None, header: _Header) -> None:
    """Adds the parameters: those of the tensors, or as the numbers give them."""
    parts = told.metadata.get("split.count", 1) if told else 1
    if told is None or not told.parameters or (type(parts) is int and parts > MOST_PARTS):
        _reckon(architecture, header.notes)
        return
    architecture["parameters"] = told.parameters
    used, experts = architecture["experts_per_token"], architecture["experts"]
    idle = told.expert_parameters * (experts - used) // experts if experts else 0
    architecture["active_parameters"] = max(1, told.parameters - idle)


# config.json


class _Config:
    """Numbers of a config.json, of its language model where it has several."""

    def __init__(self, reference: str, config: Mapping[str, Any]) -> None:
        self.fail = _Failure(reference, CONFIG)
        self.top = config
        self.inner: Mapping[str, Any] = {}
        outer: Mapping[str, Any] = config
        for name in ("thinker_config", "text_config", "llm_config", "language_config"):
            found = outer.get(name)
            if isinstance(found, dict):
                outer = self.inner = found

    def get(self, key: str) -> Any:
        value = self.inner.get(key)
        return self.top.get(key) if value is None else value

    def number(self, name: str) -> int | None:
        for key in _NAMES[name]:
            value = self.get(key)
            if isinstance(value, list) and value and all(type(item) is int for item in value):
                value = max(value)
            if value is None:
                continue
            if type(value) is not int or not 0 <= value <= 1 << 53:
                raise self.fail(f"has {str(value)[:40]} as {key}")
            return value
        return None

    def needed(self, name: str) -> int:
        value = self.number(name)
        if not value:
            raise self.fail(f"has no {' or '.join(_NAMES[name][:2])}")
        return value


def _from_config(reference: str, found: Found, given: Mapping[str, Any]) -> _Shape:
    config, notes = _Config(reference, given), []
    hidden, heads = config.needed("hidden_size"), config.needed("attention_heads")
    experts = config.number("experts") or 0
    inner = (config.number("expert_size") if experts else None) or config.number(
        "intermediate_size"
    )
    if not inner:
        inner = 4 * hidden
        notes.append(f"intermediate_size is not told: 4 × {hidden} stands for it")
    windowed = config.get("use_sliding_window") is not False
    name = _architecture_name(config)
    architecture = {
        "name": name,
        "layers": config.needed("layers"),
        "hidden_size": hidden,
        "intermediate_size": inner,
        "attention_heads": heads,
        "key_value_heads": config.number("key_value_heads") or heads,
        "head_dim": config.number("head_dim") or max(1, hidden // heads),
        "vocabulary_size": config.needed("vocabulary_size"),
        "experts": experts,
        "experts_per_token": (config.number("experts_per_token") or experts) if experts else 0,
        "sliding_window": (config.number("sliding_window") or None) if windowed else None,
        "tied_embeddings": config.get("tie_word_embeddings") is True,
    }
    type_ = _type(config, found, name)
    template, where = _template(found)
    abilities = _abilities(type_, template, where, notes)
    if type_ == "LLM" and isinstance(given.get("vision_config"), dict):
        abilities.append("vision")
    shape = _Shape(architecture, _context(config, found, type_), type_, abilities, notes=notes)
    _weigh(config, found, shape)
    return shape


def _architecture_name(config: _Config) -> str:
    named = config.top.get("architectures") or config.inner.get("architectures")
    if not isinstance(named, list) or not named or not isinstance(named[0], str):
        raise config.fail("has no architectures")
    return str(named[0])


def _type(config: _Config, found: Found, name: str) -> str:
    labels = config.get("id2label")
    if name.endswith("ForSequenceClassification"):
        count = len(labels) if isinstance(labels, dict) else config.get("num_labels") or 1
        if count != 1:
            raise config.fail(f"is of {name} with {count} labels: a reranker has one")
        return "rerank"
    pooled = "modules.json" in found.files or "1_Pooling/config.json" in found.files
    if pooled or SENTENCES in found.files:
        return "embedding"
    if name.endswith(("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")):
        return "LLM"
    if config.get("model_type") in _ENCODER_TYPES:
        return "embedding"
    raise config.fail(f"is of {name}, which neither generates, nor embeds, nor ranks")


def _context(config: _Config, found: Found, type_: str) -> int:
    told = config.number("context")
    sentences, tokenizer = (found.texts.get(name) for name in (SENTENCES, TOKENIZER))
    if type_ != "LLM" and isinstance(sentences, dict):
        longest = sentences.get("max_seq_length")
        if type(longest) is int and longest > 0:
            return longest
    if not told and isinstance(tokenizer, dict):
        longest = tokenizer.get("model_max_length")
        # Tokenizers without a limit state a number like 10**30.
        if type(longest) is int and 0 < longest < 1 << 31:
            return longest
    if not told:
        raise config.fail("has no max_position_embeddings, and tokenizer_config.json no limit")
    return told


def _template(found: Found) -> tuple[str, str]:
    """The chat template and the file that has it; empty where there is none."""
    whole, wrapped = (found.texts.get(name) for name in TEMPLATES)
    if isinstance(whole, str) and whole.strip():
        return whole, TEMPLATES[0]
    for name, data in ((TEMPLATES[1], wrapped), (TOKENIZER, found.texts.get(TOKENIZER))):
        told = data.get("chat_template") if isinstance(data, dict) else None
        if isinstance(told, list):  # several, of which one may be for tools
            told = "\n".join(
                str(one["template"]) for one in told if isinstance(one, dict) and "template" in one
            )
        if isinstance(told, str) and told.strip():
            return told, name
    return "", TOKENIZER


def _abilities(type_: str, template: str, where: str, notes: list[str]) -> list[str]:
    if type_ != "LLM":
        return ["embed" if type_ == "embedding" else "rerank"]
    if not template:
        notes.append(f"chat: {where} has no chat template; the model continues texts")
        return ["generate"]
    abilities = ["generate", "chat"]
    if re.search(r"\btools\b", template):
        abilities.append("tools")
    if re.search(r"</?think>|enable_thinking|reasoning_content|<\|channel\|>", template):
        abilities.append("reasoning")
    return abilities


def _weigh(config: _Config, found: Found, shape: _Shape) -> None:
    """Adds the parameters: from the files' length where their type is told, else reckoned."""
    dtype = str(config.get("dtype") or config.get("torch_dtype") or "").removeprefix("torch.")
    width = _WIDTHS.get(dtype)
    packed = config.get("quantization_config") or config.get("quantization")
    total = sum(found.files[n] for n in found.chosen if n.endswith(".safetensors"))
    if not width or packed or not total or OLD_GPTQ in found.files:
        _reckon(shape.architecture, shape.notes)
        return
    architecture = shape.architecture
    _reckon(architecture, [])
    every, active = architecture["parameters"], architecture["active_parameters"]
    architecture["parameters"] = max(1, total // width)
    idle = min(every - active, architecture["parameters"] - 1)
    architecture["active_parameters"] = architecture["parameters"] - idle
    shape.notes.append(f"parameters: the length of its files, at {width} bytes each")


def _reckon(a: dict[str, Any], notes: list[str]) -> None:
    """Adds the parameters of a transformer with these numbers: gated feed-forward, no biases."""
    width, head = a["hidden_size"], a["head_dim"]
    attention = 2 * width * head * (a["attention_heads"] + a["key_value_heads"])
    expert = 3 * width * a["intermediate_size"]
    words = a["vocabulary_size"] * width * (1 if a["tied_embeddings"] else 2)

    def every(experts: int) -> int:
        layer = attention + expert * max(1, experts) + width * a["experts"] + 2 * width
        return int(words + a["layers"] * layer + width)

    a["parameters"] = every(a["experts"])
    a["active_parameters"] = every(a["experts_per_token"])
    notes.append("parameters: nobody states them; reckoned from the numbers of its layers")


def _stored_weights(
    reference: str,
    found: Found,
    config: Mapping[str, Any],
    pickles: Sequence[str],
    shape: _Shape,
) -> dict[str, Any]:
    format_, quantization = _format(reference, found, config)
    engines = _ENGINES[format_]
    if shape.type != "LLM":
        engines = tuple(name for name in engines if name != "SGLang")
    names = [name for name in found.chosen if name.endswith(".safetensors")] or pickles
    return {
        "format": format_,
        "size": size_of(shape.architecture["parameters"]),
        "quantizations": [quantization],
        "engines": list(engines),
        "sources": [_source(found)],
        "size_bytes": {quantization: max(1, sum(found.files[name] for name in names))},
    }


def _format(reference: str, found: Found, given: Mapping[str, Any]) -> tuple[str, str]:
    """Format and quantization, by the names that the built-in specs use."""
    config = _Config(reference, given)
    packed = config.get("quantization_config")
    if not isinstance(packed, dict):
        mlx, old = config.get("quantization"), found.texts.get(OLD_GPTQ)
        if isinstance(mlx, dict) and type(mlx.get("bits")) is int:
            return "mlx", f"{mlx['bits']}bit"
        if not isinstance(old, dict):
            return "pytorch", "none"
        packed = {"quant_method": "gptq", **old}
    method, bits = str(packed.get("quant_method")), packed.get("bits")
    if method in {"gptq", "awq"} and bits in {2, 3, 4, 8}:
        return method, f"Int{bits}"
    if method == "bitsandbytes" and packed.get("load_in_4bit") is True:
        return "bnb", "Int4"
    if method == "bitsandbytes" and packed.get("load_in_8bit") is True:
        return "bnb", "Int8"
    if method in {"fp8", "fbgemm_fp8"}:
        return "fp8", "fp8"
    if method == "mxfp4":  # which the loader itself unpacks
        return "pytorch", "none"
    raise config.fail(f"has quantization_config.quant_method {method[:40]!r} ({bits} bits), which "
                      "is none of Paddock's formats")  # fmt: skip


def _code(found: Found) -> tuple[str, ...]:
    """Where code is that loading the model's own classes would run."""
    named = [
        f"auto_map in {name}"
        for name in (CONFIG, TOKENIZER)
        if isinstance(found.texts.get(name), dict) and found.texts[name].get("auto_map")
    ]
    return (*named, *sorted(name for name in found.files if name.endswith(".py")))


# What people write


def _card(text: Any) -> dict[str, Any]:
    """License and languages of a model card, from the YAML between its first lines."""
    found = _FRONT.match(text) if isinstance(text, str) else None
    if found is None:
        return {}
    import yaml

    loader: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)  # they make nothing but text
    try:
        front = yaml.load(found[1], Loader=loader)  # noqa: S506
    except (yaml.YAMLError, RecursionError):
        return {}
    if not isinstance(front, dict):
        return {}
    license = front.get("license")
    if license == "other" and isinstance(front.get("license_name"), str):
        license = front["license_name"]
    if isinstance(license, list) and license:
        license = license[0]
    languages = front.get("language")
    if isinstance(languages, str):
        languages = [languages]
    return {
        "license": _line(license)[:100] if isinstance(license, str) else "",
        "languages": _languages(languages if isinstance(languages, list) else ()),
    }


def _languages(items: Iterable[Any]) -> tuple[str, ...]:
    plain = [i for i in items if isinstance(i, str) and re.fullmatch(r"[A-Za-z][A-Za-z-]{1,15}", i)]
    return tuple({item.casefold(): item for item in plain}.values())


def _line(text: str) -> str:
    """Text of strangers on one line, without control characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
