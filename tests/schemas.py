"""Random JSON schemas, the same for the same seed: what people write, and mistakes."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

Make = Callable[[random.Random, int], dict[str, Any]]
WORDS = ("name", "age", "tag", "from", "to", "kind")
FORMATS = ("date", "time", "date-time", "uuid", "email", "ipv4", "hostname", "foo")
PATTERNS = (r"^\d{3}$", "^[a-z]{1,4}$", "a|b", "(?=a)b", "[")


def random_schema(seed: int) -> dict[str, Any]:
    """A schema of an object, two levels deep at most."""
    return _object(random.Random(seed), 2)


def _any(chance: random.Random, depth: int) -> dict[str, Any]:
    kinds: list[Callable[[random.Random, int], dict[str, Any]]] = [
        _integer,
        _number,
        _string,
        _choice,
    ]
    if depth:
        kinds += [_object, _array, _union, _odd]
    return chance.choice(kinds)(chance, depth)


def _object(chance: random.Random, depth: int) -> dict[str, Any]:
    names = chance.sample(WORDS, chance.randint(1, 3))
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {name: _any(chance, depth - 1) for name in names},
        "required": chance.sample(names, chance.randint(0, len(names))),
        "additionalProperties": False,
    }
    if depth == 2 and chance.random() < 0.3:
        schema["$defs"] = {"it": _any(chance, 0)}
        schema["properties"][names[0]] = {"$ref": "#/$defs/it"}
    return schema


def _array(chance: random.Random, depth: int) -> dict[str, Any]:
    least = chance.randint(0, 2)
    schema = {"type": "array", "items": _any(chance, depth - 1), "minItems": least}
    return schema | {"maxItems": least + chance.randint(0, 2)}


def _integer(chance: random.Random, _: int) -> dict[str, Any]:
    low = chance.choice((0, 100, -5, 2 * 10**15, 2**60))
    schema: dict[str, Any] = {"type": "integer", "minimum": low}
    if chance.random() < 0.6:
        schema["maximum"] = low + chance.choice((-1, 0, 50, 10**6))
    if chance.random() < 0.2:
        schema["multipleOf"] = chance.choice((2, 7))
    return schema


def _number(chance: random.Random, _: int) -> dict[str, Any]:
    return {"type": "number", "minimum": 0, "maximum": chance.choice((1, 2.5))}


def _string(chance: random.Random, _: int) -> dict[str, Any]:
    kind = chance.randint(0, 2)
    if kind == 0:
        return {"type": "string", "pattern": chance.choice(PATTERNS)}
    if kind == 1:
        return {"type": "string", "format": chance.choice(FORMATS)}
    return {"type": "string", "minLength": chance.randint(0, 4), "maxLength": chance.randint(2, 8)}


def _choice(chance: random.Random, _: int) -> dict[str, Any]:
    return {"enum": chance.sample(["red", "blue", 3, None, True, 0.5], chance.randint(1, 3))}


def _union(chance: random.Random, depth: int) -> dict[str, Any]:
    kind = chance.choice(("anyOf", "oneOf"))
    return {kind: [_any(chance, depth - 1) for _ in range(2)]}


def _odd(chance: random.Random, depth: int) -> dict[str, Any]:
    """Keywords that are seldom enforced."""
    odd: list[dict[str, Any]] = [
        {"type": "array", "items": {"type": "integer"}, "uniqueItems": True, "maxItems": 2},
        {"not": {"type": "string"}},
        {"type": "object", "minProperties": 1},
        {"if": {"type": "string"}, "then": {"minLength": 3}},
        {"allOf": [_string(chance, depth), {"maxLength": 6}]},
    ]
    return chance.choice(odd)
