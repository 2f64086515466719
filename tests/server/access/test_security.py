"""Who is let in: hosts, origins, keys and scopes, sizes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from paddock.launcher.fleet.fleet import Fleet
from paddock.registry.errors import BadValue
from paddock.registry.settings import read_settings
from paddock.server.access.keys import KeyStore, Principal
from paddock.server.access.security import (
    MAX_HEAD_BYTES,
    MAX_HEADERS,
    Security,
)
from paddock.server.proxy.forward import Inference
from tests.server.asgi import Answer, bearer, call, gateway, head, send

ADMIN = "the key of this test"
ASSETS = "/assets/{name}"
# Written down here and not derived: what a narrow key reaches is not to change by a slip.
OPEN_PATHS = {"/healthz", "/readyz", "/v1/cluster/auth", "/", "/favicon.svg"}
INFERENCE_ROUTES = {
    ("POST", "/v1/completions"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/embeddings"),
    ("POST", "/v1/rerank"),
    ("POST", "/v1/responses"),
    ("POST", "/v1/messages"),
    ("POST", "/v1/messages/count_tokens"),
    ("POST", "/anthropic/v1/messages"),
    ("POST", "/anthropic/v1/messages/count_tokens"),
    ("GET", "/anthropic/v1/models"),
    ("GET", "/anthropic/v1/models/{uid:path}"),
    ("GET", "/v1/whoami"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/{uid:path}"),
}
MONITOR_ROUTES = {("GET", "/metrics")}
# The end of a route's path that is not a constant, and what stands for it in a request.
PARAMETER = re.compile(r"\{(\w+)(?::\w+)?\}")
VALUES = {"uid": "some/model", "number": "0", "name": "tiny-mixtral", "type": "LLM", "id": "0"}


@pytest.fixture
def keyed(home: Path) -> Iterator[ASGIApp]:
    """A gateway with an admin's key from the environment."""
    with gateway(home, PADDOCK_API_KEY=ADMIN) as app:
        yield app


@pytest.fixture
def opened(home: Path) -> Iterator[ASGIApp]:
    """A gateway on loopback, without a key."""
    with gateway(home) as app:
        yield app


def every_route(app: ASGIApp) -> list[tuple[str, str, str]]:
    """Method, template and a path for each of the application's routes."""
    assert isinstance(app, Security)
    found = []
    for route in app.routes:
        template = str(route.path)  # type: ignore[attr-defined]
        path = PARAMETER.sub(lambda m: VALUES.get(m[1], "x"), template)
        # A mounted application has no methods of its own.
        for method in sorted(getattr(route, "methods", None) or {"GET", "POST"}):
            found.append((method, template, path))
    return found


async def test_every_route_of_a_keyed_gateway_asks_for_the_key(keyed: ASGIApp) -> None:
    """Without a key, each route but the open ones answers 401, and says how a key is sent."""
    all_routes = every_route(keyed)
    paths = {template for _, template, _ in all_routes}
    assert {"/v1/chat/completions", "/v1/models", "/v1/keys"} <= paths
    for method, template, path in [*all_routes, ("GET", "/none", "/none")]:
        answer = await call(keyed, method, path)
        if template in OPEN_PATHS or template == ASSETS:
            assert answer.status not in {401, 403}, (method, template)
            continue
        assert answer.status == 401, (method, template)
        assert answer.headers["www-authenticate"] == "Bearer"
        assert "Bearer" in answer.json["error"]["message"]
        wrong = await call(keyed, method, path, bearer("pk-wrong"))
        assert wrong.status == 401, (method, template)


@pytest.mark.parametrize(
    ("scope", "reach"), [("inference", INFERENCE_ROUTES), ("monitor", MONITOR_ROUTES)]
)
async def test_every_other_route_is_closed_to_a_key_of_a_narrow_scope(
    keyed: ASGIApp, home: Path, scope: str, reach: set[tuple[str, str]]
) -> None:
    """A key of another scope gets 403 on each route outside its table, with the reason."""
    made = KeyStore(home).create("app", scope)
    for method, template, path in [*every_route(keyed), ("GET", "/none", "/none")]:
        read = "GET" if method == "HEAD" else method
        if template in {*OPEN_PATHS, ASSETS} or (read, template) in reach:
            continue
        answer = await call(keyed, method, path, bearer(made.secret))
        assert answer.status == 403, (method, template)
        error = answer.json["error"]
        assert error["code"] == "NotAllowed"
        assert "needs scope admin" in error["message"]
        assert made.key.id in error["message"]


