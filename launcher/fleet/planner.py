"""The one way from a request to a plan, for REST, the command line and the dashboard."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from paddock.engines.base import Host
from paddock.launcher.fleet.asking import Asker
from paddock.launcher.fleet.deployment import Deployment, Policy
from paddock.launcher.fleet.hub_facts import HubFacts
from paddock.launcher.fleet.references import PLAN_AGE, References
from paddock.launcher.hosts.architectures import with_unknown
from paddock.launcher.hosts.host import probe_host
from paddock.launcher.hosts.named_weights import check_named_weights
from paddock.launcher.jobs.locks import Locking
from paddock.launcher.planning.assumed import (
    note_missing,
    refuse_assumed,
    with_all_engines,
    with_gpu,
)
from paddock.launcher.planning.consent import ResolvedReference
from paddock.launcher.planning.place import Place
from paddock.launcher.planning.plan import LaunchPlan, LaunchRequest, PlannedWeights
from paddock.launcher.planning.reservations import (
    Reservation,
    subtract_places,
    subtract_reservations,
    with_holdings,
)
from paddock.launcher.planning.resolve import fit_request, resolve_lock, resolve_weights
from paddock.launcher.planning.spread import place_another, plan_replicas
from paddock.launcher.truth.store import TruthStore
from paddock.registry.catalog import Catalog
from paddock.registry.errors import NoEngine, NoRoom, PaddockError
from paddock.registry.settings import Settings
from paddock.registry.spec import ModelSpec, Variant

STALE_SECONDS = 10.0
"""Older facts of a node get a warning."""

Say = Callable[[str], None]

MOST_QUESTIONS = 3
"""To engines for one plan: what one says may change context and slots, another question."""

LookAround = Callable[[tuple[str, ...]], Awaitable[Sequence[Host]]]
"""The facts of every node, the gateway's own first; with the files at some absolute paths."""


def _say_nothing(_: str) -> None:
    pass


@dataclass(frozen=True)
class Planned:
    """A plan with the place of each replica, and the request as it was understood."""

    request: LaunchRequest
    plan: LaunchPlan
    places: tuple[Place, ...]
    policy: Policy


