"""What counts as JSON, and what a body that is none is told."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

import pytest

from paddock.registry.errors import BadValue, WrongContentType
from paddock.server.http.body import LARGE_BYTES, MAX_DEPTH, apart, check_content_type, parse


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        (b"", {}),
        (b'{"a": [1, -2.5, true, null]}', {"a": [1, -2.5, True, None]}),
        ('{"a": "é🦣"}'.encode(), {"a": "é🦣"}),
        (b'"\\ud83e\\udda3"', "🦣"),
        (b'{"a": "\\\\ud83e"}', {"a": "\\ud83e"}),
        (b'"' + b"[{" * 1000 + b'"', "[{" * 1000),
        (b"[" + b"[]," * 1000 + b"[]]", [[]] * 1001),
    ],
)
def test_json_is_read(raw: bytes, found: Any) -> None:
    """What is JSON is read as it stands, brackets in text and many short lists included."""
    assert parse(raw) == found


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"{", "not JSON"),
        (b"\xff\xfe{", "not UTF-8: byte 0xff at 0"),
        (b'{"a": "\xc3"}', "not UTF-8: byte 0xc3 at 7"),
        (b'{"a": NaN}', "NaN is not a number"),
        (b"[-Infinity]", "-Infinity is not a number"),
        (b'{"a": 1e999}', "1e999 is too large"),
        (b"9" * 5000, "not JSON"),
        (b"[" * 100_000, "nested deeper"),
        (b'{"a":' * 500 + b"1" + b"}" * 500, "nested deeper"),
        (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "nested deeper"),
        (b'{"a": "\\ud83e"}', "half of a character"),
        (b'{"\\uDDA3": 1}', "half of a character"),
    ],
)
def test_what_is_no_json_is_refused_with_the_reason(raw: bytes, says: str) -> None:
    """Every body that an answer or an engine could stumble over is refused as `body`, with why."""
    with pytest.raises(BadValue, match=says) as refused:
        parse(raw)
    assert refused.value.name == "body"


def test_nesting_up_to_the_limit_is_read() -> None:
    """The limit itself is allowed."""
    assert parse(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)


@pytest.mark.parametrize(
    "kind", ["", "application/json", "Application/JSON; charset=utf-8", "application/ld+json"]
)
def test_json_by_any_of_its_names_is_taken(kind: str) -> None:
    """JSON may be announced by its names, or not at all."""
    check_content_type(kind, b"{}")


def test_form_that_holds_json_is_taken() -> None:
    """`curl -d '{…}'` says that it sends a form."""
    check_content_type("application/x-www-form-urlencoded", b' {"a": 1}')


@pytest.mark.parametrize(
    ("kind", "raw"),
    [
        ("application/x-www-form-urlencoded", b"a=1"),
        ("text/plain", b"{}"),
        ("text/xml", b"<a/>"),
        ("multipart/form-data; boundary=x", b"--x--"),
    ],
)
def test_another_type_is_refused_by_the_headers_name(kind: str, raw: bytes) -> None:
    """Anything else is refused, and told how to send JSON."""
    with pytest.raises(WrongContentType, match=r"Content-Type.*curl -H") as refused:
        check_content_type(kind, raw)
    assert refused.value.name == "Content-Type"


@pytest.mark.parametrize("raw", [b'{"\\ud83e": 1}', b'[{"a": [{"b": "x\\udda3"}]}]', b'"\\ud83e"'])
def test_half_characters_are_found_wherever_they_stand(raw: bytes) -> None:
    """In names and in texts, at any depth."""
    with pytest.raises(BadValue, match="half of a character"):
        parse(raw)


async def test_large_bodies_leave_the_event_loop() -> None:
    """What takes time with a body's size is done in a thread where that is large, else at once."""
    here = threading.get_ident()
    assert await apart(LARGE_BYTES, threading.get_ident) == here
    assert await apart(LARGE_BYTES + 1, threading.get_ident) != here
    with pytest.raises(BadValue):
        await apart(LARGE_BYTES + 1, partial(parse, b"{"))
