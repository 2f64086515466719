"""What the catalogue offers, in Xinference's shapes: versions, engines, prompts, families."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from paddock.engines import engine_names, load_engine
from paddock.engines.base import Host
from paddock.launcher.fleet.fleet import Fleet
from paddock.launcher.planning.candidates import unable
from paddock.launcher.planning.weight_sources import local_files
from paddock.registry.abilities import abilities, model_types
from paddock.registry.catalog import Catalog
from paddock.registry.custom import find
from paddock.registry.errors import NotFound
from paddock.registry.hubs import LOCAL
from paddock.registry.prompts import find_prompt
from paddock.registry.spec import ModelSpec, Variant
from paddock.server.http.json_response import JSONResponse
from paddock.server.http.operation import Operation, RouteDoc
from paddock.server.http.shapes import Shape, Size
from paddock.server.routes import xinference_shapes

# Xinference's, which have no ability here.
OTHER_FAMILIES = ("audio", "omni", "hybrid")
OTHER_TYPES = ("image", "audio", "video", "flexible", "world")
"""Types of Xinference's models of which Paddock has none."""


class VariantVersion(Shape):
    """A variant of a model, and where it is on disk."""

    model_version: str
    model_file_location: dict[str, str] | None
    cache_status: bool
    quantization: str
    multimodal_projector: str | None
    model_format: str
    model_size_in_billions: Size


class EngineVariants(Shape):
    """What an engine can serve of one format and size."""

    model_name: str
    model_format: str
    model_size_in_billions: Size
    quantizations: list[str]


def model_type(name: str) -> str:
    """The type that a path names. Raises `NotFound`."""
    known = (*model_types(), *OTHER_TYPES)
    for type_ in known:
        if type_.casefold() == name.casefold():
            return str(type_)
    raise NotFound.among("model type", name, known)


def path_spec(catalog: Catalog, params: Mapping[str, str]) -> ModelSpec:
    """The spec that a path names, with its type or without. Raises `NotFound`."""
    return find(catalog, model_type(params["type"]) if "type" in params else None, params["name"])


