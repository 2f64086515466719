"""The engines of the gateway's machine, and their environments."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, get_args

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from paddock.engines import engines
from paddock.engines.base import Engine
from paddock.engines.environment import Accelerator, Environment
from paddock.launcher.environments import build
from paddock.launcher.jobs.installs import Installs, InstallStatus
from paddock.registry.errors import BadValue, UnknownName
from paddock.registry.settings import Settings
from paddock.server.http.body import read_object

FIELDS = ("accelerator", "force")


class EngineRoutes:
    """The routes, over one home folder."""

    def __init__(self, settings: Settings, installs: Installs) -> None:
        self._home = settings.home
        self._installs = installs

    def routes(self) -> list[Route]:
        """All routes."""
        one = "/v1/environments/{engine}"
        return [
            Route("/v1/engines", self.listing),
            Route("/v1/environments", self.environments),
            Route(one, self.show),
            Route(one, self.install, methods=["POST"]),
            Route(one, self.remove, methods=["DELETE"]),
            Route(f"{one}/cancel", self.cancel, methods=["POST"]),
        ]

    async def listing(self, _: Request) -> Response:
        """Every engine: what it can serve, why it can't here, and its own launch options."""
        return await asyncio.to_thread(self._listing)

    def _listing(self) -> Response:
        return JSONResponse({"engines": [_engine(one, self._home) for one in engines()]})

    async def environments(self, _: Request) -> Response:
        """The environments of all engines that have one of their own."""
        found = [one.environment for one in engines() if one.environment is not None]
        rows = [_row(await self._installs.status(environment)) for environment in found]
        return JSONResponse({"environments": rows})

    async def show(self, request: Request) -> Response:
        """One engine's environment, and how far its install is."""
        return JSONResponse(_row(await self._installs.status(_environment(request))))

    async def install(self, request: Request) -> Response:
        """Begins to install an engine and answers at once; what is up to date is left as it is."""
        environment, given = _environment(request), await read_object(request)
        for field in given:
            if field not in FIELDS:
                raise UnknownName.among("field", field, FIELDS)
        accelerator, force = given.get("accelerator"), given.get("force") or False
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


def _engine(engine: Engine, home: Path) -> dict[str, Any]:
    found, environment = engine.detect(), engine.environment
    return {
        "name": engine.name,
        "installed": not found.missing,
        "version": found.version or None,
        "formats": list(engine.formats),
        "types": list(engine.types),
        "automatic": engine.automatic,
        "reason": found.missing or None,
        "installable": environment is not None,
        "environment": environment and build.describe(environment, home),
        "options": engine.options.model_json_schema(),
    }
