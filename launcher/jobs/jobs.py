"""Work of the gateway's in processes of their own, which its next start takes up again.

What a job needs to begin anew lies in `HOME/jobs`, one JSON file a job, from its start to its end.
A gateway that was killed, or that makes way for another, leaves the files: the next one begins the
same jobs under the same ids, and downloads go on from the parts that are there. `paddock stop`
calls them off and removes the files.
"""

from __future__ import annotations

import asyncio
import json
import logging
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar
from urllib.parse import quote

from paddock.launcher.hosts import processes
from paddock.launcher.jobs.child import Child
from paddock.registry.errors import NotFound, NotWritten, PaddockError
from paddock.registry.files import make_private, write_atomically
from paddock.registry.settings import Settings

log = logging.getLogger(__name__)

FOLDER = "jobs"
REMEMBERED = 100
"""How many jobs of a kind are remembered; the oldest that have ended are forgotten first."""


@dataclass
class Job:
    """One piece of work, and its process."""

    id: str
    child: Child


J = TypeVar("J", bound=Job)


class Jobs(Generic[J]):
    """The jobs of one kind. Use from one event loop only."""

    kind: ClassVar[str]
    """What the jobs' files say that they are of."""
    noun: ClassVar[str]
    """What one is called in errors."""
    module: ClassVar[str]
    """What is run for a job; see `Child`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._home = settings.home
        self._jobs: dict[str, J] = {}
        self._leaving = False

    @abstractmethod
    def _hear(self, job: J, line: dict[str, Any]) -> None:
        """Notes a line of the job's process."""

    @abstractmethod
    def _begin_again(self, job_id: str, record: dict[str, Any]) -> None:
        """Begins a job from the record that `_run` has written."""

    def _child(self) -> Child:
        return Child(self.module, self._home)

    def _run(self, job: J, task: dict[str, Any], record: dict[str, Any]) -> None:
        """Starts a job's process; `record` is what `_begin_again` needs."""
        self._remember(job)
        self._write(job.id, record)
        job.child.start(task, lambda line: self._listen(job, line))

    def _remember(self, job: J) -> None:
        over = len(self._jobs) - REMEMBERED + 1
        ended = [job_id for job_id, one in self._jobs.items() if not one.child.running]
        for job_id in ended[: max(0, over)]:
            del self._jobs[job_id]
        self._jobs[job.id] = job

    def _listen(self, job: J, line: dict[str, Any]) -> None:
        self._hear(job, line)
        # One that a leaving gateway has ended is for the next.
        if "ended" in line and not (self._leaving and job.child.called_off):
            self._path(job.id).unlink(missing_ok=True)

    def _find(self, job_id: str) -> J:
        if job_id not in self._jobs:
            raise NotFound.among(self.noun, job_id, self._jobs)
        return self._jobs[job_id]

    def _path(self, job_id: str) -> Path:
        return self._home / FOLDER / f"{quote(job_id, safe='')}.json"

    def _write(self, job_id: str, record: dict[str, Any]) -> None:
        path = self._path(job_id)
        try:
            make_private(path.parent)
            write_atomically(path, json.dumps({**record, "id": job_id, "job": self.kind}))
        except (
            OSError,
            NotWritten,
        ) as error:  # a full disk: the job itself says so, where it needs one
            log.warning("%s will not outlive the gateway: %s", job_id, error)

    def resume(self, record: dict[str, Any]) -> None:
        """Begins again what an earlier gateway has left, by its file.

        Raises:
            Exception: what a record of another version's, or of an engine that is gone, leads to:
                a `ValueError`, `KeyError`, `TypeError` or `PaddockError`.
        """
        self._begin_again(record["id"], record)

    async def close(self, forget: bool) -> None:
        """Ends all processes; unless it is to `forget` them, the next gateway goes on."""
        self._leaving = not forget
        await asyncio.gather(*(job.child.end() for job in self._jobs.values()))


async def resume_all(home: Path, several: Sequence[Jobs[Any]]) -> None:
    """Begins again what an earlier gateway has left, once its processes are gone."""
    paths = sorted((home / FOLDER).glob("*.json"))
    if paths:
        await asyncio.to_thread(_end_processes, processes.instance_id(home))
    by_kind = {jobs.kind: jobs for jobs in several}
    for path in paths:
        try:
            record = json.loads(path.read_text("utf-8"))
            by_kind[record["job"]].resume(record)
            log.info("%s goes on", record["id"])
        except (OSError, ValueError, KeyError, TypeError, PaddockError) as error:
            log.warning("%s is not taken up: %s", path.name, error)
            path.unlink(missing_ok=True)


def _end_processes(instance: str) -> None:
    # A process ends when its gateway does, but may be in the middle of hashing gigabytes.
    processes.end(processes.belonging(instance, {processes.JOB}), processes.STOP_GRACE)
