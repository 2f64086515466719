"""What was measured on this machine: listed, exported, imported and forgotten."""

from __future__ import annotations

import asyncio
from typing import Any

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from paddock.launcher.truth.store import TruthStore
from paddock.registry.errors import BadValue
from paddock.server.http.body import read_object
from paddock.server.http.json_response import JSONResponse
from paddock.server.http.operation import TEXT, Operation, Query, RouteDoc
from paddock.server.http.shapes import Shape


class Subject(Shape):
    """What was measured: an engine with weights, options, context and slots."""

    engine: str
    engine_version: str
    weights: str
    options: dict[str, Any]
    context_length: int
    slots: int
    device: str


class Measurement(Shape):
    """What a replica took. Speeds are in tokens/s of one request; 0: not seen."""

    subject: Subject
    at: float = Field(description="When it was seen last, in seconds since 1970")
    weights_bytes: int
    start_bytes: int
    peak_bytes: int
    longest_prompt: int
    load_seconds: float
    prompt_speed: float
    speed: float
    machine: str = Field(description="Where, if it was not on the gateway's machine")


class Truth(Shape):
    """All measurements, as `POST` takes them elsewhere."""

    version: int
    machine: str
    measurements: list[Measurement]


class TruthTaken(Shape):
    """How many measurements were taken."""

    taken: int


class TruthForgotten(Shape):
    """How many measurements were forgotten."""

    forgotten: int


class TruthRoutes:
    """The routes, over one store."""

    def __init__(self, store: TruthStore) -> None:
        self._store = store

    def routes(self) -> list[Operation]:
        """All routes."""
        label = Query("label", TEXT, "The name for measurements of another machine")
        words = Query("words", TEXT, "Of weights or engines with these words; `all`: of all")
        return [
            Operation("GET", "/v1/truth", self.export, RouteDoc("truth", Truth)),
            Operation(
                "POST", "/v1/truth", self.take, RouteDoc("truth", TruthTaken, Truth, (label,))
            ),
            Operation(
                "DELETE",
                "/v1/truth",
                self.forget,
                RouteDoc("truth", TruthForgotten, None, (words,)),
            ),
        ]

    async def export(self, _: Request) -> Response:
        """What was measured on this machine, and taken from others."""
        return JSONResponse(await asyncio.to_thread(self._store.export))

    async def take(self, request: Request) -> Response:
        """Takes what another gateway has measured.

        Raises:
            BadValue: as `TruthStore.take`.
        """
        document = await read_object(request)
        label = request.query_params.get("label", "")
        return JSONResponse({"taken": await asyncio.to_thread(self._store.take, document, label)})

    async def forget(self, request: Request) -> Response:
        """Forgets measurements.

        Raises:
            BadValue: it is not said which.
        """
        words = request.query_params.get("words", "").casefold().split()
        if not words:
            raise BadValue("words", "", "say which measurements: words of the weights, or `all`")
        count = await asyncio.to_thread(
            self._store.forget,
            lambda one: (
                words == ["all"]
                or all(
                    word in f"{one.subject.weights} {one.subject.engine}".casefold()
                    for word in words
                )
            ),
        )
        return JSONResponse({"forgotten": count})
