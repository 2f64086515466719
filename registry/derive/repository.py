"""The contents at a reference, and the facts that a spec needs of them, whatever file has them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from paddock.registry.errors import NoSpec
from paddock.registry.formats import FORMATS, weight_format
from paddock.registry.gguf import GgufHeader, GgufKind
from paddock.registry.hubs import find_hub
from paddock.registry.reference import Reference
from paddock.registry.spec import ModelSpec

SMALL_BYTES = 4 << 20
"""The largest configuration that is read. Those of tokenizers reach 1 MB."""
CARD_BYTES = 256 << 10
MOST_SHARDS = 64
"""A file in more parts than this has only its first header read."""
CARD = "README.md"
CONFIG, TOKENIZER = "config.json", "tokenizer_config.json"
TEMPLATES = ("chat_template.jinja", "chat_template.json")
SENTENCES = "sentence_bert_config.json"
OLD_GPTQ = "quantize_config.json"
CODE_CONFIGS = (
    CONFIG,
    TOKENIZER,
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
)
"""Files that can name the repository's own classes."""
READ = (*CODE_CONFIGS, *TEMPLATES, SENTENCES, OLD_GPTQ)
_PICKLES = re.compile(r"(?:^|/)[^/]*\.(?:bin|pt|pth|ckpt|pkl)$")
# Files that trainers leave beside the weights.
_LEFTOVERS = re.compile(r"(?:^|/)(?:training_args|optimizer|scheduler|rng_state|scaler)[^/]*$")
OF_VECTORS = "sentence-transformers"
"""The engine that takes an LLM's place where safetensors embed or rank."""


def engines_of(format_: str, type_: str) -> tuple[str, ...]:
    """The engines that read a format, for a type of model."""
    if type_ == "LLM":
        return FORMATS[format_].engines
    engines = tuple(
        name for name in FORMATS[format_].engines if name not in {"Transformers", "SGLang"}
    )
    return (OF_VECTORS, *engines) if format_ == "pytorch" else engines


@dataclass(frozen=True)
class RepositoryContents:
    """The contents of the repository at a reference.

    Attributes:
        commit: identifies exactly these files.
        files: name → bytes, of all files.
        chosen: the files of the variant in safetensors; empty if there is none.
        texts: the files that were read: parsed JSON, or other text as it is. None stands for a
            file that is too large or not JSON.
        header: of the GGUF file `header_file`, summed over its parts.
        kinds: what GGUF files are for, as far as their headers were read.
        foreign: weights that are none, such as a pointer in their place, and what they are.
    """

    reference: Reference
    commit: str
    files: Mapping[str, int]
    chosen: Sequence[str]
    texts: Mapping[str, Any]
    header: GgufHeader | None = None
    header_file: str = ""
    kinds: Mapping[str, GgufKind | str] = field(default_factory=dict)
    foreign: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Derived:
    """A spec that was made from a repository's contents.

    Attributes:
        reference: the repository, in its shortest form.
        commit: identifies the files.
        notes: facts that the repository does not state, and the values that stand for them.
        code: the places of code that would run with a variant that is not GGUF.
        pickles: the pickled weights, if there are no safetensors.
    """

    reference: str
    commit: str
    spec: ModelSpec
    notes: tuple[str, ...] = ()
    code: tuple[str, ...] = ()
    pickles: tuple[str, ...] = ()

    def risk(self, format: str) -> str:
        """The parts of a variant in this format that would run code; empty if there are none."""
        if not weight_format(format).may_have_code:
            return ""
        risks = []
        if self.code:
            risks.append(f"code in the repository ({few(self.code)})")
        if self.pickles:
            risks.append(f"pickled weights and no safetensors ({few(self.pickles)})")
        return " and ".join(risks)

    def to_json(self) -> dict[str, Any]:
        """The spec and its notes as plain values."""
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
    """Files to read: small ones entirely, and the header of each part of one GGUF file.

    `kinds` are GGUF files whose first entries say what they are for: where there are any, they are
    read first, and `to_read` is asked again. Of `heads` the first bytes are read: they are too
    small for weights.
    """

    small: tuple[str, ...]
    gguf: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    heads: tuple[str, ...] = ()


@dataclass
class Shape:
    """A model as a header or a configuration describes it."""

    architecture: dict[str, Any]
    context: int
    type: str
    abilities: list[str]
    license: str = ""
    languages: tuple[str, ...] = ()
    description: str = ""
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Failure:
    """Makes errors about one file."""

    reference: str
    file: str

    def __call__(self, reason: str) -> NoSpec:
        """The error, to be raised."""
        return NoSpec(self.reference, self.file, reason)


