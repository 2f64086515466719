"""The warden: reports how an engine ended, and leaves no process of it behind."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from paddock.launcher.replicas.replica import WARDEN

DEADLINE = 20.0
# A process that lives on, and says so; one that only says that it got SIGTERM; one that ignores it.
SLEEP = "import time; print('up', flush=True); time.sleep(600)"
ASKED = "import signal; signal.signal(15, lambda *_: print('asked', flush=True))"
STUBBORN = f"import signal; signal.signal(15, signal.SIG_IGN); {SLEEP}"
# A grandchild in the group; one in a session of its own; one that was given away by its parent.
CHILD = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {STUBBORN!r}]); {SLEEP}"
SESSION = CHILD.replace("])", "], start_new_session=True)")
DAEMON = f"""
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        {SLEEP.replace("up", "daemon")}
    os._exit(0)
os.wait()
{SLEEP}
"""


class Warden:
    """One warden over a Python snippet (or any command), with its reports."""

    def __init__(self, log: Path, *argv: str, grace: float = 5.0, limit: int = 0) -> None:
        self.log = log
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(WARDEN), str(grace), str(limit), *argv],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
            )
        self.pid: int = self.report()["pid"]

    def report(self) -> dict[str, Any]:
        """The next report; the peak is left to tests of it."""
        found = self.whole_report()
        assert found.pop("peak_bytes", 0) >= 0
        return found

    def whole_report(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        readable, _, _ = select.select([self.process.stdout], [], [], DEADLINE)
        assert readable, "the warden reported nothing in time"
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found

    def end(self) -> dict[str, Any]:
        """Slips the leash; the last report."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.report()

    def await_lines(self, count: int) -> None:
        eventually(lambda: len(self.log.read_text().splitlines()) >= count)

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        select.select([], [], [], 0.01)


@pytest.fixture
def guard(tmp_path: Path) -> Iterator[Callable[..., Warden]]:
    """Starts wardens, and ends those that a failed test leaves."""
    started: list[Warden] = []

    def start(*argv: str, **options: Any) -> Warden:
        command = (sys.executable, "-c", *argv) if len(argv) == 1 else argv
        log = tmp_path / f"{len(started)}.log"
        started.append(Warden(log, *command, **options))
        return started[-1]

    yield start
    for warden in started:
        with contextlib.suppress(psutil.Error):
            for process in warden.family():
                process.kill()
        warden.process.kill()
        warden.process.wait()
        for pipe in (warden.process.stdin, warden.process.stdout):
            with contextlib.suppress(OSError):
                assert pipe is not None
                pipe.close()


@pytest.mark.parametrize("code", [0, 1, 255])
def test_an_exit_code_is_reported(guard: Callable[..., Warden], code: int) -> None:
    """An engine that ends by itself is reported with its code, and not as stopped."""
    warden = guard(f"raise SystemExit({code})")
    assert warden.report() == {"code": code, "signal": None, "stopped": False, "held_bytes": 0}
    assert warden.process.wait(DEADLINE) == 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT, signal.SIGSEGV])
def test_a_signal_is_reported(guard: Callable[..., Warden], number: int) -> None:
    """An engine that a signal ended is reported with the signal."""
    warden = guard(SLEEP)
    os.kill(warden.pid, number)
    assert warden.report() == {"code": None, "signal": number, "stopped": False, "held_bytes": 0}


def test_slipping_the_leash_asks_first(guard: Callable[..., Warden]) -> None:
    """SIGTERM comes first, so that an engine can end in its own way."""
    warden = guard(
        "import signal, time; signal.signal(15, lambda *_: exit(7)); print('up', flush=True);"
        "time.sleep(600)"
    )
    warden.await_lines(1)
    assert warden.end() == {"code": 7, "signal": None, "stopped": True, "held_bytes": 0}


def test_sigterm_to_the_warden_stops_the_engine(guard: Callable[..., Warden]) -> None:
    """Ending the warden politely is the same as slipping the leash."""
    warden = guard(SLEEP)
    warden.await_lines(1)
    warden.process.terminate()
    assert warden.report() == {
        "code": None,
        "signal": signal.SIGTERM,
        "stopped": True,
        "held_bytes": 0,
    }


