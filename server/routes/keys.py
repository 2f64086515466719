"""Routes over the gateway's keys, for admins: make one, list them, revoke one."""

from __future__ import annotations

import asyncio
from typing import Literal

from pydantic import ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from paddock.registry.errors import BadValue, UnknownName
from paddock.server.access.keys import KeyStore, is_loopback, principal
from paddock.server.http.body import read_object
from paddock.server.http.json_response import JSONResponse
from paddock.server.http.operation import Operation, RouteDoc
from paddock.server.http.shapes import Shape

FIELDS = ("name", "scope", "models")


class Auth(Shape):
    """Whether requests need a key."""

    auth: bool


class Caller(Shape):
    """Who sent a request, and what its key reaches."""

    id: str | None = Field(description="The key's; null where no key is asked for")
    name: str
    scope: Literal["admin", "inference"]
    models: list[str] = Field(description="That it may use; none: all")
    auth: bool = Field(description="Whether requests need a key")
    local: bool = Field(description="The request came from the gateway's own machine")


class NewKey(Shape):
    """Whose key it is to be, and what for. Other fields are refused."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    name: str = ""
    scope: str = ""
    models: list[str] = Field(default=[])


class Key(Shape):
    """A key, without the key itself."""

    id: str
    name: str
    scope: str
    models: list[str]
    created: float


class MadeKey(Key):
    """The only answer that has the key itself."""

    key: str


class Keys(Shape):
    """All keys."""

    object: Literal["list"]
    data: list[Key]


class KeyRoutes:
    """The routes, over one store. `always`: a key is asked for even where none was made."""

    def __init__(self, store: KeyStore, always: bool) -> None:
        self._store = store
        self._always = always

    def routes(self) -> list[Operation]:
        """All routes."""
        return [
            Operation(
                "GET", "/v1/cluster/auth", self.auth, RouteDoc("cluster", Auth, scope="open")
            ),
            Operation(
                "GET", "/v1/whoami", self.whoami, RouteDoc("keys", Caller, scope="inference")
            ),
            Operation("GET", "/v1/keys", self.listing, RouteDoc("keys", Keys)),
            Operation(
                "POST", "/v1/keys", self.create, RouteDoc("keys", MadeKey, NewKey, status=201)
            ),
            Operation("DELETE", "/v1/keys/{id}", self.revoke, RouteDoc("keys", Key)),
        ]

    async def auth(self, _: Request) -> Response:
        """Whether a key is asked for; Xinference's client sends one only then."""
        return JSONResponse({"auth": self._asks})

    async def whoami(self, request: Request) -> Response:
        """Who the caller is, and what its key reaches."""
        caller, client = principal(request.scope), request.client
        return JSONResponse(
            {
                "id": caller.id or None,
                "name": caller.name,
                "scope": caller.scope,
                "models": list(caller.models),
                "auth": self._asks,
                "local": client is not None and is_loopback(client.host),
            }
        )

    @property
    def _asks(self) -> bool:
        return self._always or self._store.is_keyed()

    async def listing(self, _: Request) -> Response:
        """All keys, without the keys themselves."""
        keys = await asyncio.to_thread(self._store.listing)
        return JSONResponse({"object": "list", "data": [key.to_json() for key in keys]})

    async def create(self, request: Request) -> Response:
        """Makes a key; this answer is the only one that has it.

        Raises:
            UnknownName, BadValue: no such field, or a value that it does not take.
        """
        body = await read_object(request)
        for field in body:
            if field not in FIELDS:
                raise UnknownName.among("field", field, FIELDS)
        name, scope = body.get("name", ""), body.get("scope", "")
        models = body.get("models", [])
        for field, value in (("name", name), ("scope", scope)):
            if not isinstance(value, str):
                raise BadValue(field, value, "must be text")
        if not isinstance(models, list) or not all(isinstance(uid, str) for uid in models):
            raise BadValue("models", models, "must be a list of model ids")
        new = await asyncio.to_thread(self._store.create, name, scope, models)
        return JSONResponse(new.to_json(), 201, {"Cache-Control": "no-store"})

    async def revoke(self, request: Request) -> Response:
        """Forgets a key: the next request with it is refused, and streams of it end."""
        key = await asyncio.to_thread(self._store.revoke, request.path_params["id"])
        return JSONResponse(key.to_json())
