"""Makes what runs what is wanted, continuously: `decide` says what is due, this carries it out.

Each action runs in a task of its own, one at a time for each actor. What comes of it, also a
failure, is noted in the ledger and becomes the next observation.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol
from urllib.parse import urlsplit

import psutil

from paddock.launcher.cluster.agent import end_actor
from paddock.launcher.cluster.cluster import ActorLost, ActorUnavailable, Handle, RayFailed
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
    is_to_shrink,
    next_look,
)
from paddock.launcher.fleet.deployment import Deployment, ReplicaRecord, replica_of
from paddock.launcher.fleet.ledger import Ledger
from paddock.launcher.fleet.observation import Activity, Ended, Observation, Sighting
from paddock.launcher.hosts import processes
from paddock.launcher.hosts.host import LOCAL
from paddock.launcher.planning.place import Place
from paddock.launcher.planning.plan import LaunchPlan
from paddock.launcher.replicas.attached import AttachedHandle
from paddock.launcher.replicas.diagnosis import Cause, Diagnosis
from paddock.launcher.replicas.status import ReplicaConfig, ReplicaStatus
from paddock.registry.errors import Refused
from paddock.registry.settings import Settings

log = logging.getLogger(__name__)

STOP_SLACK = 15.0
"""Seconds beyond the engine's grace that an actor may take before it is ended by force."""
HUNG_SLACK = 2.0
"""The same of an engine that hangs: nothing graceful is to be expected."""
BEGIN_LIMIT = 120.0
"""How long a new actor may say nothing at all before its start counts as failed."""
NO_RAY_SECONDS, NO_ROOM_SECONDS = 2.0, 10.0
"""Before the next start, where this one found no Ray, or no node with room."""
EXIT_REPORT_SECONDS = 3.0
"""How long an actor whose engine refuses connections has to report its exit."""
REFUSED_SECONDS = 2.0
"""How long a connection to an engine that is not heard of may take before it counts as alive."""
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
    """What the reconciler needs of `cluster.Cluster`, which documents it; a fake serves tests."""

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
    async def lost_nodes(self, known: Collection[str]) -> set[str]: ...  # noqa: D102
    async def leave(self) -> None: ...  # noqa: D102
    async def shutdown(self) -> None: ...  # noqa: D102


PlaceAnew = Callable[[Deployment, frozenset[str]], Coroutine[Any, Any, Place]]
"""A place for one replica of a deployment, on none of the nodes that are lost. Raises `Refused`."""
PlanAnew = Callable[[Deployment], Coroutine[Any, Any, LaunchPlan]]
"""A plan of what fits now, for a deployment whose one replica found too little memory. Raises
`Refused`."""


@dataclass
class _Effect:
    """An action that is being carried out. `is_sent`: a start that may have begun an actor."""

    task: asyncio.Task[None]
    is_start: bool = False
    is_sent: bool = False


