"""Options of the command line from the table of launch fields, and the body that they make."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from paddock.cli.options import LOCK_FILE, F
from paddock.registry.errors import BadValue
from paddock.registry.hubs import AUTO, hub_names
from paddock.registry.launch_fields import Kind, LaunchField, Taker, launch_fields
from paddock.registry.reference import absolute

LONGEST_PATH = 4096


def with_launch_options(taker: Taker, without: tuple[str, ...] = ()) -> Callable[[F], F]:
    """Adds the options of the fields that `taker` takes, in the order of the table.

    Values are passed by the fields' keys; of the lockfile's entry, `locked` and `lock_file`, which
    `locked_entry` reads. Fields in `without` are arguments of the command.
    """

    def add(command: F) -> F:
        rows = [field for field in launch_fields(taker) if field.flags and field.key not in without]
        for option in reversed([option for field in rows for option in _options(field, taker)]):
            command = option(command)
        return command

    return add


def launch_body(values: Mapping[str, Any]) -> dict[str, Any]:
    """The body of `POST /v1/models` for options by the fields' keys, without those not set."""
    body = {}
    for field in launch_fields():
        value = values.get(field.key)
        if value is None or value is False or value == ():
            continue
        convert = _BODY_VALUES.get(field.kind)
        body[field.key] = value if convert is None else convert(value)
    return body


class _HubOption(click.Option):
    """Names the hubs in its help when that is shown: to look them all up takes some 20 ms."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        self.help = f"{', '.join(hub_names())} or {AUTO}."
        return super().get_help_record(ctx)


_SETTINGS: Mapping[Kind, dict[str, Any]] = {
    "count": {"type": int},
    "number": {"type": float},
    "flag": {"is_flag": True},
    "hub": {"cls": _HubOption},
    "adapters": {"multiple": True, "nargs": 2},
    "entry": {"is_flag": True},
}


def _options(field: LaunchField, taker: Taker) -> Iterator[Callable[[F], F]]:
    yield click.option(
        "locked" if field.kind == "entry" else field.key,
        *field.flags,
        metavar=field.metavar,
        help=field.help_of.get(taker, field.help),
        **_SETTINGS.get(field.kind, {}),
    )
    if field.kind == "entry":
        yield click.option(
            "--lock-file",
            default=LOCK_FILE,
            show_default=True,
            metavar="PATH",
            help="The lockfile.",
        )


def _absolute(path: str) -> str:
    # The gateway has a working directory of its own.
    return str(Path(path).expanduser().absolute())


def _absolute_file(name: str) -> str:
    # A plain name is a file of the model's repository.
    return _absolute(name) if "/" in name or name.startswith("~") else name


def _adapters(pairs: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    adapters = [{"lora_name": name, "local_path": _absolute(path)} for name, path in pairs]
    return {"lora_list": adapters}


def _template(value: str) -> str:
    """The text of a file; what is no file is a template itself, or the name of a format."""
    path = Path(value).expanduser() if len(value) < LONGEST_PATH and "{" not in value else None
    if path is None or not path.is_file():
        return value
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadValue("--chat-template", value, f"cannot be read: {error}") from None


_BODY_VALUES: Mapping[Kind, Callable[[Any], Any]] = {
    "reference": absolute,
    "path": _absolute,
    "file": _absolute_file,
    "adapters": _adapters,
    "template": _template,
}
