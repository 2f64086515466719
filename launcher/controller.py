"""Keeps what the user asked for and makes reality match it.

One object on the gateway's event loop, the only writer of the store. Each replica has one task
that starts or adopts its actor, follows it with long polls, and notes what becomes of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from paddock.engines.base import Host
from paddock.launcher.asking import with_unknown
from paddock.launcher.attached import AttachRequest, Keys, Watched, plan_attached
from paddock.launcher.cluster import ActorLost, ActorUnavailable, Cluster, Handle, RayFailed
from paddock.launcher.coming import Coming, told, without
from paddock.launcher.diagnosis import Diagnosis, Failure
from paddock.launcher.events import Bus
from paddock.launcher.host import LOCAL
from paddock.launcher.hubs import HUBS
from paddock.launcher.hubs.whole import Records
from paddock.launcher.locks import Locking
from paddock.launcher.logs import read_after, read_tail
from paddock.launcher.machine import held_bytes
from paddock.launcher.placement import grown, no_room
from paddock.launcher.plan import MAX_REPLICAS, LaunchPlan, LaunchRequest, PlannedWeights
from paddock.launcher.processes import STOP_GRACE
from paddock.launcher.references import Asked, References
from paddock.launcher.replica import ReplicaConfig, ReplicaStatus, State
from paddock.launcher.resolve import resolve, resolve_lock, resolve_weights
from paddock.launcher.store import ModelRow, ReplicaRow, Store, replica_name, replica_number
from paddock.registry.catalog import Catalog
from paddock.registry.errors import (
    BadValue,
    Cancelled,
    LaunchFailed,
    NotFound,
    NotLaunched,
    NotReady,
    PaddockError,
    UidInUse,
    UnknownName,
    near,
)
from paddock.registry.settings import Settings
from paddock.registry.spec import Source, Variant, source_key

log = logging.getLogger(__name__)

# From least to most along; a model stands where its least advanced live replica stands.
_ORDER: tuple[State, ...] = ("pending", "downloading", "starting", "ready")
UNAVAILABLE_TRIES, UNAVAILABLE_SECONDS = 60, 0.5
"""How long an actor may be out of reach before it counts as lost."""
FOLLOW_SECONDS = 0.2
"""How often a log that is followed is looked at."""
STOP_SLACK = 15.0
"""Seconds beyond the engine's grace that an actor may take before it is ended by force."""
EVENTS = 100
"""How many of a model's last events are kept."""


@dataclass(frozen=True)
class Event:
    """Something that happened to a model."""

    at: float
    text: str
    is_error: bool = False


@dataclass(frozen=True)
class ModelStatus:
    """A snapshot of one launched model."""

    uid: str
    plan: LaunchPlan
    created: float
    replicas: tuple[ReplicaStatus, ...]
    stopping: bool = False

    @property
    def state(self) -> State:
        """Ready if any replica is; else how far the least advanced one that lives is."""
        if self.stopping:
            return "stopping"
        states = {replica.state for replica in self.replicas}
        if "ready" in states:
            return "ready"
        for state in _ORDER:
            if state in states:
                return state
        return "failed" if "failed" in states else "stopped"

    @property
    def diagnosis(self) -> dict[str, Any] | None:
        """Why it failed: the first failed replica's diagnosis."""
        return next((r.diagnosis for r in self.replicas if r.diagnosis is not None), None)

    @property
    def starting(self) -> bool:
        """Whether some replica is still on its way."""
        return any(replica.state in _ORDER[:3] for replica in self.replicas)


@dataclass
class _Model:
    """What the controller holds of one model; `tasks` follow its replicas.

    `leaving` are replicas that are being removed, `stopping` says that all of them are.
    """

    uid: str
    plan: LaunchPlan
    created: float
    replicas: dict[str, ReplicaStatus]
    handles: dict[str, Handle | Watched] = field(default_factory=dict)
    tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    stopping: bool = False
    leaving: set[str] = field(default_factory=set)
    events: deque[Event] = field(default_factory=lambda: deque(maxlen=EVENTS))

    @property
    def is_attached(self) -> bool:
        """Whether somebody else serves it: there is no actor, and it recovers by itself."""
        return self.plan.attached is not None

    def unwanted(self, replica: str) -> bool:
        """Whether the replica is to end."""
        return self.stopping or replica in self.leaving

    def happened(self, text: str, is_error: bool = False) -> None:
        """Notes an event."""
        self.events.append(Event(time.time(), text, is_error))

    def sized(self, count: int) -> LaunchPlan:
        """The plan with another number of replicas."""
        memory = self.plan.memory.model_copy(update={"replicas": count})
        return self.plan.model_copy(update={"replicas": count, "memory": memory})

    def status(self) -> ModelStatus:
        replicas = tuple(self.replicas.values())
        return ModelStatus(self.uid, self.plan, self.created, replicas, self.stopping)


