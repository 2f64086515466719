"""What `paddock stop` says while it waits."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from paddock.cli import stop
from paddock.cli.output import Output
from tests.conftest import Paddock


@pytest.fixture
def gateway() -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends when its stdin does, in place of a gateway."""
    command = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def test_a_gateway_that_finishes_requests_is_waited_for_in_words(
    gateway: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command says that it waits and for how long, and ends nothing by force."""
    monkeypatch.setattr(stop, "QUIET_SECONDS", 0.05)
    lines: list[str] = []

    class Ending(Output):
        def talk(self, text: str) -> None:
            lines.append(text)
            assert gateway.stdin is not None
            gateway.stdin.close()

    assert stop._end_gateway(psutil.Process(gateway.pid), 30.0, Ending(False)) == []
    assert len(lines) == 1
    assert "30 s" in lines[0]


def test_a_gateway_that_does_not_end_is_ended_by_force(
    gateway: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After its time its process is gone, and its number is told."""
    monkeypatch.setattr(stop, "QUIET_SECONDS", 0.05)
    own = psutil.Process(gateway.pid)
    assert stop._end_gateway(own, 0.1, Output(True)) == [gateway.pid]
    assert not own.is_running()


@pytest.mark.parametrize("command", ["serve", "list", "launch tiny-mixtral -en echo"])
def test_a_home_that_cannot_be_written_is_refused_in_one_line(
    paddock: Paddock, command: str
) -> None:
    """It is named with the reason and the way out; no traceback."""
    home = "/proc/paddock"  # not even root can make it
    done = paddock.run(*command.split(), PADDOCK_HOME=home)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert home in line
    assert "PADDOCK_HOME" in line


def test_stop_in_a_home_where_nothing_has_run_makes_none(paddock: Paddock) -> None:
    """`stop` without a home leaves it so."""
    assert not paddock.json("stop")["stopped"]
    assert not paddock.home.exists()
