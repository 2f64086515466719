"""A launch's progress: live on a terminal, plain lines in a pipe."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from paddock.cli.output import Output, size

Show = Callable[[dict[str, Any]], None]
LINE_SECONDS = 10.0
"""In a pipe, how often a download that goes on is told again."""


@contextmanager
def progress_display(output: Output, stream: TextIO) -> Iterator[Show]:
    """Gives a function that shows the progress it is handed."""
    if stream.isatty() and not output.as_json:
        with _live() as show:
            yield show
    else:
        yield _lines(output)


def _lines(output: Output) -> Show:
    last = ""
    told = 0.0

    def show(progress: dict[str, Any]) -> None:
        nonlocal last, told
        text = _text(progress)
        key = f"{progress['state']} {progress['note']}"
        due = progress["state"] == "downloading" and time.monotonic() - told > LINE_SECONDS
        if (key != last or due) and progress["starting"]:
            output.talk(text)
            last, told = key, time.monotonic()

    return show


@contextmanager
def _live() -> Iterator[Show]:
    from rich.console import Console
    from rich.status import Status

    console = Console(stderr=True)
    with Status("", console=console) as status:
        yield lambda progress: status.update(_text(progress))


def _text(progress: dict[str, Any]) -> str:
    text = f"{progress['state']}: {progress['note']}" if progress["note"] else progress["state"]
    if progress["state"] == "downloading" and progress["came_bytes"]:
        total = progress["total_bytes"]
        of = f" of {size(total)} ({progress['came_bytes'] / total:.0%})" if total else ""
        text += f", {size(progress['came_bytes'])}{of}"
    return str(text)
