"""How far a download is: the one source of all bars, events and figures."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from paddock.launcher.hubs.base import RemoteFile

WINDOW_SECONDS = 5.0
LEAST_SECONDS = 0.5
"""Speed is told over the last `WINDOW_SECONDS`, and not before `LEAST_SECONDS` have passed."""
STEP_SECONDS = 0.1


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

    def say(self, note: str) -> None:
        """Says what is done now."""
        self._note = note
        self.tell()

    def _tell(self, name: str) -> None:
        now = self._clock()
        with self._lock:
            if now - self._told < STEP_SECONDS and self._came[name] < self._totals[name]:
                return
            self._told = now
            self._speeds[name].at(now, self._came[name] - self._old[name])
            self._speed.at(now, sum(self._came.values()) - sum(self._old.values()))
        self.tell()

    def tell(self) -> None:
        """Reports how far it is."""
        with self._lock:
            files = tuple(
                FileProgress(name, came, total, *_pace(self._speeds[name].value(), total - came))
                for name, total in self._totals.items()
                for came in [self._came[name]]
            )
            came, total = sum(self._came.values()), sum(self._totals.values())
            progress = Progress(
                self._note, came, total, *_pace(self._speed.value(), total - came), files
            )
        self._report(progress)


def _pace(speed: float | None, left: int) -> tuple[float | None, float | None]:
    if left <= 0:
        return None, 0.0
    return speed, left / speed if speed else None
