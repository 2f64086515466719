"""Management routes: launch, list, describe, terminate, plan, health, in Xinference's shapes."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any, Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

import paddock
from paddock.launcher.fleet.fleet import Fleet
from paddock.launcher.planning.plan import LaunchPlan
from paddock.launcher.replicas.attach_request import AttachRequest
from paddock.launcher.replicas.status import State
from paddock.registry.errors import BadValue, NotAllowed, NotLaunched
from paddock.server.access.keys import principal
from paddock.server.http.body import read_json, read_object
from paddock.server.http.json_response import JSONResponse
from paddock.server.http.operation import EVENTS, FLAG, TEXT, Operation, Query, RouteDoc
from paddock.server.http.query import WAIT, flag, whole
from paddock.server.http.shapes import Result, Shape, Size
from paddock.server.routes import xinference_shapes
from paddock.server.routes.launch_shapes import Launch
from paddock.server.routes.plan_shapes import Attach, Diagnosis

MAX_LINES = 10_000
LINES = Query(
    "lines", {"type": "integer", "minimum": 1, "maximum": MAX_LINES, "default": 100}, "How many"
)


class Health(Shape):
    """The gateway runs."""

    status: Literal["ok"]
    version: str


class Readiness(Shape):
    """`status` is ready, starting or draining; of one model its state."""

    status: str
    version: str | None = None
    model_uid: str | None = None
    models: dict[State, int] = Field(default={}, description="How many models are in each state")


class Version(Shape):
    """Our version in Xinference's shape."""

    version: str
    full_revisionid: str | None = Field(default=None, alias="full-revisionid")


class Launched(Shape):
    """The id of what was launched, and its plan."""

    model_uid: str
    plan: LaunchPlan


class Description(Shape):
    """A model that can answer."""

    model_type: str
    address: str
    accelerators: list[str]
    model_name: str
    model_lang: list[str]
    model_ability: list[str]
    model_description: str
    model_format: str
    model_size_in_billions: Size
    model_family: str
    quantization: str
    multimodal_projector: str | None
    model_hub: str
    revision: str | None
    context_length: int | None = Field(description="null: an attached endpoint does not say")
    max_tokens: int | None
    model_engine: str
    replica: int


class Listed(Description):
    """The same, as OpenAI lists it."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class Models(Shape):
    """The models that can answer."""

    object: Literal["list"]
    data: list[Listed]


class ReplicaChat(Shape):
    """How a replica was started to chat."""

    source: Literal["plan", "weights", "spec", "none"] = Field(
        description="Whose chat template counts: the launch's or registration's, the weights' own, "
        "the spec's format; none: chats are refused"
    )
    format: str | None = Field(description="Its prompt format, by Paddock's name of it")
    tools: bool | None = Field(description="Whether it shows tools; null: as the spec says")
    stop: list[str] = Field(description="Texts that end an answer")
    stop_token_ids: list[int] = Field(description="Tokens that do, beside the weights' own")
    reason: str = Field(description="Why the weights' own does not count, or there is none")


class InstanceReplica(Shape):
    """One running copy. `status` is Xinference's word, `model_state` ours."""

    replica_id: int
    replica_uid: str
    replica_model_uid: str
    worker_address: str
    status: str
    model_state: State
    created_ts: int
    error_message: str | None
    gpu_idx: list[int] | None
    endpoint: str | None
    pid: int | None
    log: str
    restarts: int = Field(description="How often it was started again")
    last_failure: Diagnosis | None = Field(description="Why, the last time")
    next_try_at: float | None = Field(description="When it is started next, since 1970")
    chat: ReplicaChat | None = Field(description="null: it is no chat's, or not known yet")


class Replica(InstanceReplica):
    """The same, as `replicas` lists it."""

    model_address: str | None
    accelerators: list[str]


class Instance(Shape):
    """A launched model in any state, with its plan and its diagnosis."""

    model_name: str
    model_uid: str
    model_version: str
    model_ability: list[str]
    replica: int
    status: str
    instance_created_ts: int
    n_worker: int
    replica_statuses: list[InstanceReplica]
    state: State
    restart: Literal["always", "on-failure", "never"]
    restart_tries: int | None = Field(
        description="Restarts without ten minutes of service between; null: any number"
    )
    silence_seconds: float | None = Field(description="null: the gateway's own limit")
    restarts: int = Field(description="Of all its replicas")
    plan: LaunchPlan
    diagnosis: Diagnosis | None