async def test_key_for_monitoring_reads_metrics(keyed: ASGIApp, home: Path) -> None:
    """Prometheus needs no admin's key: `/metrics` and the open paths answer to scope `monitor`."""
    key = bearer(KeyStore(home).create("prometheus", "monitor").secret)
    for method, path in (("GET", "/metrics"), ("HEAD", "/metrics"), ("GET", "/healthz")):
        assert (await call(keyed, method, path, key)).status == 200
    assert (await call(keyed, "GET", "/readyz", key)).status in {200, 503}
    assert (await call(keyed, "POST", "/metrics", key)).status == 403


async def test_keys_are_taken_from_either_header(keyed: ASGIApp) -> None:
    """`Authorization: Bearer` in any case, and `x-api-key`, as OpenAI's and Anthropic's SDKs do."""
    for headers in (
        {"authorization": f"Bearer {ADMIN}"},
        {"authorization": f"bearer  {ADMIN} "},
        {"x-api-key": ADMIN},
        {"authorization": "Bearer none", "x-api-key": ADMIN},
    ):
        assert (await call(keyed, "GET", "/v1/models", headers)).status == 200, headers
    for headers in (
        {"authorization": ADMIN},
        {"authorization": f"Basic {ADMIN}"},
        {"authorization": "Bearer"},
        {"authorization": "Bearer "},
        {"x-api-key": ""},
        {"x-api-key": ADMIN + "x"},
        {"cookie": f"api_key={ADMIN}"},
    ):
        assert (await call(keyed, "GET", "/v1/models", headers)).status == 401, headers
    in_query = head("GET", "/v1/models", {}, query=f"api_key={ADMIN}")
    assert (await send(keyed, in_query)).status == 401


async def test_key_for_some_models_describes_only_those(keyed: ASGIApp, home: Path) -> None:
    """A key with a list of models is refused the description of another."""
    key = bearer(KeyStore(home).create("", "inference", ["a", "b/c"]).secret)
    for uid in ("a", "b/c"):  # which are not launched
        assert (await call(keyed, "GET", f"/v1/models/{uid}", key)).status == 404
    answer = await call(keyed, "GET", "/v1/models/other", key)
    assert answer.status == 403
    assert "a, b/c" in answer.json["error"]["message"]
    for path in ("/v1/models/a/logs", "/v1/models/a/events", "/v1/models/instances"):
        assert (await call(keyed, "GET", path, key)).status == 403
    assert (await call(keyed, "DELETE", "/v1/models/a", key)).status == 403


async def test_gateway_is_keyed_from_its_first_key_on(opened: ASGIApp, home: Path) -> None:
    """Keys that are made or revoked in another process count with the next request.

    The last one that is revoked opens nothing: its holder would come in without it.
    """
    elsewhere = KeyStore(home)

    async def status(headers: dict[str, str]) -> tuple[int, bool]:
        auth = await call(opened, "GET", "/v1/cluster/auth")
        return (await call(opened, "GET", "/v1/models", headers)).status, auth.json["auth"]

    assert await status({}) == (200, False)
    first = elsewhere.create("first")
    second = elsewhere.create("second")
    assert await status({}) == (401, True)
    assert await status(bearer(first.secret)) == (200, True)
    elsewhere.revoke(first.key.id)
    assert await status(bearer(first.secret)) == (401, True)
    assert await status(bearer(second.secret)) == (200, True)
    elsewhere.revoke(second.key.id)
    assert await status(bearer(second.secret)) == (401, True)
    assert await status({}) == (401, True)
    with gateway(home, local_key="made at start") as next_start:
        assert (await call(next_start, "GET", "/v1/models")).status == 401
        assert (await call(next_start, "GET", "/v1/keys", bearer("made at start"))).status == 200
    third = elsewhere.create("third")
    assert await status(bearer(third.secret)) == (200, True)


async def test_gateway_is_opened_by_removing_the_file_of_keys(opened: ASGIApp, home: Path) -> None:
    """That is the one way, with keys in it or without."""
    KeyStore(home).create("first")
    assert (await call(opened, "GET", "/v1/models")).status == 401
    (home / "keys.json").unlink()
    assert (await call(opened, "GET", "/v1/models")).status == 200
    assert (await call(opened, "GET", "/v1/cluster/auth")).json == {"auth": False}