def test_what_ignores_sigterm_is_killed_after_the_grace(guard: Callable[..., Warden]) -> None:
    """No more than the grace is given."""
    warden = guard(STUBBORN, grace=0.1)
    warden.await_lines(1)
    assert warden.end() == {
        "code": None,
        "signal": signal.SIGKILL,
        "stopped": True,
        "held_bytes": 0,
    }


def test_what_was_asked_to_end_has_its_grace(guard: Callable[..., Warden]) -> None:
    """It gets SIGTERM and lives on; nothing is reported before it has ended."""
    warden = guard(f"{ASKED}; {SLEEP}", grace=60)
    warden.await_lines(1)
    assert warden.process.stdin is not None
    warden.process.stdin.close()
    warden.await_lines(2)
    assert warden.process.stdout is not None
    assert select.select([warden.process.stdout.fileno()], [], [], 0)[0] == []
    os.kill(warden.pid, signal.SIGKILL)
    assert warden.report() == {
        "code": None,
        "signal": signal.SIGKILL,
        "stopped": True,
        "held_bytes": 0,
    }


@pytest.mark.parametrize(("code", "lines"), [(CHILD, 2), (SESSION, 2), (DAEMON, 2)])
@pytest.mark.parametrize("how", ["leash", "engine killed"])
def test_grandchildren_are_gone_before_the_report(
    guard: Callable[..., Warden], code: str, lines: int, how: str
) -> None:
    """In the group, outside it or given away: nothing that the engine started outlives it."""
    warden = guard(code, grace=0.2)
    warden.await_lines(lines)
    family = warden.family()
    assert len(family) == 2
    if how == "leash":
        report = warden.end()
    else:
        os.kill(warden.pid, signal.SIGKILL)
        report = warden.report()
    assert not [process for process in family if process.is_running()]
    assert report["stopped"] is (how == "leash")


def test_a_killed_warden_takes_its_engine_along(guard: Callable[..., Warden]) -> None:
    """Nobody can stop a warden from being killed, but the kernel then ends the engine."""
    warden = guard(STUBBORN)
    warden.await_lines(1)
    engine = psutil.Process(warden.pid)
    warden.process.kill()
    engine.wait(DEADLINE)


def test_a_program_that_is_not_there_is_said(guard: Callable[..., Warden]) -> None:
    """The code is 127, as in a shell, and the log names the program."""
    warden = guard("/none/such", "-x")
    assert warden.report() == {"code": 127, "signal": None, "stopped": False, "held_bytes": 0}
    assert warden.log.read_text() == "/none/such: No such file or directory\n"


def test_both_streams_reach_the_log(guard: Callable[..., Warden]) -> None:
    """What the engine prints to stdout and to stderr stands in the one log, in order."""
    warden = guard("import os; [os.write(fd, b'%d\\n' % fd) for fd in (1, 2, 1)]")
    warden.report()
    assert warden.log.read_text() == "1\n2\n1\n"


def test_the_engine_starts_clean(guard: Callable[..., Warden]) -> None:
    """It leads a session of its own, reads nothing, has no stray descriptors or blocked signals."""
    warden = guard(
        "import os, signal, sys; assert os.getsid(0) == os.getpid(); assert sys.stdin.read() == '';"
        "assert signal.getsignal(15) == signal.SIG_DFL; assert not signal.pthread_sigmask(0, []);"
        "assert sorted(map(int, os.listdir('/proc/self/fd')))[:3] == [0, 1, 2];"
        "assert len(os.listdir('/proc/self/fd')) == 4"  # the fourth reads the folder
    )
    assert warden.report() == {"code": 0, "signal": None, "stopped": False, "held_bytes": 0}, (
        warden.log.read_text()
    )


def test_text_on_the_leash_means_nothing(guard: Callable[..., Warden]) -> None:
    """Only the end of the stream counts."""
    warden = guard(SLEEP)
    warden.await_lines(1)
    assert warden.process.stdin is not None
    warden.process.stdin.write(b"hello")
    warden.process.stdin.flush()
    assert warden.end()["stopped"] is True


def test_many_short_runs_lose_nothing(guard: Callable[..., Warden]) -> None:
    """Engines that end at once are reported every time, whoever wins the race."""
    for _ in range(40):
        warden = guard("/bin/sh", "-c", "exit 3")
        assert warden.report()["code"] == 3
        assert warden.process.wait(DEADLINE) == 0


