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
from starlette.responses import Response
from starlette.routing import Match, Route

from paddock.registry import errors
from paddock.registry.errors import PaddockError, near, printable
from paddock.registry.files import is_refused_write, not_written
from paddock.server.http.json_response import JSONResponse

log = logging.getLogger(__name__)

MODEL = "/v1/models/{uid}/"
NEAR = 3
LONGEST = 200
"""Paths are compared up to here: the comparison takes time with the square of the length."""

# The first class that fits wins: subclasses stand before their parents.
STATUS: tuple[tuple[type[PaddockError], int], ...] = (
    (errors.UidInUse, 409),
    (errors.EngineInUse, 409),
    (errors.InstallFailed, 409),
    (errors.NoRoom, 507),
    (errors.NotAble, 400),
    (errors.NotAllowed, 403),
    (errors.TooLarge, 413),
    (errors.WrongContentType, 415),
    (errors.NotFound, 404),
    (errors.Refused, 400),
    (errors.NotLaunched, 404),
    (errors.NotReady, 503),
    (errors.QueueFull, 429),
    (errors.StateNotWritten, 507),
    (errors.EndNotWritten, 507),
    (errors.StillEnding, 504),
    (errors.EngineDied, 502),
    (errors.DiskFull, 507),
    (errors.NotWritten, 500),
    (errors.Cancelled, 499),
    (errors.Aborted, 499),
    (errors.KeyRevoked, 401),
    (errors.EngineSilent, 504),
    (errors.LaunchFailed, 502),
    (PaddockError, 503),
)


# What a hub said about a reference; everything else is the hub's own failure.
HUB_STATUS = {"not_found": 404, "gated_repo": 403, "token_refused": 403, "rate_limited": 429}


def status_of(error: PaddockError) -> int:
    """The HTTP status of an error."""
    if isinstance(error, errors.HubFailure):
        return HUB_STATUS.get(error.cause, 503)
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


async def on_paddock_error(request: Request, error: Exception) -> Response:
    """Handler for every error of ours."""
    assert isinstance(error, PaddockError)
    if isinstance(error, errors.NotLaunched) and not error.uid:
        return await on_http_error(request, HTTPException(404))  # it ends where an id would begin
    if isinstance(error, errors.NotLaunched) and not error.close:
        # An id may have slashes, so that a slip in what follows it makes another id.
        ends = [t.removeprefix(MODEL) for t in templates(request) if t.startswith(MODEL)]
        _, slash, end = error.uid.rpartition("/")
        routes = [MODEL + name for name in near(end, ends, NEAR)] if slash else []
        if routes:
            message = f"{error}; or did you mean the route {' or '.join(routes)}?"
            fields = {**error.fields(), "close_routes": routes}
            return JSONResponse(envelope(404, message, type(error).__name__, fields), 404)
    return render(error)


async def on_http_error(request: Request, error: Exception) -> Response:
    """Handler for unknown routes and wrong methods: they too answer in JSON, and name a way."""
    assert isinstance(error, HTTPException)
    path = printable(request.scope["path"])
    message, kind = str(error.detail), "HTTPException"
    fields: dict[str, Any] = {}
    headers = dict(error.headers or {})
    if error.status_code == 404:
        close = near(request.scope["path"][:LONGEST], templates(request), NEAR)
        hint = f"; did you mean {' or '.join(close)}?" if close else "; the routes are at /docs"
        message, kind = f"no route {path}{hint}", "NoRoute"
        fields = {"path": path, "close_routes": list(close)}
    if error.status_code == 405:
        methods = _methods(request)
        headers["Allow"] = ", ".join(methods)
        message, kind = (
            f"{path} takes {headers['Allow']}, not {printable(request.method)}",
            "NoMethod",
        )
        fields = {"path": path, "methods": methods}
    body = envelope(error.status_code, message, kind, fields)
    return JSONResponse(body, error.status_code, headers=headers)


def templates(request: Request) -> dict[str, list[str]]:
    """Every route of the application as documents write it, and the methods that it takes."""
    methods: dict[str, list[str]] = {}
    for route in request.app.routes:
        if isinstance(route, Route):
            methods.setdefault(route.path_format, []).extend(sorted(route.methods or ()))
    return methods


def _methods(request: Request) -> list[str]:
    """What the first route that has this path takes, under whichever entries it is."""
    for route in request.app.routes:
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE:
            return sorted(set(templates(request)[route.path_format]))
    return []


async def on_client_gone(_: Request, __: Exception) -> Response:
    """Handler for a client that left before its request was whole: nobody reads the answer."""
    return JSONResponse(envelope(499, "the client left", "ClientDisconnect", {}), 499)


async def on_os_error(request: Request, error: Exception) -> Response:
    """Handler for what the system refuses: a full disk is told as that, the rest is a bug."""
    if isinstance(error, OSError) and is_refused_write(error):
        log.error("%s %s: %s", request.method, request.scope["path"], error)
        return render(not_written(error))
    return await on_bug(request, error)


async def on_bug(request: Request, error: Exception) -> Response:
    """Handler for everything else: a bug. The traceback goes to the log, the client gets a 500."""
    log.error("%s %s", request.method, request.scope["path"], exc_info=error)
    body = envelope(500, "internal error; the gateway's log has the traceback", "internal", {})
    return JSONResponse(body, 500)
