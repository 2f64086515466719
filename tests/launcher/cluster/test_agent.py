"""The end of an actor on its node, whatever its processes do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import psutil
import pytest

from paddock.launcher.cluster.agent import end_actor
from paddock.launcher.hosts import processes

INSTANCE = f"test-of-agents-{os.getpid()}"
DEAF = """
import signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], env={})
print(child.pid, flush=True)
child.wait()
"""
Engine = Callable[[str], tuple[psutil.Process, psutil.Process]]


@pytest.fixture
def engine() -> Iterator[Engine]:
    """Starts a process that stands for an engine of an actor, with a child that has no variable."""
    started: list[subprocess.Popen[str]] = []

    def start(actor: str) -> tuple[psutil.Process, psutil.Process]:
        environ = processes.environment(INSTANCE, processes.ENGINE)
        process = subprocess.Popen(
            [sys.executable, "-c", DEAF],
            env={**environ, processes.ACTOR_VARIABLE: actor},
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        return psutil.Process(process.pid), psutil.Process(int(process.stdout.readline()))

    yield start
    for process in started:
        for left in processes.belonging(INSTANCE):
            left.kill()
        process.communicate(timeout=30)


def test_nothing_of_an_actor_is_left(engine: Engine) -> None:
    """An engine that is stopped and its child are gone on return; another actor's engine is not."""
    first, child = engine("m-rep0@a.1")
    other, _ = engine("m-rep0@a.10")
    os.kill(first.pid, signal.SIGSTOP)
    assert end_actor(INSTANCE, "m-rep0@a.1") == []
    assert processes.gone(first, 0.1)
    assert processes.gone(child, 0.1)
    assert other.is_running()
    assert other.status() != psutil.STATUS_ZOMBIE
    end_actor(INSTANCE, "m-rep0@a.10")


def test_a_process_that_is_no_worker_of_rays_is_left_alone(engine: Engine) -> None:
    """The number that Ray knows may be another's by now: such a process is not ended."""
    other, _ = engine("other")
    assert end_actor(INSTANCE, "gone", other.pid, other.create_time()) == []
    assert other.is_running()
    end_actor(INSTANCE, "other")


def test_a_process_that_goes_by_itself_meanwhile_is_no_error(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A warden may end between the look at the processes and the kill."""
    warden, _ = engine("m-rep0@a.2")
    end_actor(INSTANCE, "m-rep0@a.2")
    answers = iter([[warden], []])
    with monkeypatch.context() as patch:
        patch.setattr(processes, "belonging", lambda *_, **__: next(answers))
        assert end_actor(INSTANCE, "m-rep0@a.2") == []
