"""Gathers the facts about this node that planning needs."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from collections.abc import Iterable
from pathlib import Path

from paddock.engines import engines
from paddock.engines.base import Host
from paddock.launcher.hosts.bandwidth import memory_bandwidth
from paddock.launcher.hosts.file_records import FileRecords
from paddock.launcher.hosts.gpus import probe_gpus
from paddock.launcher.hosts.machine import cpus, memory
from paddock.registry.catalog import specs_root
from paddock.registry.shards import shard_names

LOCAL = "local"
"""The node id of the gateway's own machine, which it has before Ray runs."""


def probe_host(home: Path, paths: Iterable[str] = (), node: str = LOCAL) -> Host:
    """The facts of the machine that this runs on.

    Args:
        home: the folder whose disk will take downloads.
        paths: files or folders of weights that a user named; what is there becomes part of
            `Host.files`, under that path. So does what was brought from hubs, by `source_key`.
    """
    total, free = memory()
    existing = next(folder for folder in (home, *home.parents) if folder.exists())
    return Host(
        node=node,
        name=socket.gethostname(),
        cpus=cpus(),
        memory_total_bytes=total,
        memory_free_bytes=free,
        disk_free_bytes=shutil.disk_usage(existing).free,
        engines={engine.name: engine.detect() for engine in engines()},
        files={**_shipped_files(), **_named_files(paths), **FileRecords(home).complete_sources()},
        gpus=probe_gpus(),
        memory_bandwidth=memory_bandwidth(home),
    )


def _shipped_files() -> dict[str, int]:
    root = specs_root()
    return {
        path.relative_to(root).as_posix(): path.stat().st_size
        for path in (root / "weights").rglob("*")
        if path.is_file()
    }


def _named_files(paths: Iterable[str]) -> dict[str, int]:
    """Files under the names that the paths give them, so that planning finds them by the path."""
    sizes: dict[str, int] = {}
    for text in paths:
        with contextlib.suppress(OSError):  # not there, or not to be read: planning says so
            if os.path.isfile(text):
                for name in (text, *filter(os.path.isfile, shard_names(text))):
                    sizes[name] = os.path.getsize(name)
                continue
            with os.scandir(text) as entries:
                for entry in entries:
                    if entry.is_file():
                        sizes[f"{text.rstrip('/')}/{entry.name}"] = entry.stat().st_size
    return sizes
