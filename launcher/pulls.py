"""Downloads without a launch: each in a process of its own, known until the gateway ends."""

from __future__ import annotations

import asyncio
import secrets
import shlex
from dataclasses import dataclass, replace
from typing import Any, Literal

from paddock.launcher.child import Child
from paddock.launcher.diagnosis import Diagnosis
from paddock.launcher.plan import PlannedWeights
from paddock.registry.errors import NotFound
from paddock.registry.settings import Settings
from paddock.registry.spec import Variant

KEPT = 100
"""How many pulls are remembered."""

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
    child: Child


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
        child = Child("paddock.launcher.hubs.pull", self._settings.home)
        pull = _Pull(PullStatus(f"pull-{secrets.token_hex(4)}", name, variant, weights), child)
        self._pulls[pull.status.id] = pull
        given = {
            "weights": weights.model_dump(mode="json"),
            "home": str(self._settings.home),
            "timeout": self._settings.hub_timeout,
        }
        child.start(given, lambda said: self._hear(pull, said))
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
        await pull.child.end()
        return pull.status

    async def close(self) -> None:
        """Ends all; their parts are there for the next time."""
        await asyncio.gather(*(pull.child.end() for pull in self._pulls.values()))

    def _hear(self, pull: _Pull, said: dict[str, Any]) -> None:
        if "progress" in said:
            progress = said["progress"]
            files = tuple(progress.pop("files"))
            pull.status = replace(pull.status, files=files, **progress)
        elif "ended" in said:
            if pull.status.state == "downloading":
                code = said["ended"]
                message = f"the download's process ended with code {code} and said nothing"
                self._fail(pull, Diagnosis("internal", message, pull_command(pull.status)))
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
        called_off = pull.child.called_off
        state: State = "cancelled" if called_off else "failed"
        told = None if called_off else diagnosis.to_json()
        pull.status = replace(
            pull.status, state=state, diagnosis=told, bytes_per_second=None, seconds_left=None
        )


def pull_command(status: PullStatus) -> str:
    """A command line that takes the pull up again."""
    variant = status.variant
    argv = ["paddock", "pull", status.name, "--model-format", variant.format]
    locked = ["--locked"] if status.weights.lock is not None else []
    return shlex.join([*argv, "--quantization", variant.quantization, *locked])