def test_a_leash_that_slips_at_once_stops_at_once(guard: Callable[..., Warden]) -> None:
    """However early it comes, the request to stop reaches the engine: no grace is waited out."""
    for _ in range(10):
        warden = guard("/bin/sleep", "600", grace=60)
        assert warden.end() == {
            "code": None,
            "signal": signal.SIGTERM,
            "stopped": True,
            "held_bytes": 0,
        }


# It takes 200 MB; maps a file of as much, and reads it; shares what it has taken with a child.
TAKE = "kept = b'x' * 200_000_000; print('taken', flush=True)"
MAP = """
import mmap, tempfile, time
file = tempfile.TemporaryFile()
for _ in range(200):
    file.write(b'x' * 1_000_000)
file.flush()
kept = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
print(sum(kept[::4096]), flush=True)
time.sleep(600)
"""
FORK = f"{TAKE}; import os, time; os.fork(); print('up', flush=True); time.sleep(600)"
TAKE_IN_CHILD = f"""
import subprocess, sys, time
subprocess.Popen([sys.executable, '-c', {f"{TAKE}; import time; time.sleep(600)"!r}])
time.sleep(600)
"""


@pytest.mark.parametrize("code", [f"{TAKE}; import time; time.sleep(600)", TAKE_IN_CHILD])
def test_what_holds_more_than_its_limit_is_ended(guard: Callable[..., Warden], code: str) -> None:
    """With all that it started, at once, and with what it held."""
    warden = guard(code, grace=600, limit=150_000_000)
    report = warden.report()
    assert 150_000_000 < report.pop("held_bytes") < 400_000_000
    assert report == {"code": None, "signal": signal.SIGKILL, "stopped": False}
    assert warden.process.wait(DEADLINE) == 0


@pytest.mark.parametrize(("code", "lines"), [(MAP, 1), (FORK, 3)])
def test_mapped_files_and_shared_memory_count_once(
    guard: Callable[..., Warden], code: str, lines: int
) -> None:
    """Pages of a file count for nothing, and what a child shares with its parent counts once."""
    limit = 150_000_000 if code is MAP else 300_000_000
    warden = guard(code, limit=limit)
    warden.await_lines(lines)
    assert warden.process.stdout is not None
    assert select.select([warden.process.stdout], [], [], 1.0)[0] == []
    assert warden.end()["held_bytes"] == 0


def test_a_line_on_the_leash_is_another_limit(guard: Callable[..., Warden]) -> None:
    """It counts from then on, and the leash still holds."""
    warden = guard(f"{TAKE}; import time; time.sleep(600)", limit=10**12)
    warden.await_lines(1)
    assert warden.process.stdin is not None
    for line in (b"0\n", b"1000000", b"000000\n100000000\n"):
        warden.process.stdin.write(line)
        warden.process.stdin.flush()
    assert 100_000_000 < warden.report()["held_bytes"] < 400_000_000


@pytest.mark.parametrize(
    ("is_new", "least", "most"), [(False, 200_000_000, 300_000_000), (True, 1_000_000, 100_000_000)]
)
def test_the_most_that_was_held_is_told(
    guard: Callable[..., Warden], is_new: bool, least: int, most: int
) -> None:
    """Without a limit, too, and from the last line on the leash on."""
    code = (
        f"import time; {TAKE}; time.sleep(1); del kept; print('free', flush=True); time.sleep(60)"
    )
    warden = guard(code, grace=0.1)
    warden.await_lines(2)
    assert warden.process.stdin is not None
    if is_new:
        warden.process.stdin.write(b"0\n")
        warden.process.stdin.flush()
        time.sleep(0.5)
    warden.process.stdin.close()
    assert least < warden.whole_report()["peak_bytes"] < most


def test_an_engine_is_the_first_that_the_kernel_ends(guard: Callable[..., Warden]) -> None:
    """Where the memory of the machine runs out, the warden and its kin live on."""
    warden = guard(SLEEP)
    warden.await_lines(1)
    own = int(Path("/proc/self/oom_score_adj").read_text())
    assert int(Path(f"/proc/{warden.pid}/oom_score_adj").read_text()) == max(800, own)
    assert int(Path(f"/proc/{warden.process.pid}/oom_score_adj").read_text()) == own
