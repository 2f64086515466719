"""Reads the bodies of management requests."""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import Request

from paddock.registry.errors import BadValue, TooLarge

MAX_BODY_BYTES = 1_000_000


async def read_json(request: Request) -> Any:
    """The request's JSON; an empty body counts as `{}`.

    Raises:
        TooLarge: over `MAX_BODY_BYTES`; what is announced as larger is not read at all.
        BadValue: not JSON.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:20]) > MAX_BODY_BYTES:
        raise _too_large()
    raw = b""
    async for part in request.stream():
        raw += part
        if len(raw) > MAX_BODY_BYTES:
            raise _too_large()
    try:
        return json.loads(raw or b"{}")
    except (ValueError, RecursionError) as error:
        shown = raw[:40].decode("utf-8", "replace")
        raise BadValue("body", shown, f"is not JSON: {error}") from None


def _too_large() -> TooLarge:
    return TooLarge("body", f"over {MAX_BODY_BYTES} bytes", "is too large for this route")


async def read_object(request: Request) -> dict[str, Any]:
    """The request's JSON object. Raises `BadValue` for anything else."""
    found = await read_json(request)
    if not isinstance(found, dict):
        raise BadValue("body", type(found).__name__, "must be a JSON object")
    return found
