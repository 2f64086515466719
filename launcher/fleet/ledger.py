"""What is wanted and what is known: the one place that changes either, writes it and shows it.

On the gateway's event loop. The reconciler acts, and notes here what comes of it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from paddock.launcher.fleet.decide import Drop, GiveUp, Restart
from paddock.launcher.fleet.deployment import Deployment, ReplicaRecord, replica_of
from paddock.launcher.fleet.events import Bus
from paddock.launcher.fleet.observation import Ended, Sighting
from paddock.launcher.fleet.status import ModelStatus, model_status
from paddock.launcher.fleet.store import Store
from paddock.launcher.replicas.attached_keys import Keys
from paddock.launcher.replicas.status import ReplicaStatus
from paddock.registry.errors import PaddockError, StateNotWritten

log = logging.getLogger(__name__)

RETRY_SECONDS, LONGEST_RETRY_SECONDS = 1.0, 10.0
"""Before what could not be written is written again, at first and at most."""


class Ledger:
    """Deployments, sightings of actors, and the statuses that people see of both.

    Attributes:
        deployments: what is wanted, by model id.
        sightings: what is known of actors, by name.
        on_change: called with a model id whenever its status has changed.
        on_took: called with an actor and what its engine took, whenever it tells that.
        on_unhealthy: called with a replica id and a reason when its engine hangs.
        wake: called when a decision may be due.
    """

    def __init__(self, home: Path, store: Store, bus: Bus) -> None:
        self._store = store
        self._bus = bus
        self.keys = Keys(home)
        self.deployments: dict[str, Deployment] = {}
        self.sightings: dict[str, Sighting] = {}
        self.on_change: Callable[[str], None] = lambda _: None
        self.on_unhealthy: Callable[[str, str], None] = lambda *_: None
        self.on_took: Callable[[str, dict[str, Any]], None] = lambda *_: None
        self.wake: Callable[[], None] = lambda: None
        self._statuses: dict[str, ModelStatus] = {}
        self._undecided: set[str] = set()
        self._dirty: set[str] = set()
        self._saving = ""
        self._dirtied = asyncio.Event()
        self._changed = asyncio.Event()

    async def load(self) -> None:
        """Takes over what an earlier gateway has written."""
        for deployment in await self._store.load():
            self.deployments[deployment.uid] = deployment
        attached = [uid for uid, one in self.deployments.items() if one.is_attached]
        await asyncio.to_thread(self.keys.sweep, attached)
        for uid in self.deployments:
            self._note(uid)

    async def close(self) -> None:
        """Writes what is left to write, and lets go of the store."""
        await self.write_dirty()
        await self._store.close()

    def statuses(self) -> tuple[ModelStatus, ...]:
        """Every model, oldest first."""
        return tuple(self._statuses.values())

    def status(self, uid: str) -> ModelStatus | None:
        """The status of one model; None if it is not known."""
        return self._statuses.get(uid)

    async def changed(self) -> None:
        """Waits until something has changed."""
        await self._changed.wait()

    async def add(self, deployment: Deployment) -> None:
        """Wants a deployment, once that is written. Raises `StateNotWritten`."""
        # The row of one before by this id may be about to go: not after this one is written.
        was_dirty = deployment.uid in self._dirty
        self._dirty.discard(deployment.uid)
        try:
            await self._store.save(deployment)
        except StateNotWritten:
            if was_dirty:
                self._save_soon(deployment.uid)
            raise
        self._set(deployment)
        self.wake()

    async def change(self, uid: str, change: Callable[[Deployment], Deployment]) -> None:
        """Wants something else of a deployment, once that is written.

        Raises:
            StateNotWritten: and then what was wanted before stands.
        """
        await self._store.save(change(self.deployments[uid]))
        if uid in self.deployments:  # it may have changed while it was written
            self._set(change(self.deployments[uid]))
            self._save_soon(uid)
        self.wake()

    def change_now(self, uid: str, change: Callable[[Deployment], Deployment]) -> None:
        """The same, written afterwards; what cannot be written is tried until it can."""
        self._set(change(self.deployments[uid]))
        self._save_soon(uid)
        self.wake()

    def restart(self, action: Restart) -> None:
        """Notes an end after which the replica is started again."""
        record = self.record(action.uid, action.replica)
        seconds = max(0.0, action.at - time.monotonic())
        cause, message = _words(action.diagnosis)
        self.say(
            action.uid,
            f"{record.id} failed ({cause}: {message}); starts again in {seconds:.1f} s, "
            f"restart {record.restarts + 1}",
            is_error=True,
        )
        log.warning("%s failed: %s; it starts again in %.1f s", record.id, message, seconds)
        self.mark(
            action.uid,
            action.replica,
            start=record.start + 1,
            failures=action.failures,
            restarts=record.restarts + 1,
            restart_at=action.at,
            diagnosis=action.diagnosis,
        )
        self.clear(action.actor)

    def give_up(self, action: GiveUp) -> None:
        """Notes an end after which it is not."""
        cause, message = _words(action.diagnosis)
        self.say(action.uid, f"{action.replica} is failed ({cause}: {message})", is_error=True)
        log.warning("%s failed: %s", action.replica, message)
        self.mark(
            action.uid,
            action.replica,
            given_up=True,
            restart_at=None,
            diagnosis=action.diagnosis,
        )
        self.clear(action.actor)

    def drop(self, action: Drop) -> None:
        """Forgets a replica that has left."""
        record = self.record(action.uid, action.replica)
        self.clear(record.actor)
        if record.is_leaving and self.deployments[action.uid].wanted == "serving":
            self.say(action.uid, f"{record.id} is removed")
        self._set(self.deployments[action.uid].without_replica(record.id))
        self._save_soon(action.uid)
        self.wake()

    def forget(self, uid: str) -> None:
        """Forgets a deployment of which nothing is left."""
        deployment = self.deployments.pop(uid)
        self._statuses.pop(uid, None)
        self._save_soon(uid)
        self._bus.show(uid, None)
        self._tell(uid)
        if deployment.is_attached:
            self.keys.remove(uid)

    def record(self, uid: str, replica_id: str) -> ReplicaRecord:
        """The record of a replica that is known."""
        record = self.deployments[uid].replica(replica_id)
        assert record is not None
        return record

    def mark(self, uid: str, replica_id: str, **changes: Any) -> None:
        """Changes a replica's record; written afterwards."""
        record = replace(self.record(uid, replica_id), **changes)
        self._set(self.deployments[uid].with_replica(record))
        self._save_soon(uid)
        self.wake()

    def _set(self, deployment: Deployment) -> None:
        self.deployments[deployment.uid] = deployment
        self._note(deployment.uid)

    def see(self, sighting: Sighting) -> None:
        """Notes what is known of an actor."""
        self.sightings[sighting.actor] = sighting
        self._note_replica(sighting.actor)

    def hear(self, actor: str, status: ReplicaStatus) -> None:
        """Notes what an actor has told."""
        if status.took is not None:
            self.on_took(actor, status.took)
        sighting = self.sightings.get(actor)
        if sighting is None or sighting.ended is not None:
            return
        now = time.monotonic()
        before = sighting.status.state if sighting.status is not None else ""
        since = sighting.ready_since if before == status.state == "ready" else now
        self.see(
            replace(
                sighting,
                status=status,
                heard_at=now,
                is_reachable=True,
                ready_since=since if status.state == "ready" else None,
            )
        )
        if before == status.state:
            return
        replica_id = replica_of(actor)
        log.info("%s is %s %s", replica_id, status.state, status.note)
        uid = self.uid_of(replica_id)
        if uid is not None and status.state != "failed":
            hangs = status.state == "unhealthy"
            text = f"{replica_id} is {status.state}" + (f": {status.note}" if hangs else "")
            self.say(uid, text, is_error=hangs)
        if status.state == "unhealthy":
            self.on_unhealthy(replica_id, status.note)
        self.wake()

    def lose_sight(self, actor: str, reason: Exception) -> None:
        """Notes that nothing is heard of an actor."""
        sighting = self.sightings.get(actor)
        if sighting is not None and sighting.is_reachable and sighting.ended is None:
            log.warning("nothing is heard of %s: %s", actor, reason)
            self.see(replace(sighting, is_reachable=False))

    def end(self, actor: str, ended: Ended) -> None:
        """Notes that an actor has ended. Shown with what is decided of it.

        A replica that is started again is never `failed` in between.
        """
        sighting = self.sightings.get(actor)
        if sighting is not None:
            self.sightings[actor] = replace(sighting, ended=ended)
            self._undecided.add(actor)
            self.wake()

    def clear(self, actor: str) -> None:
        """Forgets an actor of which nothing is left; what is left is stopped by a decision."""
        sighting = self.sightings.get(actor)
        if sighting is not None and sighting.is_over:
            self.forget_actor(actor)

    def _note_replica(self, actor: str) -> None:
        uid = self.uid_of(replica_of(actor))
        if uid is not None:
            self._note(uid)

    def uid_of(self, replica_id: str) -> str | None:
        """The model of a replica; None if it is not known."""
        uid = replica_id.rpartition("-rep")[0]
        return uid if uid in self.deployments else None

    def _note(self, uid: str) -> None:
        """Makes the model's status anew, and tells whoever waits."""
        status = model_status(self.deployments[uid], self.sightings, time.monotonic(), time.time())
        if status != self._statuses.get(uid):
            self._statuses[uid] = status
            self._bus.show(uid, status)
        self._tell(uid)

    def _tell(self, uid: str) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        self.on_change(uid)

    def say(self, uid: str, text: str, is_error: bool = False) -> None:
        """Notes an event of a model in words."""
        self._bus.say(uid, text, is_error)

    def _save_soon(self, uid: str) -> None:
        self._dirty.add(uid)
        self._dirtied.set()

    async def keep_saving(self) -> None:
        """Writes what has changed; what cannot be written is tried again, and nothing is lost."""
        failures = 0
        while True:
            await self._dirtied.wait()
            self._dirtied.clear()
            try:
                await self._save_dirty()
                failures = 0
            # Whatever it is, what is not written is still to be written.
            except Exception as error:  # noqa: BLE001
                failures += 1
                log.error("%s", error)
                await asyncio.sleep(min(LONGEST_RETRY_SECONDS, RETRY_SECONDS * failures))
                self._dirtied.set()

    async def _save_dirty(self) -> None:
        while self._dirty:
            uid = self._saving = self._dirty.pop()
            try:
                if uid in self.deployments:
                    await self._store.save(self.deployments[uid])
                else:
                    await self._store.remove(uid)
            except BaseException:
                self._dirty.add(uid)
                raise
            finally:
                self._saving = ""

    def is_written(self, uid: str) -> bool:
        """Whether the state file has what is known of a model."""
        return uid not in self._dirty and uid != self._saving

    async def write_dirty(self) -> None:
        """The last attempt before the gateway ends."""
        try:
            await self._save_dirty()
        except PaddockError as error:
            log.error("%s", error)

    def current(self, actor: str) -> ReplicaRecord | None:
        """The record of the replica whose actor it is to be now; None if it is of none."""
        uid = self.uid_of(replica_of(actor))
        record = self.deployments[uid].replica(replica_of(actor)) if uid is not None else None
        return record if record is not None and record.actor == actor else None

    def forget_actor(self, actor: str) -> None:
        """Forgets an actor."""
        self.sightings.pop(actor, None)
        self._note_replica(actor)
        self.wake()

    def show_decided(self, busy: Mapping[str, Any]) -> None:
        """Shows the replicas whose actors have ended, once it is decided what follows."""
        for actor in self._undecided - busy.keys():
            self._undecided.discard(actor)
            self._note_replica(actor)


def _words(diagnosis: Mapping[str, Any]) -> tuple[str, str]:
    return str(diagnosis.get("cause", "")), str(diagnosis.get("message", ""))
