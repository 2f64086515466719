"""`paddock stop`, whatever hangs or was killed."""

from __future__ import annotations

import os
import signal

import psutil

from paddock.launcher.cluster.head import read_record
from paddock.launcher.hosts import processes
from tests.conftest import Paddock
from tests.e2e.test_failures import actor_pid, engine_pid


def members(paddock: Paddock) -> set[psutil.Process]:
    """Every process of the home and of its Ray's session, those without an environment too."""
    record = read_record(paddock.home)
    assert record is not None
    own = set(processes.belonging(processes.instance_id(paddock.home)))
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == record.session:
                own.add(process)
        except OSError:
            continue
    return own


def test_stop_ends_everything_though_the_bridge_hangs(paddock: Paddock) -> None:
    """A bridge and an actor under SIGSTOP keep nothing from ending, and `stop` names the model."""
    paddock.ok("launch", "tiny-mixtral", "-en", "echo")
    own = members(paddock)
    instance = processes.instance_id(paddock.home)
    (bridge,) = processes.belonging(instance, {processes.BRIDGE})
    bridge.suspend()
    psutil.Process(actor_pid(engine_pid(paddock, "tiny-mixtral"))).suspend()
    stopped = paddock.json("stop")
    assert stopped["stopped"]
    assert stopped["models"] == ["tiny-mixtral"]
    assert [process for process in own if not processes.gone(process, 0.1)] == []
    assert not (paddock.home / "ray.json").exists()


def test_stop_finds_rays_agents_after_a_crash(paddock: Paddock) -> None:
    """With gateway, bridge and head killed, agents without an environment are ended and told of."""
    paddock.ok("launch", "tiny-mixtral", "-en", "echo")
    own = members(paddock)
    record = read_record(paddock.home)
    assert record is not None
    assert record.bridge is not None
    for pid in (paddock.record["pid"], record.bridge[0], *record.head):
        os.kill(pid, signal.SIGKILL)
    stopped = paddock.json("stop")
    assert stopped["stopped"]
    assert [process for process in own if not processes.gone(process, 0.1)] == []
    assert not paddock.json("stop")["stopped"]
