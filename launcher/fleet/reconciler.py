"""Makes what runs what is wanted, continuously: `decide` says what is due, this carries it out.

One object on the gateway's event loop holds what is wanted and what is known of the actors, and is
the only one to change either. Each action runs in a task of its own, one at a time for each actor.
What comes of it, also a failure, becomes the next observation; nothing is done twice in a hurry.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import psutil

from paddock.launcher import processes
from paddock.launcher.attached import Keys, Watched
from paddock.launcher.cluster import ActorLost, ActorUnavailable, Handle, RayFailed
from paddock.launcher.diagnosis import Cause, Diagnosis
from paddock.launcher.fleet.decide import (
    Action,
    Drop,
    Forget,
    GiveUp,
    MarkServed,
    Probe,
    Restart,
    Settle,
    Start,
    Stop,
    decide,
    next_look,
)
from paddock.launcher.fleet.deployment import Deployment, Place, ReplicaRecord, replica_of
from paddock.launcher.fleet.events import Bus
from paddock.launcher.fleet.observation import Activity, Ended, Observation, Sighting
from paddock.launcher.fleet.status import ModelStatus, model_status
from paddock.launcher.fleet.store import Store
from paddock.launcher.host import LOCAL
from paddock.launcher.replica import ReplicaConfig, ReplicaStatus
from paddock.registry.errors import PaddockError, Refused, StateNotWritten
from paddock.registry.settings import Settings

log = logging.getLogger(__name__)

STOP_SLACK = 15.0
"""Seconds beyond the engine's grace that an actor may take before it is ended by force."""
HUNG_SLACK = 2.0
"""The same of an engine that hangs: nothing graceful is to be expected."""
PROBE_LIMIT = 20.0
"""How long an actor may take to say whether its engine still works."""
RETRY_SECONDS = 1.0
"""Before a failed attempt to stop, to list or to write is made again; attempts that go on failing
are further apart, up to"""
LONGEST_RETRY_SECONDS = 10.0
NODES_SECONDS = 1.0
"""Between two looks for lost nodes, where replicas run on others."""
FAILURES = (ActorLost, ActorUnavailable, TimeoutError, RuntimeError)
"""What a call to an actor, or to Ray, may raise."""
LOOK_SECONDS = 5.0
"""At most between two decisions: requests, which may be what a replica hangs on, wake nobody."""
SYNC_SECONDS = 60.0
"""Between two lists of the actors that live, by which those that nobody wants are found."""


class ClusterLike(Protocol):
    """What the reconciler needs of `cluster.Cluster`; a fake one serves tests."""

    on_lost: Callable[[], None]

    @property
    def external(self) -> bool: ...  # noqa: D102 - see Cluster

    @property
    def connected(self) -> bool: ...  # noqa: D102

    @property
    def instance(self) -> str: ...  # noqa: D102

    def record(self) -> Any: ...  # noqa: D102
    async def connect(self) -> None: ...  # noqa: D102
    async def start(  # noqa: D102
        self, actor: str, config: ReplicaConfig, node: str
    ) -> Handle: ...
    async def find(self, actor: str) -> Handle | None: ...  # noqa: D102
    async def actors(self) -> set[str]: ...  # noqa: D102
    async def end(self, actor: str, node: str) -> None: ...  # noqa: D102
    async def lost_nodes(self) -> set[str]: ...  # noqa: D102
    async def leave(self) -> None: ...  # noqa: D102
    async def shutdown(self) -> None: ...  # noqa: D102


PlaceAnew = Callable[[Deployment, frozenset[str]], Coroutine[Any, Any, Place]]
"""A place for one replica of a deployment, on none of the nodes that are lost. Raises `Refused`."""


@dataclass
class _Effect:
    """An action that is being carried out. `is_sent`: a start that may have begun an actor."""

    task: asyncio.Task[None]
    is_start: bool = False
    is_sent: bool = False


