"""The catalogue for a page that shows it: every model with what this machine can do with it."""

from __future__ import annotations

import asyncio
import shlex
import threading
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from paddock.engines.base import Host
from paddock.engines.environment import find_accelerator
from paddock.launcher.fleet.fleet import Fleet
from paddock.launcher.hosts.machine import disk, memory
from paddock.launcher.planning.catalog_view import Found, Zoo
from paddock.launcher.planning.estimate import estimate_table
from paddock.launcher.planning.servable import Free, offers_of
from paddock.launcher.planning.variant_table import variant_rows
from paddock.registry.catalog import Catalog
from paddock.registry.custom import find
from paddock.registry.derive import Derived
from paddock.registry.errors import BadValue
from paddock.registry.reference import is_reference
from paddock.registry.search import Filters, Hit
from paddock.registry.settings import Settings
from paddock.registry.spec import ModelSpec
from paddock.server.http.query import flag, whole

FILTERS = {
    "ability": "abilities",
    "type": "types",
    "format": "formats",
    "engine": "engines",
    "language": "languages",
}
"""Query parameters that may be given several times, and what they ask for."""
MAX_SLOTS = 100_000
LONGEST = 18
"""Digits of a number that is read at all."""


class ZooRoutes:
    """The routes, over one fleet's catalogue.

    What was looked at is kept: for a thousand models it takes a fifth of a second.
    """

    def __init__(self, fleet: Fleet, settings: Settings) -> None:
        self._fleet = fleet
        self._settings = settings
        self._zoo: Zoo | None = None
        self._looking = threading.Lock()

    def routes(self) -> list[Route]:
        """All routes."""
        return [
            Route("/v1/zoo", self.listing),
            Route("/v1/zoo/{name:path}", self.show),
            Route("/v1/estimate", self.estimate),
        ]

    async def listing(self, request: Request) -> Response:
        """The models that have the words and what else is asked for, the best match first."""
        return await asyncio.to_thread(self._listing, request, self._fleet.catalog)

    def _listing(self, request: Request, catalog: Catalog) -> Response:
        query = request.query_params
        zoo = self._look(catalog)
        wanted = {name: query.getlist(parameter) for parameter, name in FILTERS.items()}
        filters = Filters.checked(zoo.specs, query.get("size"), **wanted)
        free = Free.now()
        found = zoo.find(query.get("q", "").split(), filters, free)
        fitting = flag(request, "fits")
        return JSONResponse(
            {
                "memory_free_bytes": free.host,
                "memory_total_bytes": memory()[0],
                "gpu_free_bytes": free.gpu,
                "disk_free_bytes": disk(self._settings.home)[1],
                "models": [
                    model.to_json() for model in found if model.fits is not None or not fitting
                ],
            }
        )

    async def show(self, request: Request) -> Response:
        """One model with all its variants: where each is, who can serve it, what it takes."""
        catalog = self._fleet.catalog
        spec, derived = await self._known(request.path_params["name"], request)
        host = (await self._fleet.hosts(spec.local_paths))[0]
        page = await asyncio.to_thread(_page, spec, host, derived)
        builtin = derived is None and not catalog.is_custom(spec.name)
        return JSONResponse(page | {"builtin": builtin})

    async def estimate(self, request: Request) -> Response:
        """The memory that a model takes, by variant and context, beside what is free."""
        query = request.query_params
        name = query.get("model_name", "")
        if not name.strip():
            raise BadValue("model_name", name, "is needed: a name, or such as hf:owner/name")
        slots = whole(request, "slots", 1, 1, MAX_SLOTS)
        contexts = [_context(text) for text in query.getlist("context_length")]
        spec, _ = await self._known(name, request)
        variants = spec.select(
            format=query.get("model_format") or None,
            size=query.get("model_size_in_billions") or None,
            quantization=query.get("quantization") or None,
        )
        host = (await self._fleet.hosts(spec.local_paths))[0]
        rows = await asyncio.to_thread(estimate_table, spec, variants, contexts, host, slots)
        return JSONResponse(
            {
                "model_name": spec.name,
                "context_length": spec.context_length,
                "slots": slots,
                "memory_total_bytes": host.memory_total_bytes,
                "memory_free_bytes": host.memory_free_bytes,
                "rows": rows,
            }
        )

    async def _known(self, name: str, request: Request) -> tuple[ModelSpec, Derived | None]:
        """The spec of this name, or that of what a reference names.

        Raises:
            NotFound: no model has this name.
            BadValue, NoSpec, HubFailure: as `References.derive`.
        """
        catalog, offline = self._fleet.catalog, flag(request, "offline")
        if not is_reference(name):
            return find(catalog, None, name), None
        derived = await self._fleet.references.derive(name, catalog, offline=offline)
        return derived.spec, derived

    def _look(self, catalog: Catalog) -> Zoo:
        with self._looking:
            if self._zoo is None or not self._zoo.is_current(catalog):
                self._zoo = Zoo(catalog, self._settings)
            return self._zoo


def _page(spec: ModelSpec, host: Host, derived: Derived | None) -> dict[str, Any]:
    formats = {str(weights.format) for weights in spec.weights}
    risks = {name: derived.risk(name) for name in formats} if derived else {}
    consent = {name: f"--trust {derived.commit}" for name in formats if derived and risks[name]}
    offers = [
        # Without a consent a launch would not choose it.
        replace(offer, engine="") if offer.format in consent else offer
        for offer in offers_of(spec, host)
    ]
    stated = spec.model_dump(mode="json")
    hit = Hit(stated, tuple(stated["weights"]))
    asked_by = derived.reference if derived else spec.name
    return {
        **Found.of(hit, offers, builtin=False, free=Free.on(host)).to_json(),
        "homepage": spec.homepage,
        "notes": spec.notes,
        "recommended": list(spec.recommended),
        "architecture": spec.architecture.name,
        "reference": derived.reference if derived else None,
        "commit": derived.commit if derived else None,
        "derived_notes": list(derived.notes) if derived else [],
        "risks": {name: risk for name, risk in risks.items() if risk},
        "node_name": host.name,
        "memory_free_bytes": host.memory_free_bytes,
        "memory_total_bytes": host.memory_total_bytes,
        "disk_free_bytes": host.disk_free_bytes,
        "launch_command": shlex.join(["paddock", "launch", asked_by]),
        "variants": variant_rows(spec, host, find_accelerator(), asked_by, consent),
    }


def _context(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= LONGEST):
        raise BadValue("context_length", text, "must be a whole number of tokens")
    return int(text)
