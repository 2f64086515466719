"""What of an engine can be reached, and by whom."""

from __future__ import annotations

import http.client
import json
from urllib.parse import urlsplit

import psutil
import pytest

from paddock.client import Client
from tests.conftest import Paddock
from tests.e2e.test_failures import model


def ask(port: int, method: str, path: str, key: str = "") -> tuple[int, bytes]:
    """Status and body of one request, the path as it is written."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    body = (
        json.dumps({"model": "tiny", "prompt": "a", "content": "a"}) if method == "POST" else None
    )
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found


@pytest.mark.parametrize(
    "path",
    [
        "/slots", "/props", "/health", "/completion", "/infill", "/tokenize", "/apply-template",
        "/lora-adapters", "/v1/completions/../slots", "/v1/completions/%2e%2e/slots",
        "/v1//completions", "/v1/completions/", "/v1/completions%2f..%2fslots", "//slots",
        "/v1/Completions", "/v1/completions;/slots",
    ],
)  # fmt: skip
def test_engines_own_routes_are_not_forwarded(client: Client, tiny: str, path: str) -> None:
    """Only the listed paths lead to an engine, however another one is written."""
    port = urlsplit(client.endpoint).port or 0
    assert tiny
    for method in ("GET", "POST"):
        status, body = ask(port, method, path)
        assert status in {307, 404, 405}, (method, path)
        if status != 307:
            assert json.loads(body)["error"]["layer"] == "paddock"


def test_engines_port_is_on_loopback_and_asks_for_its_own_key(
    shared_paddock: Paddock, tiny: str
) -> None:
    """Who finds the port gets no answer from the model, with the gateway's key neither."""
    pid = model(shared_paddock, tiny)["replica_statuses"][0]["pid"]
    listening = [
        c.laddr for c in psutil.Process(pid).net_connections("tcp") if c.status == "LISTEN"
    ]
    assert listening
    for address in listening:
        assert address.ip in {"127.0.0.1", "::1"}
        for path in ("/v1/completions", "/completion", "/v1/chat/completions"):
            assert ask(address.port, "POST", path)[0] == 401
            key = str(shared_paddock.record["key"])
            assert ask(address.port, "POST", path, key)[0] == 401
