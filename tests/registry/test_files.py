"""Files that are written in one step, and what is said where they cannot be."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paddock.registry import files
from paddock.registry.errors import DiskFull, NotWritten
from paddock.registry.files import (
    is_refused_write,
    make_home,
    make_private,
    not_written,
    write_atomically,
)


def refuse(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Every new file is refused by the system."""

    def refused(path: Any, flags: int, *_: Any) -> int:
        raise OSError(code, os.strerror(code), str(path))

    monkeypatch.setattr(files.os, "open", refused)


def test_file_is_replaced_and_private(tmp_path: Path) -> None:
    """The new content is there with its mode, and nothing else is left in the folder."""
    path = tmp_path / "deep" / "a.json"
    write_atomically(path, "é")
    write_atomically(path, b"\xff", durable=True)
    assert path.read_bytes() == b"\xff"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]
    umask = os.umask(0o022)
    try:
        write_atomically(path, "", private=False)
    finally:
        os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("make", [lambda path: write_atomically(path / "a", ""), make_private])
def test_folders_that_are_made_for_private_files_are_private(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    """All that were missing, of which the first may be the home; one of before keeps its mode."""
    before = tmp_path / "before"
    before.mkdir(mode=0o755)
    umask = os.umask(0)
    try:
        make(before / "home" / "logs")
    finally:
        os.umask(umask)
    made = [before, before / "home", before / "home" / "logs"]
    assert [path.stat().st_mode & 0o777 for path in made] == [0o755, 0o700, 0o700]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.ENOSPC, DiskFull),
        (errno.EDQUOT, DiskFull),
        (errno.EROFS, NotWritten),
        (errno.EACCES, NotWritten),
        (errno.EIO, NotWritten),
    ],
)
def test_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[NotWritten]
) -> None:
    """The error names the path and the system's reason; nothing half-written is there."""
    path = tmp_path / "a"
    path.write_text("old")
    refuse(monkeypatch, code)
    with pytest.raises(NotWritten) as caught:
        write_atomically(path, "new")
    assert type(caught.value) is kind
    assert str(path) in str(caught.value)
    assert os.strerror(code) in str(caught.value)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_disk_that_fills_up_in_the_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file that was begun is removed."""

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(DiskFull):
        write_atomically(tmp_path / "a", "new", durable=True)
    assert list(tmp_path.iterdir()) == []


def test_home_is_its_owners(tmp_path: Path) -> None:
    """A home that is new, empty or of before is closed to others; no other folder is."""
    home = tmp_path / "home"
    make_home(home)
    assert home.stat().st_mode & 0o777 == 0o700
    home.chmod(0o755)
    (home / "others").touch()
    make_home(home)
    assert home.stat().st_mode & 0o777 == 0o755
    (home / files.MARKERS[0]).touch()
    make_home(home)
    assert home.stat().st_mode & 0o777 == 0o700


def test_refused_writes_are_told_from_bugs() -> None:
    """A missing file or a lost connection is no refused write."""
    assert is_refused_write(OSError(errno.EROFS, "x"))
    assert not is_refused_write(FileNotFoundError(errno.ENOENT, "x"))
    assert not is_refused_write(ConnectionResetError(errno.ECONNRESET, "x"))
    assert not_written(OSError(errno.EACCES, "x", "/a/b")).path == "/a/b"
