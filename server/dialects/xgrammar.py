"""What xgrammar, which vLLM and SGLang take schemas with, does not enforce. Pure.

It compiles any schema and passes over what it does not know, mostly without a word. What is refused
here was tried with its versions 0.2.7 and 0.2.8 (`bench/xgrammar.py`).
"""

from __future__ import annotations

from typing import Any

from paddock.registry.errors import FieldRefused
from paddock.registry.json_codec import decode, encode
from paddock.server.dialects.base import Body
from paddock.server.dialects.schemas import list_places

_ASKS_NOTHING = frozenset(
    (
        *("title", "description", "default", "examples", "$schema", "$id", "$comment", "$defs"),
        *("definitions", "deprecated", "readOnly", "writeOnly"),
    )
)
_ALONE = ("$ref", "allOf", "anyOf", "oneOf", "enum", "const")
"""Beside one of these, xgrammar reads nothing else."""
_NEEDED_TYPES = {
    **dict.fromkeys(
        ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), ("integer", "number")
    ),
    **dict.fromkeys(("minLength", "maxLength", "pattern", "format"), ("string",)),
    **dict.fromkeys(("items", "prefixItems", "minItems", "maxItems"), ("array",)),
    **dict.fromkeys(
        ("properties", "required", "additionalProperties", "patternProperties"), ("object",)
    ),
}
"""What is enforced where the type is named."""


_DAY = (
    r"((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)"
    r"|02-(0[1-9]|1[0-9]|2[0-8]))"
)
_LEAP = r"([1-9][0-9](0[48]|[2468][048]|[13579][26])|([2468][048]|[13579][26])00)"
_DATE = rf"([1-9][0-9]{{3}}-{_DAY}|{_LEAP}-02-29)"
_HOUR = r"([01][0-9]|2[0-3]):[0-5][0-9]"
_BYTE = r"(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_PATTERNS = {
    "date": rf"^{_DATE}$",
    "date-time": rf"^{_DATE}T{_HOUR}:[0-5][0-9](\.[0-9]{{1,9}})?(Z|[+-]{_HOUR})$",
    "ipv4": rf"^{_BYTE}(\.{_BYTE}){{3}}$",
}
"""Formats of which xgrammar takes what is none: 31 November, 1.2.03.4. Of years those from 1000."""


def write_for_xgrammar(schema: Body, path: str, engine: str) -> Body:
    """A standalone schema as xgrammar enforces all of it.

    Raises:
        FieldRefused: it has a keyword that xgrammar passes over.
    """
    schema = decode(encode(schema))
    for _, one in list_places(schema, path):
        if one.get("format") in _PATTERNS and "pattern" not in one:
            one["pattern"] = _PATTERNS[one.pop("format")]
    _check(schema, path, engine)
    return schema


def _check(schema: Body, path: str, engine: str) -> None:
    for at, one in list_places(schema, path):
        asks = {key: value for key, value in one.items() if key not in _ASKS_NOTHING}
        for key in asks:
            if reason := _find_reason(key, asks):
                raise FieldRefused(f"{at}.{key}", engine, reason)


def _find_reason(key: str, asks: Body) -> str:
    """Why a keyword is not enforced beside the others; empty if it is."""
    alone = next((name for name in _ALONE if name in asks), None)
    if alone is not None:
        return _find_beside_case(key, alone, asks)
    if key == "type":
        return ""
    if key not in _NEEDED_TYPES:
        return "cannot be enforced, and is not passed over"
    types = asks.get("type")
    named = types if isinstance(types, list) else [types]
    if not set(named) & set(_NEEDED_TYPES[key]):
        return f"is enforced only with type: {_NEEDED_TYPES[key][0]}"
    return _find_beside(key, asks)


def _find_beside_case(key: str, alone: str, asks: Body) -> str:
    if key == alone:
        is_list = key == "allOf" and len(asks[key]) != 1
        return "only one case is enforced; write them as one schema" if is_list else ""
    if key == "type" and alone in ("enum", "const"):
        values = asks["enum"] if alone == "enum" else [asks["const"]]
        if all(_is_of(value, asks["type"]) for value in values):
            return ""
    return f"is not enforced beside {alone}"


def _find_beside(key: str, asks: Body) -> str:
    names = asks.get("properties") or {}
    fewest = {
        "maxLength": asks.get("minLength", 0),
        "maxItems": max(asks.get("minItems", 0), len(asks.get("prefixItems", ()))),
    }
    faults = {
        "is not enforced beside pattern": key in ("minLength", "maxLength", "format")
        and "pattern" in asks,
        "is not enforced beside format": key in ("minLength", "maxLength") and "format" in asks,
        "is enforced only for names that are among the properties": key == "required"
        and set(asks[key]) - set(names),
        "is enforced only with one pattern, and without properties": key == "patternProperties"
        and (names or len(asks[key]) > 1),
        "false cannot be enforced; leave the property out": key == "properties"
        and False in names.values(),
        f"is below the {fewest.get(key)} that are asked for": key in fewest
        and asks[key] < fewest[key],
    }
    return next((reason for reason, is_met in faults.items() if is_met), "")


def _is_of(value: Any, types: Any) -> bool:
    """Whether a value of JSON is of one of the types."""
    named = types if isinstance(types, list) else [types]
    if isinstance(value, bool):
        return "boolean" in named
    if isinstance(value, int | float):
        return "number" in named or ("integer" in named and value == int(value))
    names = {str: "string", list: "array", dict: "object", type(None): "null"}
    return names[type(value)] in named
