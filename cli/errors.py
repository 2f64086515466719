"""Errors on the command line: one table class → exit code, one way to show them.

0  done                          4  no engine can serve it; a launch, or a hub, has failed
1  an error of another kind      5  no gateway, or Ray does not start
2  refused: nothing was changed  130  called off with Ctrl-C
3  no launched model has the id, or it cannot answer now
"""

from __future__ import annotations

import json
import sys
from typing import Any

from paddock.registry import errors
from paddock.registry.errors import GatewayError, InstallFailed, LaunchFailed, PaddockError

EXIT_CODES: tuple[tuple[type[PaddockError], int], ...] = (
    (errors.NoEngine, 4),
    (errors.Refused, 2),
    (errors.EngineInUse, 2),
    (errors.NotLaunched, 3),
    (errors.NotReady, 3),
    (errors.EngineSilent, 3),
    (errors.EngineDied, 3),
    (errors.LaunchFailed, 4),
    (errors.HubFailure, 4),
    (errors.GatewayUnreachable, 5),
    (errors.GatewayNotStarted, 5),
    (errors.PortInUse, 5),
    (errors.Cancelled, 130),
    (PaddockError, 1),
)
ALREADY_RUNS = 6


def exit_code(error: PaddockError) -> int:
    """The exit code of an error; one that came over HTTP counts as the class that it names."""
    kind: type[PaddockError] = type(error)
    if isinstance(error, GatewayError):
        error_class = getattr(errors, str(error.error.get("code")), None)
        if isinstance(error_class, type) and issubclass(error_class, PaddockError):
            kind = error_class
        elif 400 <= error.status < 500:
            kind = errors.Refused
    return next(code for parent, code in EXIT_CODES if issubclass(kind, parent))


def show(error: PaddockError, as_json: bool) -> None:
    """The error on stderr: one line, below it what a diagnosis adds; or as JSON on stdout."""
    diagnosis = diagnosis_of(error) or _fields(error)
    if as_json:
        fields = _fields(error)
        code = fields.get("code", type(error).__name__)
        body: dict[str, Any] = {"code": code, "message": str(error), **fields}
        print(json.dumps({"error": body}, indent=2, default=str))
        return
    print(f"paddock: {error}", file=sys.stderr)
    for line in diagnosis.get("tried", ()):
        print(f"  tried {line}", file=sys.stderr)
    for line in diagnosis.get("lines", ()):
        print(f"  | {line}", file=sys.stderr)


def _fields(error: PaddockError) -> dict[str, Any]:
    return error.error if isinstance(error, GatewayError) else error.fields()


def diagnosis_of(error: PaddockError) -> dict[str, Any] | None:
    """The `Diagnosis` of an error, ours or the gateway's, as JSON; None if it carries none."""
    if isinstance(error, LaunchFailed):
        return error.diagnosis
    if isinstance(error, InstallFailed):
        return {"lines": error.lines}
    if isinstance(error, GatewayError):
        diagnosis = error.error.get("diagnosis")
        return diagnosis if isinstance(diagnosis, dict) else None
    return None
