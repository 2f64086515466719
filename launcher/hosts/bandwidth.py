"""The bandwidth between processors and memory, which bounds how fast a processor answers.

Measured once, in about a tenth of a second, and kept with the machine in PADDOCK_HOME/cache. What
else runs meanwhile makes the figure smaller, so the best of several rounds counts.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
import time
from functools import lru_cache
from pathlib import Path

from paddock.launcher.hosts.file_records import read_record, write_record
from paddock.launcher.hosts.machine import cpus, memory

COPIED_BYTES = 128 << 20
"""More than the caches of most processors hold."""
THREADS = 8
ROUNDS = 4


def memory_bandwidth(home: Path) -> float:
    """Bytes/s that are read and written; measured the first time on a machine, then as kept."""
    machine = [cpus(), memory()[0]]
    path = home / "cache" / "bandwidth.json"
    record = read_record(path) or {}
    rate = record.get("bytes_per_second")
    if record.get("machine") == machine and isinstance(rate, int | float) and rate > 0:
        return float(rate)
    rate = _measure()
    if home.exists():  # a dry run leaves nothing behind
        with contextlib.suppress(OSError):
            write_record(path, {"machine": machine, "bytes_per_second": rate})
    return rate


@lru_cache(maxsize=1)
def _measure() -> float:
    """Threads copy their parts of a buffer side by side; ctypes lets go of the interpreter."""
    threads = min(THREADS, cpus())
    half = COPIED_BYTES // 2
    source, target = ctypes.create_string_buffer(half), ctypes.create_string_buffer(half)
    part = half // threads
    best = 0.0

    def copy(number: int) -> None:
        offset = number * part
        ctypes.memmove(ctypes.addressof(target) + offset, ctypes.addressof(source) + offset, part)

    for _ in range(ROUNDS):
        workers = [threading.Thread(target=copy, args=(number,)) for number in range(threads)]
        began = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        best = max(best, 2 * part * threads / (time.perf_counter() - began))
    return round(best)
