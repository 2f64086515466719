"""How a process that `launcher/jobs/child.py` started speaks: lines of JSON on its stdout."""

from __future__ import annotations

import json
import sys
import threading
from typing import Any

_SAYING = threading.Lock()


def say(line: dict[str, Any]) -> None:
    """Says one line, whole, from any thread."""
    with _SAYING:
        try:
            sys.stdout.write(json.dumps(line) + "\n")
            sys.stdout.flush()
        except BrokenPipeError:
            # Whoever wanted it is gone: so are we, by the closed stdin.
            sys.stdout = open("/dev/null", "w")  # noqa: SIM115


def set_when_called_off(event: threading.Event) -> None:
    """Returns once stdin is closed, which calls the work off; the event is set then."""
    sys.stdin.read()
    event.set()
