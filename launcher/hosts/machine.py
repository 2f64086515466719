"""What this machine has: processors and memory. Light to import, for quick commands."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
from collections.abc import Collection
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
            usage = one.memory_info()
            held += usage.rss - getattr(usage, "shared", 0)
    return held


def own_bytes(pid: int) -> int:
    """As `held_bytes`, with what several processes share counted once; 0 if it has ended.

    By the kernel's proportional set size of memory that no file backs (`smaps_rollup`), which it
    has to count, in some milliseconds a gigabyte; outside Linux it is `held_bytes`.
    """
    total = 0
    try:
        process = psutil.Process(pid)
        for one in (process, *process.children(recursive=True)):
            lines = Path(f"/proc/{one.pid}/smaps_rollup").read_text().splitlines()
            fields = dict(line.split(":", 1) for line in lines[1:])
            total += sum(int(fields[name].split()[0]) for name in ("Pss_Anon", "Pss_Shmem")) * 1024
    except (psutil.Error, OSError, ValueError, KeyError):
        return held_bytes(pid)
    return total


def mapped_bytes(pid: int, files: Collection[str]) -> int:
    """Memory that a process and those below it hold as pages of these files, by their real paths.

    What several processes share counts once; 0 if it has ended, and outside Linux.
    """
    total = 0
    with contextlib.suppress(psutil.Error, OSError, AttributeError):
        process = psutil.Process(pid)
        for one in (process, *process.children(recursive=True)):
            maps = one.memory_maps(grouped=True)
            total += sum(int(mapping.pss) for mapping in maps if mapping.path in files)
    return total


def oom_kills(root: Path = Path("/")) -> int:
    """How many processes the kernel has ended for want of memory: of this process's control group.

    Where that cannot be told, of the whole machine; 0 outside Linux. See `memory.events` in the
    kernel's document on control groups (v2).
    """
    with contextlib.suppress(OSError, ValueError):
        lines = (root / "proc/self/cgroup").read_text().splitlines()
        group = next((line[3:] for line in lines if line.startswith("0::")), None)
        counts = [root / "proc/vmstat"]
        if group is not None:
            counts.insert(0, root / f"sys/fs/cgroup/{group.lstrip('/')}/memory.events")
        for path in counts:
            with contextlib.suppress(OSError):
                fields = dict(line.split() for line in path.read_text().splitlines())
                if "oom_kill" in fields:
                    return int(fields["oom_kill"])
    return 0


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