class FileProgress(Shape):
    """How far the download of one file is. What is not known is null."""

    name: str
    progress: float = Field(ge=0, le=1)
    came_bytes: int
    total_bytes: int
    bytes_per_second: float | None
    seconds_left: float | None


class ReplicaProgress(Shape):
    """How far one replica is, from 0 to 1."""

    replica_id: int
    replica_model_uid: str
    progress: float = Field(ge=0, le=1)
    stage: str
    info: str
    download_files: list[FileProgress]


class Progress(Shape):
    """How far a launch is: as far as the replica that is least along."""

    progress: float = Field(ge=0, le=1)
    stage: str
    replicas: list[ReplicaProgress]
    state: State
    starting: bool
    note: str
    came_bytes: int
    total_bytes: int | None
    bytes_per_second: float | None
    seconds_left: float | None
    download_files: list[FileProgress]
    diagnosis: Diagnosis | None


class Management:
    """The routes, over one fleet. `leave` is called once everything has been ended."""

    def __init__(self, fleet: Fleet, leave: asyncio.Event) -> None:
        self._fleet = fleet
        self._leave = leave
        self._draining = False

    def routes(self) -> list[Operation]:
        """All routes; those with a fixed end stand before the one that takes any model id."""
        return [
            Operation("GET", "/healthz", self.health, RouteDoc("watching", Health, scope="open")),
            Operation(
                "GET",
                "/readyz",
                self.readiness,
                RouteDoc(
                    "watching",
                    Readiness,
                    query=(
                        Query("model", TEXT, "Whether the model with this id can take requests"),
                    ),
                    scope="open",
                    fails_alike=True,
                ),
            ),
            Operation("GET", "/v1/cluster/version", self.version, RouteDoc("cluster", Version)),
            Operation("DELETE", "/v1/clusters", self.stop, RouteDoc("cluster", Result)),
            Operation("POST", "/v1/plan", self.plan, RouteDoc("models", LaunchPlan, Launch)),
            Operation("POST", "/v1/attached", self.attach, RouteDoc("models", Launched, Attach)),
            Operation(
                "GET", "/v1/models", self.listing, RouteDoc("models", Models, scope="inference")
            ),
            Operation(
                "POST",
                "/v1/models",
                self.launch,
                RouteDoc("models", Launched, Launch, query=(WAIT,)),
            ),
            Operation(
                "GET",
                "/v1/models/instances",
                self.instances,
                RouteDoc(
                    "models",
                    list[Instance],
                    query=(
                        Query("model_name", TEXT, "Only of this model"),
                        Query("model_uid", TEXT, "Only the one with this id"),
                    ),
                ),
            ),
            Operation(
                "GET", "/v1/models/{uid:path}/progress", self.progress, RouteDoc("models", Progress)
            ),
            Operation("POST", "/v1/models/{uid:path}/cancel", self.cancel, RouteDoc("models")),
            Operation(
                "GET",
                "/v1/models/{uid:path}/logs",
                self.logs,
                RouteDoc(
                    "models",
                    dict[str, list[str]],
                    query=(
                        LINES,
                        Query(
                            "follow",
                            FLAG | {"default": False},
                            "The whole log, and what is added to it",
                        ),
                    ),
                    media=EVENTS,
                ),
            ),
            Operation(
                "GET",
                "/v1/models/{uid:path}",
                self.describe,
                RouteDoc("models", Description, scope="inference"),
            ),
            Operation("DELETE", "/v1/models/{uid:path}", self.terminate, RouteDoc("models")),
        ]

    async def health(self, _: Request) -> Response:
        """The gateway runs, whatever its models do."""
        return JSONResponse({"status": "ok", "version": paddock.__version__})

    async def readiness(self, request: Request) -> Response:
        """Whether the gateway, or one model, can take requests: 200, or 503 with the state.

        How many models there are in each state is told, but not which: no key is asked for here.

        Raises:
            NotLaunched: no model has the id that was asked for.
        """
        uid = request.query_params.get("model")
        if uid:
            status = next((one for one in self._fleet.models() if one.uid == uid), None)
            if status is None:
                raise NotLaunched(uid)  # and no word of the ids that are near
            ready, state = status.can_serve, str(status.state)
            body: dict[str, Any] = {"status": state, "model_uid": uid}
        else:
            state = "starting" if not self._fleet.adopted else "ready"
            state = "draining" if self._draining else state
            ready = state == "ready"
            counted = Counter(model.state for model in self._fleet.models())
            body = {"status": state, "version": paddock.__version__, "models": counted}
        return JSONResponse(body, 200 if ready else 503)

    async def version(self, _: Request) -> Response:
        """Our version, in Xinference's shape."""
        return JSONResponse({"version": paddock.__version__, "full-revisionid": None})

    async def plan(self, request: Request) -> Response:
        """What a launch would do."""
        plan = await self._fleet.plan(xinference_shapes.launch_request(await read_json(request)))
        return JSONResponse(plan.to_json())

    async def launch(self, request: Request) -> Response:
        """Launches; waits until it is ready unless `wait_ready=false`."""
        waits = xinference_shapes.waits(request)
        status = await self._fleet.launch(
            xinference_shapes.launch_request(await read_json(request))
        )
        if waits:
            status = await self._fleet.wait(status.uid)
        return JSONResponse({"model_uid": status.uid, "plan": status.plan.to_json()})

    async def attach(self, request: Request) -> Response:
        """Puts a model that somebody else serves behind this gateway.

        Raises:
            BadValue: a field that is unknown, or a value that it does not take.
        """
        body = await read_object(request)
        if not isinstance(body.get("endpoint"), str):
            raise BadValue("endpoint", body.get("endpoint"), "is needed: a URL, as text")
        status = await self._fleet.attach(AttachRequest.parse(body))
        status = await self._fleet.wait(status.uid)
        return JSONResponse({"model_uid": status.uid, "plan": status.plan.to_json()})

    async def listing(self, request: Request) -> Response:
        """The models that can answer, and that the caller may use."""
        caller = principal(request.scope)
        serving = [
            status
            for status in self._fleet.models()
            if status.can_serve and caller.may_use(status.uid)
        ]
        return JSONResponse(
            {"object": "list", "data": [xinference_shapes.listed(s) for s in serving]}
        )

    async def instances(self, request: Request) -> Response:
        """Every launched model, in any state."""
        await self._fleet.until_taken_up()
        name, uid = (request.query_params.get(key) for key in ("model_name", "model_uid"))
        found = [
            xinference_shapes.instance(status)
            for status in self._fleet.models()
            if name in {None, "", status.plan.model} and uid in {None, "", status.uid}
        ]
        return JSONResponse(found)

    async def describe(self, request: Request) -> Response:
        """One model that can answer.

        Raises:
            NotAllowed: the key is for other models.
        """
        uid = request.path_params["uid"]
        if not principal(request.scope).may_use(uid):
            raise NotAllowed(f"model '{uid}'", "the key is for other models")
        return JSONResponse(xinference_shapes.listed(self._fleet.ready(uid)))

    async def progress(self, request: Request) -> Response:
        """How far a launch is."""
        return JSONResponse(xinference_shapes.progress(self._fleet.get(request.path_params["uid"])))

    async def logs(self, request: Request) -> Response:
        """The last lines of each replica's engine."""
        uid = request.path_params["uid"]
        lines = whole(request, "lines", 100, 1, MAX_LINES)
        if flag(request, "follow"):
            self._fleet.get(uid)  # an unknown id is a 404, not a stream
            if request.method == "HEAD":
                return Response(media_type="text/event-stream")
            return StreamingResponse(self._followed(uid), media_type="text/event-stream")
        return JSONResponse(await self._fleet.tail(uid, lines))

    async def _followed(self, uid: str) -> AsyncIterator[bytes]:
        async for replica_id, line in self._fleet.follow(uid):
            yield f"data: {json.dumps({'replica': replica_id, 'line': line})}\n\n".encode()

    async def terminate(self, request: Request) -> Response:
        """Ends a model; answers when its processes are gone."""
        await self._fleet.terminate(request.path_params["uid"])
        return JSONResponse(None)

    async def cancel(self, request: Request) -> Response:
        """Calls off a launch; a model that serves is not ended by it.

        Raises:
            BadValue: it is not on its way any more.
        """
        uid = request.path_params["uid"]
        status = self._fleet.get(uid)
        if (status.can_serve and not status.starting) or (status.recovering and status.restarts):
            why = f"is launched already; to end it: paddock terminate --model-uid {uid}"
            raise BadValue("model id", uid, why)
        await self._fleet.terminate(uid)
        return JSONResponse(None)

    async def stop(self, _: Request) -> Response:
        """Ends every model, our Ray and the gateway."""
        self._draining = True
        await self._fleet.shutdown()
        self._leave.set()
        return JSONResponse({"result": True})
