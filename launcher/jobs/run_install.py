"""`python -m paddock.launcher.jobs.run_install`: one engine's environment, made in a job.

It reads what to make as one line of JSON, and writes a line for each step, then `made` or why not.
When its stdin closes it ends what it has started, and what was half made is removed.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from paddock.engines.environment import Environment
from paddock.launcher.environments.build import install
from paddock.launcher.jobs.child_io import say
from paddock.registry.errors import InstallFailed

POLL_SECONDS = 0.05
PATHS = ("requirements", "cuda")


def pack(environment: Environment) -> dict[str, Any]:
    """The environment as JSON can have it."""
    data = asdict(environment)
    return data | {name: [str(path) for path in data[name]] for name in PATHS}


def unpack(data: dict[str, Any]) -> Environment:
    """The inverse of `pack`."""
    paths = {name: tuple(map(Path, data[name])) for name in PATHS}
    lists = {name: tuple(data[name]) for name in ("modules", "extra")}
    return Environment(**{**data, **paths, **lists})


def main() -> None:
    """Makes the environment that stdin names."""
    request = json.loads(sys.stdin.readline())
    ended = threading.Event()
    threading.Thread(target=_watch, args=(ended,), daemon=True).start()
    environment = unpack(request["environment"])
    try:
        install(environment, Path(request["home"]), _report, request["accelerator"])
        say({"made": True})
    except InstallFailed as failure:
        say({"failed": [str(failure), *failure.lines]})
    except OSError as error:
        say({"failed": [str(error)]})
    ended.set()


def _watch(ended: threading.Event) -> None:
    """When it is called off, ends every process that it has started, until it is done itself."""
    sys.stdin.read()
    while not ended.wait(POLL_SECONDS):
        with contextlib.suppress(psutil.Error):
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    process.kill()


def _report(note: str) -> None:
    say({"note": note})


if __name__ == "__main__":
    main()
