"""Downloads and other work, over gateways that end in every way."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from paddock.launcher.cluster.sweep import end_ray
from paddock.launcher.hosts import processes
from paddock.launcher.jobs import jobs as module
from paddock.launcher.jobs.jobs import FOLDER, Job, Jobs, resume_all
from paddock.registry.errors import DiskFull
from paddock.registry.settings import read_settings

DEADLINE = 30.0
RECORD = json.dumps({"job": "errand", "id": "y", "word": "long"})
MODULE = """
import json, os, sys
given = json.loads(sys.stdin.readline())
print(json.dumps({"came": given["word"], "role": os.environ["PADDOCK_ROLE"]}), flush=True)
if given["word"] != "short":
    sys.stdin.read()
"""


class Errands(Jobs[Job]):
    """Jobs that say a word and run until they are called off; but "short" ends by itself."""

    kind = "errand"
    noun = "errand"
    module = "errand"

    def __init__(self, home: Path) -> None:
        super().__init__(read_settings(environ={"PADDOCK_HOME": str(home)}))
        self.lines: list[tuple[str, dict[str, Any]]] = []
        self.changed = asyncio.Event()

    def start(self, job_id: str, word: str) -> Job:
        job = Job(job_id, self._child())
        self._run(job, {"word": word}, {"word": word})
        return job

    def _begin_again(self, job_id: str, record: dict[str, Any]) -> None:
        self.start(job_id, record["word"])

    def _hear(self, job: Job, said: dict[str, Any]) -> None:
        self.lines.append((job.id, said))
        self.changed.set()

    async def until(self, job_id: str, key: str) -> Any:
        """Waits for a line of a job that has `key`."""
        async with asyncio.timeout(DEADLINE):
            while True:
                for known, said in self.lines:
                    if known == job_id and key in said:
                        return said[key]
                self.changed.clear()
                await self.changed.wait()


@pytest.fixture
async def gateway(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Callable[[], Errands]]:
    """Makes the jobs of one gateway after another; the last ones are ended."""
    (tmp_path / "errand.py").write_text(MODULE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    all_jobs: list[Errands] = []

    def build() -> Errands:
        all_jobs.append(Errands(home))
        return all_jobs[-1]

    yield build
    for jobs in all_jobs:
        await jobs.close(forget=True)


def files(home: Path) -> list[str]:
    return sorted(path.name for path in (home / FOLDER).iterdir())


async def test_a_job_goes_on_with_the_next_gateway(
    home: Path, gateway: Callable[[], Errands]
) -> None:
    """What a gateway that ends has not finished begins again under its id; the rest does not."""
    first = gateway()
    first.start("long/1", "long")
    first.start("short-1", "short")
    await first.until("short-1", "ended")
    await first.until("long/1", "came")
    await first.close(forget=False)
    assert files(home) == ["long%2F1.json"]
    assert (home / FOLDER / "long%2F1.json").stat().st_mode & 0o777 == 0o600
    second = gateway()
    await resume_all(home, [second])
    assert await second.until("long/1", "came") == "long"
    assert {job_id for job_id, _ in second.lines} == {"long/1"}


async def test_a_killed_gateways_process_is_gone_before_the_job_begins_again(
    home: Path, gateway: Callable[[], Errands]
) -> None:
    """Two processes of one job would write the same parts: the old one is ended first."""
    first, second = gateway(), gateway()
    first.start("long-1", "long")
    await first.until("long-1", "came")
    await first.close(forget=False)
    environ = processes.environment(processes.instance_id(home), processes.JOB)
    command = [sys.executable, "-c", "input()"]
    with subprocess.Popen(command, env=environ, stdin=-1) as old:  # noqa: ASYNC220 - not awaited
        await resume_all(home, [second])
        assert old.poll() is not None
    assert await second.until("long-1", "came") == "long"


async def test_what_is_called_off_or_forgotten_stays_ended(
    home: Path, gateway: Callable[[], Errands]
) -> None:
    """A job that its user calls off leaves no file, nor do those of a gateway that is stopped."""
    jobs = gateway()
    off = jobs.start("off", "long")
    jobs.start("stopped", "long")
    await off.child.end()
    assert files(home) == ["stopped.json"]
    await jobs.close(forget=True)
    assert files(home) == []


async def test_a_job_outlives_rays_start(home: Path, gateway: Callable[[], Errands]) -> None:
    """The end of what an earlier Ray has left leaves jobs alone: each carries its role."""
    jobs = gateway()
    jobs.start("long", "long")
    assert await jobs.until("long", "role") == processes.JOB
    assert (await asyncio.to_thread(end_ray, home, 1.0)).all == ()
    assert jobs._find("long").child.running


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"job": "errand"}', '{"job": "other", "id": "x"}']
)
async def test_a_file_that_nothing_can_begin_from_is_removed(
    home: Path, gateway: Callable[[], Errands], text: str
) -> None:
    """A file of another version does not keep the gateway from starting, or come back."""
    (home / FOLDER).mkdir(parents=True)
    (home / FOLDER / "x.json").write_text(text)
    (home / FOLDER / "y.json").write_text(RECORD)
    jobs = gateway()
    await resume_all(home, [jobs])
    assert await jobs.until("y", "came") == "long"
    assert files(home) == ["y.json"]


async def test_a_job_whose_record_cannot_be_written_runs_all_the_same(
    gateway: Callable[[], Errands], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is lost with its gateway, and no earlier."""

    def full(path: Path, _: str) -> None:
        raise DiskFull(str(path), "No space left on device")

    monkeypatch.setattr(module, "write_atomically", full)
    jobs = gateway()
    jobs.start("x", "short")
    assert await jobs.until("x", "ended") == 0
