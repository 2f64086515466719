"""The catalogue for a page that shows it: every model with what this machine can do with it."""

from __future__ import annotations

import asyncio
import shlex
import threading
from dataclasses import replace
from typing import Any, Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from paddock.engines.base import Host
from paddock.engines.environment import find_accelerator
from paddock.launcher.fleet.fleet import Fleet
from paddock.launcher.hosts.machine import disk, memory
from paddock.launcher.planning.assumed import with_gpu
from paddock.launcher.planning.catalog_view import ModelRow, Zoo
from paddock.launcher.planning.estimate import Verdict, estimate_table
from paddock.launcher.planning.plan import PlannedFile
from paddock.launcher.planning.servable import Free, offers_of
from paddock.launcher.planning.variant_table import variant_rows
from paddock.registry.catalog import Catalog
from paddock.registry.custom import find
from paddock.registry.derive import Derived
from paddock.registry.errors import BadValue
from paddock.registry.launch_fields import fields_by_key
from paddock.registry.reference import is_reference
from paddock.registry.search import Filters, Hit
from paddock.registry.settings import Settings
from paddock.registry.spec import ModelSpec
from paddock.registry.spec_fields import AbilityName, Format, Hub, ModelType
from paddock.server.http.json_response import JSONResponse
from paddock.server.http.operation import FLAG, TEXT, Operation, Query, RouteDoc
from paddock.server.http.query import OFFLINE, flag, whole
from paddock.server.http.shapes import Shape

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


TEXTS = {"type": "array", "items": TEXT}


class NamedVariant(Shape):
    """A variant in the words of a launch. `size_bytes` is what its weights take in memory."""

    model_format: Format
    model_size_in_billions: str
    quantization: str
    model_engine: str
    size_bytes: int


class ZooModel(Shape):
    """A model of the catalogue; of its weights only those count that were asked for."""

    name: str
    type: ModelType
    description: str
    license: str
    released: str = Field(json_schema_extra={"format": "date"})
    aliases: list[str]
    languages: list[str]
    abilities: list[AbilityName]
    context_length: int
    sizes: list[str] = Field(description="Billions of parameters, `_` for the decimal point")
    formats: list[Format]
    engines: list[str] = Field(description="Those that the spec names, installed or not")
    builtin: bool = Field(description="It comes with Paddock, and is not the user's own")
    cached: bool = Field(description="The weights of some variant are wholly on this machine")
    here: NamedVariant | None = Field(
        description="The smallest variant that an engine of this machine can serve"
    )
    fits: NamedVariant | None = Field(
        description="The variant that a launch here would choose within the free memory"
    )


class EstimateRow(Shape):
    """The memory of a variant at one context."""

    format: Format
    size: str
    quantization: str
    engine: str | None = Field(description="Whose memory it is; null: none has an adapter")
    install: str | None = Field(description="What installs the engine, where it is not there")
    context_length: int
    weights_bytes: int
    cache_bytes: int
    overhead_bytes: int
    total_bytes: int
    source: Literal["formula", "engine", "measured"]
    gpu: str | None = Field(description="The GPU whose memory it is; null: the host's")
    free_bytes: int = Field(description="What is free of that memory")
    verdict: Verdict


class Estimate(Shape):
    """Rows for each variant and context, and the memory of the gateway's machine."""

    model_name: str
    context_length: int = Field(description="All that the model has")
    slots: int
    memory_total_bytes: int
    memory_free_bytes: int
    rows: list[EstimateRow]


class VariantSource(Shape):
    """Where a hub keeps a variant. `file` is null where the whole repository is the variant."""

    hub: Hub
    id: str
    revision: str | None = Field(description="null: the hub's default")
    file: str | None = Field(description="Of a file in parts, the name without their numbers")
    cached: bool


class Install(Shape):
    """An engine that could serve once it is installed, and the command for it."""

    engine: str
    command: str


class ZooVariant(Shape):
    """A variant, and what the gateway's machine can do with it."""

    model_format: Format
    model_size_in_billions: str
    quantization: str
    size_bytes: int = Field(description="Of the files")
    size_from: Literal["measured", "stated", "reckoned"] = Field(
        description="On the disk, by the spec, or from the model's shape"
    )
    files: list[PlannedFile] | None = Field(description="null: not known before it is asked for")
    sources: list[VariantSource] = Field(description="In order of preference")
    cached: bool
    engines: dict[str, str | None] = Field(description="null if it can serve here, else why not")
    installs: list[Install]
    consent: str | None = Field(description="What a launch must say, for it runs code: --trust …")
    estimate: EstimateRow = Field(description="At the shortest context that launches choose")
    fits: bool = Field(description="It can be served here, in the memory that is free")
    launch_command: str


