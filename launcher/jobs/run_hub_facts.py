"""`python -m paddock.launcher.jobs.run_hub_facts`: what a hub says of weights that are not here.

A process of its own, like `run_derive.py`. It reads planned weights as one line of JSON, and
answers with `size_bytes` of the files that a launch would bring, or with the `reason` why not and
its `cause`. With `out` it reads the header of the GGUF by ranges, and writes it there with a hole
up to the full size. When its stdin closes it ends.
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
from paddock.launcher.weights.select_files import choose
from paddock.registry.errors import CorruptFile, HubFailure, PaddockError
from paddock.registry.gguf import read_header


def find_size(job: Job) -> int:
    """The bytes of the files that a launch would bring.

    Raises:
        HubFailure: the hub does not answer, or has no such files.
    """
    listing = job.hub.resolve(job.source, job.terms)
    files = choose(listing, job.wanted, code=job.trusted is not None)
    return sum(file.size_bytes for file in files)


def bring_header(job: Job, out: Path) -> int:
    """Writes the header, and returns the bytes of the whole file.

    Raises:
        HubFailure: the hub does not answer, or has no such file, or does not give it.
        CorruptFile: it is no GGUF.
    """
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
    partial = out.with_name(f"{out.name}.{os.getpid()}")
    try:
        with partial.open("wb") as copy:
            copy.write(bytes_.fetched)
            copy.truncate(file.size_bytes)
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
    return file.size_bytes


def main() -> None:
    """Answers for the weights that stdin names."""
    stdout = take_stdout()
    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_watch, daemon=True).start()
    terms = Terms(Path(request["home"]), request["timeout"], silence=5.0, tries=1)
    weights = PlannedWeights.model_validate(request["weights"])
    out = request["out"]
    answer: dict[str, Any]
    try:
        # Of the first hub alone: others are worth a launch's time when they bring the weights.
        source = weights.sources[0]
        hub = load_hub(source.hub)
        job = Job(
            hub, source, terms, lambda _: None, threading.Event(), weights.lock, weights.trusted
        )
        size = ask([job], find_size if out is None else lambda one: bring_header(one, Path(out)))
        answer = {"size_bytes": size}
    except (CorruptFile, PaddockError, OSError) as error:
        answer = {"reason": str(error), "cause": getattr(error, "cause", "")}
    stdout.write(json.dumps(answer) + "\n")
    stdout.flush()


def _watch() -> None:
    sys.stdin.read()
    os._exit(1)  # the parent is gone, and nobody needs the answer


if __name__ == "__main__":
    main()
