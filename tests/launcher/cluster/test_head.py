"""What the record of a running Ray is trusted for."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from paddock.launcher.cluster.head import FILE, Record, environment, read_record
from paddock.launcher.hosts import processes
from paddock.registry.files import make_home, make_private


@pytest.fixture
def record(home: Path, tmp_path: Path) -> Record:
    """A record of this process as all of Ray, in the home."""
    folder = tmp_path / "folder"
    make_private(folder)
    make_home(home)
    birth = processes.birth(os.getpid())
    assert birth is not None
    record = Record("127.0.0.1:1", str(folder), {os.getpid(): birth}, 1, (os.getpid(), birth))
    record.write(home)
    return record


def test_a_record_is_read_as_it_was_written(home: Path, record: Record) -> None:
    """It is for its user alone, and says that its processes live."""
    assert read_record(home) == record
    assert (home / FILE).stat().st_mode & 0o777 == 0o600
    assert record.head_lives
    assert record.bridge_lives


def test_a_number_that_another_process_got_is_no_life(record: Record) -> None:
    """A process of the same number that was born at another time is not Ray's."""
    assert not replace(record, head={os.getpid(): 1.0}).head_lives
    assert not replace(record, bridge=(os.getpid(), 1.0)).bridge_lives


@pytest.mark.parametrize(
    "spoil",
    [
        lambda home, _: (home / FILE).chmod(0o666),
        lambda home, _: (home / FILE).write_text("{}"),
        lambda home, _: (home / FILE).write_text("no json"),
        lambda home, _: (home / FILE).write_text('{"pid": 1, "socket": "/tmp/x"}'),
        lambda home, _: (home / FILE).unlink(),
        lambda _, folder: folder.chmod(0o777),
        lambda _, folder: folder.chmod(0o750),
        lambda _, folder: folder.rmdir(),
    ],
)
def test_what_others_may_have_written_is_no_record(
    home: Path, record: Record, spoil: Callable[[Path, Path], None]
) -> None:
    """A record or a folder that others can write, an older version's, or none: no record."""
    spoil(home, Path(record.folder))
    assert read_record(home) is None


def test_a_home_and_its_secrets_are_for_their_user_alone(home: Path) -> None:
    """A home that others can enter is closed to them; the token is for its user alone."""
    home.mkdir(mode=0o755)
    token = Path(environment(home)["RAY_AUTH_TOKEN_PATH"])
    processes.instance_id(home)
    assert home.stat().st_mode & 0o777 == 0o700
    for path in (token, home / "instance"):
        assert path.stat().st_mode & 0o777 == 0o600
