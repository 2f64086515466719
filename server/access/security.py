"""Who may talk to the gateway: an ASGI middleware over all routes.

In this order: a request's head must be of a sane size, and its body framed by a length or by
chunks alone; `Host` must be a name of this gateway (against DNS rebinding); a browser's `Origin`
must be the gateway's own page or in the list `cors_origins`; and where keys are asked for, the
request must carry one whose scope reaches the route. They are from the first key on, also after the
last was revoked, and on any address but loopback. The caller is then in
`scope["paddock.principal"]`.

It runs before every request: on the way to a model it makes no response object, wraps no `send` and
asks no database unless the request is refused or comes from a page of another origin.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import socket
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from paddock.registry.errors import CorruptFile, NotAllowed
from paddock.registry.settings import Settings
from paddock.server.access.keys import (
    ANYONE,
    FILE,
    NOBODY,
    KeyStore,
    Principal,
    always_keyed,
    digest,
    is_loopback,
)
from paddock.server.access.reach import Reach
from paddock.server.access.revocation import Revocations
from paddock.server.http.errors import envelope, render
from paddock.server.http.json_response import JSONResponse
from paddock.server.http.protocol import has_outlet, outlet

MAX_HEAD_BYTES = 64 * 1024
MAX_HEADERS = 128
HEAD_TOO_LARGE = f"the request's head is over {MAX_HEAD_BYTES} bytes or {MAX_HEADERS} headers"
# A page at one of these names comes from this machine: nobody else can own them.
LOCAL_NAMES = frozenset({"localhost", "host.docker.internal"})
LOCAL_SUFFIX = ".localhost"
MAX_AGE = "600"
EXPOSED = b"Retry-After, Server-Timing"
METHODS = "GET, POST, PUT, DELETE"

_AUTHORITY = re.compile(r"(\[[0-9a-f:.]{2,45}\]|[a-z0-9_.-]{1,253})(?::([0-9]{1,5}))?")
_TOKENS = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+(, ?[A-Za-z0-9!#$%&'*+.^_`|~-]+){0,63}")
_PORTS = {"http": "80", "https": "443"}


class Security:
    """Refuses requests before they reach a route.

    `routes` may grow until the first request: then their scopes are read. `local_key` is
    one that commands of the user who runs the gateway find on disk while it runs.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        keys: KeyStore,
        routes: Sequence[BaseRoute] = (),
        local_key: str = "",
    ) -> None:
        self._app = app
        self._keys = keys
        self._revocations = Revocations(keys)
        self.routes = routes
        self._reach = Reach(routes)
        self._loopback = is_loopback(settings.host)
        self._always_keyed = always_keyed(settings)
        self._fixed = tuple(
            (digest(key), Principal(name, name, "admin"))
            for key, name in ((settings.api_key, "PADDOCK_API_KEY"), (local_key, "this machine"))
            if key
        )
        self._origins = frozenset(origin.encode() for origin in settings.cors_origins)
        self._names = _names(settings, self._loopback)
        self._knows_host = lru_cache(maxsize=256)(self._is_own_host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on, or answers it with the reason."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        else:  # there is no other route
            await send({"type": "websocket.close", "code": 1008})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        hosts: list[bytes] = []
        origins: list[bytes] = []
        sent_keys: list[bytes] = []
        coding = b"chunked"
        headers = scope["headers"]
        size = len(scope.get("raw_path") or b"") + len(scope.get("query_string") or b"")
        for name, value in headers:
            size += len(name) + len(value)
            if name == b"host":
                hosts.append(value)
            elif name == b"origin":
                origins.append(value)
            elif name == b"authorization":
                if value[:7].lower() == b"bearer ":
                    sent_keys.append(value[7:].strip())
            elif name == b"x-api-key":
                sent_keys.append(value.strip())
            elif name == b"transfer-encoding" and value.lower() != b"chunked":
                coding = value
        if size > MAX_HEAD_BYTES or len(headers) > MAX_HEADERS:
            refused: Response | None = _refusal(431, HEAD_TOO_LARGE)
        elif coding != b"chunked":
            # The parser takes every list that ends in `chunked`, and unpacks nothing else.
            label = _text(coding)
            refused = _refusal(501, f"Transfer-Encoding '{label}' is not supported, only chunked")
        else:
            refused = self._foreign_host(hosts)
        if refused is None and origins:
            refused, send = self._crosses(scope, hosts[0], origins, send)
        app = refused or self._admits(scope, sent_keys) or self._pass
        await app(scope, receive, send)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hands the request on; one with a key from the file may be ended with that key."""
        if not scope["paddock.principal"].revocable:
            await self._app(scope, receive, send)
        elif scope["method"] == "POST" and self._reach.reaches("inference", "POST", scope["path"]):
            await self._revocations.inference(self._app, scope, receive, send)
        else:
            await self._revocations.stream(self._app, scope, receive, send)

    def _admits(self, scope: Scope, sent_keys: Sequence[bytes]) -> Response | None:
        """Finds the caller and says whether the route is open to it; None if it is."""
        if self._reach.is_open(scope["path"]):
            scope["paddock.principal"] = NOBODY
            return None
        try:
            caller = self._caller(sent_keys)
            if caller is None:
                return _no_key(bool(sent_keys))
            if not caller.is_admin:
                self._check_scope(caller, scope)
        except CorruptFile as error:
            # Nobody gets in while it is not known who may; the path is not for strangers.
            return render(CorruptFile(FILE, error.reason))
        except NotAllowed as error:
            return render(error)
        scope["paddock.principal"] = caller
        return None

    def _caller(self, sent_keys: Sequence[bytes]) -> Principal | None:
        if not self._always_keyed and not self._keys.is_keyed():
            return ANYONE
        table = self._keys.table()
        for key in sent_keys:
            sent = digest(key)
            for known, caller in self._fixed:
                if hmac.compare_digest(known, sent):
                    return caller
            # How long a lookup takes can tell of hashes only, and nobody can make a key to a hash.
            if sent in table:
                return table[sent]
        return None

    def _check_scope(self, caller: Principal, scope: Scope) -> None:
        """Raises `NotAllowed` where a key of a scope other than `admin` does not reach."""
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        if self._reach.reaches(caller.scope, method, scope["path"]):
            return
        for route in self.routes:
            match, child = route.matches(scope)
            if match is not Match.FULL:
                continue
            if not self._reach.reaches(caller.scope, method, getattr(route, "path", "")):
                break
            uid = child["path_params"].get("uid")
            if uid is not None and not caller.may_use(uid):
                raise NotAllowed(uid, f"{_whose(caller)} is for {', '.join(caller.models)}")
            return
        why = f"{_whose(caller)} has scope {caller.scope}, and this needs scope admin"
        raise NotAllowed(f"{method} {scope['path']}", why)

    def _crosses(
        self, scope: Scope, host: bytes, origins: Sequence[bytes], send: Send
    ) -> tuple[Response | None, Send]:
        """What a browser's request gets, and the `send` for it, which may add CORS headers."""
        origin = origins[0]
        if len(origins) == 1 and _same_origin(origin, host):
            return None, send
        if len(origins) > 1 or origin not in self._origins:
            label = _text(origin)
            way = "another may be allowed by cors_origins (PADDOCK_CORS_ORIGINS)"
            why = f"Origin '{label}' is not one of this gateway's pages; {way}"
            return _refusal(403, why, {"Vary": "Origin"}), send
        headers = {
            name: value for name, value in scope["headers"] if name[:15] == b"access-control-"
        }
        if scope["method"] == "OPTIONS" and b"access-control-request-method" in headers:
            return _preflight(origin, headers), send

        more = [
            (b"access-control-allow-origin", origin),
            (b"access-control-expose-headers", EXPOSED),
            (b"vary", b"Origin"),
        ]
        if has_outlet(scope):
            outlet(scope).add_headers(more)
            return None, send

        async def with_cors(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *more]}
            await send(message)

        return None, with_cors

    def _foreign_host(self, hosts: Sequence[bytes]) -> Response | None:
        """The refusal of a request that does not name this gateway, once; None if it does."""
        if len(hosts) != 1:
            return _refusal(400, f"a request needs one Host header; this one has {len(hosts)}")
        if self._knows_host(hosts[0]):
            return None
        way = "more names are allowed by allowed_hosts (PADDOCK_ALLOWED_HOSTS)"
        return _refusal(403, f"Host '{_text(hosts[0])}' is not a name of this gateway; {way}")

    def _is_own_host(self, host: bytes) -> bool:
        match = _AUTHORITY.fullmatch(_text(host).lower())
        if match is None or int(match[2] or 0) > 65535:
            return False
        name = match[1]
        bare = name.removesuffix(".")
        if bare in self._names or (bare.endswith(LOCAL_SUFFIX) and not bare.startswith(".")):
            return True
        try:
            address = ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return False
        # A rebinding page comes with a name of its own, never with an address of ours. Behind an
        # address translation we do not know the address by which others reach us.
        return not self._loopback or not address.is_global