class Planner:
    """Plans on the facts that nodes have reported, and never waits for a node."""

    def __init__(
        self,
        settings: Settings,
        catalog: Callable[[], Catalog],
        look: LookAround,
        reservations: Callable[[], Sequence[Reservation]] = tuple,
        truth: TruthStore | None = None,
        holdings: Callable[[], Sequence[Reservation]] = tuple,
    ) -> None:
        self._settings = settings
        self._catalog = catalog
        self._look = look
        self._reservations = reservations
        self._truth = truth or TruthStore(settings.home)
        self._hub = HubFacts(self._truth, settings)
        self._asker = Asker(self._truth, settings, self._hub)
        self._holdings = holdings
        self.references = References(settings)

    @classmethod
    def alone(cls, settings: Settings) -> Planner:
        """A planner for this machine where no gateway runs: nothing is promised to anybody."""
        index = settings.index if settings.index.exists() else None

        async def look(paths: tuple[str, ...]) -> Sequence[Host]:
            return [await asyncio.to_thread(probe_host, settings.home, paths)]

        def catalog() -> Catalog:
            return Catalog.load(index=index, custom=settings.specs)

        return cls(settings, catalog, look)

    @property
    def catalog(self) -> Catalog:
        """The models that can be launched now."""
        return self._catalog()

    async def hosts(self, paths: tuple[str, ...] = ()) -> Sequence[Host]:
        """The facts of every node that can be planned on, the gateway's own first."""
        hosts = await self._look(paths)
        evidence = await asyncio.to_thread(self._truth.evidence)
        return [replace(host, evidence=evidence) for host in hosts]

    async def free_hosts(self, paths: tuple[str, ...] = (), without: str = "") -> list[Host]:
        """The hosts, with memory reserved for replicas that still start taken off what is free.

        What is reserved for the deployment `without` counts as free.
        """
        hosts = await self.hosts(paths)
        reserved = await asyncio.to_thread(self._reservations)
        reservations = [one for one in reserved if one.model_id != without]
        holdings = self._holdings()
        return [
            with_holdings(subtract_reservations(host, reservations), holdings) for host in hosts
        ]

    async def understand(self, request: LaunchRequest, max_age: float = 0.0) -> ResolvedReference:
        """The request with the catalogue to resolve it against.

        Raises:
            BadValue, NoSpec, HubFailure: as `References.resolve_reference`.
        """
        return await self.references.resolve_reference(request, self.catalog, max_age)

    async def plan(self, request: LaunchRequest) -> LaunchPlan:
        """What a launch would do; nothing is launched.

        Where no engine that is here can serve it, with one that can be installed: `plan.install`.
        Raises as `understand` and `plan_launch`.
        """
        target = await self.understand(request, PLAN_AGE)
        target.check()
        hosts = await self._hosts_for(target)
        if request.assume_gpu is not None:
            assumed = [with_gpu(host, request.assume_gpu) for host in hosts]
            planned = await self._planned(target, assumed, asks_size=True)
            return self._note_missing(planned.plan, hosts)
        try:
            return (await self._planned(target, hosts, asks_size=True)).plan
        except NoEngine as refusal:
            try:
                planned = await self._planned(target, with_all_engines(hosts), asks_size=True)
            except NoEngine:
                raise refusal from None
            return self._note_missing(planned.plan, hosts)

    async def ask_exactly(
        self, name: str, rows: Sequence[Mapping[str, Any]], slots: int = 1, say: Say = _say_nothing
    ) -> list[str]:
        """Asks engines about the rows of `estimate_table` that are by formula, and keeps it all.

        The header of weights on a hub is downloaded. `say` is told which row is next.

        Returns:
            What failed, each once.
        """
        failures: dict[str, None] = {}
        for row in rows:
            if row["source"] != "formula" or row["engine"] is None or row["install"]:
                continue
            wishes = {key: row[key] for key in ("format", "size", "quantization", "context_length")}
            request = LaunchRequest.parse(model_name=name, model_engine=row["engine"], **wishes)
            say(f"{row['engine']} is asked about {row['quantization']}, {row['context_length']}")
            try:
                target = await self.understand(request, PLAN_AGE)
                hosts = await self._hosts_for(target)
                planned, _ = await asyncio.to_thread(self._plan_or_refuse, target, hosts)
                plan = planned.plan.model_copy(update={"slots": slots})
                formula = plan.memory.model_copy(update={"source": "formula"})
                shape = target.catalog.lookup(target.request.model_name).shape(plan.size)
                _, failure = await self._asker.ask(
                    plan.model_copy(update={"memory": formula}),
                    shape,
                    may_download=True,
                    however_roomy=True,
                )
            except PaddockError as error:
                failure = str(error)
            if failure:
                failures[failure] = None
        return list(failures)

    def _with_evidence(self, hosts: Sequence[Host]) -> list[Host]:
        return [replace(host, evidence=self._truth.evidence()) for host in hosts]

    @staticmethod
    def _note_missing(plan: LaunchPlan, hosts: Sequence[Host]) -> LaunchPlan:
        return note_missing(plan, next(host for host in hosts if host.node == plan.node))

    async def prepare(self, target: ResolvedReference) -> None:
        """Learns what a launch will take, before its memory is promised to it.

        The header of weights on a hub is downloaded, to ask the engine about it.
        """
        with contextlib.suppress(PaddockError):  # `plan_launch` meets it again
            await self.plan_launch(target, may_download=True)

    async def plan_launch(
        self, target: ResolvedReference, *, may_download: bool = False
    ) -> Planned:
        """The plan of a request that was understood.

        Raises:
            Refused: as `ResolvedReference.check` and `resolve`.
            BadValue: it assumes a GPU, which only plans may.
        """
        refuse_assumed(target.request.assume_gpu)
        target.check()
        return await self._planned(target, await self._hosts_for(target), may_download)

    async def _planned(
        self,
        target: ResolvedReference,
        hosts: Sequence[Host],
        may_download: bool = False,
        asks_size: bool = False,
    ) -> Planned:
        """The plan on these hosts, by what the engine of the chosen candidate itself says.

        With `asks_size` also by what the hub says of weights whose size nobody states. A launch
        does not wait for that: it asks the hub for the weights themselves. Before memory refuses a
        launch, the engine is asked, too: the formula may be wrong.
        """
        failure, name = "", target.request.model_name
        # In a thread: what is offered in place of a refused launch takes many plans.
        planned, refusal = await asyncio.to_thread(self._plan_or_refuse, target, hosts)
        if asks_size and await self._hub.learn_size(planned.plan.weights):
            hosts = self._with_evidence(hosts)
            planned, refusal = await asyncio.to_thread(self._plan_or_refuse, target, hosts)
        for _ in range(MOST_QUESTIONS):
            shape = target.catalog.lookup(name).shape(planned.plan.size)
            knows_more, failure = await self._asker.ask(
                planned.plan, shape, may_download=may_download
            )
            if not knows_more:
                break
            hosts = self._with_evidence(hosts)
            planned, refusal = await asyncio.to_thread(self._plan_or_refuse, target, hosts)
        if refusal is not None:
            raise refusal
        if failure:
            warnings = (*planned.plan.warnings, f"{failure}: the memory is reckoned by formula")
            plan = planned.plan.model_copy(update={"warnings": warnings})
            planned = replace(planned, plan=plan)
        return planned

    def _plan_or_refuse(
        self, target: ResolvedReference, hosts: Sequence[Host]
    ) -> tuple[Planned, NoRoom | None]:
        """The plan, or the plan that was refused for want of memory, and the refusal."""
        try:
            return self._plan_on(target, hosts), None
        except NoRoom as refusal:
            if target.request.force:
                raise
            request = target.request.model_copy(update={"force": True, "fit": False})
            try:
                return self._plan_on(replace(target, request=request), hosts), refusal
            except PaddockError:
                raise refusal from None

    @staticmethod
    def _plan_on(target: ResolvedReference, hosts: Sequence[Host]) -> Planned:
        policy = Policy.of(target.request)
        request = target.request
        concessions: tuple[str, ...] = ()
        if request.fit:
            request, concessions = fit_request(request, target.catalog, hosts)
        plan, places = plan_replicas(request, target.catalog, hosts)
        if request.model_path and not request.force:
            _check_path(plan, target.catalog.lookup(request.model_name))
        plan = plan.model_copy(update={"reasons": (*plan.reasons, *concessions)})
        plan = _with_stale(target.finish(plan), hosts, places)
        places = tuple(
            place if place.plan is None else replace(place, plan=target.finish(place.plan))
            for place in places
        )
        return Planned(request, plan, places, policy)

    async def _hosts_for(self, target: ResolvedReference, without: str = "") -> list[Host]:
        hosts = await self.free_hosts(target.paths, without)
        spec = target.catalog.lookup(target.request.model_name)
        hosts[0] = await asyncio.to_thread(with_unknown, hosts[0], spec, self._settings)
        return hosts

    async def plan_what_fits(self, deployment: Deployment) -> LaunchPlan:
        """What fits now of a deployment that found less memory than it was planned for.

        Its last reason says what was given up.

        Raises:
            Refused: nothing of it fits.
        """
        request = LaunchRequest.parse(**deployment.request)
        target = await self.understand(request)
        hosts = await self._hosts_for(target, without=deployment.uid)
        plan = (await self._planned(target, hosts)).plan
        return plan.model_copy(update={"model_id": deployment.uid})

    async def place_more(
        self, deployment: Deployment, count: int, avoid: frozenset[str] = frozenset()
    ) -> tuple[Place, ...]:
        """Places for `count` more replicas of a deployment, on nodes that are not in `avoid`.

        Raises:
            Refused: no node can take them; with the reason.
        """
        request = LaunchRequest.parse(**{**deployment.request, "fit": False})
        target = await self.understand(request)
        hosts = [h for h in await self._hosts_for(target) if h.node not in avoid]
        running = [one.place for one in deployment.replicas if one.place.node not in avoid]
        added: list[Place] = []
        for _ in range(count):
            # What runs is not free any more; what is placed here is not taken yet.
            free_hosts = [subtract_places(host, deployment.plan, added) for host in hosts]
            places = [*running, *added]
            one = place_another(
                request, target.catalog, free_hosts, deployment.plan, places, promised=False
            )
            if one.plan is not None:
                one = replace(one, plan=target.finish(one.plan))
            added.append(one)
        return tuple(added)

    async def plan_pull(self, request: LaunchRequest) -> tuple[Variant, PlannedWeights]:
        """What a pull to the gateway's own machine will bring; a consent is written down.

        Raises as `plan`, and as `resolve_weights`.
        """
        target = await self.understand(request)
        target.check()
        hosts = await self.hosts(target.paths)
        variant, weights = resolve_weights(target.request, target.catalog, hosts[:1])
        allowed = target.allow(weights, variant.format)
        self.references.consent(target)
        return variant, allowed

    async def plan_lock(self, request: LaunchRequest) -> Locking:
        """What would be locked, on the gateway's own machine. Raises as `resolve_lock`."""
        catalog = self.catalog
        paths = (*catalog.lookup(request.model_name).local_paths, *request.paths)
        hosts = await self.hosts(paths)
        return Locking(*resolve_lock(request, catalog, hosts[:1]))


def _check_path(plan: LaunchPlan, spec: ModelSpec) -> None:
    """Raises `BadValue` where the GGUF at a path is another model than the spec's."""
    files = plan.weights.files
    if plan.weights.hub == "path" and files:
        path = Path(plan.weights.id, files[0].name)
        check_named_weights(path, spec.name, spec.shape(plan.size))


def _with_stale(plan: LaunchPlan, hosts: Sequence[Host], places: Sequence[Place]) -> LaunchPlan:
    """The plan, with a warning for each of its nodes whose facts are old."""
    used = {place.node for place in places}
    old = tuple(
        f"{host.name} was last heard of {host.age_seconds:.0f} s ago: its figures may be wrong"
        for host in hosts
        if host.node in used and host.age_seconds > STALE_SECONDS
    )
    return plan.model_copy(update={"warnings": (*plan.warnings, *old)}) if old else plan
