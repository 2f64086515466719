"""Models that can be launched: listed, described, registered and unregistered by a client."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from paddock.launcher.fleet.fleet import Fleet
from paddock.registry.catalog import Catalog
from paddock.registry.custom import Library
from paddock.registry.errors import BadValue
from paddock.registry.hubs import LOCAL
from paddock.registry.spec import ModelSpec, Source, Variant
from paddock.server.http.body import read_object
from paddock.server.http.json_response import JSONResponse
from paddock.server.http.operation import TEXT, Operation, Query, RouteDoc
from paddock.server.http.query import DETAILED, OFFLINE, flag
from paddock.server.http.shapes import Shape
from paddock.server.routes import xinference_shapes
from paddock.server.routes.catalogue import OTHER_TYPES, model_type, path_spec


class Family(Shape):
    """A model that can be launched; without `detailed`, only its name and where it comes from."""

    model_name: str
    is_builtin: bool
    model_type: str | None = None
    model_description: str | None = None
    context_length: int | None = None
    model_lang: list[str] | None = None
    model_ability: list[str] | None = None
    model_specs: list[dict[str, Any]] | None = None


class Register(Shape):
    """`model` is a spec, in our YAML or in Xinference's JSON."""

    model: str | dict[str, Any]
    persist: bool = True


class Registered(Shape):
    """The name of what was registered."""

    model_name: str


class ShownSpec(Shape):
    """A model's spec as YAML that can be registered; the rest where it was derived."""

    model_name: str
    model_type: str
    yaml: str
    spec: dict[str, Any]
    reference: str | None
    commit: str | None
    notes: list[str]
    consent: dict[str, str] = Field(description="Formats that need --trust, and what would run")


class Registrations:
    """The routes, over one library; they are the only ones that change it."""

    def __init__(self, fleet: Fleet, library: Library) -> None:
        self._fleet = fleet
        self._library = library
        self._changing = asyncio.Lock()

    def routes(self) -> list[Operation]:
        """All routes."""
        one, all_ = "/v1/model_registrations/{type}/{name}", "/v1/model_registrations/{type}"
        return [
            Operation(
                "GET", all_, self.listing, RouteDoc("catalogue", list[Family], query=(DETAILED,))
            ),
            Operation("POST", all_, self.register, RouteDoc("catalogue", Registered, Register)),
            Operation("GET", one, self.describe, RouteDoc("catalogue", Family)),
            Operation("DELETE", one, self.unregister, RouteDoc("catalogue")),
            Operation(
                "GET",
                "/v1/specs",
                self.show,
                RouteDoc(
                    "catalogue",
                    ShownSpec,
                    query=(
                        Query(
                            "model_name",
                            TEXT,
                            "A name, or a reference such as hf:owner/name",
                            required=True,
                        ),
                        OFFLINE,
                    ),
                ),
            ),
        ]

    async def listing(self, request: Request) -> Response:
        """The models of one type: names, or with `detailed=true` all that their specs say."""
        kind = model_type(request.path_params["type"])
        detailed = flag(request, "detailed")
        # Reads every spec, 0.2 ms the first time.
        return await asyncio.to_thread(_listing, self._fleet.catalog, kind, detailed)

    async def describe(self, request: Request) -> Response:
        """All that one model's spec says."""
        catalog = self._fleet.catalog
        return JSONResponse(_family(path_spec(catalog, request.path_params), catalog))

    async def show(self, request: Request) -> Response:
        """One model's spec as YAML, be it registered or derived from what a reference names.

        Raises:
            BadValue: no model's name.
        """
        name = request.query_params.get("model_name", "")
        if not name.strip():
            raise BadValue("model_name", name, "is needed: a name, or such as hf:owner/name")
        offline = flag(request, "offline")
        references = self._fleet.references
        return JSONResponse(await references.show(name, self._fleet.catalog, offline=offline))

    async def register(self, request: Request) -> Response:
        """Adds a model: `model` is our YAML or Xinference's JSON, as text. It is always kept.

        Raises:
            BadValue: what was sent is not a spec.
        """
        kind = _known(request)
        body = await read_object(request)
        text = body.get("model")
        if isinstance(text, dict):
            text = json.dumps(text)
        if not isinstance(text, str) or not text.strip():
            raise BadValue("model", text, "is needed: a spec as text, in YAML or JSON")
        if body.get("worker_ip"):
            raise BadValue("worker_ip", body["worker_ip"], "a model is registered for all nodes")
        # A megabyte of YAML takes seconds to parse, in which the loop must serve others.
        async with self._changing:
            spec = await asyncio.to_thread(self._library.register, kind, text)
        # Xinference answers null, so that its clients read nothing here.
        return JSONResponse({"model_name": spec.name})

    async def unregister(self, request: Request) -> Response:
        """Removes a model that was registered; what was launched by it runs on."""
        kind = _known(request)
        async with self._changing:
            await asyncio.to_thread(self._library.unregister, kind, request.path_params["name"])
        return JSONResponse(None)


def _listing(catalog: Catalog, kind: str, detailed: bool) -> Response:
    return JSONResponse(
        [
            _family(spec, catalog)
            if detailed
            else {"model_name": spec.name, "is_builtin": not catalog.is_custom(spec.name)}
            for spec in catalog
            if spec.type == kind
        ]
    )


def _family(spec: ModelSpec, catalog: Catalog) -> dict[str, Any]:
    """A spec in Xinference's flat shape: one entry for each variant and hub."""
    family = {
        "version": 2,
        "model_name": spec.name,
        "model_type": spec.type,
        "model_description": spec.description,
        "model_family": spec.name,
        "is_builtin": not catalog.is_custom(spec.name),
        "context_length": spec.context_length,
        "model_lang": list(spec.languages),
        "model_ability": list(spec.abilities),
        "architectures": [spec.architecture.name],
        "chat_template": spec.chat_template,
        "stop": list(spec.stop),
        "stop_token_ids": [],
        "license": spec.license,
        "released": spec.released.isoformat(),
        "notes": spec.notes,
        "download_hubs": list(
            dict.fromkeys(s.hub for v in spec.variants for s in v.sources if s.hub not in LOCAL)
        ),
        "model_specs": [
            _flat(variant, source) for variant in spec.variants for source in variant.sources
        ],
    }
    if spec.type != "LLM":
        family["language"] = list(spec.languages)
        family["max_tokens"] = spec.context_length
    if spec.type == "embedding":
        family["dimensions"] = spec.architecture.hidden_size
    return family


def _known(request: Request) -> str:
    """The type that the path names, if Paddock has models of it."""
    kind = model_type(request.path_params["type"])
    if kind in OTHER_TYPES:
        raise BadValue("model type", kind, "this version of Paddock has no models of this type")
    return kind


def _flat(variant: Variant, source: Source) -> dict[str, Any]:
    local = source.hub in LOCAL
    return {
        "model_format": variant.format,
        "model_size_in_billions": xinference_shapes.billions(variant.size),
        "quantization": variant.quantization,
        "model_hub": source.hub,
        "model_id": None if local else source.id,
        "model_uri": source.id if local else None,
        "model_revision": source.revision,
        "model_file_name_template": source.file,
        "size_bytes": variant.size_bytes,
        "engines": list(variant.engines),
    }
