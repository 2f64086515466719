"""Errors of engines, and of requests to them, as answers in the client's dialect."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping
from typing import Any

from starlette.responses import Response

from paddock.registry.errors import PaddockError
from paddock.registry.json_codec import decode, encode
from paddock.server.http.errors import envelope, status_of
from paddock.server.proxy.context_excess import CODE, find_excess
from paddock.server.proxy.sinks import EngineRefused

Body = dict[str, Any]

# Statuses by which an attached endpoint rejects the gateway itself, not the client's request.
REJECTIONS = {
    301: "its endpoint redirects, which is not followed",
    302: "its endpoint redirects, which is not followed",
    303: "its endpoint redirects, which is not followed",
    307: "its endpoint redirects, which is not followed",
    308: "its endpoint redirects, which is not followed",
    401: "its endpoint does not take the key any more",
    403: "its endpoint does not allow that with its key",
}


def died_by_itself(diagnosis: Mapping[str, Any]) -> bool:
    """Whether a request may have ended an engine: it exited, crashed, or took all memory.

    Other SIGKILL and SIGTERM come from outside.
    """
    if diagnosis.get("cause") in {"engine_hung", "actor_died", "node_lost"}:
        return False
    if diagnosis.get("cause") in {"oom", "memory_limit"}:
        return True
    return diagnosis.get("signal") not in {"SIGKILL", "SIGTERM"}


_RETRY_AFTER = re.compile(rb"[\x20-\x7e]{1,100}")


def without_key(key: str, error: EngineRefused) -> EngineRefused:
    """The error without the replica's key: some engines say with which key they were asked."""
    body = error.body.replace(key.encode(), b"(key)") if key else error.body
    return EngineRefused(error.status, body, error.retry_after)


def error_body(error: EngineRefused | PaddockError) -> dict[str, Any]:
    """An error as the body of an answer, in our envelope."""
    if isinstance(error, PaddockError):
        return envelope(status_of(error), str(error), type(error).__name__, error.fields())
    message = error.body.decode("utf-8", "replace").strip()
    fields: dict[str, Any] = {}
    with contextlib.suppress(ValueError, RecursionError):
        answer = decode(error.body)
        details = answer.get("error", answer) if isinstance(answer, dict) else {}
        if isinstance(details, dict):
            fields = {
                key: value for key, value in details.items() if key not in {"message", "type"}
            }
            message = str(details.get("message") or message)
        else:
            message = str(details)
    excess = find_excess(message, fields)
    if excess is not None and error.status < 500:
        numbers = {"n_prompt_tokens": excess.prompt, "n_ctx": excess.context}
        body = envelope(error.status, excess.message, CODE, {**numbers, "layer": "engine"})
        body["error"]["param"] = excess.input.partition("[")[0] or "prompt"
        return body
    status = _status(error)
    if status != error.status:
        message = f"its engine answered with status {error.status}: {message}"
    return envelope(status, message, "EngineRefused", {**fields, "layer": "engine"})


def _status(error: EngineRefused) -> int:
    """The engine's status where it is one of an error; others have no place for our body."""
    return error.status if 400 <= error.status < 600 else 502


def in_dialect(answer: Response, render_error: Callable[[Body], Body]) -> Response:
    """An error answer in the words of a dialect."""
    headers = {k: v for k, v in answer.headers.items() if k.lower() == "retry-after"}
    body = encode(render_error(decode(bytes(answer.body))))
    return Response(body, answer.status_code, headers, media_type="application/json")


def render_refusal(error: EngineRefused) -> Response:
    """An engine's error as an answer."""
    body = encode(error_body(error))
    headers = {}
    if _RETRY_AFTER.fullmatch(error.retry_after):
        headers["Retry-After"] = error.retry_after.decode("ascii")
    return Response(body, _status(error), headers, media_type="application/json")
