"""What the gateway's machine has in the hubs' caches: listed, checked and removed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from paddock.launcher.fleet.fleet import Fleet
from paddock.launcher.weights import cache as hubs
from paddock.registry.errors import BadValue, NotFound
from paddock.registry.hubs import find_hub
from paddock.registry.spec import ModelSpec, Variant
from paddock.server.http.json_response import JSONResponse
from paddock.server.http.operation import TEXT, Operation, Query, RouteDoc
from paddock.server.http.shapes import Result, Shape, Size
from paddock.server.routes import xinference_shapes

WORKER = Query("worker_ip", TEXT, "The machine; only the gateway's own can be asked for")
VERSION = Query("model_version", TEXT, "name--size--format--quantization", required=True)


class CacheRow(Shape):
    """A variant whose files are on the gateway's machine."""

    model_name: str
    model_size_in_billions: Size
    model_format: str
    quantization: str
    model_version: str
    path: str
    real_path: str
    actor_ip_address: str
    model_hub: str
    source: str
    size_bytes: int
    checked: bool


class UnusableHub(Shape):
    """A hub whose adapter does not load: what its cache holds is not listed."""

    hub: str
    reason: str


class CacheList(Shape):
    """All of them."""

    unusable_hubs: list[UnusableHub]
    list: list[CacheRow]


class VerifiedFile(Shape):
    """A file that was read; `whole` is null where nobody tells what it ought to be."""

    path: str
    size_bytes: int
    digest: str
    whole: bool | None


class Verified(Shape):
    """What the files of a variant were found to be; none if it is not cached."""

    model_version: str
    files: list[VerifiedFile]


class Repository(Shape):
    """A repository in a hub's cache; `part_bytes` are of downloads that were interrupted."""

    hub: str
    id: str
    path: str
    size_bytes: int
    part_bytes: int


class Repositories(Shape):
    """All of them."""

    unusable_hubs: list[UnusableHub]
    list: list[Repository]


class CacheFiles(Shape):
    """What removing a variant would delete."""

    model_version: str
    worker_ip: str
    paths: list[str]


