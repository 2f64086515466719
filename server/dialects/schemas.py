"""JSON schemas of requests: made whole, and checked before an engine sees them. Pure.

A schema is honoured, or refused by the keyword and its place in the request. llguidance, which
llama.cpp has in it and this package has too, says what it cannot do; without being asked llama.cpp
answers unconstrained then. llama.cpp's own converter knows fewer keywords, and of a bound of 16
digits it makes a grammar of gigabytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from paddock.registry.errors import BadValue, FieldRefused
from paddock.registry.json_codec import decode, encode
from paddock.server.dialects.base import Body

MAX_DEPTH = 64
"""Levels of a schema; what is deeper is a mistake, or meant badly."""
MAX_BYTES = 200_000
"""Of a schema as JSON: it is compiled in some 0.1 s at most."""
MAX_ITEMS = 10_000
"""What `minItems`, `minLength` and their like may ask for: grammars grow with them."""
LARGEST_BOUND = 10**15
"""From here on llama.cpp's converter takes gigabytes for a bound of an integer."""
SAFE_INTEGER = 2**53 - 1
"""The largest integer that every JSON reader tells from its neighbours: as a bound it says nothing.
"""
_ONE = frozenset(
    (
        *("items", "additionalItems", "additionalProperties", "unevaluatedItems", "contains"),
        *("unevaluatedProperties", "propertyNames", "not", "if", "then", "else", "contentSchema"),
    )
)
_LIST = ("anyOf", "oneOf", "allOf", "prefixItems", "items")
_MAP = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_COUNTS = ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")
_LEAST = ("minItems", "minLength", "minProperties")
_OF_CONVERTER = frozenset(
    (
        *("$ref", "$defs", "type", "properties", "required", "additionalProperties", "items"),
        *("prefixItems", "minItems", "maxItems", "anyOf", "oneOf", "allOf", "enum", "const"),
        *("minLength", "maxLength", "pattern", "format", "title", "description", "default"),
        *("examples", "$schema", "$id", "$comment", "deprecated", "readOnly", "writeOnly"),
    )
)
"""What llama.cpp's own converter honours, and what asks nothing."""
_NARROWING = ("multipleOf", "pattern", "format")
"""Keywords that together with others may leave nothing, which llguidance does not see."""
_OF_LEAF = frozenset(
    (*_BOUNDS, *_NARROWING, "type", "minLength", "maxLength", "enum", "const"),
)
MOST_STEPS = 64
"""Bytes of a text that are tried; what begins so far goes on."""
_END = 256
"""The token that ends a text in the vocabulary of bytes."""
_OF_CONVERTER_FORMATS = frozenset(("date", "time", "date-time", "uuid"))


def make_standalone(schema: Any, path: str, prefix: str = "") -> Body:
    """The schema with all that it refers to in its own `$defs`, each by a name of one word.

    `path` is the schema's place in the request; `prefix` begins the names of definitions, so that
    several schemas may become parts of one. What nothing refers to is left out.

    Raises:
        BadValue: it is no schema, or a reference leads nowhere or out of it, or it is too deep.
    """
    if not isinstance(schema, dict):
        raise BadValue(path, schema, "must be a JSON schema: an object")
    names: dict[str, str] = {}
    definitions: Body = {}

    def refer(reference: Any, at: str, depth: int) -> str:
        if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
            reason = "must point into the schema itself, such as #/$defs/name"
            raise BadValue(f"{at}.$ref", reference, reason)
        if reference not in names:
            target = _find(schema, reference)
            if target is None:
                raise BadValue(f"{at}.$ref", reference, "leads nowhere in the schema")
            last = re.sub(r"\W", "", reference.rpartition("/")[2]) or "root"
            name = f"{prefix}{last}"
            while name in definitions:
                name += "_"
            names[reference] = name
            definitions[name] = {}  # taken, while what it holds is copied
            definitions[name] = _copy(target, at, refer, depth)
        return f"#/$defs/{names[reference]}"

    whole: Body = _copy(schema, path, refer, 0)
    return {**whole, "$defs": definitions} if definitions else whole


def _find(schema: Body, reference: str) -> Any:
    """What a JSON pointer of the schema points at; None: nothing."""
    found: Any = schema
    for part in reference.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(found, list) and key.isdigit() and int(key) < len(found):
            found = found[int(key)]
        elif isinstance(found, dict) and key in found:
            found = found[key]
        else:
            return None
    return found if isinstance(found, dict | bool) else None


