"""Routes over the gateway's keys, for admins: make one, list them, revoke one."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from paddock.registry.errors import BadValue, UnknownName
from paddock.server.access.keys import KeyStore, is_loopback, principal
from paddock.server.http.body import read_object

FIELDS = ("name", "scope", "models")


class Keys:
    """The routes, over one store. `always`: a key is asked for even where none was made."""

    def __init__(self, store: KeyStore, always: bool) -> None:
        self._store = store
        self._always = always

    def routes(self) -> list[Route]:
        """All routes."""
        return [
            Route("/v1/cluster/auth", self.auth),
            Route("/v1/whoami", self.whoami),
            Route("/v1/keys", self.listing),
            Route("/v1/keys", self.create, methods=["POST"]),
            Route("/v1/keys/{id}", self.revoke, methods=["DELETE"]),
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
        """Makes a key; this answer is the only one that has it."""
        given = await read_object(request)
        for field in given:
            if field not in FIELDS:
                raise UnknownName.among("field", field, FIELDS)
        name, scope = given.get("name", ""), given.get("scope", "")
        models = given.get("models", [])
        for field, value in (("name", name), ("scope", scope)):
            if not isinstance(value, str):
                raise BadValue(field, value, "must be text")
        if not isinstance(models, list) or not all(isinstance(uid, str) for uid in models):
            raise BadValue("models", models, "must be a list of model ids")
        made = await asyncio.to_thread(self._store.create, name, scope, models)
        return JSONResponse(made.to_json(), 201, {"Cache-Control": "no-store"})

    async def revoke(self, request: Request) -> Response:
        """Forgets a key: the next request with it is refused, and streams of it end."""
        key = await asyncio.to_thread(self._store.revoke, request.path_params["id"])
        return JSONResponse(key.to_json())
