"""Reads the bodies of management requests."""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import Request

from paddock.registry.errors import BadValue

MAX_BODY_BYTES = 1_000_000


async def read_json(request: Request) -> Any:
    """The request's JSON; an empty body counts as `{}`.

    Raises:
        BadValue: too large, or not JSON.
    """
    raw = b""
    async for part in request.stream():
        raw += part
        if len(raw) > MAX_BODY_BYTES:
            raise BadValue("body", f"over {MAX_BODY_BYTES} bytes", "is too large for this route")
    try:
        return json.loads(raw or b"{}")
    except (ValueError, RecursionError) as error:
        shown = raw[:40].decode("utf-8", "replace")
        raise BadValue("body", shown, f"is not JSON: {error}") from None


async def read_object(request: Request) -> dict[str, Any]:
    """The request's JSON object. Raises `BadValue` for anything else."""
    found = await read_json(request)
    if not isinstance(found, dict):
        raise BadValue("body", type(found).__name__, "must be a JSON object")
    return found
