"""A launch as the command that makes it. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

from paddock.launcher.planning.plan import LaunchRequest
from paddock.registry.hubs import AUTO
from paddock.registry.launch_fields import LaunchField, launch_fields
from paddock.registry.prompts import is_template


def launch_command(request: LaunchRequest) -> str:
    """`paddock launch` with all that the request names, for a POSIX shell."""
    words = ["paddock", "launch", request.model_name]
    for field in launch_fields("launch"):
        if field.attribute and field.attribute != "model_name":
            words += _option(field, request)
    for name, value in request.engine_options.items():
        words += [f"--{name}", _text(value)]
    return shlex.join(words)


def _option(field: LaunchField, request: LaunchRequest) -> Iterator[str]:
    value = getattr(request, field.attribute)
    if field.attribute in request.automatic:
        value = AUTO
    if value in (None, False, (), type(request).model_fields[field.attribute].default):
        return
    flag = next(flag for flag in field.flags if flag.startswith("--"))
    yield flag
    if field.kind == "template" and is_template(value):
        yield "FILE"
    elif field.kind not in {"flag", "entry"}:
        yield _text(value)


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
