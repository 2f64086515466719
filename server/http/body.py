"""Reads the bodies of requests: JSON, strictly."""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn, TypeVar

from starlette.requests import Request

from paddock.registry.errors import BadValue, TooLarge, WrongContentType
from paddock.registry.json_codec import decode_strictly

MAX_BODY_BYTES = 1_000_000
PATIENCE_BYTES = 32_000_000
"""How much of a body that is too large is read all the same, so that its sender gets the answer."""
MAX_DEPTH = 100
"""How deep a body may nest: far beyond any schema, far below what Python's stack bears."""
LARGE_BYTES = 1_000_000
"""Bodies beyond are parsed and made out in a thread: 5 ms of the event loop's time are as much as a
token may be late. Below, the way to a thread and back costs more than the work."""
SHOWN_BYTES = 40
_WAY = "send JSON: curl -H 'Content-Type: application/json' -d '{…}'"
_FORM = "application/x-www-form-urlencoded"
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


# One thread, since the interpreter's lock is held all the same: several large bodies at once would
# wait for each other with all their copies in memory, and the event loop for each of them.
_LARGE = ThreadPoolExecutor(1, "large-bodies")
T = TypeVar("T")


async def apart(size: int, work: Callable[[], T]) -> T:
    """Does what takes time with the `size` of a body, in bytes: in a thread where that is large."""
    if size <= LARGE_BYTES:
        return work()
    return await asyncio.get_running_loop().run_in_executor(_LARGE, work)


def parse(raw: bytes) -> Any:
    """What JSON says; empty text counts as `{}`.

    Raises:
        BadValue: not UTF-8, not JSON, numbers that JSON does not have (`NaN`, `Infinity`, 1e999),
            half of a character's escape, or nested deeper than `MAX_DEPTH`.
    """
    try:
        value = decode_strictly(raw)
    except ValueError:
        value = _parse_exactly(raw)
    # Only what opens that often can nest so deep: ordinary bodies are not walked.
    if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH and _depth_over(value, MAX_DEPTH):
        raise _too_deep(raw)
    return value


def _parse_exactly(raw: bytes) -> Any:
    """As `parse`, by the standard library: numbers of any length, and errors that say where."""
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        why = f"is not UTF-8: byte 0x{raw[error.start]:02x} at {error.start}"
        raise BadValue("body", _shown(raw), why) from None
    try:
        value = _DECODER.decode(text) if text else {}
    except RecursionError:
        raise _too_deep(raw) from None
    except ValueError as error:
        raise BadValue("body", _shown(raw), f"is not JSON: {error}") from None
    if _SURROGATE.search(raw):
        _refuse_half_characters(value, raw)
    return value


def check_content_type(content_type: str, raw: bytes) -> None:
    """Refuses a body that says it is something else than JSON.

    None and a form's type are taken for JSON if the body looks like it: curl sends the latter
    with `-d` unless told otherwise.

    Raises:
        WrongContentType: any other type, or a form.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if not raw or not kind or kind == "application/json" or kind.endswith("+json"):
        return
    if kind != _FORM or not raw.lstrip().startswith((b"{", b"[")):
        raise WrongContentType("Content-Type", kind, f"the body must be JSON; {_WAY}")


async def read_json(request: Request) -> Any:
    """The request's JSON; an empty body counts as `{}`.

    Raises:
        TooLarge: over `MAX_BODY_BYTES`.
        WrongContentType: as `check_content_type`.
        BadValue: as `parse`.
    """
    raw = await _read(request)
    if raw is None:
        raise TooLarge("body", f"over {MAX_BODY_BYTES} bytes", "is too large for this route")
    check_content_type(request.headers.get("content-type", ""), raw)
    return parse(raw)


async def read_object(request: Request) -> dict[str, Any]:
    """The request's JSON object. Raises `BadValue` for anything else."""
    value = await read_json(request)
    if not isinstance(value, dict):
        raise BadValue("body", type(value).__name__, "must be a JSON object")
    return value


async def _read(request: Request) -> bytes | None:
    """The body; None if it is too large.

    It is read to its end even then, and not kept: a client that is still sending when the
    connection closes gets a reset in place of the answer. One that asks first
    (`Expect: 100-continue`) is not sending yet.
    """
    announced = request.headers.get("content-length", "")
    too_large = announced.isdecimal() and int(announced[:20]) > MAX_BODY_BYTES
    if too_large and request.headers.get("expect", "").lower() == "100-continue":
        return None
    raw, came = b"", 0
    async for part in request.stream():
        came += len(part)
        if too_large or came > MAX_BODY_BYTES:
            too_large, raw = True, b""
            if came > PATIENCE_BYTES:
                break
        else:
            raw += part
    return None if too_large else raw


def _too_deep(raw: bytes) -> BadValue:
    return BadValue("body", _shown(raw), f"is nested deeper than {MAX_DEPTH} levels")


def _shown(raw: bytes) -> str:
    return raw[:SHOWN_BYTES].decode("utf-8", "replace")


def _no_such_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number of JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is too large a number")
    return number


_DECODER = json.JSONDecoder(parse_constant=_no_such_number, parse_float=_finite)


def _depth_over(value: Any, limit: int) -> bool:
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(limit):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return False
    return True


def _refuse_half_characters(value: Any, raw: bytes) -> None:
    """Looks at each text. What is ASCII, as pictures are, knows so and is not read."""
    level = [value]
    while level:
        inner = level.pop()
        if isinstance(inner, dict):
            level += inner
            level += inner.values()
        elif isinstance(inner, list):
            level += inner
        elif isinstance(inner, str) and not inner.isascii():
            try:
                inner.encode()
            except UnicodeEncodeError as error:
                half = ascii(error.object[error.start])
                raise BadValue("body", _shown(raw), f"{half} is half of a character") from None
