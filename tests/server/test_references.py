"""References over REST: what is answered, and with which status what cannot be is refused."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from starlette.types import ASGIApp

from paddock.registry.catalog import specs_root
from tests.fakes import COMMIT, Fault, HubServer, hub_server, model_header
from tests.server.asgi import Answer, call, gateway, head, send

pytestmark = pytest.mark.hubs

PYTORCH = specs_root() / "weights" / "tiny-mixtral" / "pytorch" / "none"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A hub on loopback, for the processes that a gateway starts."""
    with hub_server() as server:
        for variable in [name for name in os.environ if "proxy" in name.lower()]:
            monkeypatch.delenv(variable)
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", server.endpoint)
        server.repos["keeper/zoo"] = {"zoo.Q4_0.gguf": model_header(template="{{ tools }}")}
        server.repos["keeper/code"] = {
            **{path.name: path.read_bytes() for path in PYTORCH.iterdir()},
            "zoo.py": b"",
        }
        yield server


@pytest.fixture
def app(home: Path) -> Iterator[ASGIApp]:
    with gateway(home) as made:
        yield made


async def show(app: ASGIApp, name: str) -> Answer:
    return await send(app, head("GET", "/v1/specs", (), f"model_name={quote(name)}"))


async def test_a_reference_stands_wherever_a_models_name_does(app: ASGIApp, hub: HubServer) -> None:
    """In a plan, and in the answer that shows its spec."""
    answer = await call(app, "POST", "/v1/plan", (), {"model_name": "hf:keeper/zoo"})
    assert answer.status == 200
    assert answer.json["model_id"] == "zoo"
    assert answer.json["derived"]["commit"] == COMMIT
    assert answer.json["abilities"] == ["generate", "chat", "tools"]
    shown = await show(app, "hf:keeper/zoo")
    assert shown.status == 200
    assert shown.json["spec"]["name"] == "zoo"
    assert shown.json["consent"] == {}
    consent = (await show(app, "ms:keeper/code")).json
    assert consent["consent"] == {"pytorch": "code in the repository (zoo.py)"}
    assert len(consent["commit"]) == 40


@pytest.mark.parametrize(
    ("name", "fault", "status", "code"),
    [
        ("", None, 400, "BadValue"),
        ("hf:keeper", None, 400, "BadValue"),
        ("https://example.com/a/b", None, 400, "BadValue"),
        ("./zoo", None, 400, "BadValue"),
        ("/nowhere/at/all", None, 400, "BadValue"),
        ("/", None, 400, "BadValue"),
        ("no-such-model", None, 404, "NotFound"),
        ("hf:keeper/none", None, 404, "HubFailure"),
        ("hf:keeper/zoo", Fault(403, {"X-Error-Code": "GatedRepo"}), 403, "HubFailure"),
        ("hf:keeper/zoo", Fault(429, {"Retry-After": "9999"}), 429, "HubFailure"),
        ("hf:keeper/lion", None, 400, "NoSpec"),
    ],
)
async def test_what_cannot_be_derived_is_the_callers_error(
    app: ASGIApp, hub: HubServer, name: str, fault: Fault | None, status: int, code: str
) -> None:
    """A wrong reference is a 4xx that names it, never a bug."""
    hub.repos["keeper/lion"] = {"lion.Q4_0.gguf": b"GGUF" + bytes(100)}
    if fault:
        hub.fail("api", *[fault] * 9)
    answer = await show(app, name)
    assert (answer.status, answer.json["error"]["code"]) == (status, code)
    assert name.rpartition(":")[2].rpartition("@")[0] in answer.json["detail"]


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:99999", "http://[::1", "nowhere"])
async def test_an_endpoint_that_is_no_address_is_no_bug(
    app: ASGIApp, hub: HubServer, monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    """The hub's client fails on it, and prints what it likes: the answer has the variable."""
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    answer = await call(app, "POST", "/v1/plan", (), {"model_name": "hf:keeper/zoo"})
    assert (answer.status, answer.json["error"]["cause"]) == (503, "hub_unreachable")
    assert "HF_ENDPOINT" in answer.json["detail"] or endpoint in answer.json["detail"]


async def test_a_token_whose_file_cannot_be_read_is_no_bug(
    app: ASGIApp, hub: HubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is told as the token, with the path."""
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    answer = await call(app, "POST", "/v1/plan", (), {"model_name": "hf:keeper/zoo"})
    assert (answer.status, answer.json["error"]["cause"]) == (403, "token_refused")
    assert str(tmp_path) in answer.json["detail"]


async def test_a_hub_that_does_not_answer_is_a_503(
    app: ASGIApp, hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the cause, and what was tried."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    answer = await call(app, "POST", "/v1/plan", (), {"model_name": "hf:keeper/zoo"})
    error = answer.json["error"]
    assert (answer.status, error["cause"]) == (503, "hub_unreachable")
    assert "127.0.0.1:9" in error["tried"][0]


@pytest.mark.parametrize("path", ["/v1/plan", "/v1/pulls", "/v1/models"])
async def test_code_is_refused_on_every_way(app: ASGIApp, hub: HubServer, path: str) -> None:
    """Plan, pull and launch alike; a wrong commit too."""

    async def refused(**given: Any) -> dict[str, Any]:
        answer = await call(app, "POST", path, (), {"model_name": "hf:keeper/code", **given})
        assert answer.status == 400
        error: dict[str, Any] = answer.json["error"]
        return error

    error = await refused()
    assert (error["code"], error["commit"]) == ("NeedsConsent", COMMIT)
    error = await refused(trust="f" * 40)
    assert (error["code"], error["param"]) == ("BadValue", "trust")
    assert (await refused(trust=3))["code"] == "BadValue"
