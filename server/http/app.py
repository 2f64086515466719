"""`create_app`: the gateway as an ASGI application over a fleet of models."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from paddock.launcher.fleet.fleet import Fleet
from paddock.launcher.jobs.installs import InstallJobs
from paddock.launcher.jobs.jobs import Jobs, resume_all
from paddock.launcher.jobs.locks import LockJobs
from paddock.launcher.jobs.pulls import PullJobs
from paddock.registry.custom import Library
from paddock.registry.errors import PaddockError
from paddock.registry.files import make_home
from paddock.registry.settings import Settings
from paddock.server.access.keys import KeyStore, always_keyed
from paddock.server.access.security import Security
from paddock.server.http import errors
from paddock.server.proxy.forward import Inference
from paddock.server.routes.cache import Cache
from paddock.server.routes.catalogue import Catalogue
from paddock.server.routes.dashboard import Dashboard
from paddock.server.routes.engines import EngineRoutes
from paddock.server.routes.events import EventRoutes
from paddock.server.routes.keys import KeyRoutes
from paddock.server.routes.locks import LockRoutes
from paddock.server.routes.management import Management
from paddock.server.routes.nodes import NodeRoutes
from paddock.server.routes.openapi import OpenAPI
from paddock.server.routes.pulls import PullRoutes
from paddock.server.routes.registrations import Registrations
from paddock.server.routes.replicas import ReplicaRoutes
from paddock.server.routes.truth import TruthRoutes
from paddock.server.routes.xinference_cluster import Machines
from paddock.server.routes.zoo import ZooRoutes
from paddock.server.telemetry.metrics import Metrics
from paddock.server.telemetry.timeline import Timeline
from paddock.web import build_folder


def create_app(
    fleet: Fleet,
    settings: Settings,
    library: Library,
    leave: asyncio.Event | None = None,
    local_key: str = "",
) -> Security:
    """The gateway. `leave` is set when a client has asked the gateway to end; `local_key` opens it
    for commands on this machine.
    """
    keys = KeyStore(settings.home)
    inference = Inference(fleet)
    management = Management(fleet, leave or asyncio.Event())
    pulls = PullJobs(settings)
    locks = LockJobs(settings)
    installs = InstallJobs(settings)
    jobs: tuple[Jobs[Any], ...] = (pulls, locks, installs)
    metrics = Metrics(fleet, inference.load)

    def observe(timeline: Timeline) -> None:
        metrics.observe(timeline)
        if timeline.status == 200 and timeline.completion_tokens:
            cached = timeline.cached_tokens
            fleet.see_request(
                timeline.replica_id,
                timeline.prompt_tokens - (cached or 0),
                timeline.engine_seconds if cached is not None else 0.0,
                timeline.completion_tokens,
                timeline.done - timeline.first,
            )

    inference.observe = observe

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        make_home(settings.home)
        await fleet.start()
        await resume_all(settings.home, jobs)
        yield
        inference.close()
        # Who asked the gateway to end wants nothing of it to go on.
        stopped = leave is not None and leave.is_set()
        await asyncio.gather(*(one.close(forget=stopped) for one in jobs))
        await fleet.close()

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
        KeyRoutes(keys, always_keyed(settings)),
        Machines(fleet),
        NodeRoutes(fleet, settings),
        Catalogue(fleet),
        ZooRoutes(fleet, settings),
        EngineRoutes(settings, installs),
        Registrations(fleet, library),
        Cache(fleet, settings.home),
        TruthRoutes(fleet.truth),
        PullRoutes(fleet, pulls),
        LockRoutes(fleet, locks),
        ReplicaRoutes(fleet, inference),
        metrics,
        EventRoutes(fleet),
        OpenAPI(app.routes),
        Dashboard(build_folder()),
        management,
    ):
        app.router.routes.extend(part.routes())
    return Security(inference.ahead_of(app), settings, keys, app.routes, local_key)
