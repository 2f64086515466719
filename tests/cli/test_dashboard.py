"""`paddock dashboard`, and what other commands say of the dashboard."""

from __future__ import annotations

import json
import socket
import stat
from pathlib import Path

import pytest

from paddock.cli.gateway import say_dashboard
from paddock.cli.main import main
from paddock.cli.output import Output
from tests.conftest import Paddock


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where commands of this process look for the build; there is none yet."""
    folder = tmp_path / "dist"
    folder.mkdir()
    monkeypatch.setattr("paddock.web.build_folder", lambda: folder)
    return folder


@pytest.fixture
def browser(tmp_path: Path) -> tuple[Path, Path]:
    """A program that writes down the address that it is to open, and the file that has it."""
    program, opened = tmp_path / "browser", tmp_path / "opened"
    program.write_text(f'#!/bin/sh\nprintf %s "$1" >"{opened}"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program, opened


def test_the_browser_is_given_the_address(
    shared_paddock: Paddock, browser: tuple[Path, Path]
) -> None:
    """The address is printed, answers with the page, and goes to the browser of the user."""
    program, opened = browser
    shared_paddock.ok("list")
    endpoint = shared_paddock.record["endpoint"]
    done = shared_paddock.run("dashboard", "--endpoint", endpoint, BROWSER=f"{program} %s")
    assert (done.returncode, done.stdout) == (0, f"{endpoint}/\n"), done.stderr
    assert opened.read_text() == f"{endpoint}/"


@pytest.mark.parametrize("flag", ["--no-open", "--json"])
def test_the_address_alone_can_be_asked_for(
    shared_paddock: Paddock, browser: tuple[Path, Path], flag: str
) -> None:
    """With `--no-open` and for programs, no browser starts."""
    program, opened = browser
    shared_paddock.ok("list")
    endpoint = shared_paddock.record["endpoint"]
    done = shared_paddock.run("dashboard", flag, "-e", endpoint, BROWSER=f"{program} %s")
    said = json.loads(done.stdout)["dashboard"] if flag == "--json" else done.stdout.strip()
    assert (done.returncode, said) == (0, f"{endpoint}/")
    assert not opened.exists()


def test_an_endpoint_where_nobody_answers_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """An address that shows nothing is not printed; the error has the exit code for it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and so nobody else's; it does not listen
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(SystemExit) as ended:
            main(["dashboard", "--no-open", "--endpoint", endpoint])
    said = capsys.readouterr()
    assert (ended.value.code, said.out) == (5, "")
    assert endpoint in said.err


def test_without_a_build_nothing_is_started(
    build: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says how to make the build, and starts no gateway for a page that is not there."""
    with pytest.raises(SystemExit) as ended:
        main(["dashboard", "--no-open"])
    assert ended.value.code == 2
    assert "make web" in capsys.readouterr().err
    assert not (home / "gateway.json").exists()


def test_only_a_dashboard_that_is_built_is_spoken_of(
    build: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Other commands name its address on stderr, in one line, from the moment that it is there."""
    say_dashboard("http://127.0.0.1:9997", Output())
    assert capsys.readouterr() == ("", "")
    (build / "index.html").touch()
    say_dashboard("http://127.0.0.1:9997", Output(as_json=True))
    assert capsys.readouterr() == ("", "dashboard: http://127.0.0.1:9997/\n")
