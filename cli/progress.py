"""A launch's progress: live on a terminal, plain lines in a pipe."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from paddock.cli.output import Output, size

Show = Callable[[dict[str, Any]], None]
MOVING = frozenset({"downloading", "running"})
"""States in which bytes pass: of downloads, and of work on files that are here."""
LINE_SECONDS = 10.0
"""In a pipe, the time after which a running download is reported again."""


@contextmanager
def progress_display(output: Output, stream: TextIO) -> Iterator[Show]:
    """Yields a function that shows progress."""
    if stream.isatty() and not output.as_json:
        with _live() as show:
            yield show
    else:
        yield _lines(output)


def _lines(output: Output) -> Show:
    last = ""
    last_time = 0.0

    def show(progress: dict[str, Any]) -> None:
        nonlocal last, last_time
        text = _text(progress)
        key = f"{progress['state']} {progress['note']}"
        due = progress["state"] in MOVING and time.monotonic() - last_time > LINE_SECONDS
        if (key != last or due) and progress["starting"]:
            output.talk(text)
            last, last_time = key, time.monotonic()

    return show


@contextmanager
def _live() -> Iterator[Show]:
    """A line for all, and below it a bar for each file that comes now."""
    from rich.console import Console, Group
    from rich.live import Live
    from rich.progress import BarColumn, Progress, TextColumn
    from rich.spinner import Spinner

    words = (TextColumn("  {task.description}"), BarColumn(), TextColumn("{task.fields[words]}"))
    bars = Progress(*words)
    line = Spinner("dots")
    tasks: dict[str, Any] = {}

    def show(progress: dict[str, Any]) -> None:
        line.update(text=_text(progress))
        downloading = progress["state"] == "downloading"
        for file in progress.get("download_files") or ():
            name = file["name"]
            if name not in tasks:
                tasks[name] = bars.add_task(name, words="")
            came, total = file["came_bytes"], file["total_bytes"]
            coming = downloading and 0 < came < total
            words = f"{size(came)} of {size(total)}{_pace(file)}"
            bars.update(tasks[name], completed=came, total=total, words=words, visible=coming)

    with Live(Group(line, bars), console=Console(stderr=True), transient=True):
        yield show


def _text(progress: dict[str, Any]) -> str:
    text = f"{progress['state']}: {progress['note']}" if progress["note"] else progress["state"]
    if progress["state"] in MOVING and progress["came_bytes"]:
        total = progress["total_bytes"]
        of = f" of {size(total)} ({progress['came_bytes'] / total:.0%})" if total else ""
        text += f", {size(progress['came_bytes'])}{of}{_pace(progress)}"
    return str(text)


def _pace(progress: dict[str, Any]) -> str:
    """Speed and time left, where they are known."""
    text = ""
    if progress.get("bytes_per_second"):
        text += f", {size(progress['bytes_per_second'])}/s"
    if progress.get("seconds_left"):
        text += f", {_clock(progress['seconds_left'])} left"
    return text


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
