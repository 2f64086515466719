"""Options that commands share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import click

from paddock.cli.output import Output
from paddock.registry.settings import Settings, read_settings

LOCK_FILE = "paddock.lock"

F = TypeVar("F", bound=Callable[..., Any])


def connected(command: F) -> F:
    """Adds `--endpoint`, `--api-key` and `--json`; passes `settings` and `output`."""

    @click.option("-e", "--endpoint", help="Gateway to talk to.  [PADDOCK_ENDPOINT]")
    @click.option("-ak", "--api-key", help="Key to send.  [PADDOCK_API_KEY]")
    @click.option("--json", "as_json", is_flag=True, help="Machine output on stdout.")
    @functools.wraps(command)
    def wrapped(
        *args: Any, endpoint: str | None, api_key: str | None, as_json: bool, **kwargs: Any
    ) -> Any:
        settings = read_settings({"endpoint": endpoint, "api_key": api_key})
        return command(*args, settings=settings, output=Output(as_json), **kwargs)

    return wrapped  # type: ignore[return-value]


def offline(command: F) -> F:
    """Adds `--json`; passes `settings` and `output`. For commands that need no gateway."""

    @click.option("--json", "as_json", is_flag=True, help="Machine output on stdout.")
    @functools.wraps(command)
    def wrapped(*args: Any, as_json: bool, **kwargs: Any) -> Any:
        return command(*args, settings=read_settings(), output=Output(as_json), **kwargs)

    return wrapped  # type: ignore[return-value]


def locked_entry(name: str, path: str, settings: Settings) -> dict[str, Any]:
    """The entry of a model in a lockfile, as REST takes it; `name` may be an alias.

    Raises:
        InvalidLock: the file is not there, or is wrong.
        UnknownName: it does not lock the model.
    """
    from paddock.registry.catalog import Catalog
    from paddock.registry.errors import UnknownName
    from paddock.registry.lockfile import read_lock

    index = settings.index if settings.index.exists() else None
    with suppress(UnknownName):  # a gateway elsewhere may know it
        name = Catalog.load(index=index, custom=settings.specs).lookup(name).name
    return read_lock(Path(path)).entry(name).model_dump(mode="json", exclude_none=True)


__all__ = [
    "LOCK_FILE",
    "Output",
    "Settings",
    "connected",
    "locked_entry",
    "offline",
]
