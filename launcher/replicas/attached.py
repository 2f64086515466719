"""Models that somebody else serves: watches their endpoints.

There is no process to supervise, and so no actor: the gateway itself looks whether the endpoint
answers. `AttachedHandle` has the methods of `cluster.Handle`, so that the fleet follows an attached
model as it follows any other.
"""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

from paddock.launcher.planning.plan import (
    LaunchPlan,
)
from paddock.launcher.replicas.attached_keys import Keys
from paddock.launcher.replicas.attached_probe import Remote
from paddock.launcher.replicas.diagnosis import Diagnosis, Failure
from paddock.launcher.replicas.status import ReplicaStatus

LOOK_SECONDS, AGAIN_SECONDS, FAILED_SECONDS = 10.0, 1.0, 2.0
"""Pauses between checks: of a working endpoint, of one that just failed, and from then on."""
# Threads of their own: an endpoint that is silent holds one for ANSWER_SECONDS, or for minutes
# while it is attached, and the gateway's other work of this kind (plans, keys, metrics) shares a
# pool of `cpus + 4`.
LOOKS = ThreadPoolExecutor(4, "attached")
ATTACHES = ThreadPoolExecutor(16, "attach")


class AttachedHandle:
    """An attached endpoint under the eyes of the gateway; see `cluster.Handle`.

    Its state is `failed` while the endpoint does not answer, and `ready` again once it does.
    """

    def __init__(self, replica_id: str, plan: LaunchPlan, keys: Keys) -> None:
        assert plan.attached is not None
        self.replica_id = replica_id
        self._attached = plan.attached
        self._uid = plan.model_id
        self._keys = keys
        self._stopping = False
        self._poke = asyncio.Event()
        self._status = ReplicaStatus(replica_id, started_at=time.time())

    async def begin(self) -> ReplicaStatus:
        """Looks for the first time."""
        if self._status.state == "pending":
            self._note(await self._look())
        return self._status

    async def watch(self, since: int) -> ReplicaStatus:
        """Looks from time to time, and returns when there is something new."""
        while self._status.version == since and not self._stopping:
            ready = self._status.state == "ready"
            await self._pause(LOOK_SECONDS if ready else FAILED_SECONDS)
            wrong = None if self._stopping else await self._look()
            if wrong is not None and ready and not self._stopping:
                await self._pause(AGAIN_SECONDS)  # once is a hiccup
                wrong = await self._look()
            if not self._stopping:
                self._note(wrong)
        if self._stopping:
            self._set(state="stopped", endpoint=None)
        return self._status

    async def _pause(self, seconds: float) -> None:
        self._poke.clear()
        if not self._stopping:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._poke.wait(), seconds)

    async def _look(self) -> Diagnosis | None:
        """What is wrong with it."""
        try:
            key = self._keys.read(self._uid)
        except OSError as error:
            again = shlex.join(["paddock", "attach", self._attached.url, "--model-uid", self._uid])
            reason = f"the key of {self._attached.url} cannot be read: {error.strerror}"
            return Diagnosis("endpoint_refused", reason, again)
        try:
            look = partial(Remote(self._attached.url, key).check, self._attached)
            await asyncio.get_running_loop().run_in_executor(LOOKS, look)
        except Failure as failure:
            return failure.diagnosis
        self._status = replace(self._status, key=key)
        return None

    def _note(self, wrong: Diagnosis | None) -> None:
        if wrong is None and self._status.state != "ready":
            url = self._attached.url
            self._set(state="ready", endpoint=url, diagnosis=None, ready_at=time.time())
        elif wrong is not None and self._status.diagnosis != wrong.to_json():
            self._set(state="failed", endpoint=None, diagnosis=wrong.to_json())

    def _set(self, **changes: Any) -> None:
        self._status = replace(self._status, version=self._status.version + 1, **changes)

    def doubt(self) -> None:
        """A request has failed there: looks again at once."""
        self._poke.set()

    async def stop(self, timeout: float) -> ReplicaStatus:
        """Looks no more. The endpoint goes on: it is not ours to end."""
        self._stopping = True
        self._poke.set()
        return self._status

    async def tail(self, lines: int) -> list[str]:
        """There is no log here."""
        return [f"{self._attached.url} is served by somebody else, who has its log"]

    async def log_after(self, offset: int) -> tuple[int, str]:
        """There is no log here."""
        return offset, ""
