"""The catalogue for a page that shows it: every model with what this machine can do with it."""

from __future__ import annotations

import asyncio
import shutil
import threading
from pathlib import Path

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from paddock.launcher.controller import Controller
from paddock.launcher.machine import memory
from paddock.launcher.zoo import Zoo
from paddock.registry.catalog import Catalog
from paddock.registry.search import Filters
from paddock.registry.settings import Settings
from paddock.server.query import flag

FILTERS = {
    "ability": "abilities",
    "type": "types",
    "format": "formats",
    "engine": "engines",
    "language": "languages",
}
"""Query parameters that may be given several times, and what they ask for."""


class ZooRoutes:
    """The routes, over one controller's catalogue.

    What was looked at is kept: for a thousand models it takes a fifth of a second.
    """

    def __init__(self, controller: Controller, settings: Settings) -> None:
        self._controller = controller
        self._settings = settings
        self._zoo: Zoo | None = None
        self._looking = threading.Lock()

    def routes(self) -> list[Route]:
        """All routes."""
        return [Route("/v1/zoo", self.listing)]

    async def listing(self, request: Request) -> Response:
        """The models that have the words and what else is asked for, the best match first."""
        return await asyncio.to_thread(self._listing, request, self._controller.catalog)

    def _listing(self, request: Request, catalog: Catalog) -> Response:
        query = request.query_params
        zoo = self._look(catalog)
        wanted = {name: query.getlist(parameter) for parameter, name in FILTERS.items()}
        filters = Filters.checked(zoo.specs, query.get("size"), **wanted)
        total, free = memory()
        found = zoo.find(query.get("q", "").split(), filters, free)
        fitting = flag(request, "fits")
        return JSONResponse(
            {
                "memory_free_bytes": free,
                "memory_total_bytes": total,
                "disk_free_bytes": _disk_free(self._settings.home),
                "models": [
                    model.to_json() for model in found if model.fits is not None or not fitting
                ],
            }
        )

    def _look(self, catalog: Catalog) -> Zoo:
        with self._looking:
            if self._zoo is None or not self._zoo.is_current(catalog):
                self._zoo = Zoo(catalog, self._settings)
            return self._zoo


def _disk_free(home: Path) -> int:
    existing = next(folder for folder in (home, *home.parents) if folder.exists())
    return shutil.disk_usage(existing).free
