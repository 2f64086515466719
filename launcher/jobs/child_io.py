"""How a process that `launcher/jobs/child.py` started speaks: lines of JSON on its stdout."""

from __future__ import annotations

import json
import sys
import threading
from typing import Any, TextIO

_SAYING = threading.Lock()
_lines: TextIO | None = None


def take_stdout() -> TextIO:
    """Keeps stdout for our own lines, and returns it: what a hub's client prints goes to stderr."""
    global _lines
    _lines, sys.stdout = sys.stdout, sys.stderr
    return _lines


def say(line: dict[str, Any]) -> None:
    """Says one line, whole, from any thread."""
    global _lines  # noqa: PLW0603
    with _SAYING:
        out = _lines or sys.stdout
        try:
            out.write(json.dumps(line) + "\n")
            out.flush()
        except BrokenPipeError:
            # Whoever wanted it is gone: so are we, by the closed stdin.
            _lines = open("/dev/null", "w")  # noqa: SIM115


def set_when_called_off(event: threading.Event) -> None:
    """Returns once stdin is closed, which calls the work off; the event is set then."""
    sys.stdin.read()
    event.set()
