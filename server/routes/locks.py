"""Locks: made of variants, verified, held against their hubs, on the gateway's machine."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from paddock.launcher.fleet.fleet import Fleet
from paddock.launcher.jobs.locks import Locking, LockJobs, Work
from paddock.launcher.replicas.diagnosis import CAUSES
from paddock.registry.errors import BadValue, UnknownName
from paddock.registry.lockfile import LockedModel, parse_entry
from paddock.registry.spec import Source
from paddock.server.http.body import read_object
from paddock.server.http.json_response import JSONResponse
from paddock.server.http.operation import Operation, RouteDoc
from paddock.server.http.shapes import Shape
from paddock.server.routes import xinference_shapes
from paddock.server.routes.launch_shapes import MakeLock
from paddock.server.routes.plan_shapes import Diagnosis

MAX_MODELS = 1000
OPTIONS = tuple(MakeLock.model_fields)


class LockedModels(Shape):
    """Entries of a lockfile; left out, `outdated` looks at what is launched and cached."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    models: list[LockedModel] | None = Field(default=None, max_length=1000)


class ComparedFile(Shape):
    """A file that the hub has besides, no more, or changed from `was_bytes`."""

    name: str
    size_bytes: int
    was_bytes: int | None = None


class LockFailure(Shape):
    """Why a hub did not tell what it has."""

    cause: str = Field(json_schema_extra={"enum": list(CAUSES)})
    reason: str


class Compared(Shape):
    """What the hub has now. `moved`: its commit is another, the model's files are the same."""

    model: str
    hub: str
    id: str
    state: Literal["current", "moved", "outdated", "local", "unknown"]
    revision: str | None
    commit: str | None
    newest_commit: str | None
    added: list[ComparedFile]
    removed: list[ComparedFile]
    changed: list[ComparedFile]
    error: LockFailure | None
    engine: str | None
    locked_engine_version: str | None
    engine_version: str | None = Field(description="That is installed now, if any")


class VerifiedLock(Shape):
    """What a locked file was found to be; `found` is the SHA-256 that it has."""

    model: str
    name: str
    size_bytes: int
    sha256: str
    found: str | None
    path: str | None
    state: Literal["as_locked", "differs", "missing"]


class LockWork(Shape):
    """Work on locks. `rows` are a lock's entry, or what was found, as far as it has come."""

    id: str
    kind: Literal["lock", "verify", "outdated"]
    state: Literal["running", "done", "failed", "cancelled"]
    note: str
    came_bytes: int
    total_bytes: int | None
    bytes_per_second: float | None
    seconds_left: float | None
    rows: list[LockedModel | VerifiedLock | Compared]
    diagnosis: Diagnosis | None


class LockWorks(Shape):
    """All that the gateway knows, oldest first."""

    data: list[LockWork]


class LockRoutes:
    """The routes, over one fleet's models and catalogue."""

    def __init__(self, fleet: Fleet, locks: LockJobs) -> None:
        self._fleet = fleet
        self._locks = locks

    def routes(self) -> list[Operation]:
        """All routes."""
        return [
            Operation("GET", "/v1/locks", self.listing, RouteDoc("locks", LockWorks)),
            Operation(
                "POST", "/v1/locks", self.make, RouteDoc("locks", LockWork, MakeLock, status=201)
            ),
            Operation("GET", "/v1/locks/{id}", self.show, RouteDoc("locks", LockWork)),
            Operation("DELETE", "/v1/locks/{id}", self.cancel, RouteDoc("locks", LockWork)),
            Operation(
                "POST",
                "/v1/lockfile/verify",
                self.verify,
                RouteDoc("locks", LockWork, LockedModels, status=201),
            ),
            Operation(
                "POST",
                "/v1/lockfile/outdated",
                self.outdated,
                RouteDoc("locks", LockWork, LockedModels, status=201),
            ),
        ]

    async def listing(self, _: Request) -> Response:
        """All work on locks that this gateway knows."""
        return JSONResponse({"data": [row(work) for work in self._locks.all()]})

    async def make(self, request: Request) -> Response:
        """Begins to make a lock's entry of a variant, or of a launched model.

        Raises:
            UnknownName, BadValue: no such field, or a value that it does not take.
        """
        body = await read_object(request)
        for name in body:
            if name not in OPTIONS:
                raise UnknownName.among("field", name, OPTIONS)
        newest = body.pop("newest", None) or False
        if not isinstance(newest, bool):
            raise BadValue("newest", newest, "must be true or false")
        return JSONResponse(row(self._locks.make(await self._what(body), newest)), 201)

    async def _what(self, body: dict[str, Any]) -> Locking:
        uid = body.pop("launched", None)
        if uid is None:
            return await self._fleet.plan_lock(xinference_shapes.launch_request(body))
        if not isinstance(uid, str):
            raise BadValue("launched", uid, "must be a model's id, as text")
        for name, value in body.items():
            if value is not None:
                raise BadValue(name, value, "a launched model is locked as it is")
        return self._fleet.launched_lock(uid)

    async def verify(self, request: Request) -> Response:
        """Begins to read the files of a lockfile's models anew."""
        models = _models(await read_object(request))
        return JSONResponse(row(self._locks.verify(models or ())), 201)

    async def outdated(self, request: Request) -> Response:
        """Begins to ask hubs what is newer: than a lockfile's models, or than what is cached."""
        models = _models(await read_object(request))
        caches: Sequence[tuple[str, Source]] = ()
        if models is None:
            caches = await asyncio.to_thread(self._fleet.cached_sources)
        engines = (await self._fleet.hosts())[0].engines
        versions = {name: one.version for name, one in engines.items() if not one.missing}
        return JSONResponse(row(self._locks.outdated(models or (), caches, versions)), 201)

    async def show(self, request: Request) -> Response:
        """Some work on locks, how far it is, and what it has found."""
        return JSONResponse(row(self._locks.get(request.path_params["id"])))

    async def cancel(self, request: Request) -> Response:
        """Calls it off; answers when nothing of it runs."""
        return JSONResponse(row(await self._locks.cancel(request.path_params["id"])))


def _models(body: dict[str, Any]) -> list[LockedModel] | None:
    """The entries that were sent; None if there is no word of them."""
    for name in body:
        if name != "models":
            raise UnknownName.among("field", name, ["models"])
    given = body.get("models")
    if given is None:
        return None
    if not isinstance(given, list) or len(given) > MAX_MODELS:
        raise BadValue("models", type(given).__name__, f"must be a list of {MAX_MODELS} at most")
    found = [parse_entry(one) for one in given]
    names = [one.model for one in found]
    for name in names:
        if names.count(name) > 1:
            raise BadValue("models", name, "is there twice")
    return found


def row(work: Work) -> dict[str, Any]:
    """Some work as JSON: a `Work` of the API."""
    return {
        "id": work.id,
        "kind": work.kind,
        "state": work.state,
        "note": work.note,
        "came_bytes": work.came_bytes,
        "total_bytes": work.total_bytes,
        "bytes_per_second": work.bytes_per_second,
        "seconds_left": work.seconds_left,
        "rows": list(work.rows),
        "diagnosis": work.diagnosis,
    }
