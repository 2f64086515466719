"""Starts the head of the local Ray and ends: `python -m paddock.launcher.cluster.head HOME FOLDER`.

Ray's own processes stay, in the session that this process began, apart from the gateway and the
bridge: either may be killed, and Ray, the actors and the engines go on.

How it is started was measured on two cores, up to the first answer of a driver, with the memory of
Ray's processes (PSS) beside:

    ray.init(address="local") in the bridge, as before   2.9 s   238 MB + agents; dies with it
    Node() as `ray start --head` makes it, then a driver  4.2 s   239 MB + agents
    Node() without log monitor and autoscaler             3.5 s   136 MB + agents
    … and without the dashboard's process (here)          2.4 s    67 MB + agents

`ray start --head` itself adds 0.8 s for its command line. What is left out is not used: nothing is
logged to drivers, nothing scales, and there is no dashboard. `Node` is no public interface; the
version of ray is pinned, and a test starts it.

`HOME/ray.json` says what runs: this process writes it, the bridge adds itself.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from paddock.launcher.hosts import processes
from paddock.registry.files import make_home, write_atomically

FILE = "ray.json"
TOKEN = "ray-token"  # noqa: S105 - a file's name
OBJECT_STORE_BYTES = 80_000_000
"""The least that Ray takes: nothing of ours goes through its object store."""
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Record:
    """What `ray.json` holds.

    Attributes:
        address: of Ray's control service.
        folder: of the bridge's socket and, of a local Ray, of its files. Only its user can enter.
        head: the births of the local head's processes by their ids; empty: the cluster is foreign.
        session: the session of the local head's processes.
        bridge: the bridge's process id and birth, once it serves.
    """

    address: str
    folder: str
    head: Mapping[int, float]
    session: int = 0
    bridge: tuple[int, float] | None = None

    @property
    def socket(self) -> Path:
        """Where the bridge listens."""
        return Path(self.folder) / "bridge"

    @property
    def head_lives(self) -> bool:
        """Whether every process of a local head runs."""
        return all(processes.birth(pid) == birth for pid, birth in self.head.items())

    @property
    def bridge_lives(self) -> bool:
        """Whether the bridge's process runs."""
        return self.bridge is not None and processes.birth(self.bridge[0]) == self.bridge[1]

    def dump(self) -> str:
        """It as JSON, in one line."""
        return json.dumps(asdict(self))

    def write(self, home: Path) -> None:
        """Writes it to the home folder, whole or not at all."""
        write_atomically(home / FILE, self.dump())


def read_record(home: Path) -> Record | None:
    """The home folder's record; None if there is none, or one that is not ours to trust.

    Whoever may write it, or enter the folder that it names, could stand in for the bridge.
    """
    record = _read(home)
    try:
        return record if record and processes.is_private(Path(record.folder)) else None
    except OSError:
        return None


def foreign_address(home: Path) -> str:
    """The address of the foreign cluster on which replicas may be left; "" if there is none.

    The record stays until it is known that none is left, also after a reboot, which takes the
    folder with it.
    """
    record = _read(home)
    return "" if record is None or record.head else record.address


def _read(home: Path) -> Record | None:
    try:
        if processes.is_private(home / FILE):
            return parse_record((home / FILE).read_text("utf-8"))
    except (OSError, ValueError):
        pass
    return None


def parse_record(text: str) -> Record:
    """A record from its JSON. Raises `ValueError` where it is none."""
    try:
        values = json.loads(text)
        head = {int(pid): float(birth) for pid, birth in values.pop("head").items()}
        bridge = values.pop("bridge")
        return Record(head=head, bridge=tuple(bridge) if bridge else None, **values)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no record of Ray: {error}") from None


def environment(home: Path) -> dict[str, str]:
    """What a process must have in its environment before it imports ray, to use a local Ray.

    Token authentication with a token of our own; no usage reports; replicas as urgent as anything
    else, and not killed for others' memory; and loopback only: Ray listens on every interface
    unless its node's address is 127.0.0.1, which it takes for itself only where it believes that
    clusters are not to be had.
    """
    token = home / TOKEN
    if not token.exists():
        make_home(home)
        write_atomically(token, secrets.token_hex(32))
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        # Ray would start replicas, and engines with them, at 15: behind all else on the machine.
        "RAY_worker_niceness": "0",
        # It would kill a replica's small actor, and its model, whoever fills the memory. The kernel
        # ends the process that is too large, and an engine's end is told as what it is.
        "RAY_memory_monitor_refresh_ms": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }


def _start_node(folder: Path) -> Any:
    """Starts the head's processes, their files in `folder`."""
    from ray._private.node import Node
    from ray._private.parameter import RayParams

    class Head(Node):  # type: ignore[misc]  # ray has no types
        def start_api_server(self, **_: Any) -> None:
            """Starts no dashboard: `include_dashboard=False` starts a small one all the same."""

    parameters = RayParams(
        node_ip_address=LOOPBACK,
        num_cpus=os.cpu_count(),
        object_store_memory=OBJECT_STORE_BYTES,
        temp_dir=str(folder),
        include_dashboard=False,
        include_log_monitor=False,
        no_monitor=True,
    )
    return Head(parameters, head=True, shutdown_at_exit=False, spawn_reaper=False)


def main() -> None:
    """Starts the head, writes the record and returns."""
    home, folder = Path(sys.argv[1]), Path(sys.argv[2])
    os.environ.update(environment(home))
    for variable in ("RAY_ADDRESS", "RAY_REDIS_ADDRESS"):
        os.environ.pop(variable, None)
    # Ray makes its folder open to all, so it lies in one that is not.
    node = _start_node(folder / "ray")
    pids = [info.process.pid for infos in node.all_processes.values() for info in infos]
    births = {pid: processes.birth(pid) for pid in pids}
    head = {pid: birth for pid, birth in births.items() if birth is not None}
    record = Record(node.gcs_address, str(folder), head, session=os.getsid(0))
    record.write(home)


def add_bridge(home: Path, record: Record) -> None:
    """Writes this process into the record as the bridge."""
    birth = processes.birth(os.getpid())
    assert birth is not None
    replace(record, bridge=(os.getpid(), birth)).write(home)


if __name__ == "__main__":
    main()
