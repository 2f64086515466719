"""Asks llama.cpp itself what a launch takes, in a child that is ended before it allocates."""

from __future__ import annotations

import json
import os
import re
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from paddock.registry.errors import ProbeFailed

FIT = Path(__file__).with_name("fit.py")
MIB = 1024 * 1024
SECONDS = 20.0
"""The default time limit. Reading a vocabulary of 262,144 tokens takes about a second."""
LONGEST_LOG = 8 * MIB
KEPT_LINES = 5

# Matched from a line's start: a header's own texts may stand further on.
# common_memory_breakdown_print in llama.cpp's common/fit.cpp. A GPU's row has its free memory
# before and an unaccounted rest behind; "self" is the sum of the three.
_ROW = re.compile(
    r"\S+ I common_memory_breakdown_print: \|\s+- (?P<name>.+?)\s*\|.*?"
    r"(?P<self>\d+) = +(?P<model>\d+) \+ +(?P<context>\d+) \+ +(?P<compute>\d+)"
)
_PROJECTOR = re.compile(
    r"\S+ I srv +load_model: \[mtmd\] estimated worst-case memory usage of mmproj is ([\d.]+) MiB"
)
_END = re.compile(r"\S+ \w (?:common_params_fit_impl: projected to use|common_fit_params: )")
_STAMP = re.compile(r"^[\d.]+ [A-Z] ")
"""What stands before the words of a line in its log: the time and the level."""
_ERROR = re.compile(r" E [a-z_]|error|failed|assert|abort", re.IGNORECASE)


@dataclass(frozen=True)
class DeviceBytes:
    """What one device holds of a launch. Whole MiB, each rounded down, as llama.cpp prints them.

    Attributes:
        name: llama.cpp's, such as `Host`, `CPU_REPACK` or `CUDA0 (H200)`.
    """

    name: str
    model_bytes: int
    context_bytes: int
    compute_bytes: int

    @property
    def total_bytes(self) -> int:
        """The sum of the three."""
        return self.model_bytes + self.context_bytes + self.compute_bytes


@dataclass(frozen=True)
class Breakdown:
    """llama.cpp's own reckoning of a launch.

    Attributes:
        devices: in llama.cpp's order; `Host` always among them.
        projector_bytes: its worst case for the projector, which is in no device's row.
        seconds: how long the answer took.
    """

    devices: tuple[DeviceBytes, ...]
    projector_bytes: int = 0
    seconds: float = 0.0

    @property
    def total_bytes(self) -> int:
        """Everything, on all devices."""
        return sum(one.total_bytes for one in self.devices) + self.projector_bytes


def ask_memory(
    python: str,
    settings: Mapping[str, Any],
    environ: Mapping[str, str],
    timeout: float = SECONDS,
) -> Breakdown:
    """llama.cpp's breakdown for a launch with these settings, as `launch_settings` makes them.

    Args:
        python: that of the engine's environment.
        environ: the environment of an engine (`launcher/replicas/environ.py`).
        timeout: seconds, after which the child is killed.

    Raises:
        ProbeFailed: llama.cpp refused the file or the options, crashed or took too long.
    """
    start = time.monotonic()
    # One core's time is at most the limit; a caller that is killed leaves no child that spins.
    request = json.dumps({"settings": dict(settings), "seconds": int(timeout) + 1})
    path = str(settings.get("path", ""))
    try:
        child = subprocess.Popen(
            (python, str(FIT)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**environ, "GGML_NO_BACKTRACE": "1"},
        )
    except OSError as error:
        raise ProbeFailed("llama.cpp", path, str(error)) from None
    assert child.stdin is not None
    assert child.stdout is not None
    lines: list[str] = []
    try:
        with suppress(BrokenPipeError):
            child.stdin.write(request.encode())
            child.stdin.close()
        ended = _read_until_end(child.stdout, lines, start + timeout)
    finally:
        _kill(child)
    seconds = time.monotonic() - start
    breakdown = parse_breakdown(lines, seconds)
    if not ended or not breakdown.devices:
        late = seconds >= timeout
        reason = f"no answer within {timeout:g} s" if late else _reason(child, ended, lines)
        raise ProbeFailed("llama.cpp", path, reason)
    return breakdown


def _read_until_end(log: IO[bytes], lines: list[str], deadline: float) -> bool:
    """Reads complete lines until the breakdown's end; False if the log ends or time is up first."""
    descriptor = log.fileno()
    os.set_blocking(descriptor, False)
    rest, length = b"", 0
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while (left := deadline - time.monotonic()) > 0 and length < LONGEST_LOG:
            if not selector.select(left):
                return False
            piece = os.read(descriptor, 1 << 16)
            if not piece:
                return False
            length += len(piece)
            *complete, rest = (rest + piece).split(b"\n")
            for line in complete:
                lines.append(line.decode("utf-8", "replace"))
                if _END.match(lines[-1]):
                    return True
    return False


def _kill(child: subprocess.Popen[bytes]) -> None:
    """Ends the child and all that it started; it leads a session of its own."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    assert child.stdout is not None
    child.stdout.close()


def _reason(child: subprocess.Popen[bytes], ended: bool, lines: Sequence[str]) -> str:
    """Its first errors, else its last words; and how it ended, if it did so by itself."""
    words = [line for line in lines if _ERROR.search(line)][:KEPT_LINES] or lines[-KEPT_LINES:]
    text = " / ".join(_STAMP.sub("", line).strip()[:200] for line in words)
    return text if ended else f"it ended with {child.returncode}: {text or 'no word'}"


def parse_breakdown(lines: Sequence[str], seconds: float = 0.0) -> Breakdown:
    """The breakdown in llama.cpp's log. A device that has several rows gets one."""
    devices: dict[str, DeviceBytes] = {}
    projector = 0
    for line in lines:
        if row := _ROW.match(line):
            parts = (int(row[part]) * MIB for part in ("model", "context", "compute"))
            one = DeviceBytes(row["name"], *parts)
            before = devices.get(one.name)
            devices[one.name] = (
                one
                if before is None
                else DeviceBytes(
                    one.name,
                    before.model_bytes + one.model_bytes,
                    before.context_bytes + one.context_bytes,
                    before.compute_bytes + one.compute_bytes,
                )
            )
        elif found := _PROJECTOR.match(line):
            projector = round(float(found[1]) * MIB)
    return Breakdown(tuple(devices.values()), projector, seconds)
