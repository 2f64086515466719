"""JSON in and out: exact, whatever orjson makes of it."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddock.registry.json_codec import decode, decode_strictly, encode

NUMBERS = st.integers(-(2**80), 2**80) | st.floats(allow_nan=False, allow_infinity=False)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(VALUES)
def test_every_value_comes_back_as_it_was(value: Any) -> None:
    """Numbers beyond 64 bits too, in both directions."""
    assert decode(encode(value)) == value
    assert decode(json.dumps(value).encode()) == value


@pytest.mark.parametrize(
    "number", [2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**40]
)
@pytest.mark.parametrize("form", ["%d", "[%d]", '{"seed":%d}', "[-1,%d]", "[0.5,%d]"])
def test_whole_numbers_stay_whole(number: int, form: str) -> None:
    """None becomes a float, wherever it stands."""
    raw = form % number
    assert repr(decode(raw.encode())) == repr(json.loads(raw))


def test_long_fractions_are_no_long_numbers() -> None:
    """Probabilities have many digits, and are read the fast way."""
    assert decode_strictly(b"[-0.00012345678901234567]") == [-0.00012345678901234567]


@pytest.mark.parametrize(
    "raw", [b"NaN", b"[1e999]", b'"\\ud800"', b"\xff", b"18446744073709551616"]
)
def test_what_is_odd_is_refused_strictly(raw: bytes) -> None:
    """What RFC 8259 does not call JSON, or orjson would change."""
    with pytest.raises(ValueError):  # noqa: PT011 - the words are orjson's
        decode_strictly(raw)


def test_engines_may_send_what_python_reads() -> None:
    """NaN is read, and goes out as null."""
    (number,) = decode(b"[NaN]")
    assert math.isnan(number)
    assert encode([number]) == b"[null]"


def test_halves_of_characters_are_written_as_escapes() -> None:
    """Engines send them; UTF-8 does not have them."""
    assert encode({"text": "\ud800"}) == b'{"text":"\\ud800"}'
