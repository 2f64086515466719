"""The one way from a request to a plan, for REST, the command line and the dashboard."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from paddock.engines.base import Host
from paddock.engines.evidence import Evidence
from paddock.launcher.fleet.deployment import Deployment, Policy
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
from paddock.registry.errors import NoEngine
from paddock.registry.settings import Settings
from paddock.registry.spec import ModelSpec, Variant

STALE_SECONDS = 10.0
"""Older facts of a node get a warning."""

LookAround = Callable[[tuple[str, ...]], Awaitable[Sequence[Host]]]
"""The facts of every node, the gateway's own first; with the files at some absolute paths."""


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
        evidence: Callable[[], Evidence] = Evidence,
        holdings: Callable[[], Sequence[Reservation]] = tuple,
    ) -> None:
        self._settings = settings
        self._catalog = catalog
        self._look = look
        self._reservations = reservations
        self._evidence = evidence
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

        return cls(settings, catalog, look, evidence=TruthStore(settings.home).evidence)

    @property
    def catalog(self) -> Catalog:
        """The models that can be launched now."""
        return self._catalog()

    async def hosts(self, paths: tuple[str, ...] = ()) -> Sequence[Host]:
        """The facts of every node that can be planned on, the gateway's own first."""
        hosts = await self._look(paths)
        evidence = await asyncio.to_thread(self._evidence)
        return [replace(host, evidence=evidence) for host in hosts]

    async def free_hosts(self, paths: tuple[str, ...] = ()) -> list[Host]:
        """The hosts, with memory reserved for replicas that still start taken off what is free."""
        hosts = await self.hosts(paths)
        reservations = await asyncio.to_thread(self._reservations)
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
            return self._note_missing((await self._planned(target, assumed)).plan, hosts)
        try:
            return (await self._planned(target, hosts)).plan
        except NoEngine as refusal:
            try:
                plan = (await self._planned(target, with_all_engines(hosts))).plan
            except NoEngine:
                raise refusal from None
            return self._note_missing(plan, hosts)

    @staticmethod
    def _note_missing(plan: LaunchPlan, hosts: Sequence[Host]) -> LaunchPlan:
        return note_missing(plan, next(host for host in hosts if host.node == plan.node))

    async def plan_launch(self, target: ResolvedReference) -> Planned:
        """The plan of a request that was understood.

        Raises:
            Refused: as `ResolvedReference.check` and `resolve`.
            BadValue: it assumes a GPU, which only plans may.
        """
        refuse_assumed(target.request.assume_gpu)
        target.check()
        return await self._planned(target, await self._hosts_for(target))

    async def _planned(self, target: ResolvedReference, hosts: Sequence[Host]) -> Planned:
        # In a thread: what is offered in place of a refused launch takes many plans.
        return await asyncio.to_thread(self._plan_on, target, hosts)

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

    async def _hosts_for(self, target: ResolvedReference) -> list[Host]:
        hosts = await self.free_hosts(target.paths)
        spec = target.catalog.lookup(target.request.model_name)
        hosts[0] = await asyncio.to_thread(with_unknown, hosts[0], spec, self._settings)
        return hosts

    async def place_more(
        self, deployment: Deployment, count: int, avoid: frozenset[str] = frozenset()
    ) -> tuple[Place, ...]:
        """Places for `count` more replicas of a deployment, on nodes that are not in `avoid`.

        Raises:
            Refused: no node can take them; with the reason.
        """
        request = LaunchRequest.parse(**deployment.request)
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