class Catalogue:
    """The routes, over one fleet's catalogue."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def routes(self) -> list[Operation]:
        """All routes; they stand before the ones that take any model id."""
        return [
            Operation(
                "GET", "/v1/models/prompts", self.prompts, RouteDoc("catalogue", dict[str, Any])
            ),
            Operation(
                "GET",
                "/v1/models/families",
                self.families,
                RouteDoc("catalogue", dict[str, list[str]]),
            ),
            Operation(
                "GET",
                "/v1/models/vllm-supported",
                self.vllm,
                RouteDoc("catalogue", dict[str, list[str]]),
            ),
            Operation(
                "GET",
                "/v1/models/{type}/{name}/versions",
                self.versions,
                RouteDoc("catalogue", list[VariantVersion]),
            ),
            Operation(
                "GET",
                "/v1/engines/{name}",
                self.engines,
                RouteDoc("catalogue", dict[str, list[EngineVariants] | str]),
            ),
            Operation(
                "GET",
                "/v1/engines/{type}/{name}",
                self.engines,
                RouteDoc("catalogue", dict[str, list[EngineVariants] | str]),
            ),
        ]

    async def prompts(self, _: Request) -> Response:
        """The chat templates and stop texts that specs state; models bring their own besides."""
        return await asyncio.to_thread(_prompts, self._fleet.catalog)

    async def families(self, _: Request) -> Response:
        """Model names by what they can do."""
        return await asyncio.to_thread(_families, self._fleet.catalog)

    async def vllm(self, _: Request) -> Response:
        """Architectures of the models that list vLLM, where it has an adapter here."""
        return await asyncio.to_thread(_vllm, self._fleet.catalog)

    async def versions(self, request: Request) -> Response:
        """Every variant of a model, and where it is on disk as far as that is known."""
        spec = path_spec(self._fleet.catalog, request.path_params)
        hosts = await self._fleet.hosts(spec.local_paths)
        return JSONResponse([_version(variant, hosts) for variant in spec.variants])

    async def engines(self, request: Request) -> Response:
        """Engine → the variants that it can serve here, or the reason why none."""
        spec = path_spec(self._fleet.catalog, request.path_params)
        return JSONResponse(engines_of(spec, await self._fleet.hosts()))


# Each reads every spec, 0.2 ms the first time: with ten thousand of them not on the event loop.


def _prompts(catalog: Catalog) -> Response:
    return JSONResponse(
        {
            spec.name: _prompt(spec)
            for spec in catalog
            if spec.chat_template is not None or spec.chat_format is not None or spec.stop
        }
    )


def _prompt(spec: ModelSpec) -> dict[str, Any]:
    template, stop = spec.chat_template, list(spec.stop)
    if template is None and spec.chat_format is not None:
        known = find_prompt(spec.chat_format)
        template = known.template
        stop += [text for text in known.stop if text not in stop]
    return {"chat_template": template, "stop": stop}


def _families(catalog: Catalog) -> Response:
    named = {
        ability.name: [spec.name for spec in catalog if ability.name in spec.abilities]
        for ability in abilities().values()
        if ability.is_family
    }
    return JSONResponse(named | {family: [] for family in OTHER_FAMILIES})


def _vllm(catalog: Catalog) -> Response:
    adapted = {name.casefold() for name in engine_names()} & {"vllm"}
    specs = [
        spec
        for spec in catalog
        if any(engine.casefold() in adapted for w in spec.weights for engine in w.engines)
    ]
    return JSONResponse(
        {
            ability: sorted({s.architecture.name for s in specs if ability in s.abilities})
            for ability in ("chat", "generate")
        }
    )


def _version(variant: Variant, hosts: Sequence[Host]) -> dict[str, Any]:
    local = [source for source in variant.sources if source.hub in LOCAL]
    places = {
        host.address: source.id for source in local for host in hosts if local_files(source, host)
    }
    return {
        "model_version": xinference_shapes.variant_version(variant),
        "model_file_location": places or None,
        "cache_status": bool(places),
        "quantization": variant.quantization,
        "multimodal_projector": None,
        "model_format": variant.format,
        "model_size_in_billions": xinference_shapes.billions(variant.size),
    }


def engines_of(spec: ModelSpec, hosts: Sequence[Host]) -> dict[str, list[dict[str, Any]] | str]:
    """Every engine that the spec names → what it serves of it on a host, or why nothing."""
    named = dict.fromkeys(engine for weights in spec.weights for engine in weights.engines)
    return {engine: _served(spec, engine, hosts) for engine in named}


def _served(spec: ModelSpec, name: str, hosts: Sequence[Host]) -> list[dict[str, Any]] | str:
    adapters = {known.casefold(): known for known in engine_names()}
    if name.casefold() not in adapters:
        return "this version of Paddock has no adapter for it"
    engine = load_engine(adapters[name.casefold()])
    rows: dict[tuple[str, str], list[str]] = {}
    refused: list[str] = []
    projectors = {(str(v.format), v.size): v.projectors for v in spec.variants}
    for variant in spec.variants:
        if name not in variant.engines:
            continue
        reasons = [unable(spec, variant, engine, host) for host in hosts]
        if None in reasons:
            rows.setdefault((variant.format, variant.size), []).append(variant.quantization)
        else:
            refused.extend(reason for reason in reasons if reason)
    if not rows:
        return refused[0]
    return [
        {
            "model_name": spec.name,
            "model_format": format,
            "model_size_in_billions": xinference_shapes.billions(size),
            "quantizations": quantizations,
            "multimodal_projectors": list(projectors[format, size]),
            "support_draft_model": False,
        }
        for (format, size), quantizations in rows.items()
    ]
