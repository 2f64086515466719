"""Reads query parameters; a value that is none of theirs is refused by the parameter's name."""

from __future__ import annotations

from starlette.requests import Request

from paddock.registry.errors import BadValue

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
