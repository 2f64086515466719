"""`GET /v1/events` of a real gateway: what is told, in which order, and how to go on."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import pytest
from starlette.requests import Request
from starlette.responses import StreamingResponse

from paddock.client import Client
from paddock.launcher.fleet.events import PENDING, Bus
from paddock.launcher.fleet.fleet import Fleet
from paddock.server.routes.events import EventRoutes
from tests.conftest import Paddock
from tests.launcher.fleet.test_events import shown
from tests.server.http.test_errors import error, raw

Event = dict[str, Any]


def launch(client: Client, uid: str, **options: Any) -> None:
    client.launch(model_name="tiny-mixtral", model_engine="echo", model_uid=uid, **options)


def until(events: Iterator[Event], kind: str, **data: Any) -> list[Event]:
    """Events up to and with the first of this kind whose data has these values."""
    found = []
    for event in events:
        found.append(event)
        if event["event"] == kind and data.items() <= event["data"].items():
            return found
    raise AssertionError(f"no {kind} {data} in {found}")


def states(events: list[Event], kind: str) -> list[str]:
    return [event["data"]["state"] for event in events if event["event"] == kind]


def test_stream_begins_with_all_models_and_tells_a_models_life(client: Client, tiny: str) -> None:
    """A snapshot, then each state of a launch, then its end."""
    events = client.events()
    first = next(events)
    assert first["event"] == "snapshot"
    known = {model["model_uid"]: model for model in first["data"]["models"]}
    assert known[tiny]["state"] == "ready"
    assert known[tiny]["replicas"][0]["replica_uid"] == f"{tiny}-rep0"
    mine = client.events(model="told")
    assert next(mine)["data"] == {"models": []}
    launch(client, "told")
    seen = until(mine, "model", state="ready")
    assert states(seen, "model") == ["pending", "starting", "ready"]
    assert states(seen, "replica") == ["pending", "starting", "ready"]
    client.terminate("told")
    seen = until(mine, "model", gone=True)
    assert states(seen, "model")[0] == "stopping"
    assert until(events, "model", model_uid="told", gone=True)
    events.close()
    mine.close()


def test_filter_leaves_out_other_models_and_types(client: Client) -> None:
    """`model` and `types` say what is wanted, and nothing else comes."""
    events = client.events(model="wanted", types=["model"])
    assert next(events)["event"] == "snapshot"
    launch(client, "unwanted")
    launch(client, "wanted")
    client.terminate("unwanted")
    client.terminate("wanted")
    seen = until(events, "model", gone=True)
    assert {event["data"]["model_uid"] for event in seen} == {"wanted"}
    assert {event["event"] for event in seen} == {"model"}
    events.close()


def test_stream_goes_on_after_the_last_event_id(client: Client) -> None:
    """Who comes back with the last id misses nothing, gets nothing twice, and no snapshot."""
    events = client.events(model="again")
    next(events)
    launch(client, "again")
    seen = until(events, "model", state="ready")
    events.close()
    client.terminate("again")
    rest = client.events(model="again", after=seen[0]["id"])
    both = until(rest, "model", gone=True)
    assert both[: len(seen) - 1] == seen[1:]
    ids = [event["id"] for event in [seen[0], *both]]
    numbers = [int(one.partition("-")[2]) for one in ids]
    assert numbers == sorted(set(numbers))
    rest.close()


@pytest.mark.parametrize("after", ["0-1", "nonsense", "-", "é", "1" * 500])
def test_id_of_another_gateway_begins_anew(client: Client, after: str) -> None:
    """An id that this gateway did not give, or does not know any more, gets the snapshot."""
    events = client.events(after=after)
    assert next(events)["event"] == "snapshot"
    events.close()


def test_logs_are_told_when_asked_for(client: Client) -> None:
    """With `logs` an engine's lines come too, of a model that is launched later as well."""
    events = client.events(model="talks", logs=True)
    next(events)
    launch(client, "talks", say="hear ye")
    (line,) = [e["data"] for e in until(events, "log", line="hear ye") if e["event"] == "log"][-1:]
    assert line == {"model_uid": "talks", "replica_uid": "talks-rep0", "line": "hear ye"}
    later = client.events(model="talks", types=["log"])
    assert next(later)["event"] == "snapshot"
    client.terminate("talks")
    events.close()
    later.close()


