"""Options of the command line from the table of launch fields, and the body that they make."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from paddock.cli.options import F, lockable, on_hub
from paddock.registry.launch_fields import Kind, LaunchField, Taker, launch_fields
from paddock.registry.reference import absolute


def with_launch_options(taker: Taker, without: tuple[str, ...] = ()) -> Callable[[F], F]:
    """Adds the options of the fields that `taker` takes, in the order of the table.

    Values are passed by the fields' keys; the lockfile's as `lockable` does. Fields in `without`
    are arguments of the command.
    """

    def add(command: F) -> F:
        for one in reversed([*launch_fields(taker)]):
            if one.flags and one.key not in without:
                command = _option(one, taker)(command)
        return command

    return add


def launch_body(values: Mapping[str, Any]) -> dict[str, Any]:
    """The launch as REST takes it, of options by the fields' keys; what was left out stays out."""
    body = {}
    for one in launch_fields():
        value = values.get(one.key)
        if value is None or value is False or value == ():
            continue
        convert = _BODY_VALUES.get(one.kind)
        body[one.key] = value if convert is None else convert(value)
    return body


def _option(one: LaunchField, taker: Taker) -> Callable[[F], F]:
    if one.kind == "entry":
        return lockable
    if one.kind == "hub":
        return on_hub
    return click.option(
        one.key,
        *one.flags,
        metavar=one.metavar,
        help=one.help_of.get(taker, one.help),
        **_SETTINGS.get(one.kind, {}),
    )


_SETTINGS: Mapping[Kind, dict[str, Any]] = {
    "count": {"type": int},
    "number": {"type": float},
    "flag": {"is_flag": True},
    "adapters": {"multiple": True, "nargs": 2},
}


def _absolute(path: str) -> str:
    # The gateway has a working directory of its own.
    return str(Path(path).expanduser().absolute())


def _absolute_file(name: str) -> str:
    # A plain name is a file of the model's repository.
    return _absolute(name) if "/" in name or name.startswith("~") else name


def _adapters(pairs: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    adapters = [{"lora_name": name, "local_path": _absolute(path)} for name, path in pairs]
    return {"lora_list": adapters}


_BODY_VALUES: Mapping[Kind, Callable[[Any], Any]] = {
    "reference": absolute,
    "path": _absolute,
    "file": _absolute_file,
    "adapters": _adapters,
}
