"""The models of one gateway: what routes call to launch, list, end and use them.

A thin front: planning is the planner's, keeping is the reconciler's, slots are the queue's.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from paddock.engines import engine_names
from paddock.engines.base import Host
from paddock.launcher.fleet.activity import Lease, SlotQueue
from paddock.launcher.fleet.deployment import (
    Deployment,
    ReplicaRecord,
    deploy,
    replica_name,
    replica_of,
)
from paddock.launcher.fleet.events import Bus, Event
from paddock.launcher.fleet.ledger import Ledger
from paddock.launcher.fleet.log_stream import LogStream
from paddock.launcher.fleet.planner import Planner
from paddock.launcher.fleet.reconciler import ClusterLike, Reconciler
from paddock.launcher.fleet.status import ModelStatus
from paddock.launcher.fleet.store import Store
from paddock.launcher.hosts.host import LOCAL
from paddock.launcher.hosts.machine import held_bytes
from paddock.launcher.jobs.locks import Locking
from paddock.launcher.planning.place import Place
from paddock.launcher.planning.plan import LaunchPlan, LaunchRequest, PlannedWeights
from paddock.launcher.planning.reservations import Reservation
from paddock.launcher.replicas.attach_request import AttachRequest
from paddock.launcher.replicas.attached import ATTACHES
from paddock.launcher.replicas.attached_plan import plan_attached
from paddock.launcher.replicas.diagnosis import Diagnosis, Failure, launch_command
from paddock.launcher.truth.recorder import Recorder
from paddock.launcher.truth.store import TruthStore
from paddock.launcher.weights.verified import Records
from paddock.registry.catalog import Catalog
from paddock.registry.errors import (
    BadValue,
    Cancelled,
    EndNotWritten,
    LaunchFailed,
    NotFound,
    NotLaunched,
    NotReady,
    StateNotWritten,
    StillEnding,
    UidInUse,
    near,
)
from paddock.registry.hubs import find_hub
from paddock.registry.launch_fields import MAX_REPLICAS
from paddock.registry.settings import Settings
from paddock.registry.spec import Source, Variant, source_key

SERVING = frozenset(("ready", "unhealthy"))
"""States in which a replica holds its memory."""
TERMINATE_SECONDS = 90.0
"""How long a termination is waited for before the caller is told that it goes on."""
SHUTDOWN_SECONDS = 60.0
"""How long the end of all models is waited for before Ray and what is left are ended by force."""
TAKE_UP_SECONDS = 3.0
"""How long, from its start, a gateway has those wait who ask for what an earlier one left."""
VERDICT_SECONDS = 1.0
"""How long a request whose connection broke waits to learn whether its engine has died."""


class PlannableCluster(ClusterLike, Protocol):
    """A cluster that can also be looked at."""

    async def hosts(self, paths: tuple[str, ...] = ()) -> list[Host]:
        """The facts of every node that can be planned on. See `Cluster.hosts`."""
        ...


class Fleet:
    """Launches, lists, keeps and ends models. Use from one event loop only."""

    def __init__(
        self,
        settings: Settings,
        catalog: Callable[[], Catalog],
        store: Store,
        cluster: PlannableCluster,
    ) -> None:
        self._cluster = cluster
        self._settings = settings
        self.bus = Bus()
        self.truth = TruthStore(settings.home)
        self._recorder = Recorder(self.truth)
        self.planner = Planner(
            settings,
            catalog,
            cluster.hosts,
            self._reservations,
            self.truth,
            self._holdings,
        )
        self._ledger = Ledger(settings.home, store, self.bus)
        self._reconciler = Reconciler(
            settings, self._ledger, cluster, self._place_anew, self.planner.plan_what_fits
        )
        self._reconciler.activity = self._loads
        self._ledger.on_change = self._on_change
        self._ledger.on_unhealthy = self._on_unhealthy
        self._ledger.on_took = self._on_took
        self._logs = LogStream(self._ledger, self._reconciler.handle)
        self.slots = SlotQueue(self)
        self._reconciler.on_probe = self.slots.note_probe
        # From a plan to its row: what is free is promised to one launch at a time.
        self._promising = asyncio.Lock()
        self._started = False
        self._started_at = 0.0

    @property
    def references(self) -> Any:
        """See `references.References`."""
        return self.planner.references

    @property
    def catalog(self) -> Catalog:
        """The models that can be launched now."""
        return self.planner.catalog

    async def start(self) -> None:
        """Takes up what an earlier gateway left, and begins to keep it."""
        await self._reconciler.start()
        for deployment in list(self._ledger.deployments.values()):
            missing = _missing_engine(deployment)
            if missing is not None:
                self._ledger.change_now(deployment.uid, _set_given_up(missing))
            elif _lacked_engine(deployment):
                self._ledger.change_now(deployment.uid, _clear_failures)
        self._started, self._started_at = True, time.monotonic()

    @property
    def adopted(self) -> bool:
        """Whether it has started, and knows what an earlier gateway left."""
        return self._started and self._reconciler.is_complete

    async def until_taken_up(self) -> None:
        """Waits, just after the start, until the actors that an earlier gateway left were heard of.

        Until then a model that serves all the time would be listed as if it did not.
        """
        while self._is_taking_up():
            left = self._started_at + TAKE_UP_SECONDS - time.monotonic()
            if left <= 0:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, 0.05)):
                    await self._ledger.changed()

    def _is_taking_up(self) -> bool:
        if not self.adopted:
            return True
        records = (one for each in self._ledger.deployments.values() for one in each.replicas)
        sightings = (self._ledger.sightings.get(one.actor) for one in records if one.has_served)
        return any(one and one.status is None and one.ended is None for one in sightings)

    # Planning.

    async def plan(self, request: LaunchRequest) -> LaunchPlan:
        """What a launch would do; nothing is launched. Raises as `Planner.plan`."""
        return await self.planner.plan(request)

    async def plan_pull(self, request: LaunchRequest) -> tuple[Variant, PlannedWeights]:
        """See `Planner.plan_pull`."""
        return await self.planner.plan_pull(request)

    async def plan_lock(self, request: LaunchRequest) -> Locking:
        """See `Planner.plan_lock`."""
        return await self.planner.plan_lock(request)

    async def hosts(self, paths: tuple[str, ...] = ()) -> Sequence[Host]:
        """See `Planner.hosts`."""
        return await self.planner.hosts(paths)

    def _reservations(self) -> list[Reservation]:
        """What replicas that are wanted and do not serve yet will take. Reads `/proc`: blocks."""
        coming = []
        for deployment in list(self._ledger.deployments.values()):
            status = self._ledger.status(deployment.uid)
            states = {one.replica_id: one for one in status.replicas} if status else {}
            for record in deployment.replicas:
                one = states.get(record.id)
                if one is None or deployment.is_attached or not deployment.wants(record):
                    continue
                if one.state in {"pending", "downloading", "starting"}:
                    local = one.pid is not None and record.place.node == LOCAL
                    held = held_bytes(one.pid) if local and one.pid is not None else 0
                    memory = deployment.plan_of(record).memory
                    place = record.place
                    coming.append(Reservation(deployment.uid, place.node, memory, place.gpus, held))
        return coming

    def _holdings(self) -> list[Reservation]:
        """What replicas that serve hold: as they said when they were ready, else as planned."""
        holdings = []
        for deployment in list(self._ledger.deployments.values()):
            status = self._ledger.status(deployment.uid)
            states = {one.replica_id: one for one in status.replicas} if status else {}
            for record in deployment.replicas:
                one = states.get(record.id)
                if one is None or deployment.is_attached or one.state not in SERVING:
                    continue
                memory, place = deployment.plan_of(record).memory, record.place
                size = 0 if memory.gpus or one.took is None else int(one.took["start_bytes"])
                holdings.append(Reservation(deployment.uid, place.node, memory, place.gpus, size))
        return holdings

    async def _place_anew(self, deployment: Deployment, lost: frozenset[str]) -> Place:
        (place,) = await self.planner.place_more(deployment, 1, lost)
        return place

    # What is launched.

    async def launch(self, request: LaunchRequest) -> ModelStatus:
        """Begins a launch and returns at once; `wait` waits for it.

        Raises:
            UidInUse: a model with this id is launched, and has not failed.
            Refused: as `Planner.plan_launch`.
            HubFailure: a reference that could not be looked up.
            StateNotWritten: nothing was begun.
        """
        if self._cluster.external:
            await self._cluster.connect()
        target = await self.planner.understand(request)
        await self.planner.prepare(target)
        async with self._promising:
            planned = await self.planner.plan_launch(target)
            self.references.consent(target)
            await self._make_way(planned.request.uid)
            written = planned.request.model_dump(mode="json", exclude_none=True)
            written["fit"] = request.fit
            deployment = deploy(planned.plan, planned.places, written, time.time())
            plan = planned.plan
            return await self._add(
                replace(deployment, policy=planned.policy),
                f"launch of {plan.model} on {plan.engine}",
            )

    async def attach(self, request: AttachRequest) -> ModelStatus:
        """Puts a model that somebody else serves among ours, once its endpoint has been asked.

        Raises:
            UidInUse: a model with this id is launched, and has not failed.
            Refused: as `plan_attached`.
            LaunchFailed: the endpoint cannot be reached, does not take the key, or is no such one.
            StateNotWritten: nothing was begun.
        """
        if request.model_uid is not None:
            self._refuse_used(request.model_uid, attaching=True)
        try:
            loop = asyncio.get_running_loop()
            plan = await loop.run_in_executor(ATTACHES, plan_attached, request)
        except Failure as failure:
            uid = request.model_uid or request.model or "attach"
            raise LaunchFailed(uid, failure.diagnosis.to_json()) from None
        async with self._promising:
            await self._make_way(plan.model_id, attaching=True)
            # Before the row: a row without its key would be of no use after a crash.
            self._ledger.keys.write(plan.model_id, request.api_key)
            written = request.model_dump(mode="json", exclude_none=True, exclude={"api_key"})
            deployment = deploy(plan, (Place.of(plan),), written, time.time())
            return await self._add(deployment, f"attached {plan.model} at {request.endpoint}")

    async def _add(self, deployment: Deployment, text: str) -> ModelStatus:
        await self._ledger.add(deployment)
        self.bus.say(deployment.uid, text)
        status = self._ledger.status(deployment.uid)
        assert status is not None
        return status

    async def _make_way(self, uid: str, attaching: bool = False) -> None:
        """Clears a failed model of this id away. Raises `UidInUse` if it has not failed."""
        self._refuse_used(uid, attaching)
        if uid in self._ledger.deployments:
            # A launch that cannot be written down changes nothing: not the failed row either.
            await self._ledger.change(uid, _set_gone)
            await self.terminate(uid)

    def _refuse_used(self, uid: str, attaching: bool = False) -> None:
        status = self._ledger.status(uid)
        if status is None:
            return
        # An attached model fails while its endpoint is away, and comes back with it.
        passing = status.plan.attached is not None and not attaching
        if status.state != "failed" or passing:
            raise UidInUse(uid, status.state)

    def doubt(self, uid: str, replica_id: str | None = None) -> None:
        """A request to a model, or to one replica, has failed: it is looked at at once."""
        status = self._ledger.status(uid)
        for replica in status.replicas if status is not None else ():
            if replica_id in {None, replica.replica_id}:
                self._reconciler.doubt(replica.replica_id)

    def models(self) -> tuple[ModelStatus, ...]:
        """Every launched model, oldest first."""
        return self._ledger.statuses()

    def get(self, uid: str) -> ModelStatus:
        """One model. Raises `NotLaunched`."""
        status = self._ledger.status(uid)
        if status is None:
            raise NotLaunched(uid, near(uid, self._ledger.deployments))
        return status

    def _deployment(self, uid: str) -> Deployment:
        self.get(uid)
        return self._ledger.deployments[uid]

    def ready(self, uid: str) -> ModelStatus:
        """The model, if it can answer now.

        Raises:
            NotLaunched: there is no such model.
            NotReady: it is on its way, or failed; the latter without a time to ask again.
        """
        status = self.get(uid)
        if status.can_serve:
            return status
        if status.diagnosis is not None and status.state == "failed":
            cause, message = status.diagnosis["cause"], status.diagnosis["message"]
            again = 2.0 if status.plan.attached else None
            raise NotReady(uid, "failed", f"{cause}: {message}", again)
        notes = [replica.note for replica in status.replicas if replica.note]
        raise NotReady(uid, status.state, notes[0] if notes else "", retry_after=1.0)

    def servable(self, uid: str) -> ModelStatus:
        """The model, if it can answer, or has served and is coming back. Raises as `ready`."""
        status = self.get(uid)
        if status.can_serve or (
            status.recovering and not status.stopping and status.state != "failed"
        ):
            return status
        return self.ready(uid)

    async def ensure_ready(self, uid: str, avoid: Sequence[str] = (), client: str = "") -> Lease:
        """A slot of a replica that can answer; waits for one. The only door for requests.

        Raises:
            NotLaunched, NotReady: as `SlotQueue.acquire`.
        """
        return await self.slots.acquire(uid, avoid, client)

    async def verdict(self, lease: Lease) -> Mapping[str, Any] | None:
        """Why a lease's replica died: a `Diagnosis` as JSON; None if none comes in a moment."""
        deadline = time.monotonic() + VERDICT_SECONDS
        while True:
            status = self._ledger.status(lease.uid)
            replicas = status.replicas if status is not None else ()
            one = next((r for r in replicas if r.replica_id == lease.replica.replica_id), None)
            if one is None or one.endpoint != lease.replica.endpoint:
                return (one.diagnosis or one.last_failure) if one is not None else None
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._ledger.changed()

    async def wait(self, uid: str) -> ModelStatus:
        """Waits until every replica of a launch is ready.

        Raises:
            LaunchFailed: a replica failed.
            Cancelled: the model was terminated meanwhile.
        """
        while True:
            status = self._ledger.status(uid)
            if status is None or status.stopping:
                raise Cancelled(uid)
            if not status.starting:
                if status.diagnosis is not None:
                    raise LaunchFailed(uid, status.diagnosis)
                return status
            await self._ledger.changed()

    def events(self, uid: str) -> tuple[Event, ...]:
        """What happened to a model since this gateway knows it, oldest first."""
        self.get(uid)
        return self.bus.texts(uid)

    # Replicas.

    async def add_replicas(self, uid: str, count: int) -> tuple[str, ...]:
        """Begins to start more replicas, and returns their ids at once.

        Raises:
            NotLaunched: there is no such model.
            NotReady: it is ending, or has failed.
            BadValue: more than a model may have.
            Refused: no node can take them; with the reason.
            StateNotWritten: nothing was begun.
        """
        attached = self._growing(uid).plan.attached
        if attached is not None:
            reason = f"{attached.url} is served by somebody else, who may add some there"
            raise BadValue("replica", count, reason)
        async with self._promising:
            deployment = self._growing(uid)
            total = len([one for one in deployment.replicas if not one.is_leaving]) + count
            if not 1 <= count <= MAX_REPLICAS or total > MAX_REPLICAS:
                raise BadValue("replica", count, f"a model has from 1 to {MAX_REPLICAS} replicas")
            places = await self.planner.place_more(deployment, count)
            self._growing(uid)  # it may have ended meanwhile
            before = {one.id for one in self._ledger.deployments[uid].replicas}
            await self._ledger.change(uid, lambda one: one.grown(places))
        records = self._deployment(uid).replicas
        added = tuple(one.id for one in records if one.id not in before)
        for replica_id in added:
            self.bus.say(uid, f"{replica_id} is added")
        return added

    def _growing(self, uid: str) -> Deployment:
        deployment, state = self._deployment(uid), self.get(uid).state
        if state in {"stopping", "failed"}:
            raise NotReady(uid, state, "replicas are added to a model that runs")
        return deployment

    async def wait_replicas(self, uid: str, replicas: Sequence[str]) -> ModelStatus:
        """Waits until these replicas are ready.

        Raises:
            LaunchFailed: one of them failed; the others are left as they are.
            Cancelled: one of them was removed meanwhile, or the model was terminated.
        """
        while True:
            status = self._ledger.status(uid)
            known = {one.replica_id: one for one in status.replicas} if status else {}
            if status is None or status.stopping or not set(replicas) <= known.keys():
                raise Cancelled(uid)
            states = [known[replica] for replica in replicas]
            if any(one.state == "stopping" for one in states):
                raise Cancelled(uid)
            failed = next((one for one in states if one.state == "failed"), None)
            if failed is not None:
                raise LaunchFailed(uid, failed.diagnosis or {})
            if all(one.state == "ready" for one in states):
                return status
            await self._ledger.changed()

    async def remove_replica(self, uid: str, number: str, drain_seconds: float = 0.0) -> int:
        """Ends one replica once its requests are done; returns how many are left.

        It gets no more requests at once, and those that it has get up to `drain_seconds`.

        Raises:
            NotLaunched: there is no such model.
            NotFound: it has no replica of this number.
            NotReady: the whole model is ending.
            BadValue: it is the last one.
            StateNotWritten: nothing was changed.
            StillEnding: it has not ended within the time, and goes on ending.
        """
        deployment = self._deployment(uid)
        replica_id = replica_name(uid, number)
        record = deployment.replica(replica_id)
        if record is None:
            numbers = [str(one.number) for one in deployment.replicas]
            raise NotFound.among("replica", number, numbers, of=uid)
        if deployment.wanted != "serving":
            raise NotReady(uid, "stopping")
        if not record.is_leaving:
            staying = [one for one in deployment.replicas if not one.is_leaving]
            if staying == [record]:
                reason = f"is the last one; to end the model: paddock terminate --model-uid {uid}"
                raise BadValue("replica", number, reason)
            leave_at = time.monotonic() + drain_seconds
            await self._ledger.change(uid, _set_leaving(replica_id, leave_at))
        deadline = time.monotonic() + drain_seconds + TERMINATE_SECONDS
        while True:
            current = self._ledger.deployments.get(uid)
            if current is None:  # terminated meanwhile, and this replica with it
                return 0
            if current.replica(replica_id) is None:
                return len(current.replicas)
            await self._until_change(uid, deadline, (replica_id,))

    async def _until_change(self, uid: str, deadline: float, remaining: Iterable[str]) -> None:
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                await self._ledger.changed()
        except TimeoutError:
            raise StillEnding(uid, TERMINATE_SECONDS, tuple(remaining)) from None

    # The end.

    async def terminate(self, uid: str) -> None:
        """Ends a model, launched or on its way; returns when its processes are gone.

        Raises:
            NotLaunched: there is no such model.
            EndNotWritten: it has ended; the state file cannot be written, and is tried on.
            StillEnding: it has not ended within the time; the wish stands.
        """
        deployment = self._deployment(uid)
        unwritten: StateNotWritten | None = None
        if deployment.wanted != "gone":
            try:
                await self._ledger.change(uid, _set_gone)
            except StateNotWritten as error:
                # What it holds is given back all the same: it may be what the others lack.
                unwritten = error
                self._ledger.change_now(uid, _set_gone)
            if uid in self._ledger.deployments:
                self._reconciler.cancel_start(uid)
        await self._until_gone(uid, deployment.created, TERMINATE_SECONDS)
        if unwritten is not None and not self._ledger.is_written(uid):
            raise EndNotWritten(uid, unwritten.path, unwritten.reason)

    async def _until_gone(self, uid: str, created: float, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while True:
            current = self._ledger.deployments.get(uid)
            if current is None or current.created != created:
                return
            remaining = [record.id for record in current.replicas]
            await self._until_change(uid, deadline, remaining)

    async def shutdown(self) -> None:
        """Ends every model and the Ray that is ours; within a bounded time, whatever hangs."""
        wanted = {uid: one.created for uid, one in self._ledger.deployments.items()}
        for uid in wanted:
            # Not waited for: what cannot be written is ended all the same.
            self._ledger.change_now(uid, _set_gone)
            self._reconciler.cancel_start(uid)
        ends = (self._until_gone(uid, at, SHUTDOWN_SECONDS) for uid, at in wanted.items())
        await asyncio.gather(*ends, return_exceptions=True)
        await self._cluster.shutdown()
        self.bus.close()

    def leave(self) -> None:
        """Ends the streams of events, and judges no end any more: `close` follows."""
        self.bus.close()
        self._reconciler.leave()

    async def close(self) -> None:
        """Lets go of the models without ending them, for the next gateway to take up."""
        self.bus.close()
        await self._reconciler.close()
        await self._recorder.close()

    # Logs, locks, caches.

    async def tail(self, uid: str, lines: int) -> dict[str, list[str]]:
        """The last log lines of each replica. Raises `NotLaunched`."""
        self.get(uid)
        return await self._logs.tail(uid, lines)

    async def follow(self, uid: str, *, whole: bool = True) -> AsyncIterator[tuple[str, str]]:
        """Replica id and line; see `LogStream.follow`. Raises `NotLaunched`."""
        self.get(uid)
        async for line in self._logs.follow(uid, lambda: self.bus.closed, whole=whole):
            yield line

    def launched_lock(self, uid: str) -> Locking:
        """What a launched model runs, to be locked.

        Raises:
            NotLaunched: there is no such model.
            BadValue: it is attached, and so nothing of it is here.
        """
        plan = self.get(uid).plan
        if plan.attached is not None:
            raise BadValue("model", uid, f"is served by {plan.attached.url}: there is no file here")
        variant = Variant(
            model=plan.model,
            format=plan.format,  # checked by pydantic
            size=plan.size,
            quantization=plan.quantization,
            engines=(plan.engine,),
            sources=(),
        )
        return Locking(variant, plan.weights, plan.engine, plan.engine_version)

    def cached_sources(self) -> tuple[tuple[str, Source], ...]:
        """Model and source of what is launched from hubs, or was brought from them; sorted.

        Reads the disk: call it in a thread.
        """
        sources = {
            source_key(source): (model.plan.model, source)
            for model in self.models()
            if find_hub(model.plan.weights.hub) is not None
            for source in model.plan.weights.sources[:1]
        }
        complete = Records(self._settings.home).complete_sources()
        for spec in self.catalog:
            for variant in spec.variants:
                for source in variant.sources:
                    if source_key(source) in complete:
                        sources[source_key(source)] = (spec.name, source)
        return tuple(sources[key] for key in sorted(sources))

    # What the reconciler asks and tells.

    def _loads(self) -> Mapping[str, Any]:
        return self.slots.loads({one.uid: one.plan.slots for one in self.models()})

    def _on_change(self, uid: str) -> None:
        self.slots.wake(uid)

    def _on_took(self, actor: str, took: dict[str, Any]) -> None:
        replica_id = replica_of(actor)
        uid = self._ledger.uid_of(replica_id)
        record = self._ledger.deployments[uid].replica(replica_id) if uid is not None else None
        if uid is None or record is None:
            return
        plan = self._ledger.deployments[uid].plan_of(record)
        machine = "" if record.place.node == LOCAL else record.place.node_name
        self._recorder.hear(replica_id, plan, 0, machine, took)

    def see_request(
        self,
        replica_id: str,
        prompt_tokens: int,
        prompt_seconds: float,
        tokens: int,
        seconds: float,
    ) -> None:
        """A request has ended; what it shows of a replica's speed, if it was alone there.

        Its `prompt_tokens` were read in `prompt_seconds` (0: not known), and its answer of so many
        `tokens` came within `seconds` from the first to the last.
        """
        if replica_id and not self.slots.in_flight(replica_id):
            self._recorder.see_request(replica_id, prompt_tokens, prompt_seconds, tokens, seconds)

    def _on_unhealthy(self, replica_id: str, reason: str) -> None:
        self.slots.revoke(replica_id, reason)


def _missing_engine(deployment: Deployment) -> dict[str, Any] | None:
    """The diagnosis of a deployment whose plan names an engine that is not known (any more)."""
    plan = deployment.plan
    failed = all(record.given_up for record in deployment.replicas)
    if failed or plan.attached is not None or plan.engine in engine_names():
        return None
    message = (
        f"its plan names the engine {plan.engine}, which this Paddock does not know; it is "
        "taken up by the next start after the package that brought it is installed"
    )
    return Diagnosis("engine_missing", message, launch_command(plan)).to_json()


def _lacked_engine(deployment: Deployment) -> bool:
    """Whether it was given up because its engine was missing, and the engine is known now."""
    causes = [(one.diagnosis or {}).get("cause") for one in deployment.replicas if one.given_up]
    return "engine_missing" in causes and deployment.plan.engine in engine_names()


def _clear_failures(deployment: Deployment) -> Deployment:
    records = (replace(one, given_up=False, diagnosis=None) for one in deployment.replicas)
    return replace(deployment, replicas=tuple(records))


def _set_given_up(diagnosis: dict[str, Any]) -> Callable[[Deployment], Deployment]:
    def change(deployment: Deployment) -> Deployment:
        failed = (replace(r, given_up=True, diagnosis=diagnosis) for r in deployment.replicas)
        return replace(deployment, replicas=tuple(failed))

    return change


def _set_gone(deployment: Deployment) -> Deployment:
    return replace(deployment, wanted="gone")


def _set_leaving(replica_id: str, leave_at: float) -> Callable[[Deployment], Deployment]:
    def change(deployment: Deployment) -> Deployment:
        record = deployment.replica(replica_id)
        if record is None:
            return deployment
        leaving: ReplicaRecord = replace(record, is_leaving=True, leave_at=leave_at)
        return deployment.with_replica(leaving).resized()

    return change
