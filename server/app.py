"""`create_app`: the gateway as an ASGI application over a controller."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp

from paddock.launcher.controller import Controller
from paddock.launcher.installs import Installs
from paddock.launcher.locks import Locks
from paddock.launcher.pulls import Pulls
from paddock.registry.custom import Library
from paddock.registry.errors import PaddockError
from paddock.registry.settings import Settings
from paddock.server import anthropic, errors
from paddock.server.cache import Cache
from paddock.server.catalogue import Catalogue
from paddock.server.cluster import Machines
from paddock.server.dashboard import Dashboard
from paddock.server.engines import EngineRoutes
from paddock.server.events import Events
from paddock.server.inference import Inference
from paddock.server.key_routes import Keys
from paddock.server.keys import KeyStore, always_keyed
from paddock.server.locks import LockRoutes
from paddock.server.management import Management
from paddock.server.metrics import Metrics
from paddock.server.nodes import Nodes
from paddock.server.openapi import OpenAPI
from paddock.server.pulls import PullRoutes
from paddock.server.registrations import Registrations
from paddock.server.replicas import Replicas
from paddock.server.security import Security
from paddock.server.zoo import ZooRoutes
from paddock.web import build_folder


def create_app(
    controller: Controller,
    settings: Settings,
    library: Library,
    leave: asyncio.Event | None = None,
    local_key: str = "",
) -> ASGIApp:
    """The gateway. `leave` is set when a client has asked the gateway to end; `local_key` opens it
    for commands on this machine.
    """
    keys = KeyStore(settings.home)
    inference = Inference(controller)
    management = Management(controller, leave or asyncio.Event())
    pulls = Pulls(settings)
    locks = Locks(settings)
    installs = Installs(settings)
    metrics = Metrics(controller, inference.load)
    inference.observe = metrics.observe

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        controller.start()
        yield
        inference.close()
        await pulls.close()
        await locks.close()
        await installs.close()
        await controller.close()

    app = Starlette(
        lifespan=lifespan,
        exception_handlers={
            PaddockError: errors.on_paddock_error,
            HTTPException: errors.on_http_error,
            ClientDisconnect: errors.on_client_gone,
            OSError: errors.on_os_error,
            Exception: errors.on_bug,
        },
    )
    # The management routes come last: one of them takes any model id, slashes and all.
    for part in (
        inference,
        Keys(keys, always_keyed(settings)),
        Machines(controller),
        Nodes(controller, settings),
        Catalogue(controller),
        ZooRoutes(controller, settings),
        EngineRoutes(settings, installs),
        Registrations(controller, library),
        Cache(controller, settings.home),
        PullRoutes(controller, pulls),
        LockRoutes(controller, locks),
        Replicas(controller, inference),
        metrics,
        Events(controller),
        anthropic.Models(controller),
        OpenAPI(app.routes),
        Dashboard(build_folder()),
        management,
    ):
        app.router.routes.extend(part.routes())
    return Security(inference.ahead_of(app), settings, keys, app.routes, local_key)
