"""Which GGUF files of a repository are its model, and by which labels: by headers, then by names.

Beside a model there may be projectors, drafters, LoRA adapters, importance matrices and other
models. The first entries of a header tell them apart; names count only where no header was read.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from pydantic import ValidationError

from paddock.registry.errors import NoSpec
from paddock.registry.gguf import GgufKind
from paddock.registry.reference import Reference
from paddock.registry.shards import shard_names, unsharded_name
from paddock.registry.spec import Source

Role = Literal["model", "projector", "drafter", "other"]
Kinds = Mapping[str, GgufKind | str]
"""File → what its header says that it is for; a text says why it is no GGUF."""

MOST_KINDS = 32
"""Headers that are read to tell a repository's files apart."""
_SIMILAR = 3.0
"""Files of one model have about as many weights by size and label: within this factor."""
_TYPE = (
    r"(?:I?Q[1-8](?:_(?:[0-9]|X{0,3}[SML]|NL|K[A-Z]{0,2}|[A-Z]|R[0-9]{1,2}))*|TQ[12]_[0-9]"
    r"|MXFP[468](?:_MOE)?|NVFP4|BF16|FP?16|FP?32|FP?8)"
)
_LABEL = re.compile(
    rf"(?:^|[-._/])((?:(?:UD|i1|smol)-)?[0-9]{{0,3}}{_TYPE}(?:[-+][0-9]{{1,3}}{_TYPE})*)(?=$|[-._/])",
    re.IGNORECASE,
)
_BITS = re.compile(r"BF16|FP?(?P<float>16|32|8)|(?:Q|FP)(?P<digit>[1-8])", re.IGNORECASE)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,95}")
_BY_NAME: Sequence[tuple[re.Pattern[str], Role, str]] = (
    (re.compile(r"mmproj", re.IGNORECASE), "projector", "a projector"),
    (re.compile(r"imatrix", re.IGNORECASE), "other", "an importance matrix"),
)
_DRAFTS = re.compile(r"(?:^|[-._/])(?:mtp|eagle3?|dflash|draft(?:er)?)(?=$|[-._/])", re.IGNORECASE)
_DRAFTERS = {"eagle", "eagle3", "dflash", "medusa"}
_TYPES: Mapping[str, tuple[Role, str]] = {
    "adapter": ("other", "a LoRA adapter"),
    "imatrix": ("other", "an importance matrix"),
    "mmproj": ("projector", "a projector"),
    "clip-vision": ("projector", "a projector"),
}
_ARCHITECTURES: Mapping[str, tuple[Role, str]] = {
    "clip": ("projector", "a projector"),
    "controlvector": ("other", "a control vector"),
    "wavtokenizer-dec": ("other", "a vocoder"),
}


@dataclass(frozen=True)
class Gguf:
    """A model in one file, or in parts of which `file` is the first."""

    file: str
    parts: tuple[str, ...]
    size_bytes: int
    quantization: str | None


@dataclass(frozen=True)
class GgufFiles:
    """The GGUF files of a repository.

    Attributes:
        models: the files of one model, smallest first.
        drafters: files that draft tokens for it.
        unread: files whose headers would tell more.
        notes: one for each file that is left out.
    """

    models: tuple[Gguf, ...]
    drafters: tuple[str, ...]
    unread: tuple[str, ...]
    notes: tuple[str, ...]


