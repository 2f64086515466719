"""Writes files in one step: readers see the old one or the new one, and so does a crash.

What the system says of a write that fails becomes one error with the path: a full disk and a
folder that may not be written are nobody's bug.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from paddock.registry.errors import DiskFull, NotWritten

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_DENIED = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
MARKERS = ("instance", "paddock.db")
"""A folder with one of these files in it is a home folder, whose mode is ours to set."""


def write_atomically(
    path: Path, data: str | bytes, *, private: bool = True, durable: bool = False
) -> None:
    """Replaces a file, or leaves it as it was. Its folder is made where it is missing.

    Args:
        path: the file.
        data: all of its content; text is written as UTF-8.
        private: only its owner may read and write it, and enter folders that are made for it; else
            as the umask has it.
        durable: it has reached the disk when this returns.

    Raises:
        NotWritten: it cannot be written; `DiskFull` where that is why.
    """
    with writing(path):
        replace_file(path, data, private=private, durable=durable)


def replace_file(
    path: Path, data: str | bytes, *, private: bool = True, durable: bool = False
) -> None:
    """As `write_atomically`, but raises `OSError`."""
    raw = data.encode() if isinstance(data, str) else data
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    _make_folder(path.parent, 0o700 if private else 0o777)
    mode = 0o600 if private else 0o666
    opened = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(opened, "wb") as file:
            file.write(raw)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _make_folder(folder: Path, mode: int) -> None:
    """Makes a folder and those above it that are missing; `Path.mkdir` has a mode for one alone."""
    if not folder.parent.is_dir():
        _make_folder(folder.parent, mode)
    folder.mkdir(mode=mode, exist_ok=True)


def make_home(home: Path) -> None:
    """Makes the home folder, which only its owner may enter; one of before is closed to others.

    A folder that somebody named and that holds other things, such as `/tmp`, keeps its mode.

    Raises:
        NotWritten: as `write_atomically`.
    """
    with writing(home):
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        names = {entry.name for entry in os.scandir(home)}
        if not names or names & set(MARKERS):
            make_private(home)


def make_private(folder: Path) -> None:
    """Makes a folder that only its owner can enter. Raises `OSError`.

    Folders above it that are missing are made so too: the first of all may be the home.
    """
    _make_folder(folder, 0o700)
    status = folder.stat()
    if status.st_uid == os.geteuid() and status.st_mode & 0o077:
        folder.chmod(0o700)


def open_private(path: Path, mode: str) -> IO[bytes]:
    """Opens a log, as `mode` has it, which only its owner can read. Raises `OSError`."""

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags, 0o600)

    file: IO[bytes] = open(path, mode, opener=opener)  # noqa: SIM115 - the caller closes it
    if path.stat().st_mode & 0o077:  # an older version's
        path.chmod(0o600)
    return file


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raises `NotWritten` for what the system says while `path` is written."""
    try:
        yield
    except OSError as error:
        raise not_written(error, path) from error


def not_written(error: OSError, path: Path | None = None) -> NotWritten:
    """A system's error as one of ours; without a `path`, with the one that it names."""
    subject = str(path or error.filename or "a file")
    kind = DiskFull if error.errno in _FULL else NotWritten
    return kind(subject, error.strerror or str(error))


def is_refused_write(error: OSError) -> bool:
    """Whether the system refused to write: no bug, whatever was to be written."""
    return error.errno in _FULL or error.errno in _DENIED
