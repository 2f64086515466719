"""Gathers the facts about this node that planning needs. The only part of planning that looks."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterable
from pathlib import Path

import psutil

from paddock.engines import engines
from paddock.engines.base import Host
from paddock.registry.catalog import specs_root

LOCAL = "local"
"""The node id of the gateway's own machine, which it has before Ray runs."""


def probe_host(home: Path, paths: Iterable[str] = (), node: str = LOCAL) -> Host:
    """The facts of the machine that this runs on.

    Args:
        home: the folder whose disk will take downloads.
        paths: files or folders of weights that a user named; what is there becomes part of
            `Host.files`, under its absolute path.
    """
    total, free = _memory()
    existing = next(folder for folder in (home, *home.parents) if folder.exists())
    return Host(
        node=node,
        name=socket.gethostname(),
        cpus=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else _cpus(),
        memory_total_bytes=total,
        memory_free_bytes=free,
        disk_free_bytes=shutil.disk_usage(existing).free,
        engines={engine.name: engine.detect() for engine in engines()},
        files={**_shipped(), **_named(paths)},
    )


def _cpus() -> int:
    return psutil.cpu_count() or 1


def _memory() -> tuple[int, int]:
    """Total and free bytes, within the control group's limit where there is one."""
    memory = psutil.virtual_memory()
    total, free = int(memory.total), int(memory.available)
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    try:
        text = limit.read_text().strip()
        if text != "max":
            total = min(total, int(text))
            free = min(free, max(0, int(text) - int(used.read_text())))
    except (OSError, ValueError):
        pass  # no control group, or one without a memory controller: the machine's figures stand
    return total, free


def _shipped() -> dict[str, int]:
    root = specs_root()
    return {
        path.relative_to(root).as_posix(): path.stat().st_size
        for path in (root / "weights").rglob("*")
        if path.is_file()
    }


def _named(paths: Iterable[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for text in paths:
        path = Path(text)
        files = [path] if path.is_file() else [p for p in path.glob("*") if p.is_file()]
        found.update({str(file): file.stat().st_size for file in files})
    return found
