"""The dashboard's files: served as they were built, and nothing beside them."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.types import ASGIApp

from paddock.server.http.limits import LimitedProtocol
from tests.server.asgi import Answer, call, gateway
from tests.server.serving import serving

ADMIN = "the key of this test"
SCRIPT = "index-4f1e2d3c.js"
SECRET = "what nobody may read"


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A build with a script in three encodings, and a secret beside it."""
    folder = tmp_path / "web" / "dist"
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_text("<!doctype html><title>Paddock</title>")
    (folder / "favicon.svg").write_text("<svg/>")
    (folder / "assets" / SCRIPT).write_text("plain()")
    (folder / "assets" / f"{SCRIPT}.br").write_bytes(b"brotli")
    (folder / "assets" / f"{SCRIPT}.gz").write_bytes(gzip.compress(b"plain()"))
    (folder / "assets" / "module.py").write_text(SECRET)
    (folder.parent / "package.json").write_text(SECRET)
    (folder / "assets" / "link.js").symlink_to(folder.parent / "package.json")
    monkeypatch.setattr("paddock.server.http.app.build_folder", lambda: folder)
    return folder


@pytest.fixture
def app(build: Path, home: Path) -> Iterator[ASGIApp]:
    """A gateway that asks for a key, with that build."""
    with gateway(home, PADDOCK_API_KEY=ADMIN) as app:
        yield app


async def test_the_page_comes_without_a_key_and_with_a_policy(app: ASGIApp) -> None:
    """`/` is the page: nothing of another host may run in it, and it is asked for anew."""
    answer = await call(app, "GET", "/")
    assert (answer.status, answer.body) == (200, b"<!doctype html><title>Paddock</title>")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    policy = answer.headers["content-security-policy"].split("; ")
    assert {"default-src 'self'", "connect-src 'self'", "frame-ancestors 'none'"} <= set(policy)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    icon = await call(app, "GET", "/favicon.svg")
    assert (icon.status, icon.headers["content-type"]) == (200, "image/svg+xml")


@pytest.mark.parametrize(
    ("accepts", "encoding"),
    [
        ("", None),
        ("gzip, deflate, br", "br"),
        ("gzip", "gzip"),
        ("br;q=0, gzip;q=0.5", "gzip"),
        ("identity", None),
    ],
)
async def test_assets_are_kept_for_good_and_packed(
    app: ASGIApp, accepts: str, encoding: str | None
) -> None:
    """A script has its own type in each encoding, the best that the client takes."""
    answer = await call(app, "GET", f"/assets/{SCRIPT}", {"accept-encoding": accepts})
    bodies = {None: b"plain()", "br": b"brotli", "gzip": gzip.compress(b"plain()")}
    assert answer.status == 200
    assert answer.headers.get("content-encoding") == encoding
    assert len(answer.body) == len(bodies[encoding])
    assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert answer.headers["vary"] == "Accept-Encoding"


async def test_a_page_that_is_known_is_not_sent_again(app: ASGIApp) -> None:
    """By its ETag; `HEAD` has the same head and no body."""
    first = await call(app, "GET", "/")
    again = await call(app, "GET", "/", {"if-none-match": first.headers["etag"]})
    assert (again.status, again.body) == (304, b"")
    async with serving(app, LimitedProtocol) as port:
        status, body = await raw(port, "/", "HEAD")
    assert (status, body) == (200, b"")


@pytest.mark.parametrize(
    "target",
    [
        "/assets/../index.html",
        "/assets/..%2f..%2fpackage.json",
        "/assets/%2e%2e/%2e%2e/package.json",
        "/assets/..%5c..%5cpackage.json",
        "/assets//etc/passwd",
        "/assets/%2fetc%2fpasswd",
        "/assets/link.js",
        "/assets/module.py",
        f"/assets/{SCRIPT}.br",
        f"/assets/{SCRIPT}%00.js",
        "/assets/.",
        "/assets/..",
        "/assets/",
        "/assets",
        "/package.json",
        "/index.html/../../package.json",
        "/web/package.json",
        "//package.json",
        "/./v1/models",
        "/assets/../v1/models",
        "/assets/x%2f..%2f..%2fv1%2fmodels",
        "/favicon.svg/../v1/models",
    ],
)
async def test_nothing_else_can_be_reached(app: ASGIApp, build: Path, target: str) -> None:
    """Sent byte by byte without a key: no other file, and no route that asks for one."""
    async with serving(app, LimitedProtocol) as port:
        status, body = await raw(port, target)
    assert status in {401, 404}, body
    assert SECRET.encode() not in body
    assert b"root:" not in body
    assert b'"data"' not in body


async def test_other_routes_ask_for_a_key_as_before(app: ASGIApp) -> None:
    """The files are open; an unknown one is not found, and a method that they lack is refused."""
    assert (await call(app, "GET", "/assets/none.js")).status == 404
    assert (await call(app, "POST", "/")).status == 405
    for path in ("/v1/models", "/v1/zoo", "/docs", "/metrics", "/index.html"):
        assert (await call(app, "GET", path)).status == 401, path


async def test_without_a_build_the_page_says_how_to_get_it(app: ASGIApp, build: Path) -> None:
    """One line, which the gateway stops to show as soon as the build is there."""
    index = (build / "index.html").rename(build / "away.html")
    answer: Answer = await call(app, "GET", "/")
    assert answer.status == 200
    assert answer.body.count(b"\n") == 1
    assert b"make web" in answer.body
    assert b"/docs" in answer.body
    index.rename(build / "index.html")
    assert (await call(app, "GET", "/")).body.startswith(b"<!doctype html><title>Paddock</title>")


async def raw(port: int, target: str, method: str = "GET") -> tuple[int, bytes]:
    """The status and body of a request whose target nobody has touched."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"{method} {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n"
    writer.write(head.encode())
    answer = await reader.read()
    writer.close()
    top, _, body = answer.partition(b"\r\n\r\n")
    return int(top.split()[1]), body
