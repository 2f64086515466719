"""Errors over HTTP: one table class → status, one envelope for all of them.

The envelope is OpenAI's `error` object with the error's own fields beside it, plus a `detail`
string, which is all that Xinference's clients read.
"""

from __future__ import annotations

import json
import logging
import math
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from paddock.registry import errors
from paddock.registry.errors import PaddockError

log = logging.getLogger(__name__)

# The first class that fits wins: subclasses stand before their parents.
STATUS: tuple[tuple[type[PaddockError], int], ...] = (
    (errors.UidInUse, 409),
    (errors.NoRoom, 507),
    (errors.NotAble, 400),
    (errors.NotAllowed, 403),
    (errors.TooLarge, 413),
    (errors.NotFound, 404),
    (errors.Refused, 400),
    (errors.NotLaunched, 404),
    (errors.NotReady, 503),
    (errors.QueueFull, 429),
    (errors.Cancelled, 499),
    (errors.LaunchFailed, 502),
    (PaddockError, 503),
)


def status_of(error: PaddockError) -> int:
    """The HTTP status of an error."""
    return next(status for kind, status in STATUS if isinstance(error, kind))


def envelope(status: int, message: str, kind: str, fields: dict[str, Any]) -> dict[str, Any]:
    """The body of an error answer."""
    error = {
        "message": message,
        "type": "invalid_request_error" if status < 500 else "server_error",
        "code": kind,
        "param": fields.get("name"),
        "layer": "paddock",
        **{key: value for key, value in fields.items() if key not in {"message", "type", "code"}},
    }
    return {"error": error, "detail": message}


def render(error: PaddockError) -> Response:
    """An error as an answer."""
    status = status_of(error)
    body = envelope(status, str(error), type(error).__name__, error.fields())
    headers = {}
    retry_after = getattr(error, "retry_after", None)
    if retry_after is not None:
        headers["Retry-After"] = str(math.ceil(retry_after))
    return Response(json.dumps(body, default=str), status, headers, media_type="application/json")


async def on_paddock_error(_: Request, error: Exception) -> Response:
    """Handler for every error of ours."""
    assert isinstance(error, PaddockError)
    return render(error)


async def on_http_error(request: Request, error: Exception) -> Response:
    """Handler for unknown routes and wrong methods, so that these too answer in JSON."""
    assert isinstance(error, HTTPException)
    message = str(error.detail)
    if error.status_code == 404:
        message = f"no route {request.url.path}; the routes are listed at /docs"
    if error.status_code == 405:
        message = f"{request.url.path} does not take {request.method}"
    body = envelope(error.status_code, message, "HTTPException", {})
    return JSONResponse(body, error.status_code, headers=error.headers)


async def on_bug(request: Request, error: Exception) -> Response:
    """Handler for everything else: a bug. The traceback goes to the log, the client gets a 500."""
    log.error("%s %s", request.method, request.url.path, exc_info=error)
    body = envelope(500, "internal error; the gateway's log has the traceback", "internal", {})
    return JSONResponse(body, 500)
