"""The engines of the gateway's machine, and their environments."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from paddock.engines import base, engines
from paddock.engines.environment import Accelerator, Environment
from paddock.launcher.environments import build
from paddock.launcher.jobs.installs import InstallJobs, InstallStatus
from paddock.registry.errors import BadValue, UnknownName
from paddock.registry.settings import Settings
from paddock.registry.spec_fields import Format, ModelType
from paddock.server.http.body import read_object
from paddock.server.http.json_response import JSONResponse
from paddock.server.http.operation import Operation, RouteDoc
from paddock.server.http.shapes import Shape

FIELDS = ("accelerator", "force")


class EnvironmentInForce(Shape):
    """The environment that an engine runs from."""

    folder: str
    accelerator: Accelerator
    version: str = Field(description="Of the engine")
    versions: dict[str, str] = Field(description="Of every distribution in it")
    made_at: float = Field(description="Seconds since 1970")
    current: bool = Field(description="It was made from what this Paddock would make it from")


class Engine(Shape):
    """An engine, as it is on the gateway's machine."""

    name: str
    installed: bool
    version: str | None
    formats: list[Format] = Field(description="That it can load; none: it loads no weights")
    types: list[ModelType]
    automatic: bool = Field(description="A launch that names no engine may choose it")
    reason: str | None = Field(description="Why it cannot serve here")
    installable: bool = Field(description="It has an environment of its own, to be installed")
    environment: EnvironmentInForce | None
    options: dict[str, Any] = Field(description="The JSON schema of its own launch options")


class Engines(Shape):
    """All engines, in the order in which a launch tries them."""

    engines: list[Engine]


class NewEnvironment(Shape):
    """What an engine shall compute with; left out, what the machine has."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    accelerator: Accelerator | None = None
    force: bool = Field(default=False, description="Even if the one that is there is up to date")


class EngineEnvironment(Shape):
    """An engine's environment. What is there stays in force while another one is made.

    `version` and what follows it are null where there is none; `lines` say why an install failed.
    """

    engine: str
    state: Literal["none", "installing", "installed", "failed", "cancelled"] = Field(
        description="Of the last install; `installed` and `none` also where there was no other"
    )
    note: str = Field(description="The step that it is at")
    lines: list[str]
    began_at: float | None = Field(description="Seconds since 1970; null: not by this gateway")
    version: str | None
    accelerator: Accelerator | None
    folder: str | None
    made_at: float | None = Field(description="Seconds since 1970")
    current: bool | None = Field(description="It is made from the pins of this Paddock")
    size_bytes: int | None


class EngineEnvironments(Shape):
    """Those of all engines that have one of their own."""

    environments: list[EngineEnvironment]


class EngineRoutes:
    """The routes, over one home folder."""

    def __init__(self, settings: Settings, installs: InstallJobs) -> None:
        self._home = settings.home
        self._installs = installs

    def routes(self) -> list[Operation]:
        """All routes."""
        one = "/v1/environments/{engine}"
        return [
            Operation("GET", "/v1/engines", self.listing, RouteDoc("catalogue", Engines)),
            Operation(
                "GET",
                "/v1/environments",
                self.environments,
                RouteDoc("environments", EngineEnvironments),
            ),
            Operation("GET", one, self.show, RouteDoc("environments", EngineEnvironment)),
            Operation(
                "POST",
                one,
                self.install,
                RouteDoc("environments", EngineEnvironment, NewEnvironment, status=201),
            ),
            Operation("DELETE", one, self.remove, RouteDoc("environments", EngineEnvironment)),
            Operation(
                "POST", f"{one}/cancel", self.cancel, RouteDoc("environments", EngineEnvironment)
            ),
        ]

    async def listing(self, _: Request) -> Response:
        """Every engine: what it can serve, why it can't here, and its own launch options."""
        return await asyncio.to_thread(self._listing)

    def _listing(self) -> Response:
        return JSONResponse({"engines": [_engine(one, self._home) for one in engines()]})

    async def environments(self, _: Request) -> Response:
        """The environments of all engines that have one of their own."""
        environments = [one.environment for one in engines() if one.environment is not None]
        rows = [_row(await self._installs.status(environment)) for environment in environments]
        return JSONResponse({"environments": rows})

    async def show(self, request: Request) -> Response:
        """One engine's environment, and how far its install is."""
        return JSONResponse(_row(await self._installs.status(_environment(request))))

    async def install(self, request: Request) -> Response:
        """Begins to install an engine and answers at once; what is up to date is left as it is.

        Raises:
            UnknownName, BadValue: no such field, or a value that it does not take.
        """
        environment, body = _environment(request), await read_object(request)
        for field in body:
            if field not in FIELDS:
                raise UnknownName.among("field", field, FIELDS)
        accelerator, force = body.get("accelerator"), body.get("force") or False
        if accelerator not in (None, *get_args(Accelerator)):
            raise BadValue("accelerator", accelerator, "must be cpu or cuda")
        if not isinstance(force, bool):
            raise BadValue("force", force, "must be true or false")
        status = await self._installs.start(environment, accelerator, force)
        return JSONResponse(_row(status), 201)

    async def cancel(self, request: Request) -> Response:
        """Calls an install off; answers when nothing of it runs or is left."""
        return JSONResponse(_row(await self._installs.cancel(_environment(request))))

    async def remove(self, request: Request) -> Response:
        """Removes an engine's environment; refused while a model runs from it."""
        return JSONResponse(_row(await self._installs.remove(_environment(request))))


def _environment(request: Request) -> Environment:
    """The environment that a path names. Raises `NotFound`, `BadValue`."""
    return build.find_environment(request.path_params["engine"])


def _row(status: InstallStatus) -> dict[str, Any]:
    there = status.in_force or {}
    return {
        "engine": status.engine,
        "state": status.state,
        "note": status.note,
        "lines": list(status.lines),
        "began_at": status.began_at,
        "version": there.get("version"),
        "accelerator": there.get("accelerator"),
        "folder": there.get("folder"),
        "made_at": there.get("made_at"),
        "current": there.get("current"),
        "size_bytes": status.size_bytes,
    }


def _engine(engine: base.Engine, home: Path) -> dict[str, Any]:
    detection, environment = engine.detect(), engine.environment
    return {
        "name": engine.name,
        "installed": not detection.missing,
        "version": detection.version or None,
        "formats": list(engine.formats),
        "types": list(engine.types),
        "automatic": engine.automatic,
        "reason": detection.missing or None,
        "installable": environment is not None,
        "environment": environment and build.describe(environment, home),
        "options": engine.options.model_json_schema(),
    }
