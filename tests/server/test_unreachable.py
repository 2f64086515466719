"""A model whose replica is not heard of, as while the bridge is dead: it serves, and is shown."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.types import ASGIApp

from paddock.launcher.fleet.fleet import Fleet
from paddock.launcher.fleet.status import ModelStatus
from paddock.launcher.planning.plan import LaunchRequest
from paddock.launcher.planning.resolve import resolve
from paddock.launcher.replicas.status import ReplicaStatus
from paddock.registry.catalog import Catalog
from tests.server.asgi import call, gateway, head, send
from tests.server.routes.test_xinference_cluster import HOSTS

UNREACHABLE = ReplicaStatus("m-rep0", state="unreachable", endpoint="http://127.0.0.1:1")
LOADING = ReplicaStatus("m-rep0", state="unreachable")


def status(*replicas: ReplicaStatus) -> ModelStatus:
    """A launched model with these replicas."""
    asked = {"model_name": "mixtral-v0.1", "format": "gptq", "model_engine": "vLLM", "node": "far"}
    plan = resolve(LaunchRequest.parse(**asked), Catalog.load(), HOSTS)
    return ModelStatus("m", plan, 0.0, replicas)


class Shown:
    """A gateway over one model, and the ids that it was told to terminate."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.model = status(UNREACHABLE)
        self.terminated: list[str] = []

    async def get(self, path: str) -> tuple[int, str]:
        """Status and body of a GET."""
        path, _, query = path.partition("?")
        answer = await send(self.app, head("GET", path, {}, query))
        return answer.status, answer.body.decode()

    async def cancel(self) -> int:
        """The status of the answer to a cancellation."""
        return (await call(self.app, "POST", "/v1/models/m/cancel")).status


@pytest.fixture
def shown(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shown]:
    """A gateway whose fleet has the model of a test."""
    with gateway(home) as app:
        shown = Shown(app)

        async def terminate(_: Fleet, uid: str) -> None:
            shown.terminated.append(uid)

        monkeypatch.setattr(Fleet, "models", lambda _: (shown.model,))
        monkeypatch.setattr(Fleet, "get", lambda *_: shown.model)
        monkeypatch.setattr(Fleet, "terminate", terminate)
        yield shown


@pytest.mark.parametrize(
    "others",
    [
        (),
        (ReplicaStatus("m-rep1", state="starting"),),
        (ReplicaStatus("m-rep1", state="unhealthy"),),
    ],
    ids=["alone", "beside one that starts", "beside one that hangs"],
)
async def test_model_that_serves_is_ready_and_listed(
    shown: Shown, others: tuple[ReplicaStatus, ...]
) -> None:
    """In every dialect; it needs no more than one replica that gets requests."""
    shown.model = status(UNREACHABLE, *others)
    code, body = await shown.get("/readyz?model=m")
    assert code == 200
    assert f'"{shown.model.state}"' in body
    for path in ("/v1/models", "/anthropic/v1/models"):
        assert '"id":"m"' in (await shown.get(path))[1], path
    assert '"status":"READY","instance_created_ts"' in (await shown.get("/v1/models/instances"))[1]


async def test_model_that_loads_is_neither(shown: Shown) -> None:
    """Though nothing is heard of it either: it has no endpoint yet."""
    shown.model = status(LOADING)
    assert (await shown.get("/readyz?model=m"))[0] == 503
    for path in ("/v1/models", "/anthropic/v1/models"):
        assert '"id":"m"' not in (await shown.get(path))[1], path


async def test_cancel_ends_no_model_that_serves(shown: Shown) -> None:
    """It is for launches: it calls off one that is not heard of while it loads."""
    assert await shown.cancel() == 400
    assert shown.terminated == []
    shown.model = status(LOADING)
    assert await shown.cancel() == 200
    assert shown.terminated == ["m"]