class Reconciler:
    """Holds what is wanted and what is known. Use from one event loop only."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        cluster: ClusterLike,
        bus: Bus,
        place_anew: PlaceAnew,
    ) -> None:
        self._settings = settings
        self._store = store
        self._cluster = cluster
        self._bus = bus
        self._place_anew = place_anew
        self.keys = Keys(settings.home)
        self.deployments: dict[str, Deployment] = {}
        self.activity: Callable[[], Activity] = dict
        self.on_change: Callable[[str], None] = lambda _: None
        """Called with a model id whenever its status has changed."""
        self.on_unhealthy: Callable[[str, str], None] = lambda *_: None
        """Called with a replica id and a reason when its engine hangs."""
        self.on_probe: Callable[[str], None] = lambda _: None
        """Called with a replica id when it is asked whether its engine still works."""
        self._statuses: dict[str, ModelStatus] = {}
        self._sightings: dict[str, Sighting] = {}
        self._handles: dict[str, Handle | Watched] = {}
        self._followers: dict[str, asyncio.Task[None]] = {}
        self._effects: dict[str, _Effect] = {}
        self._probes: set[str] = set()
        self._lost_nodes: frozenset[str] = frozenset()
        self._is_complete = False
        self._dirty: set[str] = set()
        self._undecided: set[str] = set()
        self._woken = asyncio.Event()
        self._dirtied = asyncio.Event()
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._losses = 0
        cluster.on_lost = self._on_lost

    def _on_lost(self) -> None:
        """The connection to Ray is broken."""
        self._losses += 1
        self.wake()

    async def start(self) -> None:
        """Takes up what an earlier gateway left.

        What lives is followed, what is wanted and does not live is started, what lives and is not
        wanted is ended.
        """
        deployments = await self._store.load()
        for deployment in deployments:
            self.deployments[deployment.uid] = deployment
        attached = [one.uid for one in deployments if one.is_attached]
        await asyncio.to_thread(self.keys.sweep, attached)
        # Without a Ray there is no actor; a cluster that was named may hold some.
        self._is_complete = not self._cluster.external and self._cluster.record() is None
        for uid in self.deployments:
            self._note(uid)
        self._tasks = [
            asyncio.create_task(self._run()),
            asyncio.create_task(self._keep_listing()),
            asyncio.create_task(self._keep_saving()),
            asyncio.create_task(self._keep_looking_for_nodes()),
        ]

    @property
    def is_complete(self) -> bool:
        """Whether the actors that an earlier gateway left are known."""
        return self._is_complete

    def statuses(self) -> tuple[ModelStatus, ...]:
        """Every model, oldest first."""
        return tuple(self._statuses.values())

    def status(self, uid: str) -> ModelStatus | None:
        """One model."""
        return self._statuses.get(uid)

    def handle(self, replica: ReplicaRecord) -> Handle | Watched | None:
        """What a replica's actor is talked to by, if there is one."""
        return self._handles.get(replica.actor)

    def observation(self) -> Observation:
        """What is known now."""
        return Observation(
            actors=dict(self._sightings),
            busy=frozenset(self._effects),
            lost_nodes=self._lost_nodes,
            is_complete=self._is_complete,
        )

    def wake(self) -> None:
        """Has the next decision made at once."""
        self._woken.set()

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

    def cancel_start(self, uid: str) -> None:
        """Calls off the starts of a deployment that wait for Ray: there is nothing to end yet."""
        for record in self.deployments[uid].replicas:
            effect = self._effects.get(record.actor)
            if effect is not None and effect.is_start and not effect.is_sent:
                effect.task.cancel()

    def doubt(self, replica_id: str) -> None:
        """A request to the replica has failed: it is looked at at once.

        An attached endpoint is asked again. Of an actor that is not heard of, the engine counts as
        dead too: its replica is started anew.
        """
        for actor, sighting in list(self._sightings.items()):
            if replica_of(actor) != replica_id:
                continue
            handle = self._handles.get(actor)
            if isinstance(handle, Watched):
                handle.doubt()
            elif not sighting.is_reachable and sighting.ended is None:
                message = "nothing is heard of its actor, and its engine refuses connections"
                self._ended(actor, Ended(Diagnosis("actor_died", message).to_json()))

    async def close(self) -> None:
        """Lets go of everything without ending it, for the next gateway to take up."""
        effects = [effect.task for effect in self._effects.values()]
        await _cancel([*self._tasks, *self._followers.values(), *effects])
        await self._write_dirty()
        await self._cluster.leave()
        await self._store.close()

    # The loop.

    async def _run(self) -> None:
        while True:
            self._woken.clear()
            try:
                self._step()
            except Exception:
                # The border of the loop: a bug in what is due for one model ends no other's care.
                log.exception("deciding what is due")
            now = time.monotonic()
            at = next_look(
                tuple(self.deployments.values()), self.observation(), self.activity(), now
            )
            pause = None if at is None else max(0.01, at - now)
            if self.deployments:
                pause = min(pause or LOOK_SECONDS, LOOK_SECONDS)
            # Not `wait_for`, which can lose a cancellation that comes with the event (3.11).
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._woken.wait()

    def _step(self) -> None:
        for action in decide(
            self.deployments.values(), self.observation(), self.activity(), time.monotonic()
        ):
            self._carry_out(action)
        for actor in self._undecided - self._effects.keys():
            self._undecided.discard(actor)
            self._note_replica(actor)

    def _carry_out(self, action: Action) -> None:
        match action:
            case Start():
                self._begin(action.actor, lambda: self._start(action), is_start=True)
            case Stop():
                self._begin(action.actor, lambda: self._stop(action))
            case Probe():
                self._probe(action)
            case Restart():
                self._restart(action)
            case GiveUp():
                self._give_up(action)
            case MarkServed():
                self._mark(action.uid, action.replica, has_served=True)
            case Settle():
                self._mark(action.uid, action.replica, failures=0)
            case Drop():
                self._drop(action)
            case Forget():
                self._forget(action.uid)

    def _begin(
        self, actor: str, work: Callable[[], Coroutine[Any, Any, None]], is_start: bool = False
    ) -> None:
        """Carries an action out in a task; the actor is busy until it has ended."""

        async def run() -> None:
            try:
                await work()
            except Exception as error:
                # The border of an action: a bug becomes an observation as a failure does.
                log.exception("actor %s", actor)
                self._ended(actor, Ended(_internal(error)))
                await asyncio.sleep(RETRY_SECONDS)

        def done(_: asyncio.Task[None]) -> None:
            # Not in `run`: a task that is cancelled before its first step never runs at all.
            self._effects.pop(actor, None)
            if is_start and actor not in self._handles:
                self._forget_unsent(actor, effect)
            self.wake()

        effect = _Effect(asyncio.create_task(run()), is_start)
        self._effects[actor] = effect
        effect.task.add_done_callback(done)

    def _forget_unsent(self, actor: str, effect: _Effect) -> None:
        """Forgets an actor whose start was called off before anything was begun."""
        sighting = self._sightings.get(actor)
        if effect.task.cancelled() and not effect.is_sent and sighting is not None:
            self._forget_actor(actor)

    # Starting and following.

    async def _start(self, action: Start) -> None:
        actor = action.actor
        deployment = self.deployments[action.uid]
        record = deployment.replica(action.replica)
        assert record is not None
        self._see(Sighting(actor, record.place.node))
        try:
            handle = await self._obtain(deployment, record)
        except (RayFailed, Refused) as error:
            diagnosis = Diagnosis("node_lost", str(error)).to_json()
            self._ended(actor, Ended(diagnosis, is_clean=True))
        except FAILURES as error:
            message = f"the replica's actor could not be started: {error}"
            self._ended(actor, Ended(Diagnosis("actor_died", message).to_json()))
        else:
            self._handles[actor] = handle
            self._follow(actor)

    async def _obtain(self, deployment: Deployment, record: ReplicaRecord) -> Handle | Watched:
        """The actor that runs the replica: the one that lives, or a new one."""
        if deployment.is_attached:
            return Watched(record.id, deployment.plan, self.keys)
        if not self._cluster.connected:
            self._hear(record.actor, ReplicaStatus(record.id, note="starting Ray"))
        await self._cluster.connect()
        self._effects[record.actor].is_sent = True
        handle = await self._cluster.find(record.actor)
        if handle is not None:
            return handle
        place = record.place
        if place.node != LOCAL and place.node in self._lost_nodes:
            place = await self._place_anew(deployment, self._lost_nodes)
            self._mark(deployment.uid, record.id, place=place)
            self._see(replace(self._sightings[record.actor], node=place.node))
            self._say(deployment.uid, f"{record.id} moves to {place.node_name}")
        config = self._config(self.deployments[deployment.uid], replace(record, place=place))
        return await self._cluster.start(record.actor, config, place.node)

    def _config(self, deployment: Deployment, record: ReplicaRecord) -> ReplicaConfig:
        return ReplicaConfig(
            replica_id=record.id,
            plan=deployment.plan_of(record).to_json(),
            home=str(self._settings.home),
            instance=self._cluster.instance,
            hub_timeout=self._settings.hub_timeout,
            relay=record.place.node != LOCAL,
            gpus=tuple(gpu.index for gpu in record.place.gpus),
            actor=record.actor,
        )

    def _follow(self, actor: str) -> None:
        if actor not in self._followers:
            self._followers[actor] = asyncio.create_task(self._hear_of(actor))

    async def _hear_of(self, actor: str) -> None:
        """Hears of an actor until it has ended, through any loss of the bridge."""
        failures, losses = 0, self._losses
        while True:
            handle = self._handles[actor]
            try:
                if not isinstance(handle, Watched):
                    await self._cluster.connect()
                await self._until_due(actor)
                status = await handle.begin()
                while True:
                    failures, losses = 0, self._losses
                    if self._is_end(actor, handle, status):
                        return
                    self._hear(actor, status)
                    status = await handle.watch(status.version)
            except ActorLost as error:
                if isinstance(handle, Watched) or self._cluster.connected:
                    message = f"the replica's actor is gone, and its engine with it ({error})"
                    was_lost = losses != self._losses  # it went with the bridge, or all of Ray
                    cause: Cause = "node_lost" if was_lost else "actor_died"
                    diagnosis = Diagnosis(cause, message).to_json()
                    self._ended(actor, Ended(diagnosis, is_blameless=was_lost))
                    return
                reason: Exception = error
            except (ActorUnavailable, RayFailed, TimeoutError) as error:
                reason = error
            except RuntimeError as error:  # what the replica itself raised
                self._ended(actor, Ended(_internal(error)))
                return
            failures += 1
            self._lose_sight(actor, reason)
            await asyncio.sleep(min(LONGEST_RETRY_SECONDS, 0.2 * 2 ** min(failures, 8)))

    async def _until_due(self, actor: str) -> None:
        """Waits until the replica may start; its actor was begun ahead of that."""
        uid = self._uid_of(replica_of(actor))
        record = self.deployments[uid].replica(replica_of(actor)) if uid is not None else None
        if record is not None and record.actor == actor and record.restart_at is not None:
            await asyncio.sleep(record.restart_at - time.monotonic())

    def _is_end(self, actor: str, handle: Handle | Watched, status: ReplicaStatus) -> bool:
        if isinstance(handle, Watched):
            self._hear(actor, status)
            return status.state == "stopped"
        if status.state == "failed":
            # The diagnosis has all that is worth keeping; the process can give its memory back.
            self._ended(actor, Ended(status.diagnosis))
        elif status.state == "stopped" and actor not in self._effects:
            self._ended(actor, Ended())
        return status.state in {"failed", "stopped"}

    # Ending.

    async def _stop(self, action: Stop) -> None:
        actor, sighting = action.actor, self._sightings.get(action.actor)
        if sighting is None:
            return
        handle = self._handles.get(actor)
        try:
            if isinstance(handle, Watched):
                await handle.stop(STOP_SLACK)
            elif sighting.node not in self._lost_nodes:
                await self._stop_actor(actor, action, handle)
        except (RayFailed, *FAILURES) as error:
            log.warning("%s has not ended yet: %s", actor, error)
            await asyncio.sleep(RETRY_SECONDS)
            return
        await self._unfollow(actor)
        self._handles.pop(actor, None)
        if self._is_current(actor):
            status, ended = sighting.status, sighting.ended
            diagnosis = ended.diagnosis if ended is not None else None
            if action.is_hung and status is not None:
                diagnosis = status.diagnosis
            self._ended(actor, Ended(diagnosis, is_clean=True))
        else:
            self._forget_actor(actor)

    def _is_current(self, actor: str) -> bool:
        """Whether it is the actor of a replica as it is wanted now."""
        uid = self._uid_of(replica_of(actor))
        record = self.deployments[uid].replica(replica_of(actor)) if uid is not None else None
        return record is not None and record.actor == actor

    async def _stop_actor(self, actor: str, action: Stop, handle: Handle | None) -> None:
        """Returns when no process of it is left. Raises what kept it from that."""
        has_ray = self._cluster.connected or self._cluster.external
        if not has_ray and self._cluster.record() is None:
            # To start a Ray only to end what it had would be absurd.
            await asyncio.to_thread(self._end_here, actor)
            return
        await self._cluster.connect()
        handle = handle or await self._cluster.find(actor)
        if handle is not None:
            slack = HUNG_SLACK if action.is_hung else STOP_SLACK
            with contextlib.suppress(*FAILURES):
                await handle.stop(processes.STOP_GRACE + slack)
        await self._cluster.end(actor, action.node)

    def _end_here(self, actor: str) -> None:
        """Ends what is left of an actor on this machine, where there is no Ray. Blocks."""
        left = processes.belonging(self._cluster.instance, actor=actor)
        sighting = self._sightings.get(actor)
        pid = sighting.status.actor_pid if sighting and sighting.status else None
        if pid is not None and processes.alive(pid, self._cluster.instance):
            with contextlib.suppress(psutil.Error):
                left.append(psutil.Process(pid))
        processes.end(left, processes.STOP_GRACE)

    async def _unfollow(self, actor: str) -> None:
        follower = self._followers.pop(actor, None)
        if follower is not None:
            await _cancel([follower])

    def _probe(self, action: Probe) -> None:
        handle = self._handles.get(action.actor)
        if handle is None or isinstance(handle, Watched) or action.actor in self._probes:
            return
        self._probes.add(action.actor)
        # Before the answer, which wakes the loop: the next probe is due a while from now.
        self.on_probe(action.replica)

        async def ask() -> None:
            try:
                with contextlib.suppress(*FAILURES):
                    answer = await handle.invoke("probe", PROBE_LIMIT, full=action.is_full)
                    if answer == "silent":
                        log.warning("%s has requests and generates nothing", action.replica)
            finally:
                self._probes.discard(action.actor)
                self.wake()

        self._effects[f"probe {action.actor}"] = effect = _Effect(asyncio.create_task(ask()))
        effect.task.add_done_callback(
            lambda _: self._effects.pop(f"probe {action.actor}", None) and None
        )

    # What is noted.

    def _restart(self, action: Restart) -> None:
        record = self._record(action.uid, action.replica)
        seconds = max(0.0, action.at - time.monotonic())
        cause, message = _words(action.diagnosis)
        self._say(
            action.uid,
            f"{record.id} failed ({cause}: {message}); starts again in {seconds:.1f} s, "
            f"restart {record.restarts + 1}",
            is_error=True,
        )
        log.warning("%s failed: %s; it starts again in %.1f s", record.id, message, seconds)
        self._mark(
            action.uid,
            action.replica,
            start=record.start + 1,
            failures=action.failures,
            restarts=record.restarts + 1,
            restart_at=action.at,
            diagnosis=action.diagnosis,
        )
        self._clear(action.actor)

    def _give_up(self, action: GiveUp) -> None:
        cause, message = _words(action.diagnosis)
        self._say(action.uid, f"{action.replica} is failed ({cause}: {message})", is_error=True)
        log.warning("%s failed: %s", action.replica, message)
        self._mark(
            action.uid,
            action.replica,
            given_up=True,
            restart_at=None,
            diagnosis=action.diagnosis,
        )
        self._clear(action.actor)

    def _drop(self, action: Drop) -> None:
        record = self._record(action.uid, action.replica)
        self._clear(record.actor)
        if record.is_leaving and self.deployments[action.uid].wanted == "serving":
            self._say(action.uid, f"{record.id} is removed")
        self._set(self.deployments[action.uid].without_replica(record.id))
        self._save_soon(action.uid)
        self.wake()

    def _forget(self, uid: str) -> None:
        deployment = self.deployments.pop(uid)
        self._statuses.pop(uid, None)
        self._save_soon(uid)
        self._bus.show(uid, None)
        self._tell(uid)
        if deployment.is_attached:
            self.keys.remove(uid)

    def _record(self, uid: str, replica_id: str) -> ReplicaRecord:
        record = self.deployments[uid].replica(replica_id)
        assert record is not None
        return record

    def _mark(self, uid: str, replica_id: str, **changes: Any) -> None:
        record = replace(self._record(uid, replica_id), **changes)
        self._set(self.deployments[uid].with_replica(record))
        self._save_soon(uid)
        self.wake()

    def _set(self, deployment: Deployment) -> None:
        self.deployments[deployment.uid] = deployment
        self._note(deployment.uid)

    def _see(self, sighting: Sighting) -> None:
        self._sightings[sighting.actor] = sighting
        self._note_replica(sighting.actor)

    def _hear(self, actor: str, status: ReplicaStatus) -> None:
        sighting = self._sightings.get(actor)
        if sighting is None or sighting.ended is not None:
            return
        now = time.monotonic()
        before = sighting.status.state if sighting.status is not None else ""
        since = sighting.ready_since if before == status.state == "ready" else now
        self._see(
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
        uid = self._uid_of(replica_id)
        if uid is not None and status.state != "failed":
            hangs = status.state == "unhealthy"
            text = f"{replica_id} is {status.state}" + (f": {status.note}" if hangs else "")
            self._say(uid, text, is_error=hangs)
        if status.state == "unhealthy":
            self.on_unhealthy(replica_id, status.note)
        self.wake()

    def _lose_sight(self, actor: str, reason: Exception) -> None:
        sighting = self._sightings.get(actor)
        if sighting is not None and sighting.is_reachable and sighting.ended is None:
            log.warning("nothing is heard of %s: %s", actor, reason)
            self._see(replace(sighting, is_reachable=False))

    def _ended(self, actor: str, ended: Ended) -> None:
        sighting = self._sightings.get(actor)
        if sighting is not None:
            # Shown with what is decided of it: a replica that is started again is never `failed`.
            self._sightings[actor] = replace(sighting, ended=ended)
            self._undecided.add(actor)
            self.wake()

    def _clear(self, actor: str) -> None:
        """Forgets an actor of which nothing is left; what is left is stopped by a decision."""
        sighting = self._sightings.get(actor)
        if sighting is not None and sighting.is_over:
            self._forget_actor(actor)

    def _forget_actor(self, actor: str) -> None:
        self._sightings.pop(actor, None)
        self._handles.pop(actor, None)
        self._note_replica(actor)
        self.wake()

    def _note_replica(self, actor: str) -> None:
        uid = self._uid_of(replica_of(actor))
        if uid is not None:
            self._note(uid)

    def _uid_of(self, replica_id: str) -> str | None:
        uid = replica_id.rpartition("-rep")[0]
        return uid if uid in self.deployments else None

    def _note(self, uid: str) -> None:
        """Makes the model's status anew, and tells whoever waits."""
        status = model_status(
            self.deployments[uid], self.observation(), time.monotonic(), time.time()
        )
        if status != self._statuses.get(uid):
            self._statuses[uid] = status
            self._bus.show(uid, status)
        self._tell(uid)

    def _tell(self, uid: str) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        self.on_change(uid)

    def _say(self, uid: str, text: str, is_error: bool = False) -> None:
        self._bus.say(uid, text, is_error)

    # What goes on beside the loop.

    async def _keep_listing(self) -> None:
        """Lists the actors that live: those of an earlier gateway at first, orphans later."""
        failures = 0
        while True:
            if self._cluster.connected or not self._is_complete:
                try:
                    await self._cluster.connect()
                    self._list(await self._cluster.actors())
                    failures = 0
                except (
                    RayFailed,
                    ActorLost,
                    ActorUnavailable,
                    TimeoutError,
                    RuntimeError,
                ) as error:
                    failures += 1
                    log.error("the actors that live cannot be listed: %s", error)
            pause = RETRY_SECONDS * 2 ** min(failures, 6) if failures else SYNC_SECONDS
            await asyncio.sleep(min(pause, LONGEST_RETRY_SECONDS) if failures else pause)

    def _list(self, actors: set[str]) -> None:
        wanted = {
            record.actor: record.place.node
            for deployment in self.deployments.values()
            for record in deployment.replicas
        }
        for actor in sorted(actors - self._sightings.keys() - self._effects.keys()):
            self._see(Sighting(actor, wanted.get(actor, "")))
            if actor not in wanted:
                log.warning("actor %s belongs to no deployment and is ended", actor)
        for actor in actors & wanted.keys() - self._handles.keys() - self._effects.keys():
            self._begin(actor, partial(self._take_up, actor))
        self._is_complete = True
        self.wake()

    async def _take_up(self, actor: str) -> None:
        """Follows an actor that lives."""
        try:
            handle = await self._cluster.find(actor)
        except FAILURES as error:
            self._lose_sight(actor, error)
            handle = None
        if handle is None:
            gone = Diagnosis("actor_died", "the replica's actor is gone").to_json()
            self._ended(actor, Ended(gone))
        else:
            self._handles[actor] = handle
            self._follow(actor)

    async def _keep_looking_for_nodes(self) -> None:
        while True:
            await asyncio.sleep(NODES_SECONDS)
            if self._cluster.connected and self._spans_nodes:
                with contextlib.suppress(*FAILURES):
                    lost = frozenset(await self._cluster.lost_nodes())
                    if lost != self._lost_nodes:
                        self._lost_nodes = lost
                        self.wake()

    @property
    def _spans_nodes(self) -> bool:
        return any(
            record.place.node != LOCAL
            for deployment in self.deployments.values()
            for record in deployment.replicas
        )

    def _save_soon(self, uid: str) -> None:
        self._dirty.add(uid)
        self._dirtied.set()

    async def _keep_saving(self) -> None:
        """Writes what has changed; what cannot be written is tried again, and nothing is lost."""
        failures = 0
        while True:
            await self._dirtied.wait()
            self._dirtied.clear()
            try:
                await self._save_dirty()
                failures = 0
            except StateNotWritten as error:
                failures += 1
                log.error("%s", error)
                await asyncio.sleep(min(LONGEST_RETRY_SECONDS, RETRY_SECONDS * failures))
                self._dirtied.set()

    async def _save_dirty(self) -> None:
        while self._dirty:
            uid = self._dirty.pop()
            try:
                if uid in self.deployments:
                    await self._store.save(self.deployments[uid])
                else:
                    await self._store.remove(uid)
            except BaseException:
                self._dirty.add(uid)
                raise

    async def _write_dirty(self) -> None:
        """The last attempt before the gateway ends."""
        try:
            await self._save_dirty()
        except PaddockError as error:
            log.error("%s", error)


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=1.0)


def _internal(error: Exception) -> dict[str, Any]:
    return Diagnosis("internal", f"{type(error).__name__}: {error}").to_json()


def _words(diagnosis: Mapping[str, Any]) -> tuple[str, str]:
    return str(diagnosis.get("cause", "")), str(diagnosis.get("message", ""))
