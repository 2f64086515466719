"""Management routes, in Xinference's shapes."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import pytest
from starlette.routing import Route

from paddock.client import Client
from paddock.launcher.planning.plan import check_uid
from paddock.registry.errors import BadValue, GatewayError
from tests.conftest import Paddock
from tests.server.asgi import gateway


def call(
    client: Client, method: str, path: str, body: Any = None, **headers: str
) -> tuple[int, Any]:
    """One request; status and parsed body."""
    parts = urlsplit(client.endpoint)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    connection.request(method, path, None if body is None else json.dumps(body), headers)
    answer = connection.getresponse()
    found = answer.status, json.loads(answer.read())
    connection.close()
    return found


def test_list_and_description_have_xinferences_keys(client: Client, tiny: str) -> None:
    """`GET /v1/models` and `/v1/models/{uid}` carry what Xinference's clients and Dify read."""
    entry = next(m for m in client.models() if m["id"] == tiny)
    assert entry["object"] == "model"
    described = client.describe(tiny)
    keys = {
        "model_type", "model_name", "model_lang", "model_ability", "model_format",
        "model_size_in_billions", "model_family", "quantization", "model_hub", "revision",
        "context_length", "max_tokens", "model_engine", "replica", "address", "accelerators",
    }  # fmt: skip
    assert keys <= described.keys() <= entry.keys()
    assert described["model_type"] == "LLM"
    assert described["model_ability"] == ["generate", "chat"]
    assert described["model_size_in_billions"] == "0_004"


def test_instances_and_progress_tell_the_state(client: Client, tiny: str) -> None:
    """`instances` says READY for each replica, and `progress` is 1 once it is."""
    (instance,) = client.instances(tiny)
    assert instance["status"] == "READY"
    assert [r["status"] for r in instance["replica_statuses"]] == ["READY"]
    assert instance["model_version"] == "tiny-mixtral--0_004B--ggufv2--Q4_K_M"
    assert client.progress(tiny)["progress"] == 1.0
    assert client.instances("nobody") == []


def test_plan_changes_nothing(client: Client, tiny: str) -> None:
    """`POST /v1/plan` answers the plan of a launch and launches nothing."""
    before = [m["model_uid"] for m in client.instances()]
    plan = client.plan(model_name="tiny-mixtral", model_uid="planned", n_ctx=512)
    assert plan["context_length"] == 512
    assert plan["memory"]["total_bytes"] > 0
    assert [m["model_uid"] for m in client.instances()] == before


def test_launch_waits_describes_and_terminates_ids_with_slashes(client: Client) -> None:
    """A model id may have slashes, raw in the path, for every route that takes one."""
    uid = "zoo/echo-1"
    launched = client.launch(model_name="tiny-mixtral", model_engine="echo", model_uid=uid)
    assert launched["model_uid"] == uid
    assert client.describe(uid)["model_engine"] == "echo"
    assert client.progress(uid)["state"] == "ready"
    assert list(client.logs(uid)) == [f"{uid}-rep0"]
    assert call(client, "DELETE", "/v1/models/zoo%2Fecho-1") == (200, None)
    assert call(client, "GET", f"/v1/models/{uid}")[0] == 404


def test_waiting_launch_that_fails_carries_the_diagnosis(client: Client) -> None:
    """A launch that is waited for and fails answers 502 with the whole diagnosis."""
    with pytest.raises(GatewayError) as failed:
        client.launch(
            model_name="tiny-mixtral",
            model_engine="echo",
            model_uid="fails",
            exit_code=3,
            say="no hay",
        )
    assert failed.value.status == 502
    diagnosis = failed.value.error["diagnosis"]
    assert diagnosis["cause"] == "engine_exited"
    assert diagnosis["exit_code"] == 3
    assert diagnosis["lines"] == ["no hay"]
    client.terminate("fails")


def test_two_launches_of_one_id_make_one_model(shared_paddock: Paddock, client: Client) -> None:
    """Of two launches of one id at once exactly one is refused."""
    launch = ("launch", "tiny-mixtral", "-en", "echo", "-u", "once")
    both = [shared_paddock.start(*launch) for _ in range(2)]
    for process in both:
        process.communicate(timeout=60)
    assert sorted(process.returncode for process in both) == [0, 2]
    client.terminate("once")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "model_name"),
        ({"model_name": 7}, "model_name"),
        ({"model_name": "tiny-mixtral", "n_worker": 2}, "n_worker"),
        ({"model_name": "tiny-mixtral", "trust_remote_code": True}, "trust_remote_code"),
        ({"model_name": "tiny-mixtral", "gpu_idx": [0]}, "gpu_idx"),
        ({"model_name": "tiny-mixtral", "replica": "many"}, "replica"),
        ({"model_name": "tiny-mixtral", "n_ctx": -1}, "n_ctx"),
        ({"model_name": "tiny-mixtral", "model_uid": "ü"}, "model id"),
        ([1], "JSON object"),
    ],
)
def test_bad_launch_is_400_and_names_the_key(client: Client, body: Any, says: str) -> None:
    """What a launch cannot do is refused by the key's name, not dropped."""
    status, answer = call(client, "POST", "/v1/models", body)
    assert status == 400
    assert says in answer["detail"]


def test_foreign_host_or_origin_is_refused(client: Client) -> None:
    """A page of another site can reach the gateway neither by its own name nor from its origin."""
    for headers in ({"Host": "evil.example"}, {"Origin": "http://localhost:3000"}):
        assert call(client, "GET", "/v1/models", None, **headers)[0] == 403


def test_ids_that_are_routes_are_refused(home: Path) -> None:
    """Every fixed word of the routes below `/v1/models/` is taken; a test of the table itself."""
    with gateway(home) as app:
        paths = [cast(Route, route).path_format for route in app.routes]
    for path in paths:
        parts = path.removeprefix("/v1/models/").split("/")
        if path.startswith("/v1/models/") and not parts[-1].startswith("{"):
            uid = "/".join("x" if part.startswith("{") else part for part in parts)
            with pytest.raises(BadValue, match="route"):
                check_uid(uid)
    check_uid("x/prompts")