def find_ggufs(reference: Reference, files: Mapping[str, int], kinds: Kinds) -> GgufFiles:
    """Sorts the GGUF files by what they are for.

    Raises:
        NoSpec: the file that the reference names is not there, or no model.
    """
    notes: list[str] = []
    names = [name for name in files if name.casefold().endswith(".gguf")]
    only = (shard_names(reference.file) or (reference.file,))[0] if reference.file else None
    found: list[Gguf] = []
    for name in sorted(names, key=lambda name: (files[name], name)):
        if only and name != only:
            continue
        if not _is_plain(reference, name):
            notes.append(f"{name} is left out: the name holds what no spec may")
            continue
        parts = shard_names(name) or (name,)
        if name != parts[0]:
            continue
        missing = [part for part in parts if part not in files]
        if missing or (unsharded_name(name) != name and not shard_names(name)):
            lacking = f"{missing[0]} is not there" if missing else "it is a part of nothing"
            notes.append(f"{name} is left out: {lacking}")
            continue
        found.append(Gguf(name, parts, sum(files[part] for part in parts), _label(name)))
    models, drafters = _sort(found, kinds, notes)
    if reference.file and not models:
        reason = notes[0].removeprefix(reference.file).strip() if notes else "is not there"
        raise NoSpec(reference.text, reference.file, reason)
    unread = _unread(found, kinds)[: max(0, MOST_KINDS - len(kinds))]
    return GgufFiles(tuple(models), tuple(drafters), tuple(unread), tuple(notes))


def _sort(found: Sequence[Gguf], kinds: Kinds, notes: list[str]) -> tuple[list[Gguf], list[str]]:
    """The models and the drafters, with a note for each file that is neither."""
    known = _known(found, kinds)
    models: list[Gguf] = []
    drafters: list[str] = []
    for one in found:
        kind = known.get(one.file)
        if isinstance(kind, str):
            notes.append(f"{one.file} is no whole GGUF: {kind}")
            continue
        role, words = role_of(one.file, kind)
        if role == "model":
            models.append(one)
        elif role == "drafter":
            drafters.append(one.file)
        else:
            notes.append(f"{one.file} is no model of its own, but {words}")
    models, others = _one_model(models, known)
    for one in others:
        if _DRAFTS.search(one.file):
            drafters.append(one.file)
        else:
            kind = known[one.file]
            assert isinstance(kind, GgufKind)
            shape = f"{kind.architecture}, {kind.layers} layers of {kind.hidden_size}"
            note = f"{one.file} is left out: it is another model ({shape})"
            notes.append(f"{note}; its own address names it")
    return models, drafters


def role_of(name: str, kind: GgufKind | None) -> tuple[Role, str]:
    """What a file is for, and what it is in words; without its header by its name."""
    base = posixpath.basename(name)
    if kind is None:
        named = ((role, words) for pattern, role, words in _BY_NAME if pattern.search(base))
        return next(named, ("model", "a model"))
    if kind.type in _TYPES:
        return _TYPES[kind.type]
    if kind.architecture in _ARCHITECTURES:
        return _ARCHITECTURES[kind.architecture]
    if kind.architecture.endswith("-assistant") or kind.architecture in _DRAFTERS:
        return "drafter", "a drafter"
    if not kind.tensors and not shard_names(name):
        return "other", "a vocabulary without weights"
    return "model", "a model"


def _one_model(models: list[Gguf], known: Kinds) -> tuple[list[Gguf], list[Gguf]]:
    """The files of the model that most of them are of, and those of other models."""
    shapes: dict[tuple[str, int, int], list[Gguf]] = {}
    for one in models:
        kind = known.get(one.file)
        if isinstance(kind, GgufKind) and kind.layers:
            key = (kind.architecture, kind.layers, kind.hidden_size)
            shapes.setdefault(key, []).append(one)
    if len(shapes) < 2:
        return models, []
    main = max(shapes.values(), key=lambda one: (len(one), sum(file.size_bytes for file in one)))
    others = [file for shape in shapes.values() if shape is not main for file in shape]
    return [one for one in models if one not in others], others


def _known(found: Sequence[Gguf], kinds: Kinds) -> dict[str, GgufKind | str]:
    """Kinds, also of files whose names and sizes say that they are one model with another's."""
    known = {one.file: kinds[one.file] for one in found if one.file in kinds}
    for one in found:
        if one.file in known:
            continue
        close = [other for other in found if _is_model(other, kinds) and _are_alike(one, other)]
        if close:
            known[one.file] = kinds[min(close, key=lambda other: _distance(one, other)).file]
    return known