def _names(settings: Settings, loopback: bool) -> frozenset[str]:
    names = {*LOCAL_NAMES, *settings.allowed_hosts, settings.host.lower()}
    if ":" in settings.host:
        names.add(f"[{settings.host.lower()}]")
    if not loopback:
        machine = socket.gethostname().lower()
        names |= {machine, f"{machine.partition('.')[0]}.local"}
    return frozenset(names - {""})


def _same_origin(origin: bytes, host: bytes) -> bool:
    scheme, _, authority = _text(origin).lower().partition("://")
    own = _AUTHORITY.fullmatch(_text(host).lower())
    theirs = _AUTHORITY.fullmatch(authority)
    if scheme not in _PORTS or own is None or theirs is None:
        return False
    # A page over https comes from a proxy before us: what counts is where it came from.
    port = _PORTS[scheme]
    return own[1] == theirs[1] and (own[2] or port) == (theirs[2] or port)


def _preflight(origin: bytes, headers: dict[bytes, bytes]) -> Response:
    allowed = {
        "Access-Control-Allow-Origin": origin.decode("ascii"),
        "Access-Control-Allow-Methods": METHODS,
        "Access-Control-Max-Age": MAX_AGE,
        "Vary": "Origin",
    }
    # SDKs send headers of their own by the dozen, and none of ours would hurt in their hands.
    wanted = _text(headers.get(b"access-control-request-headers", b""), 4096)
    if _TOKENS.fullmatch(wanted):
        allowed["Access-Control-Allow-Headers"] = wanted
    return Response(status_code=204, headers=allowed)


def _no_key(was_sent: bool) -> Response:
    why = "this API key is not known here, or no more" if was_sent else "no API key was sent"
    way = (
        "send one as 'Authorization: Bearer KEY'; paddock takes it as --api-key or "
        "PADDOCK_API_KEY, and makes one on the gateway's machine with: paddock keys create"
    )
    return _refusal(401, f"{why}; {way}", {"WWW-Authenticate": "Bearer"}, "unauthorized")


def _refusal(
    status: int, message: str, headers: dict[str, str] | None = None, kind: str = "forbidden"
) -> Response:
    fields: dict[str, Any] = {}
    return JSONResponse(envelope(status, message, kind, fields), status, headers)


def _whose(caller: Principal) -> str:
    return f"the key {caller.id}" + (f" '{caller.name}'" if caller.name else "")


def _text(raw: bytes, limit: int = 300) -> str:
    """The beginning of a header's value as text that is safe to show and to match."""
    return "".join(chr(c) if 32 <= c < 127 else "?" for c in raw[:limit])
