"""Pulls: weights brought to the gateway's machine without a launch."""

from __future__ import annotations

from typing import Any, Literal

from starlette.requests import Request
from starlette.responses import Response

from paddock.launcher.fleet.fleet import Fleet
from paddock.launcher.jobs.pulls import PullJobs, PullStatus
from paddock.registry.errors import BadValue
from paddock.server.http.body import read_json
from paddock.server.http.json_response import JSONResponse
from paddock.server.http.operation import Operation, RouteDoc
from paddock.server.http.shapes import Shape, Size
from paddock.server.routes import xinference_shapes
from paddock.server.routes.launch_shapes import Launch
from paddock.server.routes.management import FileProgress
from paddock.server.routes.plan_shapes import Diagnosis


class Pull(Shape):
    """A download without a launch. `path` is set when it is done."""

    id: str
    model_name: str
    model_format: str
    quantization: str
    model_size_in_billions: Size
    model_hub: str
    source: str
    state: Literal["downloading", "done", "failed", "cancelled"]
    note: str
    came_bytes: int
    total_bytes: int | None
    bytes_per_second: float | None
    seconds_left: float | None
    download_files: list[FileProgress]
    path: str | None
    diagnosis: Diagnosis | None


class Pulls(Shape):
    """The pulls that this gateway knows, oldest first."""

    data: list[Pull]


class PullRoutes:
    """The routes, over one fleet's catalogue."""

    def __init__(self, fleet: Fleet, pulls: PullJobs) -> None:
        self._fleet = fleet
        self._pulls = pulls

    def routes(self) -> list[Operation]:
        """All routes."""
        return [
            Operation("GET", "/v1/pulls", self.listing, RouteDoc("pulls", Pulls)),
            Operation("POST", "/v1/pulls", self.start, RouteDoc("pulls", Pull, Launch, status=201)),
            Operation("GET", "/v1/pulls/{id}", self.show, RouteDoc("pulls", Pull)),
            Operation("DELETE", "/v1/pulls/{id}", self.cancel, RouteDoc("pulls", Pull)),
        ]

    async def listing(self, _: Request) -> Response:
        """Every pull that this gateway knows."""
        return JSONResponse({"data": [row(status) for status in self._pulls.all()]})

    async def start(self, request: Request) -> Response:
        """Begins a download and answers at once; what comes already is not begun again.

        Raises:
            BadValue: a path or a node, which a pull does not take.
        """
        asked = xinference_shapes.launch_request(await read_json(request))
        if asked.model_path is not None or asked.node is not None:
            name = "model_path" if asked.model_path is not None else "node"
            why = "a pull brings weights from a hub to the gateway's own machine"
            raise BadValue(name, asked.model_path or asked.node, why)
        variant, weights = await self._fleet.plan_pull(asked)
        return JSONResponse(row(self._pulls.start(asked.model_name, variant, weights)), 201)

    async def show(self, request: Request) -> Response:
        """One pull, and how far it is."""
        return JSONResponse(row(self._pulls.get(request.path_params["id"])))

    async def cancel(self, request: Request) -> Response:
        """Calls a pull off; answers when nothing of it runs. What came is kept."""
        return JSONResponse(row(await self._pulls.cancel(request.path_params["id"])))


def row(status: PullStatus) -> dict[str, Any]:
    """A pull as JSON."""
    variant, weights = status.variant, status.weights
    return {
        "id": status.id,
        "model_name": variant.model,
        "model_format": variant.format,
        "quantization": variant.quantization,
        "model_size_in_billions": xinference_shapes.billions(variant.size),
        "model_hub": weights.hub,
        "source": weights.id,
        "state": status.state,
        "note": status.note,
        "came_bytes": status.came_bytes,
        "total_bytes": status.total_bytes,
        "bytes_per_second": status.bytes_per_second,
        "seconds_left": status.seconds_left,
        "download_files": xinference_shapes.download_files(status.files),
        "path": status.path,
        "diagnosis": status.diagnosis,
    }