def _copy(schema: Any, path: str, refer: Callable[[Any, str, int], str], depth: int) -> Any:
    if not isinstance(schema, dict):
        return schema
    if depth > MAX_DEPTH:
        raise BadValue(path, "…", f"a schema may have {MAX_DEPTH} levels at most")
    copied: Body = {}
    for key, value in schema.items():
        if key in ("$defs", "definitions", "$id"):
            continue  # what is referred to is copied where it is met, and lies in the schema itself
        if key == "$schema" and not _is_draft(value):
            continue
        if key == "$ref":
            copied[key] = refer(value, path, depth + 1)
        elif key in _MAP and isinstance(value, dict):
            copied[key] = {
                name: _copy(one, f"{path}.{key}.{name}", refer, depth + 1)
                for name, one in value.items()
            }
        elif key in _LIST and isinstance(value, list):
            copied[key] = [
                _copy(one, f"{path}.{key}[{index}]", refer, depth + 1)
                for index, one in enumerate(value)
            ]
        elif key in _ONE:
            copied[key] = _copy(value, f"{path}.{key}", refer, depth + 1)
        else:
            copied[key] = value
    return copied


def _is_draft(value: Any) -> bool:
    return (
        isinstance(value, str) and re.match(r"https?://json-schema\.org/draft", value) is not None
    )


def list_places(schema: Any, path: str) -> Iterator[tuple[str, Body]]:
    """Each schema within the schema, itself first, with its place in the request."""
    waiting: list[tuple[str, Any]] = [(path, schema)]
    while waiting:
        at, one = waiting.pop()
        if not isinstance(one, dict):
            continue
        yield at, one
        inner: list[tuple[str, Any]] = []
        for key, value in one.items():
            if key in _MAP and isinstance(value, dict):
                inner += [(f"{at}.{key}.{name}", part) for name, part in value.items()]
            elif key in _LIST and isinstance(value, list):
                inner += [(f"{at}.{key}[{index}]", part) for index, part in enumerate(value)]
            elif key in _ONE:
                inner.append((f"{at}.{key}", value))
        waiting += reversed(inner)


def check_size(schema: Body, path: str) -> None:
    """Refuses a schema of which no grammar of bounded size can be made.

    Raises:
        BadValue: it is too large, or asks for too much of something, or for what cannot be.
    """
    try:
        size = len(encode(schema))
    except (
        TypeError,
        RecursionError,
    ):  # what it has in `const` or `enum` is nested deeper than JSON is written
        size = MAX_BYTES + 1
    if size > MAX_BYTES:
        raise BadValue(path, "…", f"a schema may have {MAX_BYTES} bytes at most")
    for at, one in list_places(schema, path):
        for key in _COUNTS:
            value = one.get(key)
            if isinstance(value, int) and value > MAX_ITEMS and key in _LEAST:
                raise BadValue(f"{at}.{key}", value, f"may be {MAX_ITEMS} at most")
        low, high = one.get("minimum"), one.get("maximum")
        if isinstance(low, int | float) and isinstance(high, int | float) and low > high:
            raise BadValue(f"{at}.minimum", low, f"is above the maximum, {high}: nothing fits")
        large = next((key for key in _BOUNDS if _is_large(one.get(key))), None)
        if large and "multipleOf" in one:
            reason = f"may be {SAFE_INTEGER} at most beside multipleOf"
            raise BadValue(f"{at}.{large}", one[large], reason)


def _is_large(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) > SAFE_INTEGER


def bound_for_converter(schema: Body, path: str) -> Body:
    """The schema as llama.cpp's own converter can take it in little memory.

    Raises:
        BadValue: as `check_size`, and for a bound of 16 digits or more that says anything.
    """
    check_size(schema, path)
    schema = decode(encode(schema))
    for at, one in list_places(schema, path):
        for key in _BOUNDS:
            value = one.get(key)
            if not isinstance(value, int) or abs(value) < LARGEST_BOUND:
                continue
            is_low = key in ("minimum", "exclusiveMinimum")
            if (value <= -SAFE_INTEGER) if is_low else (value >= SAFE_INTEGER):
                del one[key]
                continue
            reason = f"the engine takes bounds below {LARGEST_BOUND} here"
            raise BadValue(f"{at}.{key}", value, reason)
    return schema


def check_converter(schema: Body, path: str, engine: str, reason: str) -> None:
    """Refuses what llama.cpp's own converter does not enforce. Raises `FieldRefused`."""
    for at, one in list_places(schema, path):
        numbers = "integer" in _types(one) and "number" not in _types(one)
        for key, value in one.items():
            is_known = key in _OF_CONVERTER or (key in _BOUNDS and numbers)
            if is_known and (key != "format" or value in _OF_CONVERTER_FORMATS):
                continue
            raise FieldRefused(f"{at}.{key}", engine, reason)


