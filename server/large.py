"""JSON with pictures and sounds in it, without reading these as JSON.

The standard library reads or writes a text of 60 MB in one go, in 0.2 s with the interpreter's lock
held: in whatever thread it is done, the event loop stands still. Base64 is the same in JSON as it
is by itself. So long runs of it are taken out, what is left is parsed or dumped, and they are put
back: copies of memory only, of which each is a few milliseconds.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from typing import Any

from paddock.server.treatment import dump

LONG_BYTES = 64 * 1024
"""A shorter run is not worth the way around."""
_BEGIN = b";base64,"
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=_-"
_PIECE_BYTES = 1_000_000


def loads(raw: bytes, parse: Callable[[bytes], Any]) -> Any:
    """What `parse` makes of the JSON in `raw`; it sees short stand-ins for the runs.

    Raises:
        Whatever `parse` raises of `raw` as it is.
    """
    mark = secrets.token_hex(16)
    pieces: list[bytes] = []
    runs: list[str] = []
    done = at = 0
    while (found := raw.find(_BEGIN, at)) >= 0:
        at = found + len(_BEGIN)
        end = raw.find(b'"', at)
        if end - at >= LONG_BYTES and _is_base64(raw, at, end):
            pieces += (raw[done:at], f"{mark}{len(runs)}".encode())
            runs.append(raw[at:end].decode("ascii"))
            done = at = end
    if not runs:
        return parse(raw)
    try:
        short = parse(b"".join((*pieces, raw[done:])))
    except Exception:
        parse(raw)  # its error is of the body as the client sent it
        raise

    def whole(text: str) -> str:
        head, found, number = text.rpartition(mark)
        return head + runs[int(number)] if found else text

    return _mapped(short, whole)


def dumps(value: Any) -> bytes:
    """As `treatment.dump`."""
    mark = secrets.token_hex(16)
    runs: list[bytes] = []

    def short(text: str) -> str:
        if len(text) < LONG_BYTES:
            return text
        head, begin, run = text.partition(_BEGIN.decode())
        if len(run) < LONG_BYTES or not run.isascii():
            return text
        raw = run.encode("ascii")
        if not _is_base64(raw, 0, len(raw)):
            return text
        runs.append(raw)
        return f"{head}{begin}{mark}{len(runs) - 1}"

    pieces = re.split(mark.encode() + rb'(\d+)(?=")', dump(_mapped(value, short)))
    pieces[1::2] = [runs[int(number)] for number in pieces[1::2]]
    return b"".join(pieces)


def _is_base64(raw: bytes, start: int, end: int) -> bool:
    return not any(
        raw[at : min(at + _PIECE_BYTES, end)].translate(None, _BASE64)
        for at in range(start, end, _PIECE_BYTES)
    )


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    """The same with every text changed, names included."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(key): _mapped(inner, change) for key, inner in value.items()}
    if isinstance(value, list):
        return [_mapped(inner, change) for inner in value]
    return value
