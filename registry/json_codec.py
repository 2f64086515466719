"""JSON in and out, by `orjson`, where it is exact; by the standard library, where it is not.

orjson turns integers beyond 64 bits into floats, and does not write them. A seed or an id must stay
exact: text with 19 digits in a row is read by the standard library, and so is what orjson refuses.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

import orjson

# 64 bits hold any number of 18 digits. Digits after a point do not count: probabilities have many.
_LONG_NUMBER = re.compile(rb"(?<![.\d])\d{19}")
# A table and a search for bytes take 1 ns a byte, where the expression takes 10: it decides only
# where there is anything to decide.
_DIGITS = bytes(ord("0") if chr(code).isdigit() and code < 128 else 32 for code in range(256))
_LONG_RUN = b"0" * 19


def decode(raw: bytes) -> Any:
    """What the JSON in UTF-8 says; every number is the one that stands there.

    `NaN` and `Infinity` are read too, as the standard library does.

    Raises:
        ValueError: it is not JSON, or not UTF-8.
        RecursionError: it is nested too deep.
    """
    if not _has_long_number(raw):
        try:
            return orjson.loads(raw)
        except orjson.JSONDecodeError:
            pass
    return json.loads(raw)


def decode_strictly(raw: bytes) -> Any:
    """As `decode`, but only RFC 8259 JSON without lone surrogates.

    Raises:
        ValueError: it is something else, or has an integer that may exceed 64 bits: use `decode`.
    """
    if _has_long_number(raw):
        raise ValueError("a number of more than 64 bits")
    return orjson.loads(raw)


def _has_long_number(raw: bytes) -> bool:
    return _LONG_RUN in raw.translate(_DIGITS) and _LONG_NUMBER.search(raw) is not None


def encode(value: Any) -> bytes:
    """Compact JSON in UTF-8. Lone surrogates become escapes; `NaN` and infinities become null.

    Raises:
        TypeError: the value has what JSON does not have.
    """
    try:
        return orjson.dumps(value)
    except TypeError:
        value = _finite(value)
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":")).encode()


def _finite(value: Any) -> Any:
    """The value with null for the numbers that JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return value
