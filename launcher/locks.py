"""Work on locks: made, verified, held against their hubs. Each in a process of its own."""

from __future__ import annotations

import asyncio
import secrets
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from paddock.launcher.child import Child
from paddock.launcher.diagnosis import Diagnosis
from paddock.launcher.plan import PlannedWeights
from paddock.registry.errors import NotFound
from paddock.registry.lockfile import LockedModel
from paddock.registry.settings import Settings
from paddock.registry.spec import Source, Variant

KEPT = 100
"""How many are remembered."""
MODULE = "paddock.launcher.hubs.pins"

State = Literal["running", "done", "failed", "cancelled"]
Kind = Literal["lock", "verify", "outdated"]


@dataclass(frozen=True)
class Work:
    """A snapshot. `rows` is what was found so far, in the shape of its kind."""

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
class _Running:
    work: Work
    child: Child
    more: Mapping[str, Mapping[str, Any]]
    """What rows have that the process does not know, by the model that they are of."""
    following: str


class Locks:
    """Starts, shows and calls off work on locks. Use from one event loop only."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._running: dict[str, _Running] = {}

    def make(self, what: Locking, newest: bool) -> Work:
        """Begins to make an entry; its row is one, as `LockedModel` has it."""
        variant = what.variant
        fixed = {
            "model": variant.model,
            "format": variant.format,
            "size": variant.size,
            "quantization": variant.quantization,
            "engine": what.engine,
            "engine_version": what.engine_version,
        }
        if what.weights.lock is not None and not newest:  # it runs by a lock, which says it all
            entry = what.weights.lock.model_dump(mode="json")
            return self._add(_Running(self._work("lock", "done", (entry,)), self._child(), {}, ""))
        following = ["paddock", "lock", variant.model, "--model-format", variant.format]
        following += ["--quantization", variant.quantization]
        given = {"task": "make", "weights": what.weights.model_dump(mode="json"), "newest": newest}
        return self._start("lock", given, {"": fixed}, shlex.join(following))

    def verify(self, models: Sequence[LockedModel]) -> Work:
        """Begins to read the locked files; a row for each."""
        given = {"task": "verify", "models": [one.model_dump(mode="json") for one in models]}
        return self._start("verify", given, {}, "paddock verify --locked")

    def outdated(
        self,
        models: Sequence[LockedModel],
        caches: Sequence[tuple[str, Source]],
        versions: Mapping[str, str],
    ) -> Work:
        """Begins to ask the hubs what is newer than the locks, or than what is cached.

        `versions` are those of the engines that are installed, by name.
        """
        given = {
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
        return self._start("outdated", given, {"": none, **engines}, "paddock outdated")

    def get(self, work_id: str) -> Work:
        """One. Raises `NotFound`."""
        return self._get(work_id).work

    def all(self) -> tuple[Work, ...]:
        """Every one that is remembered, oldest first."""
        return tuple(running.work for running in self._running.values())

    async def cancel(self, work_id: str) -> Work:
        """Calls it off; returns when its process is gone. Raises `NotFound`."""
        running = self._get(work_id)
        await running.child.end()
        return running.work

    async def close(self) -> None:
        """Ends all."""
        await asyncio.gather(*(running.child.end() for running in self._running.values()))

    def _get(self, work_id: str) -> _Running:
        if work_id not in self._running:
            raise NotFound.among("work on locks", work_id, self._running)
        return self._running[work_id]

    def _work(self, kind: Kind, state: State, rows: tuple[dict[str, Any], ...] = ()) -> Work:
        return Work(f"{kind}-{secrets.token_hex(4)}", kind, state, rows=rows)

    def _child(self) -> Child:
        return Child(MODULE, self._settings.home)

    def _add(self, running: _Running) -> Work:
        while len(self._running) >= KEPT and self._forget_one():
            pass
        self._running[running.work.id] = running
        return running.work

    def _forget_one(self) -> bool:
        ended = next((i for i, r in self._running.items() if r.work.state != "running"), None)
        return ended is not None and self._running.pop(ended) is not None

    def _start(
        self,
        kind: Kind,
        given: dict[str, Any],
        more: Mapping[str, Mapping[str, Any]],
        following: str,
    ) -> Work:
        running = _Running(self._work(kind, "running"), self._child(), more, following)
        common = {"home": str(self._settings.home), "timeout": self._settings.hub_timeout}
        running.child.start({**given, **common}, lambda said: self._hear(running, said))
        return self._add(running)

    def _hear(self, running: _Running, said: dict[str, Any]) -> None:
        work = running.work
        if "progress" in said:
            progress = {key: value for key, value in said["progress"].items() if key != "files"}
            running.work = replace(work, **progress)
        elif "row" in said:
            row = said["row"]
            more = running.more.get(row.get("model", ""), running.more.get("", {}))
            running.work = replace(work, rows=(*work.rows, {**more, **row}))
        elif "done" in said:
            running.work = replace(work, state="done", note="")
        elif "failure" in said:
            failure = said["failure"]
            tried = tuple(failure["tried"])
            self._fail(
                running,
                Diagnosis(failure["cause"], failure["reason"], running.following, tried=tried),
            )
        elif work.state == "running":
            message = f"the process of {work.id} ended with code {said['ended']} and said nothing"
            self._fail(running, Diagnosis("internal", message, running.following))

    def _fail(self, running: _Running, diagnosis: Diagnosis) -> None:
        called_off = running.child.called_off
        state: State = "cancelled" if called_off else "failed"
        told = None if called_off else diagnosis.to_json()
        running.work = replace(running.work, state=state, diagnosis=told)
