"""Which processes of a home end with Ray, and which only with everything."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from paddock.launcher.cluster.head import Record
from paddock.launcher.cluster.sweep import end_all, end_ray
from paddock.launcher.hosts import processes
from paddock.launcher.hosts.processes import BRIDGE, ENGINE, GATEWAY, JOB, RAY, REPLICA, UNKNOWN

PROGRAM = "import signal, sys; print('runs', flush=True); signal.pause()"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
Start = Callable[..., psutil.Process]


@pytest.fixture
def start(home: Path) -> Iterator[Start]:
    """Starts processes of the home that run until they are ended."""
    children: list[subprocess.Popen[str]] = []

    def build(role: str, first: str = "", session: bool = False) -> psutil.Process:
        environ = processes.environment(processes.instance_id(home), role)
        if role == UNKNOWN:
            environ.pop(processes.ROLE_VARIABLE)
        child = subprocess.Popen(
            [sys.executable, "-c", first + PROGRAM],
            env=environ,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=session,
        )
        children.append(child)
        assert child.stdout is not None
        assert child.stdout.readline() == "runs\n"
        return psutil.Process(child.pid)

    yield build
    for child in children:
        child.kill()
        child.communicate(timeout=30)


def ended(process: psutil.Process) -> bool:
    return processes.birth(process.pid) is None


def test_rays_end_leaves_jobs_and_the_gateway(home: Path, start: Start) -> None:
    """A download, an install and the gateway outlive Ray; bridge, replicas and engines do not."""
    survivors = [start(role) for role in (JOB, GATEWAY)]
    others = [start(role) for role in (BRIDGE, RAY, REPLICA, ENGINE)]
    result = end_ray(home, 30.0)
    assert result.all == tuple(sorted(process.pid for process in others))
    assert result.by_force == result.left == ()
    assert all(map(ended, others))
    assert not any(map(ended, survivors))


def test_processes_of_an_older_version_end_with_ray(home: Path, start: Start) -> None:
    """A process that has no role yet is taken for one of Ray's."""
    old = start(UNKNOWN)
    assert end_ray(home, 30.0).all == (old.pid,)
    assert ended(old)


def test_everything_ends_whatever_its_role(home: Path, start: Start) -> None:
    """`end_all` leaves none, and says which did not heed."""
    heeding = [start(role) for role in (JOB, GATEWAY, ENGINE, UNKNOWN)]
    deaf = start(JOB, DEAF)
    result = end_all(home, 0.5)
    assert result.by_force == (deaf.pid,)
    assert all(map(ended, [*heeding, deaf]))
    assert result.left == ()


def test_another_homes_processes_are_left_alone(home: Path, tmp_path: Path, start: Start) -> None:
    """Only processes of the home itself are ended."""
    other = start(ENGINE)
    assert end_all(tmp_path / "other", 30.0).all == ()
    assert not ended(other)


def test_an_agent_without_its_environment_is_found_by_its_session(
    home: Path, tmp_path: Path, start: Start
) -> None:
    """Ray's agents wipe their environment; when Ray was killed, its session tells them."""
    raylet = start(
        RAY,
        "import subprocess, sys;"
        "subprocess.Popen(['ray::Agent', '-c', 'import signal; signal.pause()'],"
        "executable=sys.executable, env={});",
        session=True,
    )
    (agent,) = raylet.children()
    Record("127.0.0.1:1", str(tmp_path), {raylet.pid: 1.0}, session=raylet.pid).write(home)
    raylet.kill()
    raylet.wait(30)
    assert end_all(home, 30.0).all == (agent.pid,)
    assert ended(agent)
