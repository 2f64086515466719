"""The data path: what a client of OpenAI's routes sees."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import psutil
import pytest

from paddock.client import Client
from paddock.registry.errors import GatewayError
from paddock.server.http.run import _bind
from tests.conftest import Paddock
from tests.e2e.test_failures import model, until


def post(client: Client, path: str, body: Any, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """One POST of raw bytes or JSON; status, headers and body."""
    parts = urlsplit(client.endpoint)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    connection.request("POST", path, raw, {"Content-Type": "application/json", **headers})
    answer = connection.getresponse()
    found = answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
    connection.close()
    return found


def test_completion_comes_whole_with_the_models_id(client: Client, tiny: str) -> None:
    """A completion has OpenAI's shape, and `model` is the id that was asked for."""
    answer = client.complete(tiny, "The old elephant", max_tokens=8, temperature=0)
    assert answer["object"] == "text_completion"
    assert answer["model"] == tiny
    assert answer["choices"][0]["text"]
    assert answer["usage"]["completion_tokens"] == 8


def test_stream_is_the_whole_answer_in_pieces_and_ends_in_done(client: Client, tiny: str) -> None:
    """The streamed pieces joined are the answer that comes whole; the last event is `[DONE]`."""
    fields = {"max_tokens": 16, "temperature": 0}
    whole = client.complete(tiny, "The old elephant", **fields)["choices"][0]["text"]
    pieces = list(client.generate(tiny, "The old elephant", **fields))
    assert len(pieces) > 8
    assert "".join(pieces) == whole
    body = {"model": tiny, "prompt": "The", "stream": True, "max_tokens": 2}
    status, headers, raw = post(client, "/v1/completions", body)
    assert status == 200
    assert headers["content-type"].startswith("text/event-stream")
    assert raw.rstrip().endswith(b"data: [DONE]")


def test_many_requests_on_one_engine_never_see_its_closed_connections(
    client: Client, tiny: str
) -> None:
    """llama.cpp closes a kept connection after 100 requests; none of 250 requests notices."""
    for _ in range(250):
        client.complete(tiny, "a", max_tokens=1)


def test_many_streams_at_once_all_get_whole_answers(client: Client, tiny: str) -> None:
    """Bursts of requests side by side, over connections that the engine has closed, lose none."""

    def one(_: int) -> int:
        return len(list(client.generate(tiny, "The", max_tokens=4, ignore_eos=True)))

    with ThreadPoolExecutor(24) as pool:
        pieces = list(pool.map(one, range(600)))
    assert min(pieces) >= 4


def test_accepted_connections_do_not_wait_for_acknowledgements() -> None:
    """What the gateway's listener accepts has TCP_NODELAY: head and body leave without a pause."""
    with _bind("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_client_that_leaves_ends_its_stream_in_the_engine(
    shared_paddock: Paddock, client: Client
) -> None:
    """When a streaming client closes its connection the engine's side is closed too."""
    shared_paddock.ok("launch", "tiny-mixtral", "-en", "echo", "-u", "slow", "--token_seconds", "1")
    pid = model(shared_paddock, "slow")["replica_statuses"][0]["pid"]
    parts = urlsplit(client.endpoint)
    body = json.dumps({"model": "slow", "prompt": "word " * 500, "stream": True}).encode()
    with socket.create_connection((parts.hostname, parts.port)) as connection:
        head = (
            f"POST /v1/completions HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Length: {len(body)}"
        )
        connection.sendall(f"{head}\r\n\r\n".encode() + body)
        assert b"200 OK" in connection.recv(65536)
        assert established(pid) == 1
    until(lambda: established(pid) == 0)
    shared_paddock.ok("terminate", "-u", "slow")


def slots(paddock: Paddock, uid: str) -> Callable[[], list[dict[str, Any]]]:
    """Asks llama.cpp itself what its slots do."""
    replica = model(paddock, uid)["replica_statuses"][0]
    key = psutil.Process(replica["pid"]).environ()["PADDOCK_ENGINE_KEY"]
    request = Request(f"{replica['endpoint']}/slots", headers={"Authorization": f"Bearer {key}"})

    def ask() -> list[dict[str, Any]]:
        with urlopen(request, timeout=10) as answer:
            return list(json.load(answer))

    return ask


@pytest.mark.parametrize("streamed", [True, False])
def test_llama_cpp_stops_when_its_client_leaves(
    shared_paddock: Paddock, client: Client, tiny: str, streamed: bool
) -> None:
    """The slot is idle long before the answer would have been whole, streamed or not."""
    parts = urlsplit(client.endpoint)
    ask = slots(shared_paddock, tiny)
    fields = {"max_tokens": 2000, "ignore_eos": True, "stream": streamed}
    body = json.dumps({"model": tiny, "prompt": "The", **fields}).encode()
    with socket.create_connection((parts.hostname, parts.port)) as connection:
        head = f"POST /v1/completions HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        # It is at work: then its client goes.
        until(lambda: any(slot["is_processing"] for slot in ask()))
    found = until(lambda: idle(ask()))
    (slot,) = [slot for slot in found if slot.get("params", {}).get("n_predict") == 2000]
    assert slot["n_prompt_tokens"] < 1900  # what it has read and written


def idle(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The slots, if none is at work."""
    return [] if any(slot["is_processing"] for slot in found) else found


def established(pid: int) -> int:
    """How many connections a process has with somebody."""
    return sum(c.status == "ESTABLISHED" for c in psutil.Process(pid).net_connections("tcp"))


def test_model_that_starts_is_503_with_retry_after(shared_paddock: Paddock, client: Client) -> None:
    """A request for a model on its way gets 503, `Retry-After` and the state."""
    client.launch(
        wait=False,
        model_name="tiny-mixtral",
        model_engine="echo",
        model_uid="late",
        load_seconds=600,
    )
    until(lambda: model(shared_paddock, "late")["state"] == "starting")
    status, headers, raw = post(client, "/v1/completions", {"model": "late", "prompt": "a"})
    assert status == 503
    assert headers["retry-after"] == "1"
    error = json.loads(raw)
    assert error["error"]["state"] == "starting"
    assert "late" in error["detail"]
    client.cancel("late")


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"{", 400, "not JSON"),
        (b"\xff\xfe", 400, "not UTF-8"),
        (b"[" * 100_000, 400, "nested deeper"),
        (b"[]", 400, "JSON object"),
        ({"prompt": "a"}, 400, "model"),
        ({"model": 7, "prompt": "a"}, 400, "model"),
        ({"model": "nobody", "prompt": "a"}, 404, "nobody"),
    ],
)
def test_bad_request_is_an_openai_error_with_a_detail(
    client: Client, body: Any, status: int, says: str
) -> None:
    """What is wrong with a request is said in OpenAI's envelope and in Xinference's `detail`."""
    found, headers, raw = post(client, "/v1/completions", body)
    error = json.loads(raw)
    assert found == status
    assert headers["content-type"] == "application/json"
    assert says in error["error"]["message"]
    assert error["detail"] == error["error"]["message"]
    assert error["error"]["type"] == "invalid_request_error"


def test_error_of_the_engine_reaches_the_client(client: Client, tiny: str) -> None:
    """A field that the engine refuses comes back as the engine's own 4xx."""
    with pytest.raises(GatewayError) as refused:
        client.complete(tiny, "a", max_tokens=1, response_format={"type": "nonsense"}, n=-3)
    assert 400 <= refused.value.status < 500
