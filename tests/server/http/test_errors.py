"""What a person at the command line is told who gets a request wrong."""

from __future__ import annotations

import json
import socket
from typing import Any
from urllib.parse import urlsplit

import pytest

from paddock.client import Client

LONG = "a" * 20_000


def raw(
    client: Client, method: str, target: bytes | str, body: bytes = b"", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """One request byte by byte, as no client library would send it."""
    parts = urlsplit(client.endpoint)
    target = target.encode() if isinstance(target, str) else target
    given = {"Host": parts.netloc, "Connection": "close", "Content-Length": str(len(body))}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in given.items())
    with socket.create_connection((parts.hostname or "", parts.port or 0), 60) as connection:
        connection.sendall(method.encode() + b" " + target + b" HTTP/1.1\r\n" + head.encode())
        connection.sendall(b"\r\n" + body)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    top, _, rest = answer.partition(b"\r\n\r\n")
    first, *lines = top.decode("latin-1").split("\r\n")
    found = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return int(first.split()[1]), found, rest


def error(answer: tuple[int, dict[str, str], bytes]) -> dict[str, Any]:
    """The error object of an answer, whose detail is its message."""
    _, headers, body = answer
    assert headers["content-type"] == "application/json"
    found = json.loads(body)
    assert found["detail"] == found["error"]["message"]
    return dict(found["error"])


@pytest.mark.parametrize(
    ("method", "path", "near"),
    [
        ("GET", "/v1/modles", "/v1/models"),
        ("POST", "/v1/chat/completion", "/v1/chat/completions"),
        ("GET", "/models", "/v1/models"),
        ("GET", "/v1/model_registration/LLM", "/v1/model_registrations/{type}"),
        ("GET", "/health", "/healthz"),
        ("GET", "/v1/models/", "/v1/models"),
        ("DELETE", "/v1/models/", "/v1/models"),
    ],
)
def test_unknown_route_names_near_ones(client: Client, method: str, path: str, near: str) -> None:
    """A slip in a route is a 404 that names the route that was meant."""
    answer = raw(client, method, path)
    assert answer[0] == 404
    found = error(answer)
    assert found["code"] == "NoRoute"
    assert near in found["close_routes"]
    assert near in found["message"]


def test_route_like_none_points_to_the_documents(client: Client) -> None:
    """A path that is like no route is told where they are listed."""
    found = error(raw(client, "GET", "/~~~~"))
    assert found["close_routes"] == []
    assert "/docs" in found["message"]


def test_slip_behind_a_model_id_names_the_route(client: Client) -> None:
    """What follows a model's id may be a part of it; the answer names the route all the same."""
    answer = raw(client, "GET", "/v1/models/nobody/prgress")
    assert answer[0] == 404
    found = error(answer)
    assert found["uid"] == "nobody/prgress"
    assert found["close_routes"] == ["/v1/models/{uid}/progress"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/v1/completions", "POST"),
        ("GET", "/v1/chat/completions", "POST"),
        ("PATCH", "/v1/models", "GET, HEAD, POST"),
        ("OPTIONS", "/v1/models", "GET, HEAD, POST"),
        ("PUT", "/v1/models/some/id", "DELETE, GET, HEAD"),
        ("POST", "/v1/models/some/id/logs", "GET, HEAD"),
        ("GET", "/v1/plan", "POST"),
        ("TRACE", "/healthz", "GET, HEAD"),
    ],
)
def test_wrong_method_names_the_right_ones(
    client: Client, method: str, path: str, allowed: str
) -> None:
    """A method that a route does not take is a 405 with all that it takes."""
    answer = raw(client, method, path)
    assert answer[0] == 405
    assert answer[1]["allow"] == allowed
    found = error(answer)
    assert found["methods"] == allowed.split(", ")
    assert allowed in found["message"]


@pytest.mark.parametrize("path", ["/v1/models", "/healthz", "/metrics", "/v1/models/instances"])
def test_head_is_a_get_without_a_body(client: Client, path: str) -> None:
    """HEAD answers what GET does, without the body."""
    status, _, body = raw(client, "HEAD", path)
    assert (status, body) == (200, b"")