class ZooPage(ZooModel):
    """A model with all of its variants, and what the gateway's machine can do with each."""

    homepage: str | None
    notes: str | None
    recommended: list[str] = Field(description="Quantizations, the best first")
    architecture: str
    reference: str | None = Field(description="Set: nobody wrote the spec, it was derived")
    commit: str | None
    derived_notes: list[str] = Field(description="What the repository does not tell")
    risks: dict[str, str] = Field(description="Formats that run a repository's code, and how")
    node_name: str
    memory_free_bytes: int
    memory_total_bytes: int
    disk_free_bytes: int
    launch_command: str
    variants: list[ZooVariant]


class ZooList(Shape):
    """Models, and what the gateway's machine has for them."""

    memory_free_bytes: int
    memory_total_bytes: int
    gpu_free_bytes: int = Field(description="Of its most free GPU; 0: it has none")
    disk_free_bytes: int
    models: list[ZooModel]


class ZooRoutes:
    """The routes, over one fleet's catalogue.

    What was looked at is kept: for a thousand models it takes a fifth of a second.
    """

    def __init__(self, fleet: Fleet, settings: Settings) -> None:
        self._fleet = fleet
        self._settings = settings
        self._zoo: Zoo | None = None
        self._looking = threading.Lock()

    def routes(self) -> list[Operation]:
        """All routes."""
        return [
            Operation(
                "GET",
                "/v1/zoo",
                self.listing,
                RouteDoc(
                    "catalogue",
                    ZooList,
                    query=(
                        Query(
                            "q",
                            TEXT,
                            "Words, all of which must stand in a model's names, ids or description",
                        ),
                        Query("ability", TEXTS, "What it can do; several: all"),
                        Query("type", TEXTS, "LLM, embedding or rerank; several: any"),
                        Query("format", TEXTS, "A format of its weights; several: any"),
                        Query("engine", TEXTS, "An engine that its spec lists; several: any"),
                        Query("language", TEXTS, "A language code, such as en; several: all"),
                        Query(
                            "size",
                            TEXT,
                            "Billions of parameters, such as 7 or 0_5, or a range: 1..8 or ..8",
                        ),
                        Query(
                            "fits",
                            FLAG | {"default": False},
                            "Only what can be served in the free memory",
                        ),
                    ),
                ),
            ),
            Operation(
                "GET",
                "/v1/zoo/{name:path}",
                self.show,
                RouteDoc("catalogue", ZooPage, query=(OFFLINE,)),
            ),
            Operation(
                "GET",
                "/v1/estimate",
                self.estimate,
                RouteDoc(
                    "catalogue",
                    Estimate,
                    query=(
                        Query(
                            "model_name",
                            TEXT,
                            "A name, or a reference such as hf:owner/name",
                            required=True,
                        ),
                        Query("model_format", TEXT, "Only this format"),
                        Query("quantization", TEXT, "Only this quantization"),
                        Query(
                            "model_size_in_billions", TEXT, "Only this size, such as 46_7 or 46.7"
                        ),
                        Query(
                            "context_length",
                            {"type": "array", "items": {"type": "integer", "minimum": 1}},
                            "Tokens; several times",
                        ),
                        Query(
                            "slots",
                            {"type": "integer", "minimum": 1, "maximum": MAX_SLOTS, "default": 1},
                            "Requests side by side, each with the whole context",
                        ),
                        Query("assume_gpu", TEXT, "For one GPU of this size, such as 24GB"),
                        OFFLINE,
                    ),
                ),
            ),
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
        """The memory that a model takes, by variant and context, beside what is free.

        Raises:
            BadValue: no model's name, or a number out of its range.
        """
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
        if gpu := query.get("assume_gpu"):
            host = with_gpu(host, fields_by_key()["assume_gpu"].check(gpu))
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
        **ModelRow.of(hit, offers, builtin=False, free=Free.on(host)).to_json(),
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