async def test_address_that_others_reach_is_keyed_without_any_key(home: Path) -> None:
    """On another address nobody gets in while there is no key; clients are told to send one."""
    for host in ("0.0.0.0", "::", "192.168.1.5", "gateway.example"):
        with gateway(home, PADDOCK_HOST=host) as app:
            assert (await call(app, "GET", "/v1/models")).status == 401, host
            assert (await call(app, "GET", "/v1/cluster/auth")).json == {"auth": True}
    for host in ("127.0.0.1", "127.0.0.5", "::1", "localhost"):
        with gateway(home, PADDOCK_HOST=host) as app:
            assert (await call(app, "GET", "/v1/models")).status == 200, host


async def test_commands_on_this_machine_have_a_key_of_their_own(home: Path) -> None:
    """The key that a gateway makes at its start opens it, and no other string does."""
    with gateway(home, local_key="made at start", PADDOCK_HOST="0.0.0.0") as app:
        assert (await call(app, "GET", "/v1/keys", bearer("made at start"))).status == 200
        assert (await call(app, "GET", "/v1/keys", bearer(""))).status == 401
    with gateway(home, PADDOCK_HOST="0.0.0.0") as app:
        assert (await call(app, "GET", "/v1/keys", bearer(""))).status == 401


async def test_unreadable_keys_let_nobody_in(home: Path) -> None:
    """A damaged file of keys closes the gateway, says so without its place, and leaves health."""
    with gateway(home) as app:
        (home / "keys.json").write_text("{")
        answer = await call(app, "GET", "/v1/models")
        assert answer.status == 503
        assert "keys.json" in answer.json["detail"]
        assert str(home) not in answer.body.decode()
        assert (await call(app, "GET", "/healthz")).status == 200


async def caller_of(home: Path, headers: dict[str, str], **variables: str) -> Any:
    """The principal that reaches the application behind the middleware."""
    seen: list[Any] = []

    async def inside(scope: Scope, _: Receive, answer: Send) -> None:
        seen.append(scope["paddock.principal"])
        await answer({"type": "http.response.start", "status": 200, "headers": []})

    settings = read_settings(environ={"PADDOCK_HOME": str(home), **variables})
    app = Security(inside, settings, KeyStore(home), Inference(cast(Fleet, None)).routes())
    await call(app, "POST", "/v1/completions", headers)
    return seen[0]


async def test_routes_are_told_who_calls(home: Path) -> None:
    """An open gateway's caller may do all; a key's caller what the key says."""
    anyone = await caller_of(home, {})
    assert anyone.is_admin
    assert anyone.may_use("anything")
    made = KeyStore(home).create("app", models=["a"])
    assert await caller_of(home, bearer(made.secret)) == Principal(
        made.key.id, "app", "inference", ("a",)
    )
    environ = await caller_of(home, bearer("k"), PADDOCK_API_KEY="k")
    assert environ.is_admin
    assert environ.name == "PADDOCK_API_KEY"


async def status_with(app: ASGIApp, *hosts: str) -> int:
    """The status of a request with these Host headers."""
    scope = head("GET", "/v1/models", [("host", host) for host in hosts] or [("x", "y")])
    if not hosts:
        scope["headers"] = []
    return (await send(app, scope)).status


@pytest.mark.parametrize(
    "host",
    [
        "localhost", "localhost:9997", "LOCALHOST", "localhost.", "LocalHost.:80", "127.0.0.1",
        "127.0.0.1:1", "[::1]", "[::1]:9997", "192.168.0.7:9997", "10.0.0.1", "[fd00::1]",
        "app.localhost:3000", "host.docker.internal:9997",
    ],
)  # fmt: skip
async def test_own_names_are_taken(opened: ASGIApp, host: str) -> None:
    """Names of this machine, in any case and with any port, and private addresses."""
    assert await status_with(opened, host) == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:9997", "8.8.8.8", "[2001:4860:4860::8888]", "",
        "localhost.evil.example", "evil-localhost", ".localhost", "127.0.0.1.evil.example",
        "127.0.0.1@evil.example", "localhost@evil.example", "evil.example@localhost",
        "localhost:80@evil.example", "localhost:", "localhost:x", "localhost:99999",
        "localhost:9997:80", "localhost/", "localhost/@evil.example", "localhost#", "localhost?x",
        "http://localhost", " localhost", "localhost evil.example", "localhost,evil.example",
        "localhost\x00", "localhost\tx", "löcalhost", "::1", "[::1", "::1]", "[localhost]",
        "[::1]evil.example", "[127.0.0.1", "[fe80::1%25eth0]", "127.1", "2130706433", "0x7f000001",
        "0177.0.0.1", "printer.local", "a.internal", "localhost..", "a" * 300, "1" * 5000,
    ],
)  # fmt: skip
async def test_other_names_and_tricks_are_refused(opened: ASGIApp, host: str) -> None:
    """A rebinding name, a name beside a trick, and what is no authority at all."""
    assert await status_with(opened, host) == 403


