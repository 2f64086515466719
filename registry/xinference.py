"""Translates a model as Xinference registers it (flat JSON) into a `ModelSpec`.

Two things that a spec needs are not in that JSON. The shape of the network is taken from the model
of the catalogue that `model_family` names, else reckoned from the size; the license is NOASSERTION.
The spec's notes say so, and name what was not taken over.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from pydantic import ValidationError

from paddock.registry.catalog import Catalog
from paddock.registry.derive.repository import engines_of
from paddock.registry.errors import BadValue, UnknownName
from paddock.registry.formats import FORMATS, weight_format
from paddock.registry.prompts import prompt_names
from paddock.registry.reference import parse_reference
from paddock.registry.shards import unsharded_name
from paddock.registry.spec import UNKNOWN_ARCHITECTURE, ModelSpec
from paddock.registry.spec_fields import parse_size

CONTEXT_LENGTH = 2048
"""Xinference's own default."""
# Xinference's abilities that have another name in Paddock.
_ABILITIES = {"hybrid": "reasoning"}
# Our field → theirs, for messages.
_NAMES = {
    "name": "model_name",
    "description": "model_description",
    "languages": "model_lang",
    "abilities": "model_ability",
    "weights": "model_specs",
    "format": "model_format",
    "size": "model_size_in_billions",
    "quantizations": "quantization",
    "revision": "model_revision",
    "file_template": "model_file_name_template",
    "hub": "model_hub",
    "id": "model_id",
}
# Fields of a variant that older registrations have at their top.
_OLD = (
    "model_uri",
    "model_id",
    "model_hub",
    "model_revision",
    "model_format",
    "model_size_in_billions",
    "model_file_name_template",
    "quantization",
)
# Fields that a spec has no place for. The notes name those that have a value.
_LEFT_OUT = ("stop_token_ids", "tool_parser", "virtualenv", "cache_config")


@dataclass
class _Building:
    """Weights in the making; `origins` has the number of the Xinference spec behind each source."""

    weights: list[dict[str, Any]] = field(default_factory=list)
    origins: list[list[int]] = field(default_factory=list)


def translate(
    kind: str, registration: Mapping[str, Any], catalog: Catalog, today: date
) -> ModelSpec:
    """The spec of a model of the type `kind`.

    Raises:
        BadValue: a field that is missing or wrong, by Xinference's name of it.
    """
    building = _weights(kind, registration)
    if kind != "LLM":
        for weights in building.weights:
            weights["engines"] = list(engines_of(weights["format"], kind))
    family = registration.get("model_family")
    shape, notes = _architecture(kind, registration, building, catalog)
    omitted = [name for name in _LEFT_OUT if registration.get(name)]
    if omitted:
        notes.append(f"Not taken over from the registration: {', '.join(omitted)}.")
    notes.append(f"Registered on {today.isoformat()}, which stands for the day of its release.")
    data: dict[str, Any] = {
        "name": registration.get("model_name"),
        "type": kind,
        "description": registration.get("model_description")
        or f"A model of the family {family or 'own'}.",
        "license": "NOASSERTION",
        "released": today.isoformat(),
        "languages": _listed(
            registration, "model_lang" if "model_lang" in registration else "language", ["en"]
        ),
        "abilities": _abilities(kind, registration),
        "context_length": registration.get("context_length")
        or registration.get("max_tokens")
        or CONTEXT_LENGTH,
        "architecture": shape,
        "stop": list(dict.fromkeys(_listed(registration, "stop", []))),
        "weights": building.weights,
        "notes": " ".join(notes),
    }
    template = registration.get("chat_template")
    if isinstance(template, str) and template in prompt_names():
        data["chat_format"] = template
    elif template:
        data["chat_template"] = template
    try:
        return ModelSpec.model_validate(data)
    except ValidationError as error:
        raise _refusal(error, building) from None


def _abilities(kind: str, registration: Mapping[str, Any]) -> list[Any]:
    if kind != "LLM":
        return ["embed" if kind == "embedding" else "rerank"]
    abilities = [
        _ABILITIES.get(str(name), name) for name in _listed(registration, "model_ability", [])
    ]
    # Xinference often lists `chat` alone, but a model that chats can also continue a text.
    return list(dict.fromkeys(["generate", *abilities]))