def _types(schema: Body) -> tuple[str, ...]:
    kind = schema.get("type")
    return tuple(kind) if isinstance(kind, list) else (kind,) if isinstance(kind, str) else ()


def write_grammar(schema: Body, path: str, engine: str) -> str:
    """The grammar in llguidance's words that enforces a standalone schema.

    Without blanks between the parts, of which small models write no end.

    Raises:
        BadValue: nothing satisfies the schema, or it is none.
        FieldRefused: a keyword that cannot be enforced; with its place.
    """
    check_size(schema, path)
    grammar = _grammar_text(schema)
    failure = find_fault(grammar)
    if failure:
        raise _explain(failure, schema, path, engine)
    for at, one in list_places(schema, path):
        if any(key in one for key in _NARROWING) and _is_dead(_grammar_text(_leaf(one))):
            raise BadValue(at, _shorten(one), "nothing satisfies it")
    return grammar


def _grammar_text(schema: Body) -> str:
    guided = {**schema, "x-guidance": {"whitespace_flexible": False}}
    return f"%llguidance {{}}\nstart: %json {encode(guided).decode()}"


def _leaf(schema: Body) -> Body:
    """What a schema says of a number or a text."""
    return {key: value for key, value in schema.items() if key in _OF_LEAF}


class _Bytes:
    """A vocabulary of bytes: enough to compile a grammar."""

    def __init__(self) -> None:
        self.eos_token_id, self.bos_token_id = _END, None
        self.tokens = [*(bytes([value]) for value in range(256)), b"<|end|>"]
        self.special_token_ids = [self.eos_token_id]

    def __call__(self, text: str | bytes) -> list[int]:
        return list(text.encode() if isinstance(text, str) else text)


@lru_cache(1)
def _vocabulary() -> LLTokenizer:
    return LLTokenizer(TokenizerWrapper(_Bytes()), slices=[])


@lru_cache(512)
def _is_dead(grammar: str) -> bool:
    """Whether no text begins as the grammar says: an engine would go on as if there was none."""
    matcher = LLMatcher(_vocabulary(), grammar, log_level=0)
    if matcher.get_error():
        return False  # another part of the whole makes it one that can be met
    for _ in range(MOST_STEPS):
        mask = matcher.compute_bitmask()
        allowed = next(
            (8 * at + (byte & -byte).bit_length() - 1 for at, byte in enumerate(mask) if byte), None
        )
        if allowed is None:
            return not matcher.is_accepting()
        if allowed == _END or matcher.is_accepting():
            return False
        matcher.consume_token(allowed)
    return False


@lru_cache(512)
def find_fault(grammar: str) -> str:
    """What llguidance says against a grammar; empty: nothing."""
    return str(LLMatcher.validate_grammar(grammar, _vocabulary()))


def _explain(failure: str, schema: Body, path: str, engine: str) -> BadValue | FieldRefused:
    """llguidance's words as an error that names the keyword and its place."""
    words = failure.partition("schema: ")[2] or failure
    words = words.partition("\n   1 |")[0].strip()
    if keys := re.match(r"Unimplemented keys: (\[.*?\])", words):
        key = json.loads(keys[1])[0]
        at = _first(schema, path, key)
        return FieldRefused(at, engine, f"{key} cannot be enforced, and is not passed over")
    if "oneOf" in words:
        at = _first(schema, path, "oneOf")
        return FieldRefused(at, engine, "its cases overlap, which cannot be enforced; use anyOf")
    if unknown := re.match(r"Unknown format: (.*)", words):
        places = list_places(schema, path)
        at = next((f"{at}.format" for at, one in places if one.get("format") == unknown[1]), path)
        return FieldRefused(at, engine, f"the format {unknown[1]!r} cannot be enforced")
    if "regex parse error" in words:
        reason = words.rpartition("error: ")[2] or words
        return FieldRefused(_first(schema, path, "pattern"), engine, reason)
    if words.startswith("Unsatisfiable"):
        return BadValue(path, _shorten(schema), f"nothing satisfies it: {words.partition(': ')[2]}")
    return BadValue(path, _shorten(schema), words.splitlines()[0])


def _first(schema: Body, path: str, key: str) -> str:
    return next((f"{at}.{key}" for at, one in list_places(schema, path) if key in one), path)


def _shorten(schema: Mapping[str, Any]) -> str:
    text = json.dumps(schema)
    return text if len(text) <= 80 else f"{text[:79]}…"
