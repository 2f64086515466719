"""Puts a spec together from a repository's contents."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from pydantic import ValidationError

from paddock.registry.derive.config import from_config, stored_weights
from paddock.registry.derive.gguf import from_header, gguf_weights
from paddock.registry.derive.gguf_files import GgufFiles, Kinds, find_ggufs, parts_to_join
from paddock.registry.derive.repository import (
    CARD,
    CARD_BYTES,
    CODE_CONFIGS,
    CONFIG,
    MOST_SHARDS,
    READ,
    Derived,
    Reads,
    RepositoryContents,
    Shape,
    few,
    is_pickled,
    languages_of,
    one_line,
)
from paddock.registry.errors import NoSpec
from paddock.registry.formats import weight_format
from paddock.registry.gguf import HEAD_BYTES
from paddock.registry.hubs import find_hub
from paddock.registry.reference import Reference
from paddock.registry.shards import unsharded_name
from paddock.registry.spec import ModelSpec
from paddock.registry.spec_fields import PLACEHOLDER

UNKNOWN_LICENSE, UNKNOWN_LANGUAGE = "unknown", "und"
RECOMMENDED = ("Q4_K_M", "Q5_K_M")
NO_KINDS: Kinds = {}
MOST_NOTES = 40
MOST_NAMED = 100
_FRONT = re.compile(r"\s*---[ \t]*\n(.*?)\n---[ \t]*(?:\n|$)", re.DOTALL)


def to_read(reference: Reference, files: Mapping[str, int], kinds: Kinds = NO_KINDS) -> Reads:
    """The files that hold the facts for a spec; `kinds` are those that were read before.

    Raises:
        NoSpec: no file is a model, or the file that the reference names is missing.
    """
    found = find_ggufs(reference, files, kinds)
    card = (CARD,) if 0 < files.get(CARD, 0) <= CARD_BYTES else ()
    stored = any(name.endswith(".safetensors") or is_pickled(name) for name in files)
    small: tuple[str, ...] = ()
    heads: tuple[str, ...] = ()
    if stored and not reference.file:
        small = tuple(name for name in READ if name in files)
        heads = tuple(
            name
            for name, size in files.items()
            if name.endswith(".safetensors") and size <= HEAD_BYTES
        )[:MOST_NAMED]
    if found.unread:
        return Reads((*small, *card), (), found.unread, heads)
    if not found.models and not stored:
        raise _nothing(reference, found.notes, files)
    if not found.models:
        return Reads((*small, *card), heads=heads)
    # Any model will do: the smallest, and one in a single file rather than in parts.
    first = min(
        found.models,
        key=lambda model: (len(model.parts), model.file not in kinds, model.size_bytes, model.file),
    )
    headers = first.parts if len(first.parts) <= MOST_SHARDS else first.parts[:1]
    return Reads((*small, *card), headers, heads=heads)


def _nothing(reference: Reference, notes: Sequence[str], files: Mapping[str, int]) -> NoSpec:
    """Why a repository without a model has none."""
    for whole, parts in parts_to_join(files).items():
        joined = f"cat {' '.join(parts[:3])}{' …' * (len(parts) > 3)} > {whole}"
        reason = f"has {whole} in {len(parts)} parts, which no engine reads: join them, as in"
        return NoSpec(reference.text, "", f"{reason} {joined}, and launch the file by its path")
    names = [name for name in files if name.casefold().endswith(".gguf")]
    if len(names) == len(notes) == 1:
        return NoSpec(reference.text, names[0], notes[0].removeprefix(names[0]).strip())
    reason = f"has no file of a model: {few(notes) or 'neither .gguf nor .safetensors'}"
    return NoSpec(reference.text, "", reason)


def derive(repository: RepositoryContents, today: date) -> Derived:
    """The spec of the repository; `today` stands for the release date, which no repository states.

    Raises:
        NoSpec: with the file that lacks what a spec needs.
    """
    text = repository.reference.text
    found = find_ggufs(repository.reference, repository.files, repository.kinds)
    models, notes = found.models, [*found.notes, *_companions(found)]
    notes += [
        f"{name} could not be read" for name, data in repository.texts.items() if data is None
    ]
    shape: Shape | None = None
    weights: list[dict[str, Any]] = []
    if models and repository.header is not None:
        shape = from_header(text, repository)
        weights += gguf_weights(repository, models, shape)
    has_no_file = not repository.reference.file
    for name, kind in repository.foreign.items():
        raise NoSpec(text, name, f"is no safetensors file but {kind}")
    pickles: tuple[str, ...] = ()
    if has_no_file and not repository.chosen and shape is None:
        pickles = tuple(filter(is_pickled, repository.files))
    code: tuple[str, ...] = ()
    if has_no_file and (repository.chosen or pickles):
        try:
            config_shape = from_config(text, repository)
            shape = shape or config_shape
            weights.append(stored_weights(text, repository, pickles, shape))
            code = _code(repository)
        except NoSpec as error:
            if not weights:
                raise
            notes.append(f"the safetensors are left out: {error.file} {error.reason}")
    if shape is None or not weights:
        raise NoSpec(text, "", "holds no model whose format and quantization can be told")
    shape.notes[:0] = notes
    spec = _spec(repository, shape, weights, today)
    short_notes = _short(shape.notes)
    return Derived(
        text, repository.commit, spec, short_notes, code[:MOST_NAMED], pickles[:MOST_NAMED]
    )


def _companions(found: GgufFiles) -> list[str]:
    if not found.drafters:
        return []
    return [f"speculative decoding: {few(found.drafters)} can draft for it"]


def _short(notes: Sequence[str]) -> tuple[str, ...]:
    """The notes, or only the first ones if there are many."""
    more = len(notes) - MOST_NOTES
    return (*notes[:MOST_NOTES], *([f"and {more} more such notes"] if more > 0 else []))


def _spec(
    repository: RepositoryContents, shape: Shape, weights: list[dict[str, Any]], today: date
) -> ModelSpec:
    reference, notes = repository.reference, shape.notes
    card = _card(repository.texts.get(CARD))
    license = shape.license or card.get("license", "")
    languages = shape.languages or tuple(card.get("languages", ()))
    if not license:
        notes.append("license: the repository names none")
    if not languages:
        notes.append("languages: the repository names none")
    notes.append("released: repositories do not tell; the day of this reading stands for it")
    known = {q.casefold(): q for entry in weights for q in entry["quantizations"]}
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
        "notes": "\n".join(
            [f"Derived from {reference.text} at {repository.commit}.", *_short(notes)]
        ),
    }
    try:
        return ModelSpec.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        at = ".".join(map(str, (*first["loc"], *first.get("ctx", {}).get("at", ()))))
        source = repository.header_file or CONFIG
        raise NoSpec(
            reference.text, source, f"does not fit together: {at}: {first['msg']}"
        ) from None


def _homepage(reference: Reference) -> str | None:
    site = find_hub(reference.hub)
    return site.page(reference.id) if site is not None else None


def _name(reference: Reference, weights: list[dict[str, Any]]) -> str:
    """The repository's name, or for weights on disk the file's name without its quantization."""
    name = posixpath.basename(reference.id)
    if reference.hub == "path" and weight_format(weights[0]["format"]).is_single_file:
        stem = posixpath.basename(weights[0]["sources"][0]["file_template"])
        stem = (
            unsharded_name(stem)[: -len(".gguf")]
            .replace(PLACEHOLDER, "")
            .replace(weights[0]["quantizations"][0], "")
        )
        name = stem.strip("-._") or name
    plain = re.sub(r"[^A-Za-z0-9_.-]+|\.\.+", "-", name).lstrip("-._")
    return plain[:96] or "model"


def _code(repository: RepositoryContents) -> tuple[str, ...]:
    """The places of code that would run if the model's own classes were loaded."""
    places = []
    for name in CODE_CONFIGS:
        data = repository.texts.get(name, {})
        if not isinstance(data, dict):
            places.append(f"{name}, which could not be read")
        elif data.get("auto_map"):
            places.append(f"auto_map in {name}")
    return (*places, *sorted(name for name in repository.files if name.endswith(".py")))


def _card(text: Any) -> dict[str, Any]:
    """License and languages of a model card, from the YAML between its first lines."""
    match = _FRONT.match(text) if isinstance(text, str) else None
    if match is None:
        return {}
    import yaml

    loader: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)  # these loaders yield only text
    try:
        front = yaml.load(match[1], Loader=loader)  # noqa: S506
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
        "license": one_line(license)[:100] if isinstance(license, str) else "",
        "languages": languages_of(languages if isinstance(languages, list) else ()),
    }
