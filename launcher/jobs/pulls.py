"""Downloads without a launch: each in a process of its own, which the next gateway takes up."""

from __future__ import annotations

import secrets
import shlex
from dataclasses import dataclass, replace
from typing import Any, Literal

from paddock.launcher.jobs.jobs import Job, Jobs
from paddock.launcher.planning.plan import PlannedWeights
from paddock.launcher.replicas.diagnosis import Diagnosis
from paddock.registry.spec import Variant

State = Literal["downloading", "done", "failed", "cancelled"]


@dataclass(frozen=True)
class PullStatus:
    """A snapshot of a pull of the model `name`; `path` is set when it is done.

    `files` are `weights.progress.FileProgress` as dicts.
    """

    id: str
    name: str
    variant: Variant
    weights: PlannedWeights
    state: State = "downloading"
    note: str = ""
    came_bytes: int = 0
    total_bytes: int | None = None
    bytes_per_second: float | None = None
    seconds_left: float | None = None
    files: tuple[dict[str, Any], ...] = ()
    path: str | None = None
    diagnosis: dict[str, Any] | None = None


@dataclass
class Pull(Job):
    """One pull, and what is known of it."""

    status: PullStatus


class PullJobs(Jobs[Pull]):
    """Starts, shows and calls off pulls. Use from one event loop only."""

    kind = "pull"
    noun = "pull"
    module = "paddock.launcher.jobs.run_pull"

    def start(self, name: str, variant: Variant, weights: PlannedWeights) -> PullStatus:
        """Begins to bring the weights, and returns at once; one that does so already is taken."""
        for pull in self._jobs.values():
            if pull.status.state == "downloading" and pull.status.weights == weights:
                return pull.status
        return self._begin(PullStatus(f"pull-{secrets.token_hex(4)}", name, variant, weights))

    def _begin(self, status: PullStatus) -> PullStatus:
        weights = status.weights.model_dump(mode="json")
        task = {
            "weights": weights,
            "home": str(self._home),
            "timeout": self._settings.hub_timeout,
        }
        variant = status.variant.model_dump(mode="json")
        record = {"name": status.name, "variant": variant, "weights": weights}
        self._run(Pull(status.id, self._child(), status), task, record)
        return status

    def _begin_again(self, job_id: str, record: dict[str, Any]) -> None:
        variant = Variant.model_validate(record["variant"])
        weights = PlannedWeights.model_validate(record["weights"])
        self._begin(PullStatus(job_id, record["name"], variant, weights))

    def all(self) -> tuple[PullStatus, ...]:
        """Every pull, oldest first."""
        return tuple(pull.status for pull in self._jobs.values())

    def get(self, pull_id: str) -> PullStatus:
        """One pull. Raises `NotFound`."""
        return self._find(pull_id).status

    async def cancel(self, pull_id: str) -> PullStatus:
        """Calls it off, and returns when its process is gone; one that has ended is left as it is.

        Raises:
            NotFound: there is no such pull.
        """
        pull = self._find(pull_id)
        await pull.child.end()
        return pull.status

    def _hear(self, job: Pull, line: dict[str, Any]) -> None:
        if "progress" in line:
            progress = line["progress"]
            files = tuple(progress.pop("files"))
            job.status = replace(job.status, files=files, **progress)
        elif "ended" in line:
            if job.status.state == "downloading":
                code = line["ended"]
                message = f"the download's process ended with code {code} and said nothing"
                self._fail(job, Diagnosis("internal", message, pull_command(job.status)))
        elif "path" in line:
            quiet: dict[str, Any] = {"note": "", "bytes_per_second": None, "seconds_left": None}
            job.status = replace(job.status, state="done", path=line["path"], **quiet)
        else:
            failure = line["failure"]
            following = pull_command(job.status)
            self._fail(
                job,
                Diagnosis(
                    failure["cause"], failure["reason"], following, tried=tuple(failure["tried"])
                ),
            )

    def _fail(self, pull: Pull, diagnosis: Diagnosis) -> None:
        called_off = pull.child.called_off
        state: State = "cancelled" if called_off else "failed"
        details = None if called_off else diagnosis.to_json()
        pull.status = replace(
            pull.status, state=state, diagnosis=details, bytes_per_second=None, seconds_left=None
        )


def pull_command(status: PullStatus) -> str:
    """A command line that takes the pull up again."""
    variant = status.variant
    argv = ["paddock", "pull", status.name, "--model-format", variant.format]
    locked = ["--locked"] if status.weights.lock is not None else []
    return shlex.join([*argv, "--quantization", variant.quantization, *locked])
