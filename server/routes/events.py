"""`GET /v1/events`: what happens to models, as server-sent events."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from paddock.launcher.fleet.events import Happened, TooSlow
from paddock.launcher.fleet.fleet import Fleet
from paddock.launcher.replicas.status import State
from paddock.registry.errors import UnknownName
from paddock.registry.json_codec import encode
from paddock.server.http.operation import EVENTS, FLAG, TEXT, Operation, Query, RouteDoc
from paddock.server.http.query import flag
from paddock.server.http.shapes import Shape
from paddock.server.routes import xinference_shapes
from paddock.server.routes.plan_shapes import Diagnosis

log = logging.getLogger(__name__)

TYPES = ("model", "replica", "progress", "log")
TYPE_LIST = {"type": "string", "pattern": f"^({'|'.join(TYPES)})(,({'|'.join(TYPES)}))*$"}
KEEP_ALIVE = 15.0
"""After so many seconds without an event a comment goes out: proxies close what is silent."""
LINES = 200
"""How many log lines may wait for one reader; engines' logs are files, so that none is lost."""
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
_MEDIA = "text/event-stream"


class ReplicaEvent(Shape):
    """`event: replica` and `event: progress`."""

    model_uid: str
    replica_uid: str
    state: State
    note: str
    restarts: int
    next_try_at: float | None
    last_failure: Diagnosis | None
    progress: float
    came_bytes: int
    total_bytes: int | None
    bytes_per_second: float | None
    seconds_left: float | None
    diagnosis: Diagnosis | None
    gone: bool = False
    at: float | None = Field(default=None, description="Seconds since 1970; none in a snapshot")


class ModelEvent(Shape):
    """`event: model`. `gone`: it was terminated, and `state` is its last."""

    model_uid: str
    state: State
    model_name: str
    model_format: str
    quantization: str
    model_engine: str
    replica: int
    diagnosis: Diagnosis | None
    gone: bool = False
    at: float | None = Field(default=None, description="Seconds since 1970; none in a snapshot")


class SnapshotModel(ModelEvent):
    """A model of a snapshot."""

    replicas: list[ReplicaEvent]


class Snapshot(Shape):
    """`event: snapshot`, the first of a stream."""

    models: list[SnapshotModel]


class LogEvent(Shape):
    """`event: log`."""

    model_uid: str
    replica_uid: str
    line: str


EVENT_SHAPES = (
    ("snapshot", Snapshot),
    ("model", ModelEvent),
    ("replica", ReplicaEvent),
    ("progress", ReplicaEvent),
    ("log", LogEvent),
)