def _listed(registration: Mapping[str, Any], name: str, default: list[Any]) -> list[Any]:
    value = registration.get(name)
    if value is None:
        return default
    if not isinstance(value, list):
        raise BadValue(name, value, "must be a list")
    return value


def _weights(kind: str, registration: Mapping[str, Any]) -> _Building:
    building = _Building()
    specs = _listed(registration, "model_specs", [])
    if not specs and kind == "LLM" and "dimensions" in registration:
        reason = "has dimensions, as embedding models have: register it with --model-type embedding"
        raise BadValue("model_type", kind, reason)
    if not specs and kind != "LLM":
        specs = _at_the_top(registration)
    if not specs:
        reason = "must have at least one item, with model_format and model_uri or model_id"
        raise BadValue("model_specs", registration.get("model_specs"), reason)
    for number, spec in enumerate(specs):
        at = f"model_specs[{number}]"
        if not isinstance(spec, dict):
            raise BadValue(at, spec, "must be a JSON object")
        quantizations = spec.get("quantizations") or [spec.get("quantization") or "none"]
        if not isinstance(quantizations, list):
            raise BadValue(f"{at}.quantizations", quantizations, "must be a list")
        for quantization in quantizations:
            _add(building, number, spec, str(quantization))
    return building


def _at_the_top(registration: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The one variant of a registration from before `model_specs`: of an embedder or a reranker.

    Xinference's versions before 1.7 wrote them so.
    """
    named = {name: registration[name] for name in _OLD if registration.get(name) is not None}
    if not named.keys() & {"model_uri", "model_id"}:
        return []
    uri = str(named.get("model_uri", ""))
    format_ = "ggufv2" if uri.casefold().endswith(".gguf") else "pytorch"
    return [{"model_format": format_, "quantization": "none", **named}]


def _add(building: _Building, number: int, spec: Mapping[str, Any], quantization: str) -> None:
    """Adds one variant's source, if possible to the same variant from another hub."""
    at = f"model_specs[{number}]"
    format_, size = spec.get("model_format"), spec.get("model_size_in_billions", 1)
    source = _source(spec, at, quantization)
    try:
        size = parse_size(size)
    except BadValue as error:
        raise BadValue(f"{at}.model_size_in_billions", size, error.reason) from None
    key = {"format": format_, "size": size, "quantizations": [quantization]}
    for weights, origins in zip(building.weights, building.origins, strict=True):
        if key.items() <= weights.items() and source not in weights["sources"]:
            weights["sources"].append(source)
            origins.append(number)
            return
    if not isinstance(format_, str) or format_ not in FORMATS:
        raise BadValue(f"{at}.model_format", format_, f"must be one of {', '.join(FORMATS)}")
    building.weights.append({**key, "engines": list(FORMATS[format_].engines), "sources": [source]})
    building.origins.append([number])


def _template(spec: Mapping[str, Any], at: str, quantization: str) -> str | None:
    """The name of the one file, which may be kept in numbered parts."""
    in_parts = spec.get("quantization_parts") or {}
    if not isinstance(in_parts, dict):
        raise BadValue(f"{at}.quantization_parts", in_parts, "must be a JSON object")
    split = quantization in in_parts
    field = "model_file_name_split_template" if split else "model_file_name_template"
    template = spec.get(field)
    if not isinstance(template, str):
        if split:
            raise BadValue(f"{at}.{field}", template, f"is needed for the parts of {quantization}")
        return None
    filled = template.replace("{quantization}", quantization)
    if not split:
        return filled
    names = in_parts[quantization] if isinstance(in_parts[quantization], list) else []
    joined = {unsharded_name(filled.replace("{part}", str(name))) for name in names}
    if len(joined) != 1 or filled in joined:
        reason = "only parts numbered as in x-00001-of-00003.gguf can be loaded"
        raise BadValue(f"{at}.quantization_parts", in_parts, reason)
    return joined.pop()


def _source(spec: Mapping[str, Any], at: str, quantization: str) -> dict[str, Any]:
    filled = {
        name: value.replace("{quantization}", quantization)
        for name, value in spec.items()
        if isinstance(value, str)
    }
    uri = filled.get("model_uri")
    template = _template(spec, at, quantization)
    source: dict[str, Any] = {}
    if uri:
        folder, name = _path(uri, at)
        source = {"hub": "path", "id": folder}
        template = name or template
    else:
        source = {"hub": filled.get("model_hub", "huggingface"), "id": filled.get("model_id")}
        if filled.get("model_revision"):
            source["revision"] = filled["model_revision"]
    if template and weight_format(str(spec.get("model_format"))).is_single_file:
        source["file_template"] = template
    return source


def _path(uri: str, at: str) -> tuple[str, str | None]:
    """The folder of an URI or path, and the file if it names a GGUF file."""
    try:
        reference = parse_reference(uri, {}) if uri.startswith(("/", "file:")) else None
    except BadValue as error:
        raise BadValue(f"{at}.model_uri", uri, error.reason) from None
    if reference is None:
        reason = "must be an absolute path or file:///path; for a hub, give model_id and model_hub"
        raise BadValue(f"{at}.model_uri", uri, reason)
    return reference.id, reference.file


def _architecture(
    kind: str, registration: Mapping[str, Any], building: _Building, catalog: Catalog
) -> tuple[dict[str, Any], list[str]]:
    """The network's shape, and notes about its origin."""
    size = building.weights[0]["size"]
    family = registration.get("model_family")
    if isinstance(family, str):
        try:
            known = catalog.lookup(family)
        except UnknownName:
            pass
        else:
            stated = known.shape(size)
            if known.type == kind and size in known.sizes and not stated.reckoned:
                return stated.model_dump(), [f"Its architecture is {known.name}'s."]
    names: Iterable[Any] = _listed(registration, "architectures", [])
    shape = _reckoned(float(size.replace("_", ".")), next(iter(names), UNKNOWN_ARCHITECTURE))
    if isinstance(registration.get("dimensions"), int):
        shape["hidden_size"] = registration["dimensions"]
    return shape, [
        "Its architecture is reckoned from its size, so its memory is known roughly; name a model "
        "of the catalogue as model_family, or register YAML that states the architecture."
    ]


def _reckoned(billions: float, name: Any) -> dict[str, Any]:
    """A dense network of this size.

    It has 12 × layers × width² weights, heads of 128, and a width of 128 per layer: at 7 billion,
    33 layers of 4,224. Keys and values have up to 8 heads, which the other heads share.
    """
    parameters = round(billions * 1e9)
    layers = max(1, round((parameters / (12 * 128 * 128)) ** (1 / 3)))
    width = 128 * layers
    return {
        "name": name,
        "layers": layers,
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "attention_heads": layers,
        "key_value_heads": max(n for n in range(1, 9) if layers % n == 0),
        "head_dim": 128,
        "vocabulary_size": 128_000,
        "parameters": parameters,
        "active_parameters": parameters,
    }


def _refusal(error: ValidationError, building: _Building) -> BadValue:
    """The first fault, with the field's name in the registration."""
    detail = error.errors(include_url=False)[0]
    context = detail.get("ctx", {})
    steps = (*detail["loc"], *context.get("at", ()))
    reason = context.get("reason") or detail["msg"]
    return BadValue(_their_name(steps, building), detail["input"], reason)


def _their_name(steps: tuple[str | int, ...], building: _Building) -> str:
    match steps:
        case ("weights", int(number), "sources", int(source), str(name), *_):
            local = building.weights[number]["sources"][source]["hub"] == "path"
            field_name = "model_uri" if local and name == "id" else _NAMES.get(name, name)
            return f"model_specs[{building.origins[number][source]}].{field_name}"
        case ("weights", int(number), str(name), *_):
            return f"model_specs[{building.origins[number][0]}].{_NAMES.get(name, name)}"
        case (str(name), *_):
            return _NAMES.get(name, name)
    return "model"
