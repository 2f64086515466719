"""`python -m paddock.launcher.hubs.pull`: one download in a process of its own.

It reads what to bring as one line of JSON, and writes a line for each step: progress, then the path
or the failure. When its stdin closes it ends, and leaves parts that the next one takes up. So the
gateway stays small, and answers while weights are hashed.
"""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from typing import Any

from paddock.launcher.hubs import Progress, Terms, fetch
from paddock.launcher.plan import PlannedWeights
from paddock.registry.errors import HubFailure


def main() -> None:
    """Brings the weights that stdin names."""
    given = json.loads(sys.stdin.readline())
    cancelled = threading.Event()
    threading.Thread(target=_watch, args=(cancelled,), daemon=True).start()
    terms = Terms(Path(given["home"]), given["timeout"])
    weights = PlannedWeights.model_validate(given["weights"])
    try:
        path = fetch(weights, terms, _report, cancelled)
        if weights.projector_alone is not None:
            fetch(weights.projector_alone, terms, _report, cancelled)
        _say({"path": str(path)})
    except HubFailure as failure:
        _say({"failure": failure.fields()})
    except OSError as error:
        _say({"failure": {"cause": "load_failed", "reason": str(error), "tried": ()}})


def _watch(cancelled: threading.Event) -> None:
    sys.stdin.read()
    cancelled.set()


def _report(progress: Progress) -> None:
    _say({"progress": progress.to_json()})


def _say(line: dict[str, Any]) -> None:
    try:
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever wanted it is gone: so are we, by the closed stdin.
        sys.stdout = open("/dev/null", "w")  # noqa: SIM115


if __name__ == "__main__":
    main()
