"""What a real gateway does with heads that a library would not send."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import psutil
import pytest

from paddock.server.http.limits import MAX_HELD_BYTES
from tests.conftest import Paddock

LINE = b"X-Hay: " + b"a" * 10_000 + b"\r\n"
CORS = "https://app.example"


@contextlib.contextmanager
def connected(endpoint: str) -> Iterator[socket.socket]:
    """A connection to a gateway."""
    parts = urlsplit(endpoint)
    with socket.create_connection((parts.hostname, parts.port), timeout=30) as connection:
        yield connection


def answer(connection: socket.socket) -> bytes:
    """What comes back until the gateway closes."""
    found = b""
    with contextlib.suppress(ConnectionError):
        while chunk := connection.recv(65536):
            found += chunk
    return found


@pytest.fixture
def endpoint(shared_paddock: Paddock) -> str:
    """A gateway on loopback that asks for no key."""
    shared_paddock.ok("list")
    return str(shared_paddock.record["endpoint"])


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /v1/models HTTP/1.1", b"400"),
        (b"GET /v1/models HTTP/1.0", b"400"),
        (b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nHost: localhost", b"400"),
        (b"GET /v1/models HTTP/1.1\r\nHost : localhost", b"400"),
        (b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n evil.example", b"40"),
        (b"GET /v1/models HTTP/1.1\r\nHost: localhost@evil.example", b"403"),
        (b"GET http://localhost/v1/models HTTP/1.1\r\nHost: evil.example", b"403"),
        (b"GET /v1/models HTTP/1.1\r\nHost: localhost", b"200"),
        (b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n" + LINE * 7, b"431"),
        (
            b"GET /v1/models?" + b"a" * 50_000 + b" HTTP/1.1\r\nHost: localhost\r\n" + LINE * 2,
            b"431",
        ),
    ],
)
def test_forged_heads(endpoint: str, head: bytes, status: bytes) -> None:
    """Hosts that are missing, doubled, folded or foreign, and heads over the limit, as bytes."""
    with connected(endpoint) as connection:
        connection.sendall(head.removesuffix(b"\r\n") + b"\r\nConnection: close\r\n\r\n")
        assert answer(connection).startswith(b"HTTP/1.1 " + status)


@pytest.mark.parametrize(
    ("begin", "again"),
    [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n", LINE),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ", b"a" * 10_000),
        (b"GET /", b"a" * 10_000),
        (
            b"POST /v1/plan HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
            LINE,
        ),
    ],
    ids=["lines", "one line", "path", "trailers"],
)
def test_head_without_end_is_cut_off(
    shared_paddock: Paddock, endpoint: str, begin: bytes, again: bytes
) -> None:
    """A client that goes on sending is closed, and the gateway's memory stays as it is."""
    process = psutil.Process(int(shared_paddock.record["pid"]))
    before = process.memory_info().rss
    sent = 0
    with connected(endpoint) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(begin)
            while sent < 200 * MAX_HELD_BYTES:
                connection.sendall(again)
                sent += len(again)
        # The kernel's buffers take some that the gateway never reads.
        assert sent < 100 * MAX_HELD_BYTES
        assert process.memory_info().rss - before < 20 * MAX_HELD_BYTES
    with connected(endpoint) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert answer(connection).startswith(b"HTTP/1.1 200")


def test_long_bodies_and_many_requests_are_not_heads(endpoint: str) -> None:
    """What is no head does not count: a large body, and requests one after the other."""
    parts = urlsplit(endpoint)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    for _ in range(3):
        large = json.dumps({"model": "nobody", "prompt": "a" * 3 * MAX_HELD_BYTES})
        connection.request("POST", "/v1/completions", large, {"Content-Type": "application/json"})
        found = connection.getresponse()
        assert found.status == 404
        found.read()
    for _ in range(50):
        connection.request("GET", "/healthz", headers={"X-Hay": "a" * 30_000})
        found = connection.getresponse()
        assert found.status == 200
        found.read()
    connection.close()


def test_listed_origin_is_answered_on_every_path(paddock: Paddock) -> None:
    """Answers of engines carry the CORS headers of a listed origin, once, like all others."""
    started = paddock.run(
        "launch", "tiny-mixtral", "-en", "echo", "-u", "a", PADDOCK_CORS_ORIGINS=CORS
    )
    assert started.returncode == 0, started.stderr
    parts = urlsplit(str(paddock.record["endpoint"]))
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    body = json.dumps({"model": "a", "prompt": "hay", "stream": True})
    for method, path, sent, status in (
        ("POST", "/v1/completions", body, 200),
        ("POST", "/v1/completions", "{", 400),
        ("GET", "/v1/models", None, 200),
        ("GET", "/v1/none", None, 404),
    ):
        for origin, echoed in ((CORS, CORS), (None, None)):
            headers = {"Content-Type": "application/json"} | ({"Origin": origin} if origin else {})
            connection.request(method, path, sent, headers)
            found = connection.getresponse()
            found.read()
            assert found.status == status
            assert found.headers.get_all("Access-Control-Allow-Origin", [None]) == [echoed]
    connection.close()