class Reconciler:
    """Acts on what `decide` says. Use from one event loop only."""

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        cluster: ClusterLike,
        place_anew: PlaceAnew,
        plan_anew: PlanAnew,
    ) -> None:
        self._settings = settings
        self._cluster = cluster
        self._place_anew = place_anew
        self._plan_anew = plan_anew
        self.ledger = ledger
        self.activity: Callable[[], Activity] = dict
        self.on_probe: Callable[[str], None] = lambda _: None
        """Called with a replica id when it is asked whether its engine still works."""
        self._handles: dict[str, Handle | AttachedHandle] = {}
        self._followers: dict[str, asyncio.Task[None]] = {}
        self._effects: dict[str, _Effect] = {}
        self._probes: set[str] = set()
        self._lost_nodes: frozenset[str] = frozenset()
        self._is_complete = False
        self._woken = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._losses = 0
        self._is_leaving = False
        ledger.wake = self.wake
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
        await self.ledger.load()
        # Without a Ray there is no actor; a cluster that was named may hold some.
        self._is_complete = not self._cluster.external and self._cluster.record() is None
        self._tasks = [
            asyncio.create_task(self._run()),
            asyncio.create_task(self._keep_listing()),
            asyncio.create_task(self.ledger.keep_saving()),
            asyncio.create_task(self._keep_looking()),
        ]

    @property
    def is_complete(self) -> bool:
        """Whether the actors that an earlier gateway left are known."""
        return self._is_complete

    def handle(self, replica: ReplicaRecord) -> Handle | AttachedHandle | None:
        """The handle of a replica's actor; None if no actor is known."""
        return self._handles.get(replica.actor)

    def observation(self) -> Observation:
        """What is known now."""
        return Observation(
            actors=dict(self.ledger.sightings),
            busy=frozenset(self._effects),
            lost_nodes=self._lost_nodes,
            is_complete=self._is_complete,
        )

    def wake(self) -> None:
        """Has the next decision made at once."""
        self._woken.set()

    def cancel_start(self, uid: str) -> None:
        """Calls off the starts of a deployment that wait for Ray: there is nothing to end yet."""
        for record in self.ledger.deployments[uid].replicas:
            effect = self._effects.get(record.actor)
            if effect is not None and effect.is_start and not effect.is_sent:
                effect.task.cancel()

    def doubt(self, replica_id: str) -> None:
        """A request to the replica has failed: it is looked at at once.

        An attached endpoint is asked again. An engine that refuses connections counts as dead,
        whether its actor says so or not: its replica is started anew.
        """
        for actor, sighting in list(self.ledger.sightings.items()):
            if replica_of(actor) != replica_id:
                continue
            handle = self._handles.get(actor)
            if isinstance(handle, AttachedHandle):
                handle.doubt()
            elif sighting.ended is None:
                self._doubt_engine(actor, sighting)

    def _doubt_engine(self, actor: str, sighting: Sighting) -> None:
        endpoint = sighting.status.endpoint if sighting.status is not None else None
        name = f"doubt {actor}"
        if endpoint is None or name in self._effects:
            return

        async def look() -> None:
            if not await _refuses(endpoint):
                return
            if sighting.is_reachable:
                # An actor that is well tells its engine's end within a moment, and knows why.
                await asyncio.sleep(EXIT_REPORT_SECONDS)
            now = self.ledger.sightings.get(actor)
            current = now.status.endpoint if now is not None and now.status is not None else None
            if now is None or now.ended is not None or current != endpoint:
                return
            message = "its engine refuses connections, and nothing is heard of its actor"
            # On another node it is most likely the node, which Ray takes a while to tell.
            is_far = sighting.node not in {"", LOCAL}
            diagnosis = Diagnosis("actor_died", message).to_json()
            self.ledger.end(actor, Ended(diagnosis, is_blameless=is_far))
            self.wake()

        self._effects[name] = effect = _Effect(asyncio.create_task(look()))
        effect.task.add_done_callback(lambda _: self._effects.pop(name, None) and None)

    def leave(self) -> None:
        """From now on nothing that ends is judged: the whole machine may be going down."""
        self._is_leaving = True

    async def close(self) -> None:
        """Lets go of everything without ending it, for the next gateway to take up."""
        effects = [effect.task for effect in self._effects.values()]
        await _cancel([*self._tasks, *self._followers.values(), *effects])
        await self.ledger.close()
        await self._cluster.leave()

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
                tuple(self.ledger.deployments.values()), self.observation(), self.activity(), now
            )
            pause = None if at is None else max(0.01, at - now)
            if self.ledger.deployments:
                pause = min(pause or LOOK_SECONDS, LOOK_SECONDS)
            # Not `wait_for`, which can lose a cancellation that comes with the event (3.11).
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._woken.wait()

    def _step(self) -> None:
        for action in decide(
            self.ledger.deployments.values(), self.observation(), self.activity(), time.monotonic()
        ):
            self._carry_out(action)
        self.ledger.show_decided(self._effects)

    def _carry_out(self, action: Action) -> None:
        match action:
            case Start():
                self._begin(action.actor, lambda: self._start(action), is_start=True)
            case Stop():
                self._begin(action.actor, lambda: self._stop(action))
            case Probe():
                self._probe(action)
            case Restart() | GiveUp() if self._is_leaving:
                pass
            case Restart():
                self.ledger.restart(action)
            case GiveUp():
                self.ledger.give_up(action)
            case MarkServed():
                self.ledger.mark(action.uid, action.replica, has_served=True)
            case Settle():
                self.ledger.mark(action.uid, action.replica, failures=0)
            case Drop():
                self.ledger.drop(action)
            case Forget():
                self.ledger.forget(action.uid)

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
                self.ledger.end(actor, Ended(_internal(error)))
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
        sighting = self.ledger.sightings.get(actor)
        if effect.task.cancelled() and not effect.is_sent and sighting is not None:
            self._forget_actor(actor)

    # Starting and following.

    async def _start(self, action: Start) -> None:
        actor = action.actor
        deployment = self.ledger.deployments[action.uid]
        record = deployment.replica(action.replica)
        assert record is not None
        self.ledger.see(Sighting(actor, record.place.node))
        try:
            handle = await self._obtain(deployment, record)
        except (RayFailed, Refused) as error:
            wait = NO_RAY_SECONDS if isinstance(error, RayFailed) else NO_ROOM_SECONDS
            cause: Cause = "oom_host" if is_to_shrink(deployment, record) else "node_lost"
            ended = Ended(Diagnosis(cause, str(error)).to_json(), is_clean=True)
            # A first start that cannot begin is reported.
            self.ledger.end(
                actor, replace(ended, is_blameless=record.has_served, wait_seconds=wait)
            )
        except FAILURES as error:
            message = f"the replica's actor could not be started: {error}"
            self.ledger.end(actor, Ended(Diagnosis("actor_died", message).to_json()))
        else:
            self._handles[actor] = handle
            self._follow(actor, is_new=True)

    async def _obtain(
        self, deployment: Deployment, record: ReplicaRecord
    ) -> Handle | AttachedHandle:
        """The actor that runs the replica: the one that lives, or a new one."""
        if deployment.is_attached:
            return AttachedHandle(record.id, deployment.plan, self.ledger.keys)
        if not self._cluster.connected:
            self.ledger.hear(record.actor, ReplicaStatus(record.id, note="starting Ray"))
        await self._cluster.connect()
        self._effects[record.actor].is_sent = True
        handle = await self._cluster.find(record.actor)
        if handle is not None:
            return handle
        if is_to_shrink(deployment, record):
            plan = await self._plan_anew(deployment)
            self.ledger.change_now(deployment.uid, lambda one: one.planned_anew(plan))
            self.ledger.say(deployment.uid, f"{record.id} {plan.reasons[-1]}")
            record = self.ledger.record(deployment.uid, record.id)
        place = record.place
        if place.node != LOCAL and place.node in self._lost_nodes:
            place = await self._place_anew(deployment, self._lost_nodes)
            self.ledger.mark(deployment.uid, record.id, place=place)
            self.ledger.see(replace(self.ledger.sightings[record.actor], node=place.node))
            self.ledger.say(deployment.uid, f"{record.id} moves to {place.node_name}")
        config = self._config(self.ledger.deployments[deployment.uid], replace(record, place=place))
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

    def _follow(self, actor: str, is_new: bool = False) -> None:
        if actor not in self._followers:
            self._followers[actor] = asyncio.create_task(self._hear_of(actor, is_new))

    async def _hear_of(self, actor: str, is_new: bool) -> None:
        """Hears of an actor until it has ended, through any loss of the bridge.

        One that lived before may serve, and is never given up; of a new one nothing was heard yet.
        """
        failures, losses = 0, self._losses
        silent_since = time.monotonic() if is_new else None
        while True:
            handle = self._handles[actor]
            try:
                if not isinstance(handle, AttachedHandle):
                    await self._cluster.connect()
                await self._until_due(actor)
                status = await handle.begin()
                while True:
                    failures, losses, silent_since = 0, self._losses, None
                    if self._is_end(actor, handle, status):
                        return
                    self.ledger.hear(actor, status)
                    status = await handle.watch(status.version)
            except ActorLost as error:
                if isinstance(handle, AttachedHandle) or self._cluster.connected:
                    message = f"the replica's actor is gone, and its engine with it ({error})"
                    # Did it go with the bridge, all of Ray, or its node?
                    was_lost = losses != self._losses or await self._is_on_lost_node(actor)
                    cause: Cause = "node_lost" if was_lost else "actor_died"
                    diagnosis = Diagnosis(cause, message).to_json()
                    self.ledger.end(actor, Ended(diagnosis, is_blameless=was_lost))
                    return
                reason: Exception = error
            except RuntimeError as error:  # what the replica itself raised
                self.ledger.end(actor, Ended(_internal(error)))
                return
            # Anything else says nothing of the actor: a full disk keeps a bridge from starting too.
            except Exception as error:  # noqa: BLE001
                reason = error
            if silent_since is not None and time.monotonic() - silent_since > BEGIN_LIMIT:
                message = f"its actor has not begun within {BEGIN_LIMIT:g} s: {reason}"
                self.ledger.end(actor, Ended(Diagnosis("actor_died", message).to_json()))
                return
            failures += 1
            self.ledger.lose_sight(actor, reason)
            await asyncio.sleep(min(LONGEST_RETRY_SECONDS, 0.2 * 2 ** min(failures, 8)))

    async def _until_due(self, actor: str) -> None:
        """Waits until the replica may start; its actor was begun ahead of that."""
        record = self.ledger.current(actor)
        if record is not None and record.restart_at is not None:
            await asyncio.sleep(record.restart_at - time.monotonic())

    def _is_end(self, actor: str, handle: Handle | AttachedHandle, status: ReplicaStatus) -> bool:
        if isinstance(handle, AttachedHandle):
            self.ledger.hear(actor, status)
            return status.state == "stopped"
        if status.state == "failed":
            # The diagnosis has all that is worth keeping; the process can give its memory back.
            self.ledger.end(actor, Ended(status.diagnosis, is_engine_gone=True))
        elif status.state == "stopped" and actor not in self._effects:
            self.ledger.end(actor, Ended())
        return status.state in {"failed", "stopped"}

    # Ending.

    async def _stop(self, action: Stop) -> None:
        actor, sighting = action.actor, self.ledger.sightings.get(action.actor)
        if sighting is None:
            return
        handle = self._handles.get(actor)
        try:
            if isinstance(handle, AttachedHandle):
                await handle.stop(STOP_SLACK)
            elif sighting.node not in self._lost_nodes:
                await self._stop_actor(actor, action, handle)
        except (RayFailed, *FAILURES) as error:
            log.warning("%s has not ended yet: %s", actor, error)
            await asyncio.sleep(RETRY_SECONDS)
            return
        await self._unfollow(actor)
        self._handles.pop(actor, None)
        if self.ledger.current(actor) is not None:
            status, ended = sighting.status, sighting.ended
            diagnosis = ended.diagnosis if ended is not None else None
            if action.is_hung and status is not None:
                diagnosis = status.diagnosis
            self.ledger.end(actor, Ended(diagnosis, is_clean=True))
        else:
            self._forget_actor(actor)

    async def _stop_actor(self, actor: str, action: Stop, handle: Handle | None) -> None:
        """Returns when no process of it is left. Raises what kept it from that."""
        has_ray = self._cluster.connected or self._cluster.external
        if not has_ray and self._cluster.record() is None:
            # To start a Ray only to end what it had would be absurd.
            await asyncio.to_thread(self._end_here, actor)
            return
        try:
            await self._cluster.connect()
        except RayFailed:
            if not self._cluster.external or action.node != LOCAL:
                raise
            # Its engine is here all the same. If Ray still has an actor of it, it is an orphan.
            if left := await asyncio.to_thread(end_actor, self._cluster.instance, actor):
                raise TimeoutError(f"processes {left} cannot be ended") from None
            return
        handle = handle or await self._cluster.find(actor)
        if handle is not None:
            slack = HUNG_SLACK if action.is_hung else STOP_SLACK
            with contextlib.suppress(*FAILURES):
                status = await handle.stop(processes.STOP_GRACE + slack)
                if status.took is not None:  # its peak
                    self.ledger.on_took(actor, status.took)
        await self._cluster.end(actor, action.node)

    def _end_here(self, actor: str) -> None:
        """Ends what is left of an actor on this machine, where there is no Ray. Blocks."""
        left = processes.belonging(self._cluster.instance, actor=actor)
        sighting = self.ledger.sightings.get(actor)
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
        if handle is None or isinstance(handle, AttachedHandle) or action.actor in self._probes:
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

    def _forget_actor(self, actor: str) -> None:
        self._handles.pop(actor, None)
        self.ledger.forget_actor(actor)

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
                # Whatever keeps it from that, be it a full disk: it goes on.
                except Exception as error:  # noqa: BLE001
                    failures += 1
                    log.error("the actors that live cannot be listed: %s", error)
            pause = RETRY_SECONDS * 2 ** min(failures, 6) if failures else SYNC_SECONDS
            await asyncio.sleep(min(pause, LONGEST_RETRY_SECONDS) if failures else pause)

    def _list(self, actors: set[str]) -> None:
        wanted = {
            record.actor: record.place.node
            for deployment in self.ledger.deployments.values()
            for record in deployment.replicas
        }
        for actor in sorted(actors - self.ledger.sightings.keys() - self._effects.keys()):
            self.ledger.see(Sighting(actor, wanted.get(actor, "")))
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
            self.ledger.lose_sight(actor, error)
            handle = None
        if handle is None:
            gone = Diagnosis("actor_died", "the replica's actor is gone").to_json()
            self.ledger.end(actor, Ended(gone))
        else:
            self._handles[actor] = handle
            self._follow(actor)

    async def _keep_looking(self) -> None:
        """Looks for lost nodes, and at the engines of actors of which nothing is heard."""
        while True:
            await asyncio.sleep(NODES_SECONDS)
            if self._cluster.connected and self._other_nodes():
                await self._look_for_lost_nodes()
            for actor, sighting in list(self.ledger.sightings.items()):
                if not sighting.is_reachable and sighting.ended is None:
                    self._doubt_engine(actor, sighting)

    async def _look_for_lost_nodes(self) -> None:
        with contextlib.suppress(*FAILURES):
            lost = frozenset(await self._cluster.lost_nodes(self._other_nodes()))
            if lost != self._lost_nodes:
                self._lost_nodes = lost
                self.wake()

    async def _is_on_lost_node(self, actor: str) -> bool:
        """Whether an actor was on a node that is lost; Ray may have told of the actor first."""
        sighting = self.ledger.sightings.get(actor)
        if sighting is None or sighting.node in {"", LOCAL}:
            return False
        await self._look_for_lost_nodes()
        return sighting.node in self._lost_nodes

    def _other_nodes(self) -> set[str]:
        """The nodes that replicas are to run on, but the gateway's own."""
        return {
            record.place.node
            for deployment in self.ledger.deployments.values()
            for record in deployment.replicas
            if record.place.node != LOCAL
        }


async def _refuses(endpoint: str) -> bool:
    """Whether nobody listens at an endpoint. One that does not answer at all may be cut off."""
    parts = urlsplit(endpoint)
    if parts.port is None:
        return False
    try:
        async with asyncio.timeout(REFUSED_SECONDS):
            _, writer = await asyncio.open_connection(parts.hostname, parts.port)
    except ConnectionRefusedError:
        return True
    except OSError:  # a TimeoutError is one
        return False
    writer.close()
    return False


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=1.0)


def _internal(error: Exception) -> dict[str, Any]:
    return Diagnosis("internal", f"{type(error).__name__}: {error}").to_json()