class Controller:
    """Launches, lists and terminates models. Use from one event loop only."""

    def __init__(
        self, settings: Settings, catalog: Callable[[], Catalog], store: Store, cluster: Cluster
    ) -> None:
        self._settings = settings
        self._catalog = catalog
        self._store = store
        self._cluster = cluster
        self._models: dict[str, _Model] = {}
        self._replacing: set[str] = set()
        # From a plan to its row: what is free is promised to one launch at a time.
        self._promising = asyncio.Lock()
        self._keys = Keys(settings.home)
        self._changed = asyncio.Event()
        self._adoption: asyncio.Task[None] | None = None
        self._started = False
        self.bus = Bus()
        self.references = References(settings)

    def start(self) -> None:
        """Takes up an earlier gateway's models: those that live are adopted, the others started."""
        rows = self._store.models()
        for row in rows:
            replicas = {
                r.id: ReplicaStatus(
                    r.id,
                    state="failed" if r.state == "failed" else "pending",
                    note="" if r.state == "failed" else "taking up where an earlier gateway left",
                    diagnosis=r.diagnosis,
                )
                for r in row.replicas
            }
            plan = LaunchPlan.from_json(row.plan)
            self._models[row.uid] = _Model(row.uid, plan, row.created, replicas)
        self._started = True
        self._notify()
        attached = [model for model in self._models.values() if model.is_attached]
        self._keys.sweep(model.uid for model in attached)
        for model in attached:
            for replica_id in model.replicas:
                self._note(model, replica_id, state="pending", diagnosis=None)
                self._follow(model, replica_id)
        if len(rows) > len(attached) or self._cluster.record() is not None:
            self._adoption = asyncio.create_task(self._adopt())

    async def _adopt(self) -> None:
        try:
            await self._cluster.connect()
            for name in await self._cluster.actors() - self._wanted():
                # Its row is gone: a termination that the earlier gateway did not live to finish.
                handle = await self._cluster.find(name)
                if handle is not None:
                    await self._end(handle)
        except RayFailed as error:
            log.error("%s", error)
        for model in list(self._models.values()):
            for replica in list(model.replicas.values()):
                if replica.state != "failed" and not model.is_attached:
                    self._follow(model, replica.replica_id)

    def _wanted(self) -> set[str]:
        return {
            replica.replica_id
            for model in self._models.values()
            for replica in model.replicas.values()
            if replica.state != "failed"
        }

    @property
    def adopted(self) -> bool:
        """Whether it has started, and follows what an earlier gateway left."""
        return self._started and (self._adoption is None or self._adoption.done())

    async def plan(self, request: LaunchRequest) -> LaunchPlan:
        """What a launch would do; nothing is launched.

        Raises what `References.asked`, `Asked.check` and `resolve` raise.
        """
        return await self._plan(await self.references.asked(request, self.catalog))

    async def _plan(self, asked: Asked) -> LaunchPlan:
        asked.check()
        hosts = list(await self._roomy(asked.paths))
        spec = asked.choice.lookup(asked.request.model_name)
        hosts[0] = await asyncio.to_thread(with_unknown, hosts[0], spec, self._settings)
        return asked.finish(resolve(asked.request, asked.choice, hosts))

    async def plan_pull(self, request: LaunchRequest) -> tuple[Variant, PlannedWeights]:
        """What a pull to the gateway's own machine will bring; a consent is written down.

        Raises as `plan`, and as `resolve_weights`.
        """
        asked = await self.references.asked(request, self.catalog)
        asked.check()
        hosts = await self.hosts(asked.paths)
        variant, weights = resolve_weights(asked.request, asked.choice, hosts[:1])
        allowed = asked.allow(weights, variant.format)
        self.references.consent(asked)
        return variant, allowed

    async def plan_lock(self, request: LaunchRequest) -> Locking:
        """What would be locked, on the gateway's own machine. Raises as `resolve_lock`."""
        catalog = self.catalog
        paths = (*catalog.lookup(request.model_name).local_paths, *request.paths)
        hosts = await self.hosts(paths)
        return Locking(*resolve_lock(request, catalog, hosts[:1]))

    def launched_lock(self, uid: str) -> Locking:
        """What a launched model runs, to be locked.

        Raises:
            NotLaunched: there is no such model.
            BadValue: it is attached, and so nothing of it is here.
        """
        plan = self._get(uid).plan
        if plan.attached is not None:
            raise BadValue("model", uid, f"is served by {plan.attached.url}: there is no file here")
        variant = Variant(
            model=plan.model,
            format=plan.format,  # type: ignore[arg-type]  # checked by pydantic
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
        found = {
            source_key(source): (model.plan.model, source)
            for model in list(self._models.values())
            if model.plan.weights.hub in HUBS
            for source in model.plan.weights.sources[:1]
        }
        here = Records(self._settings.home).here()
        for spec in self.catalog:
            for variant in spec.variants:
                for source in variant.sources:
                    if source_key(source) in here:
                        found[source_key(source)] = (spec.name, source)
        return tuple(found[key] for key in sorted(found))

    @property
    def catalog(self) -> Catalog:
        """The models that can be launched now."""
        return self._catalog()

    async def hosts(self, paths: tuple[str, ...] = ()) -> Sequence[Host]:
        """The facts of every node that can be planned on, the gateway's own first.

        They hold the files at `paths`, which are absolute.
        """
        return await self._cluster.hosts(paths)

    async def _roomy(self, paths: tuple[str, ...] = ()) -> Sequence[Host]:
        """The hosts, of whose memory only that is free which nobody was promised."""
        hosts = await self.hosts(paths)
        starting = [
            (model.plan, status)
            for model in self._models.values()
            if not model.is_attached
            for status in model.replicas.values()
            if status.state in _ORDER[:3] and not model.unwanted(status.replica_id)
        ]
        found = await asyncio.to_thread(lambda: [_coming(plan, one) for plan, one in starting])
        return [without(host, found) for host in hosts]

    async def launch(self, request: LaunchRequest) -> ModelStatus:
        """Begins a launch and returns at once; `wait` waits for it.

        Raises:
            UidInUse: a model with this id is launched, and has not failed.
            Refused: as `plan`.
            HubFailure: a reference that could not be looked up.
        """
        if self._cluster.external:
            await self._cluster.connect()
        asked = await self.references.asked(request, self.catalog)
        async with self._promising:
            plan = await self._plan(asked)
            self.references.consent(asked)
            request = asked.request
            await self._make_way(request.uid)
            written = request.model_dump(mode="json", exclude_none=True)
            model = self._write(written, plan, f"launch of {plan.model} on {plan.engine}")
        for replica_id in model.replicas:
            self._follow(model, replica_id)
        return model.status()

    async def attach(self, request: AttachRequest) -> ModelStatus:
        """Puts a model that somebody else serves among ours, once its endpoint has been asked.

        Raises:
            UidInUse: a model with this id is launched, and has not failed.
            Refused: as `plan_attached`.
            LaunchFailed: the endpoint cannot be reached, does not take the key, or is no such one.
        """
        if request.model_uid is not None:
            self._refuse_used(request.model_uid)
        try:
            plan = await asyncio.to_thread(plan_attached, request)
        except Failure as failure:
            uid = request.model_uid or request.model or "attach"
            raise LaunchFailed(uid, failure.diagnosis.to_json()) from None
        await self._make_way(plan.model_id)
        # Before the row: a row without its key would be of no use after a crash.
        self._keys.write(plan.model_id, request.api_key)
        written = request.model_dump(mode="json", exclude_none=True, exclude={"api_key"})
        model = self._write(written, plan, f"attached {plan.model} at {request.endpoint}")
        for replica_id in model.replicas:
            self._follow(model, replica_id)
        return model.status()

    def doubt(self, uid: str) -> None:
        """A request to a model has failed: an attached endpoint is looked at again at once."""
        model = self._models.get(uid)
        for handle in model.handles.values() if model is not None else ():
            if isinstance(handle, Watched):
                handle.doubt()

    async def _make_way(self, uid: str) -> None:
        """Clears a failed model of this id away. Raises `UidInUse` if it has not failed."""
        self._refuse_used(uid)
        if uid in self._models:
            self._replacing.add(uid)
            try:
                await self._forget(self._models[uid])
            finally:
                self._replacing.discard(uid)

    def _refuse_used(self, uid: str) -> None:
        if uid in self._replacing:
            raise UidInUse(uid, "pending")
        model = self._models.get(uid)
        if model is not None and model.status().state != "failed":
            raise UidInUse(uid, model.status().state)

    def _write(self, asked: dict[str, Any], plan: LaunchPlan, happened: str) -> _Model:
        ids = [replica_name(plan.model_id, number) for number in range(plan.replicas)]
        now = time.time()
        model = _Model(plan.model_id, plan, now, {i: ReplicaStatus(i) for i in ids})
        rows = tuple(ReplicaRow(i, number, "pending", None) for number, i in enumerate(ids))
        self._store.add(ModelRow(model.uid, asked, plan.to_json(), now, rows))
        self._models[model.uid] = model
        model.happened(happened)
        self._notify()
        return model

    def _follow(self, model: _Model, replica_id: str) -> None:
        model.tasks[replica_id] = asyncio.create_task(self._live(model, replica_id))

    async def _live(self, model: _Model, replica_id: str) -> None:
        """Starts or adopts one replica and follows it to its end."""
        ends = {"stopped"} if model.is_attached else {"failed", "stopped"}
        try:
            handle = await self._reach(model, replica_id)
            if handle is None:
                return
            model.handles[replica_id] = handle
            status = await handle.begin()
            self._observe(model, status)
            while status.state not in ends:
                status = await self._watch(handle, status.version)
                self._observe(model, status)
            if status.state == "failed":
                # The diagnosis has all that is worth keeping; the process can give its memory back.
                await model.handles.pop(replica_id).end()
        except (ActorLost, ActorUnavailable) as error:
            model.handles.pop(replica_id, None)
            if not model.unwanted(replica_id):
                self._fail(model, replica_id, Diagnosis("actor_died", _actor_lost(error)))
        except RayFailed as error:
            self._fail(model, replica_id, Diagnosis("node_lost", str(error)))
        except Exception as error:
            # The replica's border: a bug ends in a stated condition too, and goes on as one.
            log.exception("replica %s", replica_id)
            self._fail(model, replica_id, Diagnosis("internal", f"{type(error).__name__}: {error}"))
            raise

    async def _reach(self, model: _Model, replica_id: str) -> Handle | Watched | None:
        """What the replica is followed by; None if it is to end, and has."""
        if model.is_attached:
            if model.unwanted(replica_id):
                return None
            return Watched(replica_id, model.plan, self._keys)
        if not self._cluster.connected:
            self._note(model, replica_id, note="starting Ray")
        await self._cluster.connect()
        if model.unwanted(replica_id):
            # One of an earlier gateway may live already.
            found = await self._cluster.find(replica_id)
            if found is not None:
                await self._end(found)
            return None
        handle = await self._handle(model, replica_id)
        if model.unwanted(replica_id):
            await self._end(handle)
            return None
        return handle

    async def _watch(self, handle: Handle | Watched, since: int) -> ReplicaStatus:
        """The replica's next status; bears with an actor that cannot be reached for a while."""
        for _ in range(UNAVAILABLE_TRIES):
            try:
                return await handle.watch(since)
            except ActorUnavailable as error:
                said = str(error)
                await asyncio.sleep(UNAVAILABLE_SECONDS)
        raise ActorLost(said)

    async def _handle(self, model: _Model, replica_id: str) -> Handle:
        found = await self._cluster.find(replica_id)
        if found is not None:
            return found
        on_another_node = model.plan.node != LOCAL
        config = ReplicaConfig(
            replica_id=replica_id,
            plan=model.plan.to_json(),
            home=str(self._settings.home),
            instance=self._cluster.instance,
            hub_timeout=self._settings.hub_timeout,
            relay=on_another_node,
            number=replica_number(replica_id),
        )
        return await self._cluster.start(replica_id, config, model.plan.node)

    def _note(self, model: _Model, replica_id: str, **changes: Any) -> None:
        model.replicas[replica_id] = replace(model.replicas[replica_id], **changes)
        self._notify()

    def _observe(self, model: _Model, status: ReplicaStatus) -> None:
        before = model.replicas.get(status.replica_id)
        model.replicas[status.replica_id] = status
        if before is None or before.state != status.state:
            log.info("%s is %s %s", status.replica_id, status.state, status.note)
            self._store.set_state(status.replica_id, status.state, status.diagnosis)
            model.happened(
                f"{status.replica_id} is {status.state}"
                + (f": {status.diagnosis['message']}" if status.diagnosis else ""),
                is_error=status.state == "failed",
            )
        self._notify()

    def _fail(self, model: _Model, replica_id: str, diagnosis: Diagnosis) -> None:
        self._store.set_state(replica_id, "failed", diagnosis.to_json())
        model.happened(f"{replica_id} is failed: {diagnosis.message}", is_error=True)
        self._note(
            model,
            replica_id,
            state="failed",
            endpoint=None,
            pid=None,
            diagnosis=diagnosis.to_json(),
        )
        log.warning("%s failed: %s", replica_id, diagnosis.message)

    def _notify(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        self.bus.show({model.uid: model.status() for model in self._models.values()})

    def models(self) -> tuple[ModelStatus, ...]:
        """Every launched model, oldest first."""
        return tuple(model.status() for model in self._models.values())

    def get(self, uid: str) -> ModelStatus:
        """One model. Raises `NotLaunched`."""
        return self._get(uid).status()

    def _get(self, uid: str) -> _Model:
        if uid not in self._models:
            raise NotLaunched(uid, near(uid, self._models))
        return self._models[uid]

    def ready(self, uid: str) -> ModelStatus:
        """The model, if it can answer.

        Raises:
            NotLaunched: there is no such model.
            NotReady: it is on its way, or failed; the latter without a time to ask again.
        """
        status = self.get(uid)
        if status.state == "ready":
            return status
        if status.diagnosis is not None and status.state == "failed":
            cause, message = status.diagnosis["cause"], status.diagnosis["message"]
            again = 2.0 if status.plan.attached else None
            raise NotReady(uid, "failed", f"{cause}: {message}", again)
        notes = [replica.note for replica in status.replicas if replica.note]
        raise NotReady(uid, status.state, notes[0] if notes else "", retry_after=1.0)

    async def wait(self, uid: str) -> ModelStatus:
        """Waits until every replica of a launch is ready.

        Raises:
            LaunchFailed: a replica failed.
            Cancelled: the model was terminated meanwhile.
        """
        while True:
            changed = self._changed
            model = self._models.get(uid)
            if model is None or model.stopping:
                raise Cancelled(uid)
            status = model.status()
            if not status.starting:
                if status.diagnosis is not None:
                    raise LaunchFailed(uid, status.diagnosis)
                return status
            await changed.wait()

    def events(self, uid: str) -> tuple[Event, ...]:
        """What happened to a model since this gateway knows it, oldest first."""
        return tuple(self._get(uid).events)

    async def add_replicas(self, uid: str, count: int) -> tuple[str, ...]:
        """Begins to start more replicas on the model's node, and returns their ids at once.

        Raises:
            NotLaunched: there is no such model.
            NotReady: it is ending, or has failed.
            BadValue: more than a model may have.
            UnknownName: its node has left the cluster.
            NoRoom: the node's memory cannot take them.
        """
        attached = self._growing(uid).plan.attached
        if attached is not None:
            why = f"{attached.url} is served by somebody else, who may add some there"
            raise BadValue("replica", count, why)
        async with self._promising:
            hosts = await self._roomy()
            model = self._growing(uid)  # it may have ended meanwhile
            total = len(model.replicas) - len(model.leaving) + count
            if not 1 <= count <= MAX_REPLICAS or total > MAX_REPLICAS:
                raise BadValue("replica", count, f"a model has from 1 to {MAX_REPLICAS} replicas")
            host = next((host for host in hosts if host.node == model.plan.node), None)
            if host is None:
                raise UnknownName.among("node", model.plan.node_name, [host.name for host in hosts])
            room, gpus = grown(model.plan, host, count)
            if not room.can_run:
                kept = told(host)
                out = "terminate another model, or add fewer" + (f" ({kept})" if kept else "")
                raise no_room(room, gpus, host, out)
            plan = model.sized(total).model_copy(update={"gpus": (*model.plan.gpus, *gpus)})
            rows = self._store.grow(uid, count, plan.to_json())
            model.plan = plan
            for row in rows:
                model.replicas[row.id] = ReplicaStatus(row.id)
                model.happened(f"{row.id} is added")
                self._follow(model, row.id)
        self._notify()
        return tuple(row.id for row in rows)

    def _growing(self, uid: str) -> _Model:
        model = self._get(uid)
        state = model.status().state
        if state in {"stopping", "failed"}:
            raise NotReady(uid, state, "replicas are added to a model that runs")
        return model

    async def wait_replicas(self, uid: str, replicas: Sequence[str]) -> ModelStatus:
        """Waits until these replicas are ready.

        Raises:
            LaunchFailed: one of them failed; the others are left as they are.
            Cancelled: one of them was removed meanwhile, or the model was terminated.
        """
        while True:
            changed = self._changed
            model = self._models.get(uid)
            if model is None or any(
                replica not in model.replicas or model.unwanted(replica) for replica in replicas
            ):
                raise Cancelled(uid)
            found = [model.replicas[replica] for replica in replicas]
            failed = next((one for one in found if one.state == "failed"), None)
            if failed is not None:
                raise LaunchFailed(uid, failed.diagnosis or {})
            if all(one.state == "ready" for one in found):
                return model.status()
            await changed.wait()

    async def remove_replica(self, uid: str, number: str) -> int:
        """Ends one replica; returns how many are left once its processes are gone.

        Raises:
            NotLaunched: there is no such model.
            NotFound: it has no replica of this number.
            NotReady: the whole model is ending.
            BadValue: it is the last one.
        """
        await self._adopted()
        model = self._get(uid)
        replica = replica_name(uid, number)
        if replica not in model.replicas:
            numbers = [known.rpartition("-rep")[2] for known in model.replicas]
            raise NotFound.among("replica", number, numbers, of=uid)
        if model.stopping:
            raise NotReady(uid, "stopping")
        if replica in model.leaving:
            while replica in model.replicas and self._models.get(uid) is model:
                await self._changed.wait()
            return len(model.replicas)
        if not set(model.replicas) - model.leaving - {replica}:
            why = f"is the last one; to end the model: paddock terminate --model-uid {uid}"
            raise BadValue("replica", number, why)
        model.leaving.add(replica)
        self._note(model, replica, state="stopping", endpoint=None)
        # A task that has no handle yet sees that it is unwanted, and ends the actor itself.
        if replica in model.handles:
            await self._end(model.handles[replica])
        if replica in model.tasks:
            await asyncio.gather(model.tasks[replica], return_exceptions=True)
        if self._models.get(uid) is not model:  # terminated meanwhile, and this replica with it
            return 0
        plan = model.sized(len(model.replicas) - 1)
        self._store.shrink(uid, replica, plan.to_json())
        model.plan = plan
        for held in (model.replicas, model.handles, model.tasks):
            held.pop(replica, None)
        model.leaving.discard(replica)
        model.happened(f"{replica} is removed")
        self._notify()
        return len(model.replicas)

    async def _adopted(self) -> None:
        """Waits until an earlier gateway's models are followed, so that none is ended unseen."""
        if self._adoption is not None and not self._adoption.done():
            await asyncio.wait([self._adoption])

    async def tail(self, uid: str, lines: int) -> dict[str, list[str]]:
        """The last log lines of each replica.

        Of one that is not there any more: of its file, if that is on this machine, else those of
        its diagnosis.
        """
        model = self._get(uid)
        tails: dict[str, list[str]] = {}
        for replica_id, status in model.replicas.items():
            handle = model.handles.get(replica_id)
            if handle is not None:
                with contextlib.suppress(ActorLost, ActorUnavailable):
                    tails[replica_id] = await handle.tail(lines)
                    continue
            here = model.plan.node == LOCAL and status.log
            found = await asyncio.to_thread(read_tail, Path(status.log), lines) if here else []
            tails[replica_id] = found or list((status.diagnosis or {}).get("lines", []))
        return tails

    async def follow(self, uid: str, *, whole: bool = True) -> AsyncIterator[tuple[str, str]]:
        """Replica id and line, until the model is gone or the gateway ends.

        From the beginning of each log on; not `whole`: from the end of those that are there.
        """
        model = self._get(uid)
        offsets: dict[str, int] = {}
        if not whole:
            for replica_id in {**model.replicas, **model.handles}:
                offsets[replica_id] = await self._log_end(model, replica_id)
        while self._models.get(uid) is model and not self.bus.closed:
            quiet = True
            for replica_id in {**model.replicas, **model.handles}:
                offset = offsets.get(replica_id, 0)
                offsets[replica_id], text = await self._log_after(model, replica_id, offset)
                for line in text.splitlines():
                    quiet = False
                    yield replica_id, line
            if quiet:
                await asyncio.sleep(FOLLOW_SECONDS)

    async def _log_after(self, model: _Model, replica_id: str, offset: int) -> tuple[int, str]:
        """What was logged after `offset`; of one that is not there any more, as in `tail`."""
        handle = model.handles.get(replica_id)
        if handle is not None:
            with contextlib.suppress(ActorLost, ActorUnavailable):
                return await handle.log_after(offset)
            return offset, ""
        status = model.replicas.get(replica_id)
        if status is None:
            return offset, ""
        if model.plan.node == LOCAL and status.log:
            return await asyncio.to_thread(read_after, Path(status.log), offset)
        told = "\n".join((status.diagnosis or {}).get("lines", []))
        return (offset, "") if offset else (len(told), told)

    async def _log_end(self, model: _Model, replica_id: str) -> int:
        status = model.replicas.get(replica_id)
        if status is not None and status.log and model.plan.node == LOCAL:
            with contextlib.suppress(OSError):
                found = await asyncio.to_thread(Path(status.log).stat)
                return found.st_size
        offset = 0
        while True:
            offset, text = await self._log_after(model, replica_id, offset)
            if not text:
                return offset

    async def terminate(self, uid: str) -> None:
        """Ends a model, launched or on its way; returns when its processes are gone.

        Raises:
            NotLaunched: there is no such model.
        """
        await self._adopted()
        model = self._get(uid)
        if not model.stopping:
            model.stopping = True
            self._notify()
            await self._forget(model)
        else:
            while self._models.get(uid) is model:
                await self._changed.wait()

    async def _forget(self, model: _Model) -> None:
        """Ends the replicas side by side, then removes the row: a crash in between is resumed."""
        # A task that has no handle yet sees `stopping` when its actor is there, and ends it itself.
        await asyncio.gather(*(self._end(handle) for handle in model.handles.values()))
        await asyncio.gather(*model.tasks.values(), return_exceptions=True)
        self._store.remove(model.uid)
        if model.is_attached:
            self._keys.remove(model.uid)
        if self._models.get(model.uid) is model:
            del self._models[model.uid]
        self._notify()

    async def _end(self, handle: Handle | Watched) -> None:
        """Stops a replica; if its actor does not manage in time, it goes and its engine with it."""
        try:
            await handle.stop(STOP_GRACE + STOP_SLACK)
        except ActorLost:
            return
        except (TimeoutError, ActorUnavailable):
            log.warning("an actor did not stop in time and is ended")
        await handle.end()

    async def shutdown(self) -> None:
        """Terminates every model and ends the Ray that is ours."""
        if self._adoption is not None:
            await self._adoption
        await asyncio.gather(*(self.terminate(uid) for uid in list(self._models)))
        await self._cluster.shutdown()
        self.bus.close()

    async def close(self) -> None:
        """Lets go of the models without ending them, for the next gateway to adopt."""
        self.bus.close()
        tasks = [task for model in self._models.values() for task in model.tasks.values()]
        await _cancel([*tasks, *([self._adoption] if self._adoption else [])])
        await self._cluster.leave()
        self._store.close()


async def _cancel(tasks: Iterable[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await task


def _coming(plan: LaunchPlan, status: ReplicaStatus) -> Coming:
    held = held_bytes(status.pid) if status.pid and plan.node == LOCAL else 0
    gpus = plan.gpus_of(replica_number(status.replica_id))
    return Coming(plan.model_id, plan.node, plan.memory, gpus, held)


def _actor_lost(error: PaddockError) -> str:
    return f"the replica's actor is gone, and its engine with it ({error})"