class EventRoutes:
    """The route, over one fleet."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def routes(self) -> list[Operation]:
        """The one route."""
        return [
            Operation(
                "GET",
                "/v1/events",
                self.events,
                RouteDoc(
                    "watching",
                    query=(
                        Query("model", TEXT, "Only of the model with this id"),
                        Query(
                            "types",
                            TYPE_LIST,
                            f"Only these, with commas between: {', '.join(TYPES)}",
                        ),
                        Query("logs", FLAG | {"default": False}, "Engines' log lines too"),
                        Query(
                            "last_event_id",
                            TEXT,
                            "As the header Last-Event-ID: go on after this event",
                        ),
                    ),
                    media=EVENTS,
                    events=EVENT_SHAPES,
                ),
            )
        ]

    async def events(self, request: Request) -> Response:
        """What happens from now on, or after `Last-Event-ID` where that is still known.

        A stream begins with a `snapshot` where it does not go on from an event. It ends with the
        gateway, or when the client reads too slowly; the last id then tells where to go on.
        """
        wanted = _Wanted.of(request)
        if request.method == "HEAD":
            return Response(media_type=_MEDIA, headers=HEADERS)
        stream = _Stream(self._fleet, wanted)
        return StreamingResponse(stream.frames(), media_type=_MEDIA, headers=HEADERS)


@dataclass(frozen=True)
class _Wanted:
    """What a client asked for: `uid` is empty for all models, `after` for a snapshot."""

    uid: str
    types: frozenset[str]
    after: str

    @classmethod
    def of(cls, request: Request) -> _Wanted:
        """Reads it. Raises `UnknownName` for types, `BadValue` for `logs`."""
        query = request.query_params
        logs = flag(request, "logs")
        names = [name.strip() for name in query.get("types", "").split(",") if name.strip()]
        for name in names:
            if name not in TYPES:
                raise UnknownName.among("types", name, TYPES)
        types = set(names or TYPES[:3]) | ({"log"} if logs else set())
        after = request.headers.get("last-event-id", "") or query.get("last_event_id", "")
        return cls(query.get("model", ""), frozenset(types), after)

    def takes(self, happened: Happened) -> bool:
        change = happened.change
        return change.kind in self.types and self.uid in {"", change.model.uid}


class _Stream:
    """One client's stream."""

    def __init__(self, fleet: Fleet, wanted: _Wanted) -> None:
        self._fleet = fleet
        self._bus = fleet.bus
        self._wanted = wanted
        self._something = asyncio.Event()
        self._lines: deque[dict[str, Any]] = deque()
        self._room = asyncio.Semaphore(LINES)
        self._followed: dict[str, asyncio.Task[None]] = {}

    async def frames(self) -> AsyncIterator[bytes]:
        """The stream's bytes. The client's leaving ends it."""
        listener = self._bus.listen(self._something.set)
        last = self._bus.number
        try:
            for frame in self._beginning():
                yield frame
            for status in self._fleet.models():
                self._follow(status.uid, whole=False)
            while True:
                self._something.clear()
                while (happened := listener.take()) is not None:
                    last = happened.number
                    if not happened.change.gone:
                        self._follow(happened.change.model.uid, whole=True)
                    if self._wanted.takes(happened):
                        yield self._frame(happened)
                while self._lines:
                    yield self._pack(last, "log", self._lines.popleft())
                    self._room.release()
                if self._bus.closed:
                    return
                try:
                    async with asyncio.timeout(KEEP_ALIVE):
                        await self._something.wait()
                except TimeoutError:
                    yield b": keep-alive\n\n"
        except TooSlow:
            log.info("a stream of events ends: its client reads too slowly")
        finally:
            self._bus.leave(listener)
            for task in self._followed.values():
                task.cancel()

    def _beginning(self) -> list[bytes]:
        """What the client has missed, or how everything is."""
        epoch, _, number = self._wanted.after.partition("-")
        if epoch == self._bus.epoch and number.isascii() and number.isdigit():
            missed = self._bus.since(int(number[:18]))
            if missed is not None:
                return [self._frame(one) for one in missed if self._wanted.takes(one)]
        models = self._fleet.models()
        shown = [status for status in models if self._wanted.uid in {"", status.uid}]
        return [self._pack(self._bus.number, "snapshot", xinference_shapes.snapshot(shown))]

    def _frame(self, happened: Happened) -> bytes:
        return self._pack(happened.number, happened.change.kind, xinference_shapes.event(happened))

    def _pack(self, number: int, kind: str, data: dict[str, Any]) -> bytes:
        text = encode(data).decode()
        return f"id: {self._bus.epoch}-{number}\nevent: {kind}\ndata: {text}\n\n".encode()

    def _follow(self, uid: str, *, whole: bool) -> None:
        """Begins to pass on a model's log lines, if they are wanted."""
        known = self._followed.get(uid)
        if (
            "log" in self._wanted.types
            and self._wanted.uid in {"", uid}
            and (known is None or known.done())
        ):
            self._followed[uid] = asyncio.create_task(self._pass_lines(uid, whole))

    async def _pass_lines(self, uid: str, whole: bool) -> None:
        if not any(status.uid == uid for status in self._fleet.models()):
            return  # it went while its event waited
        async for replica_id, line in self._fleet.follow(uid, whole=whole):
            await self._room.acquire()
            self._lines.append({"model_uid": uid, "replica_uid": replica_id, "line": line})
            self._something.set()