async def test_exactly_one_host_is_needed(opened: ASGIApp) -> None:
    """No Host, and two of them, even if both are ours, are refused."""
    assert await status_with(opened) == 400
    assert await status_with(opened, "localhost", "localhost") == 400
    assert await status_with(opened, "localhost", "evil.example") == 400


async def test_more_names_are_allowed_by_a_setting(home: Path) -> None:
    """`allowed_hosts` adds names; an address that others reach has its own name and addresses."""
    with gateway(home, PADDOCK_ALLOWED_HOSTS="zoo.example, Farm.Example") as app:
        assert await status_with(app, "zoo.example:9997") == 200
        assert await status_with(app, "FARM.example.") == 200
        assert await status_with(app, "a.zoo.example") == 403
    with gateway(home, PADDOCK_HOST="0.0.0.0") as app:
        assert await status_with(app, "8.8.8.8:9997") == 401
        assert await status_with(app, "evil.example") == 403
    with gateway(home, PADDOCK_HOST="zoo.example") as app:
        assert await status_with(app, "zoo.example") == 401


async def with_origin(app: ASGIApp, *origins: str, host: str = "localhost:9997") -> Answer:
    """The answer to a page of an origin."""
    pairs = [("host", host), *(("origin", origin) for origin in origins)]
    return await call(app, "GET", "/v1/models", pairs)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://localhost:9997", "localhost:9997"),
        ("HTTP://LOCALHOST:9997", "localhost:9997"),
        ("http://127.0.0.1:9997", "127.0.0.1:9997"),
        ("http://[::1]:9997", "[::1]:9997"),
        ("http://localhost", "localhost"),
        ("http://localhost", "localhost:80"),
        ("https://localhost", "localhost"),
    ],
)
async def test_own_pages_may_call(opened: ASGIApp, origin: str, host: str) -> None:
    """A page that the gateway serves has the Host's own origin; no CORS header is needed."""
    answer = await with_origin(opened, origin, host=host)
    assert answer.status == 200
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example", "null", "", "http://localhost:3000", "http://localhost",
        "http://127.0.0.1:9997", "http://localhost:9997.evil.example", "localhost:9997",
        "http://localhost:9997@evil.example", "http://evil.example@localhost:9997",
        "file://", "file://localhost:9997", "http://localhost:9997/", "http://localhost:9997#",
        "http://localhost:9997 http://evil.example", "chrome-extension://abc", "//localhost:9997",
    ],
)  # fmt: skip
async def test_pages_of_others_may_not(opened: ASGIApp, origin: str) -> None:
    """Another port is another origin; `null` is nobody's; none of them gets a CORS header."""
    for method in ("GET", "POST", "OPTIONS"):
        pairs = {
            "host": "localhost:9997",
            "origin": origin,
            "access-control-request-method": "POST",
        }
        answer = await call(opened, method, "/v1/models", pairs)
        assert answer.status == 403
        assert "access-control-allow-origin" not in answer.headers
        assert answer.headers["vary"] == "Origin"


async def test_listed_origins_are_answered_with_cors(home: Path) -> None:
    """An origin of the list is echoed, on errors too; any other is not, and `*` never is."""
    listed = "https://app.example,http://localhost:3000"
    with gateway(home, PADDOCK_CORS_ORIGINS=listed, PADDOCK_API_KEY=ADMIN) as app:
        for origin in listed.split(","):
            answer = await with_origin(app, origin)
            assert answer.status == 401
            assert answer.headers["access-control-allow-origin"] == origin
            assert answer.headers["vary"] == "Origin"
            assert "access-control-allow-credentials" not in answer.headers
        for origin in ("https://app.example:8443", "http://app.example", "https://a.app.example"):
            answer = await with_origin(app, origin)
            assert answer.status == 403
            assert "access-control-allow-origin" not in answer.headers
        assert (await with_origin(app, "https://app.example", "http://evil.example")).status == 403


