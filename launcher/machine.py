"""What this machine has: processors and memory. Light to import, for quick commands."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
from pathlib import Path

import psutil

CGROUP = Path("/sys/fs/cgroup")


def cpus() -> int:
    """Processors that this process may use, within the control group's quota where there is one."""
    allowed = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else psutil.cpu_count()
    )
    try:
        quota, period = (CGROUP / "cpu.max").read_text().split()
        share = math.ceil(int(quota) / int(period)) if quota != "max" else allowed
    except (OSError, ValueError):
        share = allowed  # no control group, or one without a processor controller
    return max(1, min(allowed or 1, share or 1))


def disk(folder: Path) -> tuple[int, int]:
    """Total and free bytes of the disk that a folder is on, or will be."""
    existing = next(one for one in (folder, *folder.parents) if one.exists())
    usage = shutil.disk_usage(existing)
    return usage.total, usage.free


def held_bytes(pid: int) -> int:
    """Memory that a process and those below it hold, without pages of files; 0 if it has ended."""
    held = 0
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        for one in (process, *process.children(recursive=True)):
            told = one.memory_info()
            held += told.rss - getattr(told, "shared", 0)
    return held


def memory() -> tuple[int, int]:
    """Total and free bytes, within the control group's limit where there is one."""
    memory = psutil.virtual_memory()
    total, free = int(memory.total), int(memory.available)
    try:
        text = (CGROUP / "memory.max").read_text().strip()
        if text != "max":
            used = int((CGROUP / "memory.current").read_text())
            fields = dict(
                line.split() for line in (CGROUP / "memory.stat").read_text().splitlines()
            )
            # Pages of files count as used, and make way: after a large file was read, `used`
            # stands at the limit.
            cached = int(fields["active_file"]) + int(fields["inactive_file"])
            total = min(total, int(text))
            free = min(free, max(0, int(text) - used + cached))
    except (OSError, ValueError, KeyError):
        pass  # no control group, or one without a memory controller: the machine's figures stand
    return total, free
