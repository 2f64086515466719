"""The dashboard's files, as its build has left them. They hold no secret, and need no key."""

from __future__ import annotations

import asyncio
import re
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from paddock.registry.errors import NotFound
from paddock.server.http.operation import Operation, RouteDoc
from paddock.web import INDEX

ICON, ASSETS = "favicon.svg", "assets"
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".map": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
    ".webp": "image/webp",
    ".woff2": "font/woff2",
}
"""What is served. The system's own table of types is wrong on some systems."""
ENCODINGS = (("br", ".br"), ("gzip", ".gz"))
"""Compressed siblings, the best first."""
POLICY = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
SAFE = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
FOR_GOOD = "public, max-age=31536000, immutable"
UNBUILT = (
    "<!doctype html><title>Paddock</title><p>Paddock runs. Its dashboard is not built; with Node "
    "20.19 or newer, in a checkout: <code>make web</code>. "
    "The API works without it: <a href='docs'>/docs</a></p>\n"
)
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}")


@dataclass(frozen=True)
class _File:
    """A file as it was read; it is small, and the next build may take it away."""

    body: bytes
    etag: str
    encoding: str = ""


class Dashboard:
    """The routes, over the folder of a build, which may come and go."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def routes(self) -> list[Operation]:
        """All routes. The pages' own routes stand behind a `#`, and so are no paths."""
        return [
            Operation(
                "GET", "/", self.index, RouteDoc("dashboard", media="text/html", scope="open")
            ),
            Operation(
                "GET",
                "/favicon.svg",
                self.icon,
                RouteDoc("dashboard", media="image/svg+xml", scope="open"),
            ),
            Operation(
                "GET",
                "/assets/{name}",
                self.asset,
                RouteDoc("dashboard", media="*/*", scope="open"),
            ),
        ]

    async def index(self, request: Request) -> Response:
        """The dashboard, or how to get it."""
        file = await asyncio.to_thread(self._find, INDEX, request)
        headers = {"Cache-Control": "no-cache", "Content-Security-Policy": POLICY, **SAFE}
        if file is None:
            return HTMLResponse(UNBUILT, headers=headers)
        return _answer(request, INDEX, file, headers)

    async def icon(self, request: Request) -> Response:
        """The dashboard's icon.

        Raises:
            NotFound: the dashboard was not built.
        """
        file = await asyncio.to_thread(self._find, ICON, request)
        if file is None:
            raise NotFound("file", ICON)
        return _answer(request, ICON, file, {"Cache-Control": "no-cache", **SAFE})

    async def asset(self, request: Request) -> Response:
        """A script, style or picture of the dashboard; its name changes with what is in it.

        Raises:
            NotFound: the build has no such file.
        """
        name = request.path_params["name"]
        # The name is one part of a path, and not `.` or `..`: nothing else can be reached by it.
        known = _NAME.fullmatch(name) and Path(name).suffix in TYPES
        file = None
        if known:
            file = await asyncio.to_thread(self._find, f"{ASSETS}/{name}", request)
        if file is None:
            raise NotFound("file", name)
        return _answer(request, name, file, {"Cache-Control": FOR_GOOD, **SAFE})

    def _find(self, name: str, request: Request) -> _File | None:
        """The file, compressed where the client takes that and it is there."""
        plain = self._file(name)
        if plain is None:
            return None
        accepted = _accepted(request.headers.get("accept-encoding", ""))
        for encoding, suffix in ENCODINGS:
            packed = self._file(name + suffix) if encoding in accepted else None
            if packed is not None:
                return replace(packed, encoding=encoding)
        return plain

    def _file(self, name: str) -> _File | None:
        path = self._folder / name
        if path.is_symlink() or not path.is_file():
            return None
        try:
            body = path.read_bytes()
        except FileNotFoundError:  # a build has begun in between
            return None
        return _File(body, f'"{zlib.crc32(body):08x}-{len(body):x}"')


def _answer(request: Request, name: str, file: _File, headers: dict[str, str]) -> Response:
    headers = {**headers, "Vary": "Accept-Encoding", "ETag": file.etag}
    known = request.headers.get("if-none-match", "")
    if file.etag in {tag.strip().removeprefix("W/") for tag in known.split(",")}:
        return Response(status_code=304, headers=headers)
    if file.encoding:
        headers["Content-Encoding"] = file.encoding
    headers["Content-Type"] = TYPES[Path(name).suffix]
    return Response(file.body, headers=headers)


def _accepted(header: str) -> set[str]:
    """The encodings that a client takes, without those that it refuses by a weight of 0."""
    found = set()
    for part in header.split(","):
        name, _, weight = part.partition(";")
        if not re.fullmatch(r"\s*q=0(\.0*)?\s*", weight):
            found.add(name.strip().lower())
    return found
