"""`python -m paddock.launcher.jobs.run_header`: brings the header of a GGUF that is on a hub.

A process of its own, like `run_derive.py`. It reads planned weights as one line of JSON, writes
what it has read by ranges into the file `out`, with a hole up to the full size, and answers with
the size, or why there is none. When its stdin closes it ends.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

from paddock.launcher.jobs.child_io import take_stdout
from paddock.launcher.planning.plan import PlannedWeights
from paddock.launcher.weights import ask, load_hub
from paddock.launcher.weights.base import Terms
from paddock.launcher.weights.job import Job
from paddock.launcher.weights.ranges import RangedBytes, Reading
from paddock.registry.errors import CorruptFile, HubFailure, PaddockError
from paddock.registry.gguf import read_header


def bring_header(weights: PlannedWeights, terms: Terms, out: Path) -> int:
    """Writes the header, and returns the bytes of the whole file.

    Raises:
        HubFailure: the hub does not answer, or has no such file, or does not give it.
        CorruptFile: it is no GGUF.
    """

    def bring(job: Job) -> int:
        listing = job.hub.resolve(job.source, job.terms)
        file = next((one for one in listing.files if one.name == job.source.file), None)
        if file is None:
            raise HubFailure("not_found", f"{job.source.id} has no {job.source.file}")
        reading = Reading(job.hub, listing, job.terms)
        try:
            bytes_ = RangedBytes(reading, file)
            read_header(bytes_)
        finally:
            reading.close()
        with out.open("wb") as copy:
            copy.write(bytes_.fetched)
            copy.truncate(file.size_bytes)
        return file.size_bytes

    # Of the first hub alone: others are worth a launch's time when they bring the weights.
    source = weights.sources[0]
    job = Job(load_hub(source.hub), source, terms, lambda _: None, threading.Event())
    return ask([job], bring)


def main() -> None:
    """Answers for the weights that stdin names."""
    out = take_stdout()
    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_watch, daemon=True).start()
    terms = Terms(Path(request["home"]), request["timeout"], silence=5.0, tries=1)
    weights = PlannedWeights.model_validate(request["weights"])
    answer: dict[str, Any]
    try:
        answer = {"size_bytes": bring_header(weights, terms, Path(request["out"]))}
    except (CorruptFile, PaddockError, OSError) as error:
        answer = {"reason": str(error)}
    out.write(json.dumps(answer) + "\n")
    out.flush()


def _watch() -> None:
    sys.stdin.read()
    os._exit(1)  # the parent is gone, and nobody needs the file


if __name__ == "__main__":
    main()
