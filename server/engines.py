"""The engines of the gateway's machine, and their environments."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from paddock.engines import engines
from paddock.engines.base import Engine
from paddock.launcher.environments import describe
from paddock.registry.settings import Settings


class EngineRoutes:
    """The routes, over one home folder."""

    def __init__(self, settings: Settings) -> None:
        self._home = settings.home

    def routes(self) -> list[Route]:
        """All routes."""
        return [Route("/v1/engines", self.listing)]

    async def listing(self, _: Request) -> Response:
        """Every engine: what it can serve, why it can't here, and its own launch options."""
        return await asyncio.to_thread(self._listing)

    def _listing(self) -> Response:
        return JSONResponse({"engines": [_engine(one, self._home) for one in engines()]})


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
        "environment": environment and describe(environment, home),
        "options": engine.options.model_json_schema(),
    }
