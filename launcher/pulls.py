"""Downloads without a launch: each in a process of its own, known until the gateway ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shlex
import sys
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from paddock.launcher.diagnosis import Diagnosis
from paddock.launcher.plan import PlannedWeights
from paddock.launcher.processes import INSTANCE_VARIABLE, instance_id
from paddock.registry.errors import NotFound
from paddock.registry.settings import Settings
from paddock.registry.spec import Variant

KEPT = 100
"""How many pulls are remembered."""
END_SECONDS = 5.0
"""How long a download may take to end by itself when it is called off."""
LINE_BYTES = 1 << 22
"""The longest line of progress: a repository of thousands of files."""

State = Literal["downloading", "done", "failed", "cancelled"]


@dataclass(frozen=True)
class PullStatus:
    """A snapshot. `name` is what the model was asked for by, `files` are `hubs.FileProgress` as
    dicts, and `path` is set when it is done.
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
class _Pull:
    status: PullStatus
    called_off: bool = False
    process: asyncio.subprocess.Process | None = None
    task: asyncio.Task[None] | None = field(default=None, repr=False)


class Pulls:
    """Starts, shows and calls off pulls. Use from one event loop only."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pulls: dict[str, _Pull] = {}

    def start(self, name: str, variant: Variant, weights: PlannedWeights) -> PullStatus:
        """Begins to bring the weights, and returns at once; one that does so already is taken."""
        for pull in self._pulls.values():
            if pull.status.state == "downloading" and pull.status.weights == weights:
                return pull.status
        while len(self._pulls) >= KEPT and self._forget_one():
            pass
        pull = _Pull(PullStatus(f"pull-{secrets.token_hex(4)}", name, variant, weights))
        self._pulls[pull.status.id] = pull
        pull.task = asyncio.create_task(self._run(pull))
        return pull.status

    def _forget_one(self) -> bool:
        ended = next((i for i, p in self._pulls.items() if p.status.state != "downloading"), None)
        return ended is not None and self._pulls.pop(ended) is not None

    def all(self) -> tuple[PullStatus, ...]:
        """Every pull, oldest first."""
        return tuple(pull.status for pull in self._pulls.values())

    def get(self, pull_id: str) -> PullStatus:
        """One pull. Raises `NotFound`."""
        return self._get(pull_id).status

    def _get(self, pull_id: str) -> _Pull:
        if pull_id not in self._pulls:
            raise NotFound.among("pull", pull_id, self._pulls)
        return self._pulls[pull_id]

    async def cancel(self, pull_id: str) -> PullStatus:
        """Calls it off, and returns when its process is gone; one that has ended is left as it is.

        Raises:
            NotFound: there is no such pull.
        """
        pull = self._get(pull_id)
        if pull.task is not None and not pull.task.done():
            pull.called_off = True
            await self._end(pull)
        return pull.status

    async def close(self) -> None:
        """Ends all; their parts are there for the next time."""
        running = [p for p in self._pulls.values() if p.task is not None and not p.task.done()]
        for pull in running:
            pull.called_off = True
        await asyncio.gather(*map(self._end, running))

    async def _end(self, pull: _Pull) -> None:
        assert pull.task is not None
        if pull.process is not None and pull.process.stdin is not None:
            pull.process.stdin.close()
        done, _ = await asyncio.wait([pull.task], timeout=END_SECONDS)
        if not done:
            if pull.process is not None:
                with contextlib.suppress(ProcessLookupError):
                    pull.process.kill()
            await asyncio.wait([pull.task])

    async def _run(self, pull: _Pull) -> None:
        home = self._settings.home
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "paddock.launcher.hubs.pull"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={**os.environ, INSTANCE_VARIABLE: instance_id(home)},
            limit=LINE_BYTES,
        )
        pull.process = process
        assert process.stdin is not None
        assert process.stdout is not None
        given = {
            "weights": pull.status.weights.model_dump(mode="json"),
            "home": str(home),
            "timeout": self._settings.hub_timeout,
        }
        with contextlib.suppress(ConnectionError):
            process.stdin.write(json.dumps(given).encode() + b"\n")
            await process.stdin.drain()
            if pull.called_off:  # before there was a stdin to close
                process.stdin.close()
        async for line in process.stdout:
            self._hear(pull, json.loads(line))
        code = await process.wait()
        if pull.status.state == "downloading":
            message = f"the download's process ended with code {code} and said nothing"
            self._fail(pull, Diagnosis("internal", message, pull_command(pull.status)))

    def _hear(self, pull: _Pull, said: dict[str, Any]) -> None:
        if "progress" in said:
            progress = said["progress"]
            files = tuple(progress.pop("files"))
            pull.status = replace(pull.status, files=files, **progress)
        elif "path" in said:
            quiet: dict[str, Any] = {"note": "", "bytes_per_second": None, "seconds_left": None}
            pull.status = replace(pull.status, state="done", path=said["path"], **quiet)
        else:
            failure = said["failure"]
            following = pull_command(pull.status)
            self._fail(
                pull,
                Diagnosis(
                    failure["cause"], failure["reason"], following, tried=tuple(failure["tried"])
                ),
            )

    def _fail(self, pull: _Pull, diagnosis: Diagnosis) -> None:
        state: State = "cancelled" if pull.called_off else "failed"
        told = None if pull.called_off else diagnosis.to_json()
        pull.status = replace(
            pull.status, state=state, diagnosis=told, bytes_per_second=None, seconds_left=None
        )


def pull_command(status: PullStatus) -> str:
    """A command line that takes the pull up again."""
    variant = status.variant
    argv = ["paddock", "pull", status.name, "--model-format", variant.format]
    return shlex.join([*argv, "--quantization", variant.quantization])
