"""The machines that models run on: what each has, how busy it is, and what runs there."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import psutil
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from paddock.engines import base
from paddock.engines.base import Host
from paddock.launcher.fleet.fleet import Fleet
from paddock.launcher.hosts.machine import disk
from paddock.launcher.replicas.status import State
from paddock.registry.settings import Settings
from paddock.server.http.json_response import JSONResponse
from paddock.server.http.operation import Operation, RouteDoc
from paddock.server.http.shapes import Shape

LEAST_SECONDS = 0.5
"""Over a shorter time the use of processors says nothing."""


class Gpu(Shape):
    """A GPU of a machine, as its driver told of it."""

    index: int
    name: str
    uuid: str
    memory_total_bytes: int
    memory_free_bytes: int
    capability: str = Field(description="CUDA's compute capability, such as 9.0")
    driver: str


class NodeEngine(Shape):
    """An engine as a machine has it: a version, or the reason why there is none."""

    version: str | None
    reason: str | None


class NodeReplica(Shape):
    """A replica that is planned on a machine."""

    model_uid: str
    replica_uid: str
    state: State


class NodeFacts(Shape):
    """A machine that models may run on."""

    node: str = Field(description="Ray's id of it, or `local`; what a launch takes as `node`")
    name: str
    address: str
    gateway: bool = Field(description="It is the gateway's own")
    cpus: int
    cpu_use: float | None = Field(
        ge=0, le=1, description="Of all processors, since it was last asked for; null: not known"
    )
    memory_total_bytes: int
    memory_free_bytes: int
    disk_total_bytes: int | None = Field(description="null: another machine's is not known")
    disk_free_bytes: int
    gpus: list[Gpu]
    engines: dict[str, NodeEngine]
    replicas: list[NodeReplica]


class Nodes(Shape):
    """All of them, the gateway's own first."""

    nodes: list[NodeFacts]


class NodeRoutes:
    """The route, over one fleet."""

    def __init__(self, fleet: Fleet, settings: Settings) -> None:
        self._fleet = fleet
        self._settings = settings
        self._use = _Use()

    def routes(self) -> list[Operation]:
        """All routes."""
        return [Operation("GET", "/v1/nodes", self.listing, RouteDoc("cluster", Nodes))]

    async def listing(self, _: Request) -> Response:
        """Every machine that models may run on, the gateway's own first."""
        hosts = await self._fleet.hosts()
        total, _free = await asyncio.to_thread(disk, self._settings.home)
        used = self._use.now()
        rows = [
            # Another machine's disk and use of its processors are not known here.
            _row(host, number == 0, used if number == 0 else None, total if number == 0 else None)
            | {"replicas": self._replicas(host)}
            for number, host in enumerate(hosts)
        ]
        return JSONResponse({"nodes": rows})

    def _replicas(self, host: Host) -> list[dict[str, Any]]:
        return [
            {
                "model_uid": status.uid,
                "replica_uid": replica.replica_id,
                "state": replica.state,
            }
            for status in self._fleet.models()
            if status.plan.attached is None
            for replica in status.replicas
            if replica.node == host.node
        ]


def _row(host: Host, is_own: bool, used: float | None, disk_total: int | None) -> dict[str, Any]:
    return {
        "node": host.node,
        "name": host.name,
        "address": host.address,
        "gateway": is_own,
        "cpus": host.cpus,
        "cpu_use": used,
        "memory_total_bytes": host.memory_total_bytes,
        "memory_free_bytes": host.memory_free_bytes,
        "disk_total_bytes": disk_total,
        "disk_free_bytes": host.disk_free_bytes,
        "gpus": [_gpu(gpu) for gpu in host.gpus],
        "engines": {
            name: {"version": found.version or None, "reason": found.missing or None}
            for name, found in host.engines.items()
        },
    }


class _Use:
    """The share of all processors' time that was used, from 0 to 1; None until some time passed."""

    def __init__(self) -> None:
        self._at, self._busy, self._all = self._look()
        self._share: float | None = None

    def now(self) -> float | None:
        """Since it was last asked; asked again at once, it says the same."""
        at, busy, all_ = self._look()
        if at - self._at >= LEAST_SECONDS and all_ > self._all:
            self._share = min(1.0, max(0.0, (busy - self._busy) / (all_ - self._all)))
            self._at, self._busy, self._all = at, busy, all_
        return self._share

    @staticmethod
    def _look() -> tuple[float, float, float]:
        times = psutil.cpu_times()
        # Guests' time is counted among the users' already.
        all_ = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
        return time.monotonic(), all_ - times.idle - getattr(times, "iowait", 0.0), all_


def _gpu(gpu: base.Gpu) -> dict[str, Any]:
    return {
        "index": gpu.index,
        "name": gpu.name,
        "uuid": gpu.uuid,
        "memory_total_bytes": gpu.total_bytes,
        "memory_free_bytes": gpu.free_bytes,
        "capability": gpu.capability,
        "driver": gpu.driver,
    }
