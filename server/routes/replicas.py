"""Replicas of a launched model at run time: list, add, remove; and what happened to the model."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from paddock.launcher.fleet.fleet import Fleet
from paddock.launcher.fleet.status import ModelStatus
from paddock.registry.errors import BadValue, UnknownName
from paddock.registry.launch_fields import fields_by_key
from paddock.server.http.body import read_object
from paddock.server.http.json_response import JSONResponse
from paddock.server.http.operation import Operation, RouteDoc
from paddock.server.http.query import WAIT
from paddock.server.http.shapes import Message, Shape
from paddock.server.proxy.forward import Inference
from paddock.server.routes import xinference_shapes
from paddock.server.routes.launch_shapes import AddReplicas
from paddock.server.routes.management import Replica

DRAIN_SECONDS = 30.0
"""How long a replica that is removed may take to end its requests."""
BLOCK_SECONDS = 30.0
OPTIONS = tuple(AddReplicas.model_fields)
_LAUNCH_FIELDS = fields_by_key()


class Added(Shape):
    """One replica that was added, or how many and which."""

    replica_id: int | None = None
    replica_model_uid: str | None = None
    worker_address: str | None = None
    replica: int | None = None
    replicas: list[dict[str, Any]] | None = None


class Remaining(Shape):
    """How many replicas are left."""

    remaining_replicas: int


class Abort(Shape):
    """For how many seconds new requests of this id are refused too."""

    block_duration: float = Field(default=30.0, ge=0, le=3600)


class PastEvent(Shape):
    """Something that happened to a model."""

    event_type: Literal["INFO", "ERROR"]
    event_ts: int
    event_content: str


class ReplicaRoutes:
    """The routes, over one fleet and the requests that its models serve."""

    def __init__(self, fleet: Fleet, inference: Inference) -> None:
        self._fleet = fleet
        self._inference = inference

    def routes(self) -> list[Operation]:
        """All routes; they stand before the ones that take any model id."""
        return [
            Operation(
                "GET",
                "/v1/models/{uid:path}/replicas",
                self.listing,
                RouteDoc("models", list[Replica]),
            ),
            Operation(
                "POST",
                "/v1/models/{uid:path}/replicas",
                self.add,
                RouteDoc("models", Added, AddReplicas, query=(WAIT,)),
            ),
            Operation(
                "DELETE",
                "/v1/models/{uid:path}/replicas/{number}",
                self.remove,
                RouteDoc("models", Remaining),
            ),
            Operation(
                "GET",
                "/v1/models/{uid:path}/events",
                self.events,
                RouteDoc("models", list[PastEvent]),
            ),
            Operation(
                "POST",
                "/v1/models/{uid:path}/requests/{request_id}/abort",
                self.abort,
                RouteDoc("models", Message, Abort),
            ),
        ]

    async def listing(self, request: Request) -> Response:
        """Every replica of a model, in any state."""
        return JSONResponse(xinference_shapes.replicas(self._fleet.get(request.path_params["uid"])))

    async def add(self, request: Request) -> Response:
        """Adds replicas; waits until they are ready unless `wait_ready=false`."""
        uid = request.path_params["uid"]
        waits = xinference_shapes.waits(request)
        status = self._fleet.get(uid)
        count = _count(await read_object(request), status)
        added = await self._fleet.add_replicas(uid, count)
        if waits:
            status = await self._fleet.wait_replicas(uid, added)
        rows = [xinference_shapes.added(status, replica) for replica in added]
        one = len(rows) == 1
        return JSONResponse(rows[0] if one else {"replica": len(rows), "replicas": rows})

    async def remove(self, request: Request) -> Response:
        """Ends one replica once its requests are done; answers when its processes are gone."""
        uid, number = (request.path_params[key] for key in ("uid", "number"))
        left = await self._fleet.remove_replica(uid, number, DRAIN_SECONDS)
        return JSONResponse({"remaining_replicas": left})

    async def events(self, request: Request) -> Response:
        """The last events of a model, oldest first."""
        found = self._fleet.events(request.path_params["uid"])
        return JSONResponse(
            [
                {
                    "event_type": "ERROR" if event.is_error else "INFO",
                    "event_ts": int(event.at),
                    "event_content": event.text,
                }
                for event in found
            ]
        )

    async def abort(self, request: Request) -> Response:
        """Ends the requests of this `request_id`, and for `block_duration` seconds new ones.

        Raises:
            BadValue: a time that is not a number of seconds.
        """
        uid, request_id = (request.path_params[key] for key in ("uid", "request_id"))
        self._fleet.get(uid)
        block = (await read_object(request)).get("block_duration", BLOCK_SECONDS)
        if isinstance(block, bool) or not isinstance(block, int | float) or not 0 <= block <= 3600:
            raise BadValue("block_duration", block, "must be seconds from 0 to 3600")
        was_running = self._inference.abort(uid, request_id, float(block))
        return JSONResponse({"msg": "DONE" if was_running else "NOT_FOUND"})


def _count(body: dict[str, Any], status: ModelStatus) -> int:
    """How many replicas to add. Raises for whatever would make them differ from the others."""
    for name in body:
        if name not in OPTIONS:
            raise UnknownName.among("replica option", name, OPTIONS)
    count = body.get("replica")
    count = 1 if count is None else int(_LAUNCH_FIELDS["replica"].check(count))
    if body.get("replica_config") not in (None, {}, []):
        why = "Paddock chooses the node of each replica"
        raise BadValue("replica_config", body["replica_config"], why)
    engine = body.get("model_engine")
    if engine is not None and str(engine).casefold() != status.plan.engine.casefold():
        why = f"all replicas of a model run on one engine, here {status.plan.engine}"
        raise BadValue("model_engine", engine, why)
    gpus = status.plan.memory.gpus
    if body.get("n_gpu") not in (None, "auto", gpus):
        why = f"each replica of the model has as many GPUs as the others, here {gpus}"
        raise BadValue("n_gpu", body["n_gpu"], why)
    return count