def size_of(parameters: int) -> str:
    """Parameters as a spec's size: two digits below ten billion, tenths to a hundred."""
    billions = max(parameters / 1e9, 0.0001)
    if billions >= 10:
        text = f"{billions:.1f}" if billions < 99.95 else f"{billions:.0f}"
    else:
        text = f"{float(f'{billions:.2g}'):.4f}"
    integer, _, fraction = text.partition(".")
    fraction = fraction.rstrip("0")
    return f"{integer}_{fraction}" if fraction else integer


def is_pickled(name: str) -> bool:
    """Whether a file holds pickled weights, by its name."""
    return _PICKLES.search(name) is not None and not _LEFTOVERS.search(name)


def few(names: Sequence[str]) -> str:
    """The first three of the names, and how many more there are."""
    more = len(names) - 3
    return ", ".join(names[:3]) + (f" and {more} more" if more > 0 else "")


def source_at(repository: RepositoryContents, file: str | None = None) -> dict[str, Any]:
    """The repository's `Source` as plain values; pinned to the commit if the hub has commits."""
    reference = repository.reference
    site = find_hub(reference.hub)
    has_commits = site is not None and site.has_commits
    revision = repository.commit if has_commits else reference.revision
    source = {
        "hub": reference.hub,
        "id": reference.id,
        "revision": revision,
        "file_template": file,
    }
    return {key: value for key, value in source.items() if value is not None}


_THINKS = (
    r"</?think>|enable_thinking|reasoning_content|<\|channel\|?>|\[THINK\]|<seed:think>|<mm:think>"
)


def abilities_by(type_: str, template: str, where: str, notes: list[str]) -> list[str]:
    """The abilities of a model by its type and by the chat template in the file `where`."""
    if type_ != "LLM":
        return ["embed" if type_ == "embedding" else "rerank"]
    if not template:
        notes.append(f"chat: {where} has no chat template; the model continues texts")
        return ["generate"]
    abilities = ["generate", "chat"]
    if re.search(r"\btools\b", template):
        abilities.append("tools")
    if re.search(_THINKS, template):
        abilities.append("reasoning")
    return abilities


def reckon(a: dict[str, Any], notes: list[str]) -> None:
    """Adds the parameters of a transformer with these numbers: gated feed-forward, no biases."""
    width, head = a["hidden_size"], a["head_dim"]
    attention = 2 * width * head * (a["attention_heads"] + a["key_value_heads"])
    if rank := a.get("kv_lora_rank"):  # queries, latent row, keys and values of it, output
        heads, rope, value = a["attention_heads"], a["qk_rope_head_dim"], a.get("v_head_dim", head)
        queries = a.get("q_lora_rank")
        attention = queries * (width + heads * head) if queries else width * heads * head
        attention += width * (rank + rope) + rank * heads * (head - rope + value)
        attention += width * heads * value
    expert = 3 * width * a["intermediate_size"]
    words = a["vocabulary_size"] * width * (1 if a["tied_embeddings"] else 2)

    def every(experts: int) -> int:
        layer = attention + expert * max(1, experts) + width * a["experts"] + 2 * width
        return int(words + a["layers"] * layer + width)

    a["parameters"] = every(a["experts"])
    a["active_parameters"] = every(a["experts_per_token"])
    notes.append("parameters: nobody states them; reckoned from the numbers of its layers")


def scaled_context(kind: object, factor: object, original: object, context: int) -> int:
    """The context that RoPE's scaling gives a model of so many positions, as vLLM reckons it.

    YaRN multiplies the original context; linear and dynamic scaling multiply what is stated. A
    factor that is none, or no longer context, leaves it as it is.
    """
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not 1 < factor <= 1024:
        return context
    if kind not in {"yarn", "linear", "dynamic", "ntk"}:
        return context
    is_stated = type(original) is int and 0 < original <= 1 << 31
    base = original if is_stated and isinstance(original, int) else context
    return max(context, round(base * factor))


def languages_of(items: Iterable[Any]) -> tuple[str, ...]:
    """The items that are codes of languages."""
    plain = [i for i in items if isinstance(i, str) and re.fullmatch(r"[A-Za-z][A-Za-z-]{1,15}", i)]
    return tuple({item.casefold(): item for item in plain}.values())


def one_line(text: str) -> str:
    """An untrusted text on one line, without control characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
