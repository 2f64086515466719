"""What is told of machines and their GPUs, in Xinference's shapes. The machines are made up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from paddock.engines.base import Detection, Gpu, Host
from paddock.launcher.fleet.fleet import Fleet
from paddock.launcher.fleet.status import ModelStatus
from paddock.launcher.planning.plan import LaunchRequest
from paddock.launcher.planning.resolve import resolve
from paddock.launcher.replicas.status import ReplicaStatus
from paddock.registry.catalog import Catalog
from paddock.registry.errors import BadValue
from paddock.server.routes import xinference_shapes
from tests.server.asgi import call, gateway, head, send

GB = 10**9
GPUS = (
    Gpu(0, "NVIDIA L4", "GPU-a", 24 * GB, 6 * GB, "8.9", "595.71.05"),
    Gpu(1, "NVIDIA H100", "GPU-b", 80 * GB, 76 * GB, "9.0", "595.71.05"),
)
ENGINES = {"vLLM": Detection("1", cuda=True)}
HOSTS = [
    Host("local", "here", 4, 8 * GB, 6 * GB, 10**12, {}, {}, "10.0.0.1"),
    Host("far", "there", 64, 512 * GB, 500 * GB, 10**13, ENGINES, {}, "10.0.0.2", GPUS),
]


@pytest.fixture
def machines(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hosts(self: Fleet) -> list[Host]:
        return HOSTS

    monkeypatch.setattr(Fleet, "hosts", hosts)


@pytest.mark.usefixtures("machines")
async def test_cluster_routes_count_gpus_and_their_memory(home: Path) -> None:
    """Each machine's own; a model may use those of one machine."""
    with gateway(home) as app:
        assert (await call(app, "GET", "/v1/cluster/devices")).json == 2
        nodes = (await call(app, "GET", "/v1/cluster/info")).json
        assert [node["gpu_count"] for node in nodes] == [0, 0, 2]
        assert [node["gpu_vram_total"] for node in nodes] == [0, 0, 104 * GB]
        workers = (await call(app, "GET", "/status")).json["workers"]
        told = (await call(app, "GET", "/v1/nodes")).json["nodes"]
    assert [[gpu["name"] for gpu in node["gpus"]] for node in told] == [
        [],
        ["NVIDIA L4", "NVIDIA H100"],
    ]
    assert told[1]["gpus"][1]["memory_free_bytes"] == 76 * GB
    assert set(workers["10.0.0.1"]["status"]) == {"cpu"}
    assert workers["10.0.0.2"]["status"]["0"] == {
        "name": "NVIDIA L4",
        "mem_total": 24 * GB,
        "mem_free": 6 * GB,
        "mem_used": 18 * GB,
        "mem_usage": 0.75,
        "gpu_util": None,
    }


@pytest.mark.usefixtures("machines")
async def test_details_of_a_node_name_its_gpus(home: Path) -> None:
    """With what is free of them, what they can do, and the driver."""
    with gateway(home) as app:
        nodes = (await send(app, head("GET", "/v1/cluster/info", (), "detailed=true"))).json
    assert (nodes[0]["gpu_vram_available"], nodes[2]["gpu_vram_available"]) == (0, 82 * GB)
    assert nodes[2]["gpus"][1] == {
        "index": 1,
        "name": "NVIDIA H100",
        "uuid": "GPU-b",
        "total_bytes": 80 * GB,
        "free_bytes": 76 * GB,
        "capability": "9.0",
        "driver": "595.71.05",
    }


def test_models_tell_which_gpus_they_have() -> None:
    """All of a model's as its accelerators, and each replica's own."""
    asked = {"model_name": "mixtral-v0.1", "format": "gptq", "model_engine": "vLLM", "replicas": 2}
    plan = resolve(LaunchRequest.parse(**asked, node="far"), Catalog.load(), HOSTS)
    several = tuple(ReplicaStatus(f"m-rep{number}", gpus=(1,)) for number in range(2))
    status = ModelStatus("m", plan, 0.0, several)
    assert xinference_shapes.description(status)["accelerators"] == ["1"]
    assert [one["gpu_idx"] for one in xinference_shapes.instance(status)["replica_statuses"]] == [
        [1],
        [1],
    ]
    assert [one["accelerators"] for one in xinference_shapes.replicas(status)] == [["1"], ["1"]]


@pytest.mark.parametrize(
    ("given", "means"),
    [
        ({"n_gpu": "auto", "gpu_idx": None}, (None, ())),
        ({"n_gpu": None}, (None, ())),
        ({"n_gpu": "2", "gpu_idx": "1,0"}, (2, (1, 0))),
        ({"n_gpu": 1, "gpu_idx": [3]}, (1, (3,))),
        ({"n_gpu": "None", "gpu_idx": 0}, (0, (0,))),
    ],
)
def test_gpus_are_asked_for_in_xinferences_ways(given: dict[str, Any], means: Any) -> None:
    """Numbers, texts and lists; of `n_gpu` the word none is the processor."""
    asked = xinference_shapes.launch_request({"model_name": "m", **given})
    assert (asked.n_gpu, asked.gpu_idx) == means


@pytest.mark.parametrize("given", [{"n_gpu": "many"}, {"n_gpu": True}, {"gpu_idx": "a,b"}])
def test_wrong_counts_of_gpus_are_refused(given: dict[str, Any]) -> None:
    """With the key and the value."""
    (key,) = given
    with pytest.raises(BadValue, match=key):
        xinference_shapes.launch_request({"model_name": "m", **given})