@pytest.mark.parametrize(
    ("body", "kind", "status", "name"),
    [
        (b"model_name=tiny", "application/x-www-form-urlencoded", 415, "Content-Type"),
        (b"<a/>", "text/xml", 415, "Content-Type"),
        (b'{"model_name": "nobody"}', "text/plain", 415, "Content-Type"),
        (b'{"model_name": "\xff"}', "application/json", 400, "body"),
        (b'{"model_name": NaN}', "application/json", 400, "body"),
        (b"[" * 5000, "application/json", 400, "body"),
        (b"[1]", "application/json", 400, "body"),
        (b'{"model_name": "tiny-mixtral", "replica": -1}', "application/json", 400, "replica"),
        (
            b'{"model_name": "tiny-mixtral", "context_length": -5}',
            "application/json",
            400,
            "context_length",
        ),
        (b'{"model_name": "' + b"a" * 1_000_000 + b'"}', "application/json", 413, "body"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/plan", "/v1/models"])
def test_wrong_body_is_refused_by_the_name_of_what_is_wrong(
    client: Client, path: str, body: bytes, kind: str, status: int, name: str
) -> None:
    """Each wrong body is a 4xx that names the field, the header or the body."""
    answer = raw(client, "POST", path, body, Content_Type=kind)
    assert answer[0] == status
    assert error(answer)["param"] == name


def test_json_is_taken_under_curls_own_content_type(client: Client, tiny: str) -> None:
    """`curl -d '{…}'` works as a person would expect it."""
    body = b'{"model_name": "tiny-mixtral"}'
    kind = "application/x-www-form-urlencoded"
    assert raw(client, "POST", "/v1/plan", body, Content_Type=kind)[0] == 200


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v1/models/tiny/logs?lines=0", "lines"),
        ("/v1/models/tiny/logs?lines=%C2%B2", "lines"),
        ("/v1/models/tiny/logs?lines=99999999999999999999", "lines"),
        ("/v1/models/tiny/logs?follow=perhaps", "follow"),
        ("/v1/cluster/info?detailed=2", "detailed"),
        ("/v1/cluster/info?detailed=", "detailed"),
        ("/v1/model_registrations/LLM?detailed=x", "detailed"),
    ],
)
def test_wrong_query_parameter_is_refused_by_name(
    client: Client, tiny: str, path: str, name: str
) -> None:
    """A parameter's wrong value is a 400 with the parameter's name, never a guess."""
    answer = raw(client, "GET", path)
    assert answer[0] == 400
    assert error(answer)["param"] == name


@pytest.mark.parametrize("method", ["GET", "DELETE", "POST"])
@pytest.mark.parametrize(
    "path",
    [
        "/v1/models/%00",
        "/v1/models/%ff%fe",
        "/v1/models/%",
        "/v1/models/%zz/logs",
        "/v1/models/..%2f..%2fetc",
        "/v1/models//progress",
        f"/v1/models/{LONG}",
        f"/v1/models/{LONG}/logs",
        f"/v1/{LONG}",
        "/v1/model_registrations/LLM/%00%ff",
        "/v1/model_registrations/%00/a",
        "/v1/engines/%F0%9F%A6%A3",
        "/v1/cache/models?model_version=%00%ff",
        "/v1/models/instances?model_uid=%ff",
        "/v1/models/x/requests/%00/abort",
    ],
)
def test_strange_path_is_never_a_bug(client: Client, method: str, path: str) -> None:
    """Whatever stands in a path, the answer is JSON, and not a 500."""
    status, headers, _ = raw(client, method, path)
    assert status < 500
    assert headers["content-type"] == "application/json"


@pytest.mark.parametrize("target", [b"/v1/models/\xff", b"/v1/models/\x00", b"*", b"v1/models"])
def test_target_that_http_does_not_allow_is_a_400_or_404(client: Client, target: bytes) -> None:
    """Bytes that may not stand in a request line are the client's fault."""
    assert 400 <= raw(client, "GET", target)[0] < 500
