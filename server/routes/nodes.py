"""The machines that models run on: what each has, how busy it is, and what runs there."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import psutil
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from paddock.engines.base import Gpu, Host
from paddock.launcher.fleet.fleet import Fleet
from paddock.launcher.hosts.machine import disk
from paddock.registry.settings import Settings

LEAST_SECONDS = 0.5
"""Over a shorter time the use of processors says nothing."""


class Nodes:
    """The route, over one fleet."""

    def __init__(self, fleet: Fleet, settings: Settings) -> None:
        self._fleet = fleet
        self._settings = settings
        self._use = _Use()

    def routes(self) -> list[Route]:
        """All routes."""
        return [Route("/v1/nodes", self.listing)]

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


def _gpu(gpu: Gpu) -> dict[str, Any]:
    return {
        "index": gpu.index,
        "name": gpu.name,
        "uuid": gpu.uuid,
        "memory_total_bytes": gpu.total_bytes,
        "memory_free_bytes": gpu.free_bytes,
        "capability": gpu.capability,
        "driver": gpu.driver,
    }
