"""Makes measurements of what replicas and requests tell, and keeps them."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field
from typing import Any

from paddock.engines.evidence import Measurement
from paddock.launcher.planning.plan import LaunchPlan
from paddock.launcher.planning.subject import subject_of_plan
from paddock.launcher.truth.store import TruthStore

log = logging.getLogger(__name__)

LEAST_TOKENS = 32
"""Of an answer, for its speed to count."""
KEPT_SPEEDS = 15
MOST_REPLICAS = 1000
"""Of which is remembered what their requests have shown; the first go."""


@dataclass
class _Seen:
    """What requests to one replica have shown."""

    longest_prompt: int = 0
    speeds: list[float] = field(default_factory=list)
    prompt_speeds: list[float] = field(default_factory=list)
    took: dict[str, Any] = field(default_factory=dict)
    noted: tuple[Any, ...] = ()


class Recorder:
    """Use from one event loop only; the store is written in a thread."""

    def __init__(self, store: TruthStore) -> None:
        self._store = store
        self._seen: dict[str, _Seen] = {}
        self._writing: set[asyncio.Task[None]] = set()

    def hear(
        self, replica_id: str, plan: LaunchPlan, number: int, machine: str, took: dict[str, Any]
    ) -> None:
        """A replica has told what its engine took: `ReplicaStatus.took`."""
        seen = self._remember(replica_id)
        if took["load_seconds"] != seen.took.get("load_seconds"):  # another start
            seen = self._seen[replica_id] = _Seen()
        seen.took = took
        told = (took["start_bytes"], took["peak_bytes"], seen.longest_prompt, len(seen.speeds))
        if told == seen.noted:
            return
        seen.noted = told
        measurement = Measurement(
            subject=subject_of_plan(plan, number),
            at=round(time.time()),
            weights_bytes=took["weights_bytes"],
            start_bytes=took["start_bytes"],
            peak_bytes=took["peak_bytes"],
            longest_prompt=seen.longest_prompt,
            load_seconds=took["load_seconds"],
            prompt_speed=_median(seen.prompt_speeds),
            speed=_median(seen.speeds),
            machine=machine,
        )
        task = asyncio.create_task(asyncio.to_thread(self._store.note, measurement))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    def see_request(
        self,
        replica_id: str,
        prompt_tokens: int,
        prompt_seconds: float,
        tokens: int,
        seconds: float,
    ) -> None:
        """A request has ended that was alone on its replica; seconds 0: not known.

        `prompt_tokens` are those that the engine has read, without what it had kept.
        """
        seen = self._remember(replica_id)
        seen.longest_prompt = max(seen.longest_prompt, prompt_tokens)
        if tokens >= LEAST_TOKENS and seconds > 0:
            seen.speeds = [*seen.speeds[1 - KEPT_SPEEDS :], tokens / seconds]
        if prompt_tokens >= LEAST_TOKENS and prompt_seconds > 0:
            speed = prompt_tokens / prompt_seconds
            seen.prompt_speeds = [*seen.prompt_speeds[1 - KEPT_SPEEDS :], speed]

    def _remember(self, replica_id: str) -> _Seen:
        if replica_id not in self._seen and len(self._seen) >= MOST_REPLICAS:
            del self._seen[next(iter(self._seen))]
        return self._seen.setdefault(replica_id, _Seen())

    async def close(self) -> None:
        """Waits until all is written."""
        if self._writing:
            await asyncio.wait(tuple(self._writing))


def _median(values: list[float]) -> float:
    return round(sorted(values)[len(values) // 2], 2) if values else 0.0
