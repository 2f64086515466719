"""How far a download is: the one source of all bars, events and figures."""

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
"""Speed is told over the last `WINDOW_SECONDS`, and not before `LEAST_SECONDS` have passed."""
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
    """Bytes a second over the last seconds, of what came over the network."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def at(self, now: float, fresh: int) -> None:
        self._seen.append((now, fresh))
        while len(self._seen) > 2 and self._seen[1][0] < now - WINDOW_SECONDS:
            self._seen.popleft()

    def value(self) -> float | None:
        if not self._seen:
            return None
        (begin, first), (end, last) = self._seen[0], self._seen[-1]
        return (last - first) / (end - begin) if end - begin >= LEAST_SECONDS else None


class Meter:
    """Gathers what the files' threads tell, and reports it ten times a second at most."""

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
        self._came = dict.fromkeys(self._totals, 0)
        self._old = dict.fromkeys(self._totals, 0)
        self._speeds = {name: _Speed() for name in self._totals}
        self._speed = _Speed()
        self._told = -STEP_SECONDS
        self._last: Progress | None = None

    def here(self, name: str, came: int) -> None:
        """So many bytes of the file are here that did not come over the network now."""
        with self._lock:
            self._old[name] = came - (self._came[name] - self._old[name])
            self._came[name] = came
        self._tell(name)

    def came(self, name: str, came: int) -> None:
        """So many bytes of the file are here, the last of them over the network."""
        with self._lock:
            self._came[name] = came
        self._tell(name)

    @contextmanager
    def ticking(self) -> Iterator[None]:
        """Within it, what has changed is reported even while no byte comes."""
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
            soon = self._clock() - self._told < STEP_SECONDS
            if soon and self._came[name] < self._totals[name]:
                return
        self.tell()

    def tell(self) -> None:
        """Reports how far it is, if that is not what was reported last."""
        with self._lock:
            now = self._told = self._clock()
            for name, speed in self._speeds.items():
                if self._came[name] < self._totals[name]:
                    speed.at(now, self._came[name] - self._old[name])
            self._speed.at(now, sum(self._came.values()) - sum(self._old.values()))
            files = tuple(
                FileProgress(name, came, total, *_pace(self._speeds[name].value(), total - came))
                for name, total in self._totals.items()
                for came in [self._came[name]]
            )
            came, total = sum(self._came.values()), sum(self._totals.values())
            progress = Progress(
                self._note, came, total, *_pace(self._speed.value(), total - came), files
            )
            if progress == self._last:
                return
            self._last = progress
            self._report(progress)  # with the lock, so that reports come in their order


def _pace(speed: float | None, left: int) -> tuple[float | None, float | None]:
    if left <= 0:
        return None, 0.0
    return speed, left / speed if speed else None