def test_failure_is_told_with_its_diagnosis(client: Client) -> None:
    """An engine that ends tells its cause in the event of its replica and of the model."""
    events = client.events(model="breaks")
    next(events)
    launch(client, "breaks", wait=False, exit_code=3)
    failed = until(events, "model", state="failed")[-2:]
    assert [event["data"]["diagnosis"]["cause"] for event in failed] == ["engine_exited"] * 2
    client.terminate("breaks")
    events.close()


def test_stream_has_the_headers_of_one(client: Client) -> None:
    """It is an event stream that no proxy may keep back; HEAD does not begin one."""
    status, headers, body = raw(client, "HEAD", "/v1/events")
    assert (status, body) == (200, b"")
    assert headers["content-type"].startswith("text/event-stream")
    assert headers["cache-control"] == "no-cache"


@pytest.mark.parametrize(("query", "name"), [("types=modle", "types"), ("logs=perhaps", "logs")])
def test_wrong_filter_is_refused(client: Client, query: str, name: str) -> None:
    """A type that does not exist is a 400 with the near one, and not a silent stream."""
    answer = raw(client, "GET", f"/v1/events?{query}")
    assert answer[0] == 400
    assert name in error(answer)["message"]


class Quiet:
    """Stands for a fleet without models, on whose bus a test tells what it likes."""

    def __init__(self) -> None:
        self.bus = Bus()

    def models(self) -> tuple[()]:
        return ()


async def frames(fleet: Quiet) -> AsyncIterator[bytes]:
    """The frames of a stream that begins now."""
    scope = {"type": "http", "method": "GET", "headers": [], "query_string": b""}
    answer = await EventRoutes(cast(Fleet, fleet)).events(Request(scope))
    assert isinstance(answer, StreamingResponse)
    async for frame in answer.body_iterator:
        yield bytes(cast(bytes, frame))


async def test_silence_is_broken_by_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing happens a comment comes now and then, so that no proxy closes the stream."""
    monkeypatch.setattr("paddock.server.routes.events.KEEP_ALIVE", 0.01)
    stream = frames(Quiet())
    assert b"event: snapshot" in await anext(stream)
    assert await anext(stream) == b": keep-alive\n\n"
    assert await anext(stream) == b": keep-alive\n\n"


async def test_stream_of_a_slow_reader_ends_and_can_go_on() -> None:
    """Who does not read gets what was kept for it, then the end; its last id leads to the rest."""
    quiet = Quiet()
    stream = frames(quiet)
    await anext(stream)
    shown(quiet.bus, PENDING + 50)
    read = [frame async for frame in stream]
    assert len(read) == PENDING
    last = read[-1].partition(b"\n")[0].removeprefix(b"id: ").decode()
    number = int(last.partition("-")[2])
    missed = quiet.bus.since(number)
    assert missed is not None
    assert [happened.number for happened in missed] == list(range(PENDING + 1, PENDING + 51))


def test_gateway_that_ends_ends_its_streams(paddock: Paddock) -> None:
    """`paddock stop` does not wait for those who listen: their streams end."""
    paddock.ok("list")
    events = paddock.client().events()
    assert next(events)["event"] == "snapshot"
    paddock.ok("stop")
    assert list(events) == []


def test_readiness_is_apart_from_health(client: Client, tiny: str) -> None:
    """`/readyz` counts models by state; of one model it says whether it can take requests."""
    launch(client, "slow", wait=False, load_seconds=600)
    status, _, body = raw(client, "GET", "/readyz")
    found = json.loads(body)
    assert (status, found["status"]) == (200, "ready")
    assert found["models"]["ready"] >= 1
    assert sum(n for state, n in found["models"].items() if state != "ready") >= 1
    status, _, body = raw(client, "GET", f"/readyz?model={tiny}")
    assert (status, json.loads(body)) == (200, {"status": "ready", "model_uid": tiny})
    status, _, body = raw(client, "GET", "/readyz?model=slow")
    assert status == 503
    assert json.loads(body)["status"] in {"pending", "starting"}
    assert raw(client, "GET", "/readyz?model=tny")[0] == 404
    client.cancel("slow")
    assert raw(client, "GET", "/healthz")[0] == 200
