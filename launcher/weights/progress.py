"""The progress of a download: the one source of all bars, events and figures."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from paddock.launcher.weights.base import RemoteFile

WINDOW_SECONDS = 5.0
LEAST_SECONDS = 0.5
"""Speed is measured over the last `WINDOW_SECONDS`, once `LEAST_SECONDS` have passed."""
STEP_SECONDS = 0.1
TICK_SECONDS = 0.5


@dataclass(frozen=True)
class FileProgress:
    """One file. Speed and time left are None where they are not known."""

    name: str
    came_bytes: int
    total_bytes: int
    bytes_per_second: float | None = None
    seconds_left: float | None = None


@dataclass(frozen=True)
class Progress:
    """All files of a download, and their sums. `note` says what is done, and from where."""

    note: str
    came_bytes: int
    total_bytes: int
    bytes_per_second: float | None = None
    seconds_left: float | None = None
    files: tuple[FileProgress, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The same as JSON."""
        return asdict(self)


Report = Callable[[Progress], None]


class _Speed:
    """Bytes per second from the network, over the last seconds."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def at(self, now: float, fresh: int) -> None:
        self._samples.append((now, fresh))
        while len(self._samples) > 2 and self._samples[1][0] < now - WINDOW_SECONDS:
            self._samples.popleft()

    def value(self) -> float | None:
        if not self._samples:
            return None
        (begin, first), (end, last) = self._samples[0], self._samples[-1]
        return (last - first) / (end - begin) if end - begin >= LEAST_SECONDS else None


class Meter:
    """Adds up the progress of the files' threads; reports it at most ten times a second."""

    def __init__(
        self,
        note: str,
        files: Sequence[RemoteFile],
        report: Report,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._note = note
        self._report = report
        self._clock = clock
        self._lock = threading.Lock()
        self._totals = {file.name: file.size_bytes for file in files}
        self._came_bytes = dict.fromkeys(self._totals, 0)
        self._old_bytes = dict.fromkeys(self._totals, 0)
        self._speeds = {name: _Speed() for name in self._totals}
        self._speed = _Speed()
        self._reported_at = -STEP_SECONDS
        self._last: Progress | None = None

    def note_present(self, name: str, size: int) -> None:
        """Notes the bytes of the file that are on disk without the network."""
        with self._lock:
            self._old_bytes[name] = size - (self._came_bytes[name] - self._old_bytes[name])
            self._came_bytes[name] = size
        self._tell(name)

    def note_received(self, name: str, size: int) -> None:
        """Notes the bytes of the file that are on disk, the last of them from the network."""
        with self._lock:
            self._came_bytes[name] = size
        self._tell(name)

    @contextmanager
    def ticking(self) -> Iterator[None]:
        """A context in which changes are reported even while no byte comes."""
        done = threading.Event()

        def tick() -> None:
            while not done.wait(TICK_SECONDS):
                self.tell()

        thread = threading.Thread(target=tick, daemon=True, name="download progress")
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _tell(self, name: str) -> None:
        with self._lock:
            soon = self._clock() - self._reported_at < STEP_SECONDS
            if soon and self._came_bytes[name] < self._totals[name]:
                return
        self.tell()

    def tell(self) -> None:
        """Reports the progress if it has changed."""
        with self._lock:
            now = self._reported_at = self._clock()
            for name, speed in self._speeds.items():
                if self._came_bytes[name] < self._totals[name]:
                    speed.at(now, self._came_bytes[name] - self._old_bytes[name])
            self._speed.at(now, sum(self._came_bytes.values()) - sum(self._old_bytes.values()))
            files = tuple(
                FileProgress(name, came, total, *_pace(self._speeds[name].value(), total - came))
                for name, total in self._totals.items()
                for came in [self._came_bytes[name]]
            )
            came, total = sum(self._came_bytes.values()), sum(self._totals.values())
            progress = Progress(
                self._note, came, total, *_pace(self._speed.value(), total - came), files
            )
            if progress == self._last:
                return
            self._last = progress
            self._report(progress)  # with the lock, so that reports come in their order


def _pace(speed: float | None, remaining: int) -> tuple[float | None, float | None]:
    if remaining <= 0:
        return None, 0.0
    return speed, remaining / speed if speed else None
