"""Who may talk to the gateway: an ASGI middleware over all routes.

`Host` must be a name of this gateway (against DNS rebinding), a browser's `Origin` must be one of
its own pages, and with a key set, every request but health checks must carry it.
"""

from __future__ import annotations

import hmac
import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from paddock.server.errors import envelope

OPEN_PATHS = frozenset({"/healthz", "/readyz", "/v1/cluster/auth"})
LOCAL_NAMES = ("localhost",)
LOCAL_SUFFIXES = (".localhost", ".local", ".internal")


class Security:
    """Refuses requests before they reach a route."""

    def __init__(self, app: ASGIApp, host: str, api_key: str) -> None:
        self._app = app
        self._host = host
        self._api_key = api_key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on, or answers it with the reason."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refused = self._refuses(Headers(scope=scope), scope["path"])
        if refused is None:
            await self._app(scope, receive, send)
            return
        status, message = refused
        body = envelope(status, message, "forbidden", {})
        await JSONResponse(body, status)(scope, receive, send)

    def _refuses(self, headers: Headers, path: str) -> tuple[int, str] | None:
        host = _name(headers.get("host", ""))
        if not self._own(host):
            return 403, f"Host '{host}' is not a name of this gateway"
        origin = headers.get("origin")
        if origin is not None and not self._own(urlsplit(origin).hostname or ""):
            return 403, f"Origin '{origin}' is not one of this gateway's pages"
        if self._api_key and path not in OPEN_PATHS:
            scheme, _, sent = headers.get("authorization", "").partition(" ")
            given = sent.encode() if scheme.lower() == "bearer" else b""
            if not hmac.compare_digest(given.strip(), self._api_key):
                return 401, "no API key, or a wrong one; send it as Authorization: Bearer KEY"
        return None

    def _own(self, host: str) -> bool:
        host = host.lower()
        if host in LOCAL_NAMES or host.endswith(LOCAL_SUFFIXES) or host == self._host:
            return True
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        # A rebinding page comes with its own name, never with an address of ours.
        return not address.is_global


def _name(host: str) -> str:
    return urlsplit(f"//{host}").hostname or "" if host else ""