async def test_preflight_is_answered_without_a_key(home: Path) -> None:
    """A browser's question before the request carries no key; only listed origins get an answer."""
    ask = {
        "origin": "https://app.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type, x-stainless-os",
    }
    with gateway(home, PADDOCK_CORS_ORIGINS="https://app.example", PADDOCK_API_KEY=ADMIN) as app:
        answer = await call(app, "OPTIONS", "/v1/chat/completions", ask)
        assert answer.status == 204
        assert answer.headers["access-control-allow-origin"] == "https://app.example"
        assert "POST" in answer.headers["access-control-allow-methods"]
        allowed = answer.headers["access-control-allow-headers"]
        assert allowed == ask["access-control-request-headers"]
        odd = ask | {"access-control-request-headers": "a\r\nset-cookie: b"}
        answer = await call(app, "OPTIONS", "/v1/chat/completions", odd)
        assert "access-control-allow-headers" not in answer.headers
        plain = {"origin": "https://app.example"}
        assert (await call(app, "OPTIONS", "/v1/chat/completions", plain)).status == 401


async def test_settings_of_names_and_origins_are_checked() -> None:
    """A pattern, a path or `null` is no origin, and a URL is no host name."""
    for variable, value in [
        ("PADDOCK_CORS_ORIGINS", "*"),
        ("PADDOCK_CORS_ORIGINS", "null"),
        ("PADDOCK_CORS_ORIGINS", "https://app.example/"),
        ("PADDOCK_CORS_ORIGINS", "https://*.example"),
        ("PADDOCK_ALLOWED_HOSTS", "*"),
        ("PADDOCK_ALLOWED_HOSTS", "http://zoo.example"),
        ("PADDOCK_ALLOWED_HOSTS", "zoo.example:9997"),
    ]:
        with pytest.raises(BadValue, match=variable):
            read_settings(environ={variable: value})


async def test_head_of_a_request_is_limited(opened: ASGIApp) -> None:
    """More bytes or headers than a client could need are 431 in JSON."""
    for headers in (
        [("x-long", "a" * MAX_HEAD_BYTES)],
        [(f"x-{n}", "a") for n in range(MAX_HEADERS + 1)],
    ):
        answer = await call(opened, "GET", "/v1/models", headers)
        assert answer.status == 431
        assert "head" in answer.json["error"]["message"]
    long_query = head("GET", "/v1/models", {}, query="a" * MAX_HEAD_BYTES)
    assert (await send(opened, long_query)).status == 431
    fits = [("x-long", "a" * (MAX_HEAD_BYTES - 200))]
    assert (await call(opened, "GET", "/v1/models", fits)).status == 200


@pytest.mark.parametrize(
    "codings", [["gzip, chunked"], ["gzip", "chunked"], ["chunked, chunked"], ["identity"], [""]]
)
async def test_bodies_are_chunked_and_nothing_else(opened: ASGIApp, codings: list[str]) -> None:
    """A transfer coding that nobody unpacks is refused, in one field or in several."""
    headers = [("transfer-encoding", coding) for coding in codings]
    answer = await call(opened, "POST", "/v1/plan", headers, {})
    assert answer.status == 501
    assert "Transfer-Encoding" in answer.json["detail"]
    answer = await call(opened, "POST", "/v1/plan", [("transfer-encoding", "Chunked")], {})
    assert answer.status == 400


async def test_body_of_a_management_request_is_limited(opened: ASGIApp) -> None:
    """A body over the limit is 413, whether its length is announced or not."""
    scope = head("POST", "/v1/plan", {})
    assert (await send(opened, scope, b" " * 1_000_001)).status == 413
    for announced in ("1000001", "9" * 400):
        answer = await call(opened, "POST", "/v1/plan", {"content-length": announced})
        assert answer.status == 413
        assert answer.json["error"]["code"] == "TooLarge"


async def test_client_that_leaves_in_its_body_is_no_bug(
    opened: ASGIApp, caplog: pytest.LogCaptureFixture
) -> None:
    """A connection that ends before the request does is nobody's error, and nothing is logged."""
    parts = [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]
    statuses: list[int] = []

    async def receive() -> Any:
        return parts.pop(0)

    async def take(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    await opened(head("POST", "/v1/plan", {}), receive, take)
    assert statuses == [499]
    assert not caplog.records


async def test_websockets_are_closed(opened: ASGIApp) -> None:
    """There is no route for them, and no way past the checks through them."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def take(message: Any) -> None:
        sent.append(message)

    await opened({**head("GET", "/v1/models", {}), "type": "websocket"}, receive, take)
    assert sent == [{"type": "websocket.close", "code": 1008}]
