"""Jobs on locks: to make, verify, or compare them with hubs. Each runs in its own process."""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from paddock.launcher.jobs.jobs import Job, Jobs
from paddock.launcher.planning.plan import PlannedWeights
from paddock.launcher.replicas.diagnosis import Diagnosis
from paddock.registry.lockfile import LockedModel
from paddock.registry.spec import Source, Variant

State = Literal["running", "done", "failed", "cancelled"]
Kind = Literal["lock", "verify", "outdated"]


@dataclass(frozen=True)
class Work:
    """A snapshot. `rows` has the results so far, in the shape of the job's kind."""

    id: str
    kind: Kind
    state: State = "running"
    note: str = ""
    came_bytes: int = 0
    total_bytes: int | None = None
    bytes_per_second: float | None = None
    seconds_left: float | None = None
    rows: tuple[dict[str, Any], ...] = ()
    diagnosis: dict[str, Any] | None = None


@dataclass(frozen=True)
class Locking:
    """What is to be locked: a variant, where its weights are, and what serves it."""

    variant: Variant
    weights: PlannedWeights
    engine: str
    engine_version: str


@dataclass
class _Running(Job):
    work: Work
    more: Mapping[str, Mapping[str, Any]]
    """What rows have that the process does not know, by the model that they are of."""
    following: str


class LockJobs(Jobs[_Running]):
    """Starts, shows and calls off work on locks. Use from one event loop only."""

    kind = "lock"
    noun = "work on locks"
    module = "paddock.launcher.jobs.run_lock"

    def make(self, locking: Locking, newest: bool) -> Work:
        """Begins to make an entry; its row is one, as `LockedModel` has it."""
        variant = locking.variant
        fixed = {
            "model": variant.model,
            "format": variant.format,
            "size": variant.size,
            "quantization": variant.quantization,
            "engine": locking.engine,
            "engine_version": locking.engine_version,
        }
        if locking.weights.lock is not None and not newest:  # it runs by a lock, which says it all
            entry = locking.weights.lock.model_dump(mode="json")
            work = Work(_new_id("lock"), "lock", "done", rows=(entry,))
            self._remember(_Running(work.id, self._child(), work, {}, ""))
            return work
        following = ["paddock", "lock", variant.model, "--model-format", variant.format]
        following += ["--quantization", variant.quantization]
        task = {
            "task": "make",
            "weights": locking.weights.model_dump(mode="json"),
            "newest": newest,
        }
        return self._start("lock", task, {"": fixed}, shlex.join(following))

    def verify(self, models: Sequence[LockedModel]) -> Work:
        """Begins to read the locked files; a row for each."""
        task = {"task": "verify", "models": [one.model_dump(mode="json") for one in models]}
        return self._start("verify", task, {}, "paddock verify --locked")

    def outdated(
        self,
        models: Sequence[LockedModel],
        caches: Sequence[tuple[str, Source]],
        versions: Mapping[str, str],
    ) -> Work:
        """Begins to ask the hubs what is newer than the locks, or than what is cached.

        `versions` are those of the engines that are installed, by name.
        """
        task = {
            "task": "compare",
            "models": [one.model_dump(mode="json") for one in models],
            "caches": [(name, source.model_dump(mode="json")) for name, source in caches],
        }
        none = {"engine": None, "locked_engine_version": None, "engine_version": None}
        engines = {
            one.model: {
                "engine": one.engine,
                "locked_engine_version": one.engine_version,
                "engine_version": versions.get(one.engine),
            }
            for one in models
        }
        return self._start("outdated", task, {"": none, **engines}, "paddock outdated")

    def get(self, work_id: str) -> Work:
        """One. Raises `NotFound`."""
        return self._find(work_id).work

    def all(self) -> tuple[Work, ...]:
        """Every one that is remembered, oldest first."""
        return tuple(running.work for running in self._jobs.values())

    async def cancel(self, work_id: str) -> Work:
        """Calls it off; returns when its process is gone. Raises `NotFound`."""
        running = self._find(work_id)
        await running.child.end()
        return running.work

    def _start(
        self,
        kind: Kind,
        task: dict[str, Any],
        more: Mapping[str, Mapping[str, Any]],
        following: str,
    ) -> Work:
        record = {"kind": kind, "task": task, "more": more, "following": following}
        return self._begin(_new_id(kind), record)

    def _begin_again(self, job_id: str, record: dict[str, Any]) -> None:
        self._begin(job_id, record)

    def _begin(self, job_id: str, record: dict[str, Any]) -> Work:
        work = Work(job_id, record["kind"])
        running = _Running(job_id, self._child(), work, record["more"], record["following"])
        common = {"home": str(self._home), "timeout": self._settings.hub_timeout}
        self._run(running, {**record["task"], **common}, record)
        return work

    def _hear(self, job: _Running, line: dict[str, Any]) -> None:
        work = job.work
        if "progress" in line:
            progress = {key: value for key, value in line["progress"].items() if key != "files"}
            job.work = replace(work, **progress)
        elif "row" in line:
            row = line["row"]
            more = job.more.get(row.get("model", ""), job.more.get("", {}))
            job.work = replace(work, rows=(*work.rows, {**more, **row}))
        elif "done" in line:
            job.work = replace(work, state="done", note="")
        elif "failure" in line:
            failure = line["failure"]
            tried = tuple(failure["tried"])
            self._fail(
                job,
                Diagnosis(failure["cause"], failure["reason"], job.following, tried=tried),
            )
        elif work.state == "running":
            message = f"the process of {work.id} ended with code {line['ended']} and said nothing"
            self._fail(job, Diagnosis("internal", message, job.following))

    def _fail(self, running: _Running, diagnosis: Diagnosis) -> None:
        called_off = running.child.called_off
        state: State = "cancelled" if called_off else "failed"
        details = None if called_off else diagnosis.to_json()
        running.work = replace(running.work, state=state, diagnosis=details)


def _new_id(kind: Kind) -> str:
    return f"{kind}-{secrets.token_hex(4)}"
