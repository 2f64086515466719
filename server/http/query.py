"""Reads query parameters. An invalid value raises `BadValue`, which names the parameter."""

from __future__ import annotations

from starlette.requests import Request

from paddock.registry.errors import BadValue
from paddock.server.http.operation import FLAG, Query

WAIT = Query("wait_ready", FLAG | {"default": True}, "Answer when all is ready, not at once")
DETAILED = Query("detailed", FLAG | {"default": False}, "All that is known")
OFFLINE = Query("offline", FLAG | {"default": False}, "Ask no hub")
_FLAGS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_DIGITS = 18


def flag(request: Request, name: str, default: bool = False) -> bool:
    """A yes or no. Raises `BadValue`."""
    text = request.query_params.get(name)
    if text is None:
        return default
    if text.lower() not in _FLAGS:
        raise BadValue(name, text, "must be true or false")
    return _FLAGS[text.lower()]


def whole(request: Request, name: str, default: int, low: int, high: int) -> int:
    """A whole number from `low` to `high`. Raises `BadValue`."""
    text = request.query_params.get(name)
    if text is None:
        return default
    digits = text.isascii() and text.isdigit() and len(text) <= _DIGITS
    if not digits or not low <= int(text) <= high:
        raise BadValue(name, text, f"must be a whole number from {low} to {high}")
    return int(text)
