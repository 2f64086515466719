"""Reads an engine's log file: its end, and what has been added since."""

from __future__ import annotations

from pathlib import Path

PIECE_BYTES = 64_000
"""The most that is read at once, of a log of any length."""


def read_tail(path: Path, lines: int) -> list[str]:
    """The last lines that are not empty; none if there is no file."""
    try:
        with path.open("rb") as log:
            log.seek(max(0, path.stat().st_size - PIECE_BYTES))
            text = log.read().decode("utf-8", "replace")
    except OSError:
        return []
    return [line.rstrip() for line in text.splitlines() if line.strip()][-lines:]


def read_after(path: Path, offset: int) -> tuple[int, str]:
    """What was added after `offset` bytes, at most a piece, and the offset behind it.

    Whole lines only, the rest comes with the next call; from the beginning if the file has become
    shorter, because the engine was started anew.
    """
    try:
        with path.open("rb") as log:
            if offset > path.stat().st_size:
                offset = 0
            log.seek(offset)
            text = log.read(PIECE_BYTES)
    except OSError:
        return offset, ""
    complete = text[: text.rfind(b"\n") + 1]
    if not complete and len(text) == PIECE_BYTES:
        complete = text  # one line longer than a piece is passed on in pieces
    return offset + len(complete), complete.decode("utf-8", "replace")
