"""Install jobs of the gateway: one for each engine's environment."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from paddock.engines.environment import Accelerator, Environment, find_accelerator
from paddock.launcher.environments.build import clean, describe, find_environment, remove
from paddock.launcher.jobs.jobs import Job, Jobs
from paddock.launcher.jobs.run_install import pack
from paddock.registry.errors import BadValue, InstallFailed
from paddock.registry.settings import Settings

State = Literal["none", "installing", "installed", "failed", "cancelled"]


@dataclass(frozen=True)
class InstallStatus:
    """A snapshot. `in_force` is what is there: see `environments.describe`."""

    engine: str
    state: State
    note: str = ""
    lines: tuple[str, ...] = ()
    began_at: float | None = None
    in_force: dict[str, Any] | None = None
    size_bytes: int | None = None


@dataclass
class _Work(Job):
    began_at: float = field(default_factory=time.time)
    state: State = "installing"
    note: str = ""
    lines: tuple[str, ...] = ()
    last: dict[str, Any] = field(default_factory=dict)


class InstallJobs(Jobs[_Work]):
    """Starts, shows and calls off installs, one for an engine. Use from one event loop only."""

    kind = "install"
    noun = "install"
    module = "paddock.launcher.jobs.run_install"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._sizes: dict[str, int] = {}

    async def status(self, environment: Environment) -> InstallStatus:
        """How the environment is."""
        record = await asyncio.to_thread(describe, environment, self._home)
        size = None
        if record is not None:
            folder = record["folder"]
            if folder not in self._sizes:
                self._sizes[folder] = await asyncio.to_thread(_size, folder)
            size = self._sizes[folder]
        rest: State = "none" if record is None else "installed"
        work = self._jobs.get(environment.name)
        # A newer environment, perhaps by a command, counts more than how this job ended.
        if work is None or (
            work.state != "installing" and record is not None and record["made_at"] >= work.began_at
        ):
            began = work.began_at if work is not None else None
            return InstallStatus(environment.name, rest, "", (), began, record, size)
        state = rest if work.state == "installed" else work.state
        return InstallStatus(
            environment.name, state, work.note, work.lines, work.began_at, record, size
        )

    async def start(
        self, environment: Environment, accelerator: Accelerator | None, force: bool
    ) -> InstallStatus:
        """Begins an install and returns at once; one that runs is taken.

        An environment that is up to date is not installed again, unless by `force`.

        Raises:
            BadValue: there are no pins for the accelerator.
        """
        name = environment.name
        on = accelerator or find_accelerator()
        if not environment.pins(on):
            raise BadValue("accelerator", on, f"{name} needs an NVIDIA GPU; none was found here")
        record = await asyncio.to_thread(describe, environment, self._home)
        wanted = record is not None and accelerator in {None, record["accelerator"]}
        up_to_date = record is not None and wanted and record["current"]
        if self._runs(name) or (up_to_date and not force):
            return await self.status(environment)
        self._begin(environment, on)
        return await self.status(environment)

    def _begin(self, environment: Environment, accelerator: Accelerator) -> None:
        task = {
            "environment": pack(environment),
            "home": str(self._home),
            "accelerator": accelerator,
        }
        work = _Work(environment.name, self._child())
        self._run(work, task, {"accelerator": accelerator})

    def _begin_again(self, job_id: str, record: dict[str, Any]) -> None:
        self._begin(find_environment(job_id), record["accelerator"])

    def _runs(self, name: str) -> bool:
        work = self._jobs.get(name)
        return work is not None and work.state == "installing"

    async def cancel(self, environment: Environment) -> InstallStatus:
        """Cancels the install. Returns once its processes have ended and its parts are removed."""
        work = self._jobs.get(environment.name)
        if work is not None and work.child.running:
            await work.child.end()
            with contextlib.suppress(InstallFailed):  # a command has begun one meanwhile
                await asyncio.to_thread(clean, environment, self._home)
        return await self.status(environment)

    async def remove(self, environment: Environment) -> InstallStatus:
        """Removes the environment; what is not there is none either.

        Raises:
            EngineInUse: a model runs from it.
            InstallFailed: the environment is being installed.
        """
        await asyncio.to_thread(remove, environment, self._home)
        if not self._runs(environment.name):
            self._jobs.pop(environment.name, None)
        return await self.status(environment)

    def _hear(self, job: _Work, line: dict[str, Any]) -> None:
        if "note" in line:
            job.note = line["note"]
        elif "made" in line or "failed" in line:
            job.last = line
        else:  # only now does nothing of it run
            silent = f"the install's process ended with code {line['ended']} and said nothing"
            if "made" in job.last:
                job.state, job.note = "installed", ""
            elif job.child.called_off:
                job.state = "cancelled"
            else:
                job.state = "failed"
                job.lines = tuple(job.last.get("failed", (silent,)))


def _size(folder: str) -> int:
    """Bytes of the files below a folder; one that goes meanwhile counts as none."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += Path(root, name).lstat().st_size
    return total
