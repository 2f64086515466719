"""`python -m paddock.launcher.jobs.run_pull`: one download in a process of its own.

It reads what to bring as one line of JSON, and writes a line for each step: progress, then the path
or the failure. When its stdin closes it ends, and leaves parts that the next one takes up. So the
gateway stays small, and answers while weights are hashed.
"""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

from paddock.launcher.jobs.child_io import say, set_when_called_off, take_stdout
from paddock.launcher.planning.plan import PlannedWeights
from paddock.launcher.weights import Progress, Terms, fetch
from paddock.registry.errors import HubFailure


def main() -> None:
    """Brings the weights that stdin names."""
    take_stdout()
    request = json.loads(sys.stdin.readline())
    cancelled = threading.Event()
    threading.Thread(target=set_when_called_off, args=(cancelled,), daemon=True).start()
    terms = Terms(Path(request["home"]), request["timeout"])
    weights = PlannedWeights.model_validate(request["weights"])
    try:
        path = fetch(weights, terms, _report, cancelled)
        if weights.projector_alone is not None:
            fetch(weights.projector_alone, terms, _report, cancelled)
        say({"path": str(path)})
    except HubFailure as failure:
        say({"failure": failure.fields()})
    except OSError as error:
        say({"failure": {"cause": "load_failed", "reason": str(error), "tried": ()}})


def _report(progress: Progress) -> None:
    say({"progress": progress.to_json()})


if __name__ == "__main__":
    main()
