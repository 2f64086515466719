"""Large JSON without one long call: the event loop goes on while a thread reads or writes it.

The standard library reads or writes a text of 60 MB in one call, in 0.2 s with the interpreter's
lock held: in whatever thread it is done, the event loop stands still. So long texts, such as
pictures, sounds and documents, are taken out of the JSON and are decoded or encoded in pieces,
between which the lock is free. What is left is parsed or dumped as usual. The pieces are put
together by copies of memory, of which each is a few milliseconds.

A large body of many short values is still parsed in one call.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import orjson

from paddock.registry.errors import BadValue
from paddock.registry.json_codec import encode

LONG_BYTES = 64 * 1024
"""A shorter text is not worth the way around."""
_PIECE_SIZE = 256 * 1024
"""Bytes, or characters, that are decoded or encoded in one call, in a few milliseconds."""
# A text that is short, up to its closing quote.
_SHORT = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
# What is whole at the end of a piece: no half of an escape, and of two escapes that are one
# character (a surrogate pair) not the first alone.
_WHOLE = re.compile(
    rb"(?:[^\\]+|\\[^u]|\\u[dD][89abAB]..\\u....|\\u(?![dD][89abAB])....)*", re.DOTALL
)
_LONGEST_ESCAPE = len(r"\ud83d\udc18")
_BACKSLASH = ord("\\")


def loads(raw: bytes, parse: Callable[[bytes], Any]) -> Any:
    """What `parse` makes of the JSON in `raw`; it sees long texts in pieces.

    Raises:
        BadValue: as `parse` raises it of `raw`.
    """
    mark = secrets.token_hex(16)
    pieces: list[bytes] = []
    texts: list[str] = []
    done = at = 0
    try:
        while (start := raw.find(b'"', at) + 1) > 0:
            end = raw.find(b'"', start)
            if end < 0:
                break
            if end - start >= LONG_BYTES or raw[end - 1] == _BACKSLASH:
                if found := _SHORT.match(raw, start, start + LONG_BYTES):
                    end = found.end() - 1
                else:
                    cuts = _cuts(raw, start)
                    parts = (_decode_text(raw[cut:after]) for cut, after in pairwise(cuts))
                    pieces += (raw[done:start], f"{mark}{len(texts)}".encode())
                    texts.append("".join(parts))
                    done = end = cuts[-1]
            at = end + 1
        if texts:
            short = parse(b"".join((*pieces, raw[done:])))
    except BadValue:
        texts = []  # the error is to be of the body as the client sent it
    if not texts:
        return parse(raw)

    def whole(text: str) -> str:
        return texts[int(text.removeprefix(mark))] if text.startswith(mark) else text

    return _mapped(short, whole)


def _decode_text(piece: bytes) -> str:
    try:
        return str(orjson.loads(b'"%b"' % piece))
    except orjson.JSONDecodeError as error:
        raise BadValue("body", "", str(error)) from None


def dumps(value: Any) -> bytes:
    """As `encode`, which sees long texts in pieces."""
    mark = secrets.token_hex(16)
    texts: list[bytes] = []

    def short(text: str) -> str:
        if len(text) < LONG_BYTES:
            return text
        cuts = range(0, len(text), _PIECE_SIZE)
        parts = (encode(text[at : at + _PIECE_SIZE])[1:-1] for at in cuts)
        texts.append(b"".join(parts))
        return f"{mark}{len(texts) - 1}"

    shortened = _mapped(value, short)
    if not texts:
        return encode(value)
    pieces = re.split(mark.encode() + rb'(\d+)(?=")', encode(shortened))
    pieces[1::2] = [texts[int(number)] for number in pieces[1::2]]
    return b"".join(pieces)


def _cuts(raw: bytes, start: int) -> list[int]:
    """Where the text that begins at `start` is cut: its begin, the cuts, and its closing quote.

    Raises:
        BadValue: it has no end, or cannot be cut, since it is no text of JSON.
    """
    cuts = [start]
    while True:
        at = cuts[-1]
        cut = _cut(raw, at, min(at + _PIECE_SIZE, len(raw)))
        # Pairs of backslashes first: what is left before a quote escapes it.
        unescaped = raw[at:cut].replace(rb"\\", b"__").replace(rb"\"", b"__")
        if (length := unescaped.find(b'"')) >= 0:
            return [*cuts, at + length]
        if cut in {at, len(raw)}:
            raise BadValue("body", "", "is not JSON")
        cuts.append(cut)


def _cut(raw: bytes, at: int, limit: int) -> int:
    """The last place up to `limit` where a text may be cut that was cut at `at`."""
    if limit == len(raw):
        return limit
    start = max(at, limit - _LONGEST_ESCAPE)
    # The first of a run of backslashes begins an escape; only from there on it is plain which do.
    if (found := raw.rfind(b"\\", at, start)) >= 0:
        start = found
        while start > at and raw[start - 1] == _BACKSLASH:
            start -= 1
    whole = _WHOLE.match(raw, start, limit)
    cut = whole.end() if whole is not None else at
    while cut > at and raw[cut] & 0xC0 == 0x80:  # within a character of UTF-8
        cut -= 1
    return cut


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    """The same with every text changed, names included."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(key): _mapped(inner, change) for key, inner in value.items()}
    if isinstance(value, list):
        return [_mapped(inner, change) for inner in value]
    return value
