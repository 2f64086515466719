"""Management routes: launch, list, describe, terminate, plan, health, in Xinference's shapes."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

import paddock
from paddock.launcher.fleet.fleet import Fleet
from paddock.launcher.replicas.attached import AttachRequest
from paddock.registry.errors import BadValue, NotAllowed, NotLaunched
from paddock.server.access.keys import principal
from paddock.server.http.body import read_json, read_object
from paddock.server.http.query import flag, whole
from paddock.server.routes import xinference_shapes

MAX_LINES = 10_000


class Management:
    """The routes, over one fleet. `leave` is called once everything has been ended."""

    def __init__(self, fleet: Fleet, leave: asyncio.Event) -> None:
        self._fleet = fleet
        self._leave = leave
        self._draining = False

    def routes(self) -> list[Route]:
        """All routes; those with a fixed end stand before the one that takes any model id."""
        return [
            Route("/healthz", self.health),
            Route("/readyz", self.readiness),
            Route("/v1/cluster/version", self.version),
            Route("/v1/clusters", self.stop, methods=["DELETE"]),
            Route("/v1/plan", self.plan, methods=["POST"]),
            Route("/v1/attached", self.attach, methods=["POST"]),
            Route("/v1/models", self.listing),
            Route("/v1/models", self.launch, methods=["POST"]),
            Route("/v1/models/instances", self.instances),
            Route("/v1/models/{uid:path}/progress", self.progress),
            Route("/v1/models/{uid:path}/cancel", self.cancel, methods=["POST"]),
            Route("/v1/models/{uid:path}/logs", self.logs),
            Route("/v1/models/{uid:path}", self.describe),
            Route("/v1/models/{uid:path}", self.terminate, methods=["DELETE"]),
        ]

    async def health(self, _: Request) -> Response:
        """The gateway runs, whatever its models do."""
        return JSONResponse({"status": "ok", "version": paddock.__version__})

    async def readiness(self, request: Request) -> Response:
        """Whether the gateway, or one model, can take requests: 200, or 503 with the state.

        How many models there are in each state is told, but not which: no key is asked for here.
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
        """Puts a model that somebody else serves behind this gateway."""
        given = await read_object(request)
        if not isinstance(given.get("endpoint"), str):
            raise BadValue("endpoint", given.get("endpoint"), "is needed: a URL, as text")
        status = await self._fleet.attach(AttachRequest.parse(given))
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
        """One model that can answer."""
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
        """Calls off a launch; a model that serves is not ended by it."""
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