class Cache:
    """The routes, over one fleet's catalogue."""

    def __init__(self, fleet: Fleet, home: Path) -> None:
        self._fleet = fleet
        self._cache = hubs.Cache(home)

    def routes(self) -> list[Operation]:
        """All routes."""
        return [
            Operation(
                "GET",
                "/v1/cache/models",
                self.listing,
                RouteDoc(
                    "cache",
                    CacheList,
                    query=(
                        Query("model_name", TEXT, "Only of this model"),
                        WORKER,
                    ),
                ),
            ),
            Operation(
                "DELETE",
                "/v1/cache/models",
                self.remove,
                RouteDoc("cache", Result, query=(VERSION, WORKER)),
            ),
            Operation(
                "GET",
                "/v1/cache/models/files",
                self.files,
                RouteDoc("cache", CacheFiles, query=(VERSION, WORKER)),
            ),
            Operation(
                "POST",
                "/v1/cache/models/verify",
                self.verify,
                RouteDoc("cache", Verified, query=(VERSION, WORKER)),
            ),
            Operation(
                "GET",
                "/v1/cache/repositories",
                self.repositories,
                RouteDoc("cache", Repositories, query=(WORKER,)),
            ),
        ]

    async def listing(self, request: Request) -> Response:
        """The variants of all models, or of one, whose files are all here."""
        address = await self._address(request)
        name = request.query_params.get("model_name")
        # One row for a version: a derived spec may be registered too, or be of two references.
        variants = {
            xinference_shapes.variant_version(variant): variant
            for spec in reversed(await asyncio.to_thread(self._specs))
            if not name or name.casefold() in {n.casefold() for n in (spec.name, *spec.aliases)}
            for variant in reversed(spec.variants)
        }
        found = await asyncio.to_thread(self._cache.cached, reversed(variants.values()))
        rows = [_row(one, address) for one in found]
        return JSONResponse({"list": rows, "unusable_hubs": await self._unusable_hubs()})

    async def files(self, request: Request) -> Response:
        """What removing a variant would delete."""
        address, variant = await self._address(request), await self._variant(request)
        paths = await asyncio.to_thread(self._cache.removable, variant)
        return JSONResponse(
            {
                "model_version": xinference_shapes.variant_version(variant),
                "worker_ip": address,
                "paths": [str(path) for path in paths],
            }
        )

    async def verify(self, request: Request) -> Response:
        """Reads a variant's files anew, and says which are whole."""
        await self._address(request)
        variant = await self._variant(request)
        verdicts = await asyncio.to_thread(self._cache.verify, variant)
        files = [
            {
                "path": str(verdict.path),
                "size_bytes": verdict.size_bytes,
                "digest": verdict.digest,
                "whole": verdict.is_intact,
            }
            for verdict in verdicts
        ]
        return JSONResponse(
            {"model_version": xinference_shapes.variant_version(variant), "files": files}
        )

    async def repositories(self, request: Request) -> Response:
        """Every repository in the hubs' caches, whichever tool has brought it."""
        await self._address(request)
        repositories = await asyncio.to_thread(self._cache.repositories)
        rows = [
            {
                "hub": one.hub,
                "id": one.id,
                "path": str(one.path),
                "size_bytes": one.size_bytes,
                "part_bytes": one.part_bytes,
            }
            for one in repositories
        ]
        return JSONResponse({"list": rows, "unusable_hubs": await self._unusable_hubs()})

    async def remove(self, request: Request) -> Response:
        """Deletes a variant's files; refused while a launched model has them open.

        Raises:
            BadValue: a version that nothing in the cache has, or several.
        """
        await self._address(request)
        variant = await self._variant(request)
        version = xinference_shapes.variant_version(variant)
        for status in self._fleet.models():
            plan = status.plan
            launched = xinference_shapes.version(
                plan.model, plan.size, plan.format, plan.quantization
            )
            if launched == version and find_hub(plan.weights.hub) is not None:
                way = f"is launched; first: paddock terminate --model-uid {status.uid}"
                raise BadValue("model_version", version, way)
        return JSONResponse({"result": await asyncio.to_thread(self._cache.remove, variant)})

    async def _unusable_hubs(self) -> list[dict[str, str]]:
        reasons = await asyncio.to_thread(self._cache.unusable_hubs)
        return [{"hub": hub, "reason": reason} for hub, reason in reasons.items()]

    async def _address(self, request: Request) -> str:
        """The address of the gateway's machine, which is the only one that can be asked for."""
        host = (await self._fleet.hosts())[0]
        asked = request.query_params.get("worker_ip")
        if asked and asked.partition(":")[0] not in {host.address, host.name}:
            raise BadValue("worker_ip", asked, "only the gateway's own machine is looked at")
        return host.address

    def _specs(self) -> list[ModelSpec]:
        """Those of the catalogue, and those that were derived."""
        derived = (found.spec for found in self._fleet.references.cached())
        return [*self._fleet.catalog, *derived]

    async def _variant(self, request: Request) -> Variant:
        wanted = request.query_params.get("model_version")
        if not wanted:
            raise BadValue("model_version", wanted, "is needed: name--size--format--quantization")
        known = {
            xinference_shapes.variant_version(variant): variant
            for spec in reversed(await asyncio.to_thread(self._specs))
            for variant in spec.variants
        }
        if wanted not in known:
            raise NotFound.among("model version", wanted, known)
        return known[wanted]


def _row(cached: hubs.Cached, address: str) -> dict[str, Any]:
    variant = cached.variant
    return {
        "model_name": variant.model,
        "model_size_in_billions": xinference_shapes.billions(variant.size),
        "model_format": variant.format,
        "quantization": variant.quantization,
        "model_version": xinference_shapes.variant_version(variant),
        "path": str(cached.path),
        "real_path": str(cached.real_path),
        "actor_ip_address": address,
        "model_hub": cached.source.hub,
        "source": cached.source.id,
        "size_bytes": cached.size_bytes,
        "checked": cached.checked,
    }
