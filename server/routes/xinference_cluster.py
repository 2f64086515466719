"""The machines behind the gateway, in Xinference's shapes.

How busy a GPU's cores are is not asked: what is said of GPUs is their memory.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any, Literal

import psutil
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from paddock.engines.base import Gpu, Host
from paddock.launcher.fleet.fleet import Fleet
from paddock.server.http.json_response import JSONResponse
from paddock.server.http.operation import Operation, RouteDoc
from paddock.server.http.query import DETAILED, flag
from paddock.server.http.shapes import Shape
from paddock.server.routes import xinference_shapes
from paddock.server.routes.management import Description


class Node(Shape):
    """A machine."""

    node_type: Literal["Supervisor", "Worker"]
    ip_address: str
    gpu_count: int
    gpu_vram_total: int


class Worker(Shape):
    """A machine and the replicas on it."""

    work_ip: str = Field(alias="work-ip")
    models: dict[str, Description]


class Supervisor(Shape):
    """The machine of the gateway."""

    supervisor_ip: str


class Status(Shape):
    """How long the gateway runs, in seconds, and how busy each machine is."""

    uptime: float
    workers: dict[str, dict[str, Any]]


class Machines:
    """The routes, over one fleet."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._began = time.monotonic()
        psutil.cpu_percent()  # later calls tell the use since the one before

    def routes(self) -> list[Operation]:
        """All routes."""
        return [
            Operation("GET", "/status", self.status, RouteDoc("cluster", Status)),
            Operation("GET", "/v1/address", self.address, RouteDoc("cluster", str)),
            Operation("GET", "/v1/supervisor", self.supervisor, RouteDoc("cluster", Supervisor)),
            Operation("GET", "/v1/workers", self.workers, RouteDoc("cluster", list[Worker])),
            Operation(
                "GET",
                "/v1/cluster/info",
                self.info,
                RouteDoc("cluster", list[Node], query=(DETAILED,)),
            ),
            Operation("GET", "/v1/cluster/devices", self.devices, RouteDoc("cluster", int)),
        ]

    async def address(self, request: Request) -> Response:
        """Where the gateway listens; it has no address besides."""
        host, port = request.scope["server"]
        return JSONResponse(f"{host}:{port}")

    async def supervisor(self, request: Request) -> Response:
        """The machine of the gateway."""
        return JSONResponse({"supervisor_ip": request.scope["server"][0]})

    async def workers(self, _: Request) -> Response:
        """Every machine, with the replicas on it."""
        found = []
        for host in await self._fleet.hosts():
            models = {
                replica.replica_id: xinference_shapes.description(status)
                for status in self._fleet.models()
                for replica in status.replicas
                if replica.node == host.node
            }
            found.append({"work-ip": host.address, "models": models})
        return JSONResponse(found)

    async def info(self, request: Request) -> Response:
        """The gateway's machine, then every machine that models may run on."""
        detailed = flag(request, "detailed")
        hosts = await self._fleet.hosts()
        nodes = [("Supervisor", hosts[0]), *(("Worker", host) for host in hosts)]
        return JSONResponse([_node(kind, host, detailed) for kind, host in nodes])

    async def devices(self, _: Request) -> Response:
        """How many GPUs a model may use: those of the machine that has most."""
        return JSONResponse(max(len(host.gpus) for host in await self._fleet.hosts()))

    async def status(self, _: Request) -> Response:
        """How long the gateway runs, and how busy each machine is."""
        hosts = await self._fleet.hosts()
        used = psutil.cpu_percent() / 100
        workers = {
            # Another machine's use of its processors is not known here.
            host.address: _load(host, used if number == 0 else None)
            for number, host in enumerate(hosts)
        }
        return JSONResponse({"uptime": time.monotonic() - self._began, "workers": workers})


def _node(kind: str, host: Host, detailed: bool) -> dict[str, Any]:
    node = {
        "node_type": kind,
        "ip_address": host.address,
        "gpu_count": len(host.gpus),
        "gpu_vram_total": sum(gpu.total_bytes for gpu in host.gpus),
    }
    if not detailed:
        return node
    return node | {
        "name": host.name,
        "cpu_count": host.cpus,
        "mem_total": host.memory_total_bytes,
        "mem_available": host.memory_free_bytes,
        "mem_used": host.memory_total_bytes - host.memory_free_bytes,
        "gpu_utilization": None,
        "gpu_vram_available": sum(gpu.free_bytes for gpu in host.gpus),
        "gpus": [asdict(gpu) for gpu in host.gpus],
    }


def _load(host: Host, used: float | None) -> dict[str, Any]:
    cpu = {
        "usage": used,
        "total": host.cpus,
        "memory_used": host.memory_total_bytes - host.memory_free_bytes,
        "memory_available": host.memory_free_bytes,
        "memory_total": host.memory_total_bytes,
    }
    status = {"cpu": cpu} | {str(gpu.index): _gpu(gpu) for gpu in host.gpus}
    return {"update_time": int(time.time()), "failure_remaining_count": 0, "status": status}


def _gpu(gpu: Gpu) -> dict[str, Any]:
    used = gpu.total_bytes - gpu.free_bytes
    return {
        "name": gpu.name,
        "mem_total": gpu.total_bytes,
        "mem_free": gpu.free_bytes,
        "mem_used": used,
        "mem_usage": used / gpu.total_bytes,
        "gpu_util": None,
    }
