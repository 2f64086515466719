"""Commands over a home folder that cannot be written."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from paddock.cli.main import main


@pytest.fixture
def nowhere(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home on a file system that is mounted read-only."""

    def refused(path: Path, *_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(Path, "mkdir", refused)
    return home


@pytest.mark.parametrize(
    "command",
    [
        ["keys", "create"],
        ["list"],
        ["serve"],
        ["launch", "tiny-mixtral"],
        ["pull", "tiny-mixtral"],
        ["cache", "list"],
        ["truth", "list"],
    ],
)
def test_one_line_says_which_path(
    nowhere: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    """No traceback: the path, the system's reason, and how to name another folder."""
    with pytest.raises(SystemExit) as caught:
        main(command)
    assert caught.value.code == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"{nowhere}" in said
    assert "cannot be written: Read-only file system" in said
    assert "PADDOCK_HOME" in said


@pytest.mark.parametrize("where", ["/proc/nowhere", "file", "file/below", "a" * 300])
@pytest.mark.parametrize("command", [["stop"], ["list"], ["launch", "tiny-mixtral"]])
def test_a_path_where_no_folder_can_be_is_told_in_a_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    where: str,
    command: list[str],
) -> None:
    """Below a file, in a system's folder, or by a name that is too long."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("PADDOCK_HOME", str(tmp_path / where))
    with pytest.raises(SystemExit) as caught:
        main(command)
    said = capsys.readouterr()
    if command == ["stop"] and where.startswith("/proc"):
        assert (caught.value.code, said.out) == (0, "nothing was running\n")
        return
    assert caught.value.code in {1, 2}
    assert said.err.count("\n") == 1
    assert str(tmp_path / where) in said.err


def test_as_json(nowhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With `--json`, the error is an object with the path."""
    with pytest.raises(SystemExit):
        main(["keys", "create", "--json"])
    error = json.loads(capsys.readouterr().out)["error"]
    assert (error["code"], error["path"]) == ("NotWritten", str(nowhere))
