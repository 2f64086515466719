"""Calls the gateway's application in this process: nothing is launched and no port is opened."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp, Message

from paddock.launcher.cluster.cluster import Cluster
from paddock.launcher.fleet.fleet import Fleet
from paddock.launcher.fleet.store import SqliteStore
from paddock.registry.custom import Library
from paddock.registry.settings import read_settings
from paddock.server.access.security import Security
from paddock.server.http.app import create_app

HOST = ("host", "127.0.0.1:9997")


@dataclass
class Answer:
    """What came back."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def json(self) -> Any:
        """The body's JSON."""
        return json.loads(self.body)


@contextmanager
def gateway(home: Path, local_key: str = "", **variables: str) -> Iterator[Security]:
    """The application over `home`, with settings from `variables` such as PADDOCK_HOST."""
    settings = read_settings(environ={"PADDOCK_HOME": str(home), **variables})
    library = Library(settings.specs, settings.index)
    store = SqliteStore(settings.home / "paddock.db")
    fleet = Fleet(settings, library.catalog, store, Cluster(settings))
    yield create_app(fleet, settings, library, local_key=local_key)
    # Tests with a loop of their own and tests without one come here.
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, store.close()).result()


def head(
    method: str, path: str, headers: Mapping[str, str] | Iterable[tuple[str, str]], query: str = ""
) -> dict[str, Any]:
    """A request's scope, as the HTTP server makes it. A Host is added where none is given."""
    pairs = list(headers.items()) if isinstance(headers, Mapping) else list(headers)
    if not any(name == "host" for name, _ in pairs):
        pairs.append(HOST)
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 9997),
        "state": {},
    }


async def send(app: ASGIApp, scope: dict[str, Any], body: bytes = b"") -> Answer:
    """The answer to one request."""
    answer = Answer()

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def take(message: Message) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = {
                name.decode("latin-1"): value.decode("latin-1")
                for name, value in message["headers"]
            }
        elif message["type"] == "http.response.body":
            answer.body += message.get("body", b"")

    await app(scope, receive, take)
    return answer


async def call(
    app: ASGIApp,
    method: str,
    path: str,
    headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
    body: Any = None,
) -> Answer:
    """The answer to a request with a JSON body."""
    raw = b"" if body is None else json.dumps(body).encode()
    return await send(app, head(method, path, headers), raw)


def bearer(key: str) -> dict[str, str]:
    """The header that carries a key."""
    return {"authorization": f"Bearer {key}"}
