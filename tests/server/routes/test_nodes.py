"""The machines, and what runs on them."""

from __future__ import annotations

import json
from collections import namedtuple
from pathlib import Path

import psutil
import pytest

from paddock.client import Client
from paddock.server.routes import nodes
from tests.conftest import Paddock
from tests.server.asgi import call, gateway
from tests.server.http.test_errors import raw

Times = namedtuple("Times", ["user", "idle", "iowait", "guest"])


async def test_a_gateway_without_models_is_one_machine(home: Path) -> None:
    """Its own, with memory, disk and engines, on which nothing runs."""
    with gateway(home) as app:
        (node,) = (await call(app, "GET", "/v1/nodes")).json["nodes"]
    assert (node["node"], node["gateway"], node["replicas"]) == ("local", True, [])
    assert 0 < node["memory_free_bytes"] <= node["memory_total_bytes"]
    assert 0 < node["disk_free_bytes"] <= node["disk_total_bytes"]
    assert node["engines"]["llama.cpp"]["version"]
    assert node["engines"]["llama.cpp"]["reason"] is None
    assert "paddock engine install" in node["engines"]["vLLM"]["reason"]


def test_replicas_are_told_by_machine(client: Client, tiny: str) -> None:
    """A model that was launched is on the gateway's machine, with its replica's state."""
    found = json.loads(raw(client, "GET", "/v1/nodes")[2])["nodes"]
    replicas = [one for one in found[0]["replicas"] if one["model_uid"] == tiny]
    assert [one["state"] for one in replicas] == ["ready"]


def test_an_engine_is_as_urgent_as_its_gateway(shared_paddock: Paddock, tiny: str) -> None:
    """Ray would have it wait for everything else on the machine."""
    (model,) = shared_paddock.client().instances(tiny)
    engine = psutil.Process(model["replica_statuses"][0]["pid"])
    assert engine.nice() == psutil.Process(shared_paddock.record["pid"]).nice()


def test_the_use_of_processors_is_over_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not known at first, then the share since the last look; waiting and guests are none."""
    clock = iter([0.0, 0.1, 1.0, 1.1])
    times = iter([Times(0, 0, 0, 0), Times(1, 1, 0, 0), Times(4, 5, 1, 2), Times(5, 5, 1, 2)])
    monkeypatch.setattr(nodes.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(nodes.psutil, "cpu_times", lambda: next(times))
    use = nodes._Use()
    assert use.now() is None
    assert use.now() == pytest.approx(4 / 10)
    assert use.now() == pytest.approx(4 / 10)