def _unread(found: Sequence[Gguf], kinds: Kinds) -> list[str]:
    """The smallest file of each group that has no kind yet."""
    groups: dict[str, list[Gguf]] = {}
    for one in found:
        groups.setdefault(_group(one), []).append(one)
    unread = []
    for group in groups.values():
        rest = [one for one in group if one.file not in kinds]
        if not any(_is_model(one, kinds) for one in group):
            unread += [min(rest, key=lambda one: (len(one.parts), one.size_bytes))] if rest else []
            continue
        usual = median(map(_weights, group))
        unread += [one for one in rest if not usual / _SIMILAR <= _weights(one) <= usual * _SIMILAR]
    return [one.file for one in unread]


def _is_model(one: Gguf, kinds: Kinds) -> bool:
    """Whether its header was read, and is a model's."""
    kind = kinds.get(one.file)
    return isinstance(kind, GgufKind) and role_of(one.file, kind)[0] == "model"


def _are_alike(one: Gguf, other: Gguf) -> bool:
    return _group(one) == _group(other) and abs(_distance(one, other)) <= _SIMILAR


def _distance(one: Gguf, other: Gguf) -> float:
    """How many times as many weights one file has by its size and label."""
    first, second = sorted((_weights(one), _weights(other)))
    return second / first


def _group(one: Gguf) -> str:
    """The name without its label: files that differ in it alone are mostly one model's."""
    name = unsharded_name(one.file)
    return name.replace(one.quantization, "*") if one.quantization else name


def _weights(one: Gguf) -> float:
    found = _BITS.search(one.quantization or "")
    bits = int((found["float"] or found["digit"] or 16) if found else 16)
    return max(1, one.size_bytes) / bits


def _is_plain(reference: Reference, name: str) -> bool:
    try:
        Source(hub=reference.hub, id=reference.id, file_template=name)
    except ValidationError:
        return False
    return "{" not in name


def _label(name: str) -> str | None:
    """The last quantization that a path names."""
    labels = _LABEL.findall(unsharded_name(name)[: -len(".gguf")])
    return str(labels[-1]) if labels else None


def name_label(file: str, taken: Collection[str]) -> str | None:
    """A label of a file whose quantization is not told or not its alone: its name.

    None where that is no label, or is one of `taken`, which are in lower case.
    """
    stem = unsharded_name(file)[: -len(".gguf")]
    for label in (posixpath.basename(stem), stem.replace("/", "-")):
        if _NAME.fullmatch(label) and ".." not in label and label.casefold() not in taken:
            return label
    return None


def projectors_of(files: Iterable[str], kinds: Kinds) -> list[str]:
    """Returns files at the repository's top that make tokens of pictures, the best first."""

    def is_projector(name: str) -> bool:
        kind = kinds.get(name)
        return not isinstance(kind, str) and role_of(name, kind)[0] == "projector"

    names = [name for name in files if name.casefold().endswith(".gguf") and "/" not in name]
    return sorted(
        filter(is_projector, names), key=lambda name: ("f16" not in name.casefold(), name)
    )


_PARTS = re.compile(
    r"(?P<whole>.+\.(?:gguf|safetensors))"
    r"(?:[-._]?(?:part|split)[-._]?[0-9a-z]{1,3}(?:of[0-9]{1,3})?|\.[0-9]{2,3})",
    re.IGNORECASE,
)


def parts_to_join(files: Iterable[str]) -> dict[str, list[str]]:
    """Returns files that were cut into parts that no loader reads, by the name that they had."""
    parts: dict[str, list[str]] = {}
    for name in sorted(files):
        if match := _PARTS.fullmatch(name):
            parts.setdefault(match["whole"], []).append(name)
    return parts
