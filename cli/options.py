"""Options that commands share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import click

from paddock.cli.output import Output
from paddock.registry.settings import Settings, read_settings

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


__all__ = ["Output", "Settings", "connected", "offline"]
