"""What a fault costs: requests that failed, and the time until full capacity is back.

    python -m bench.faults [--only NAME,…] [--rounds 1] [--json]

tiny-mixtral with two replicas serves 16 streams; then something is killed or stopped. For each
fault: the requests that were in flight on what died, those that failed, the seconds until every
replica serves again and is managed, and the processes that are left after `paddock stop`. Each
fault meets a model that was launched anew, so that none pays for the failures of another. Uses a
temporary PADDOCK_HOME and ends everything that it started.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from paddock.client import Client
from paddock.launcher.cluster.head import read_record
from paddock.launcher.fleet.decide import LONGEST_DELAY
from paddock.launcher.hosts import processes
from paddock.registry.errors import PaddockError

PADDOCK = [sys.executable, "-m", "paddock"]
UID = "tiny"
STREAMS, TOKENS = 16, 300
WARM_SECONDS, AFTER_SECONDS, LIMIT_SECONDS = 2.0, 1.0, 120.0
SETTLE_SECONDS = 60.0
"""How long Ray goes on with its own start after the first model serves."""
COMMAND_SECONDS = 300.0
"""How long a command may take, a launch with all of its waits."""
WANTED = {
    "engine killed": 2.0,
    "warden killed": 2.0,
    "actor killed": 3.0,
    "engine hung": 30.0,
    "bridge killed": 10.0,
    "gateway killed": 3.0,
    "raylet killed": 15.0,
    "gcs killed": 15.0,
    "node lost": 15.0,
}
"""Seconds until full capacity that are wanted on an idle machine with two cores."""


@dataclass
class Home:
    """A PADDOCK_HOME with all that runs in it."""

    path: Path
    environ: dict[str, str]

    def paddock(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end."""
        return subprocess.run(
            [*PADDOCK, *arguments],
            env=self.environ,
            text=True,
            capture_output=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )

    @property
    def record(self) -> dict[str, Any]:
        """What the gateway wrote down of itself."""
        return dict(json.loads((self.path / "gateway.json").read_text()))

    def client(self) -> Client:
        """A client of the gateway that runs now."""
        record = self.record
        return Client(str(record["endpoint"]), str(record["key"]))

    def replicas(self) -> list[dict[str, Any]]:
        """The replicas of the model; none while nobody answers."""
        with suppress(OSError, ValueError, KeyError, PaddockError):
            return [r for one in self.client().instances(UID) for r in one["replica_statuses"]]
        return []

    @property
    def instance(self) -> str:
        """The id that its processes carry."""
        return processes.instance_id(self.path)

    def left(self) -> int:
        """How many of its processes live."""
        return len(processes.belonging(self.instance))


@contextmanager
def home(**environ: str) -> Iterator[Home]:
    """A new home, ended with everything in it."""
    with tempfile.TemporaryDirectory(prefix="faults") as folder:
        own = {k: v for k, v in os.environ.items() if not k.startswith(("PADDOCK_", "RAY_"))}
        own |= {"PADDOCK_HOME": folder, "PADDOCK_PORT": "0", **environ}
        new = Home(Path(folder), own)
        try:
            yield new
        finally:
            new.paddock("stop")


@dataclass
class Load:
    """Streams in a loop. `errors` are the requests that did not end well, with the time."""

    home: Home
    done: int = 0
    errors: list[tuple[float, str]] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Load:
        record = self.home.record
        for number in range(STREAMS):
            thread = threading.Thread(target=self._run, args=(record, number))
            thread.start()
            self._threads.append(thread)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, record: dict[str, Any], number: int) -> None:
        while not self._stop.is_set():
            try:
                self._one(record, number)
                self.done += 1
            except (OSError, ValueError, http.client.HTTPException) as error:
                self.errors.append((time.monotonic(), f"{type(error).__name__}: {error}"[:120]))
                # What the gateway that comes next wrote down, if this one was killed.
                with suppress(OSError, ValueError):
                    record = self.home.record
                self._stop.wait(0.05)

    def _one(self, record: dict[str, Any], number: int) -> None:
        parts = urlsplit(record["endpoint"])
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=90)
        try:
            body = {"model": UID, "prompt": f"The {number} old", "stream": True}
            body |= {"max_tokens": TOKENS, "ignore_eos": True}
            head = {"Authorization": f"Bearer {record['key']}", "Content-Type": "application/json"}
            connection.request("POST", "/v1/completions", json.dumps(body), head)
            answer = connection.getresponse()
            text = answer.read()
            if answer.status != 200:
                raise ValueError(f"{answer.status} {text[:100]!r}")
            if b'"error"' in text or not text.rstrip().endswith(b"[DONE]"):
                raise ValueError(f"an error event, or no end: {text[-160:]!r}")
        finally:
            connection.close()


@dataclass
class Result:
    """One fault. `seconds`: until full capacity, None if it did not come back in time."""

    fault: str
    in_flight: int
    failed: int
    done: int
    seconds: float | None
    wanted: float
    left: int = 0
    errors: list[str] = field(default_factory=list)


def in_flight(home: Home) -> dict[str, int]:
    """Requests that each replica works on."""
    record = home.record
    parts = urlsplit(record["endpoint"])
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {record['key']}"})
    counts = {}
    for line in connection.getresponse().read().decode().splitlines():
        if line.startswith("paddock_requests_in_flight{") and f'model="{UID}"' in line:
            name = line.partition('replica="')[2].partition('"')[0]
            counts[name] = int(float(line.rpartition(" ")[2]))
    connection.close()
    return counts


def victim(home: Home) -> dict[str, Any]:
    """The first replica."""
    return home.replicas()[0]


def engine(home: Home) -> psutil.Process:
    """The engine of the first replica."""
    return psutil.Process(victim(home)["pid"])


def kill_engine(home: Home) -> None:
    """SIGKILL to an engine."""
    engine(home).kill()


def kill_warden(home: Home) -> None:
    """SIGKILL to what sees to the engine's end."""
    warden = engine(home).parent()
    assert warden is not None
    warden.kill()


def kill_actor(home: Home) -> None:
    """SIGKILL to the replica's actor."""
    actor = engine(home).parents()[1]
    actor.kill()


def hang_engine(home: Home) -> None:
    """SIGSTOP to an engine: it keeps its connections and says nothing."""
    engine(home).suspend()


def kill_bridge(home: Home) -> None:
    """SIGKILL to the process that speaks to Ray."""
    record = read_record(home.path)
    assert record is not None
    assert record.bridge is not None
    psutil.Process(record.bridge[0]).kill()


def kill_of_ray(home: Home, name: str) -> None:
    """SIGKILL to a process of the local Ray's head."""
    record = read_record(home.path)
    assert record is not None
    for pid in record.head:
        process = psutil.Process(pid)
        if process.name().startswith(name):
            process.kill()


def kill_gateway(home: Home) -> None:
    """SIGKILL to the gateway; the next command starts another."""
    os.kill(home.record["pid"], signal.SIGKILL)
    home.paddock("list")


FAULTS: dict[str, Callable[[Home], None]] = {
    "engine killed": kill_engine,
    "warden killed": kill_warden,
    "actor killed": kill_actor,
    "engine hung": hang_engine,
    "bridge killed": kill_bridge,
    "gateway killed": kill_gateway,
    "raylet killed": lambda home: kill_of_ray(home, "raylet"),
    "gcs killed": lambda home: kill_of_ray(home, "gcs_server"),
}
REPLACES = {"engine killed", "warden killed", "actor killed", "engine hung"}
"""Faults after which the first replica has another engine,"""
REPLACES_ALL = {"raylet killed", "gcs killed"}
"""and those after which both have."""


def is_back(home: Home, fault: str, before: list[dict[str, Any]]) -> bool:
    """Whether every replica serves and is managed, with new engines where the old ones died."""
    now = home.replicas()
    if len(now) != len(before) or any(one["model_state"] != "ready" for one in now):
        return False
    pids, old = [int(one["pid"]) for one in now], [int(one["pid"]) for one in before]
    if fault == "node lost":
        return not any(map(_is_far, now)) and len(set(pids) & set(old)) == 1
    if fault in REPLACES:
        return pids[0] != old[0]
    if fault in REPLACES_ALL:
        return not set(pids) & set(old)
    return True


def _is_far(replica: dict[str, Any]) -> bool:
    """Whether a replica is reached through a relay, as those on other nodes are."""
    return not str(replica["endpoint"] or "http://127.0.0.1").startswith("http://127.0.0.1")


def until(condition: Callable[[], bool]) -> float | None:
    """Seconds until it is so; None if not within the limit."""
    began = time.monotonic()
    while time.monotonic() - began < LIMIT_SECONDS:
        if condition():
            return time.monotonic() - began
        time.sleep(0.02)
    return None


def launch(home: Home, replicas: int = 2) -> None:
    """Launches the model anew."""
    home.paddock("terminate", "--model-uid", UID)
    done = home.paddock(
        *("launch", "tiny-mixtral", "-f", "ggufv2", "-q", "Q4_K_M", "-u", UID, "-r", str(replicas))
    )
    if done.returncode:
        raise SystemExit(done.stderr)


@contextmanager
def two_nodes() -> Iterator[dict[str, Any]]:
    """A Ray cluster of two nodes on this machine: its address, and the other node's raylet."""
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).parent.parent / "tests/e2e/ray_nodes.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            yield dict(json.loads(process.stdout.readline()))
        finally:
            process.stdin.close()


def lose_node() -> Result:
    """The second of two nodes goes, on which one of the replicas runs."""
    with two_nodes() as nodes, home(RAY_ADDRESS=nodes["address"]) as here:
        FAULTS["node lost"] = lambda _: psutil.Process(nodes["raylet"]).kill()
        result = measure(here, "node lost")
        here.paddock("stop")
        result.left = here.left()
        return result


def measure(home: Home, fault: str) -> Result:
    """One fault under load."""
    launch(home)
    before = home.replicas()
    with Load(home) as load:
        time.sleep(WARM_SECONDS)
        (number,) = [n for n, one in enumerate(before) if _is_far(one)] or [0]
        busy = in_flight(home).get(before[number]["replica_uid"], 0)
        began = time.monotonic()
        FAULTS[fault](home)
        time.sleep(0.1)  # the loss of a bridge shows a moment later
        is_well = until(lambda: is_back(home, fault, before))
        seconds = time.monotonic() - began if is_well is not None else None
        time.sleep(AFTER_SECONDS)
    errors = [text for _, text in load.errors]
    return Result(fault, busy, len(errors), load.done, seconds, WANTED[fault], 0, errors)


@dataclass
class CrashLoop:
    """What a model costs whose engine dies as soon as it serves.

    Attributes:
        restarts: how many there were in the time.
        each: processor seconds of one restart, beyond what is taken while nothing happens: of the
            gateway, the bridge, Ray with its workers, and the engine until it served.
    """

    restarts: int
    each: float

    @property
    def share(self) -> float:
        """Percent of a core once the restarts are as far apart as they get."""
        return 100 * self.each / LONGEST_DELAY


def crash_loop(seconds: float = 130.0) -> CrashLoop:
    """Kills the engine of a model whenever it serves."""
    with home() as here:
        launched = here.paddock("launch", "tiny-mixtral", "-en", "echo", "-u", UID)
        if launched.returncode:
            raise SystemExit(launched.stderr)
        time.sleep(SETTLE_SECONDS)
        idle_seconds = spend(here, lambda _: None, seconds)
        killed = []

        def kill(pid: int) -> None:
            killed.append(pid)
            with suppress(psutil.Error):
                psutil.Process(pid).kill()

        loop_seconds = spend(here, kill, seconds)
        restarts = len(killed) - 1  # what follows the last is not seen to its end
        return CrashLoop(restarts, (loop_seconds - idle_seconds) / restarts)


def spend(home: Home, on_ready: Callable[[int], None], seconds: float) -> float:
    """The processor seconds of all processes of a home within that time.

    `on_ready` is called with each engine that serves, four times a second; as often the processes
    are looked at, so that what one takes in its last quarter of a second is not seen.
    """
    first: dict[tuple[int, float], float] = {}
    last: dict[tuple[int, float], float] = {}
    client, began = home.client(), time.monotonic()
    while time.monotonic() - began < seconds:
        is_first = not first
        for process in processes.belonging(home.instance):
            with suppress(psutil.Error):
                times = process.cpu_times()
                own = process.pid, process.create_time()
                first.setdefault(own, times.user + times.system if is_first else 0.0)
                last[own] = times.user + times.system
        for one in client.instances(UID):
            for replica in one["replica_statuses"]:
                if replica["model_state"] == "ready":
                    on_ready(replica["pid"])
        time.sleep(0.25)
    return sum(last.values()) - sum(first.values())


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="", help="faults, separated by commas")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--crash-loop", action="store_true", help="only what a crash loop costs")
    parser.add_argument("--json", action="store_true", help="machine output")
    arguments = parser.parse_args()
    if arguments.crash_loop:
        cost = crash_loop()
        print(
            f"{cost.restarts} restarts of {cost.each:.2f} processor seconds each, which is "
            f"{cost.share:.2f} % of a core at one in {LONGEST_DELAY:g} s"
        )
        return
    chosen = [name.strip() for name in arguments.only.split(",") if name.strip()] or list(WANTED)
    results: list[Result] = []
    for fault in chosen:
        for _ in range(arguments.rounds):
            if fault == "node lost":
                results.append(lose_node())
                print_row(results[-1])
                continue
            with home() as here:
                result = measure(here, fault)
                here.paddock("stop")
                result.left = here.left()
                results.append(result)
                print_row(result)
    if arguments.json:
        json.dump([vars(one) for one in results], sys.stdout, indent=2)
        return
    for fault in chosen:
        times = [r.seconds for r in results if r.fault == fault and r.seconds is not None]
        if len(times) > 1:
            print(f"{fault:16} median {statistics.median(times):6.1f} s of {len(times)}")


def print_row(result: Result) -> None:
    """One line of the table, on standard error."""
    seconds = "not back" if result.seconds is None else f"{result.seconds:.1f} s"
    print(
        f"{result.fault:16} full again after {seconds:>8} (wanted {result.wanted:g} s); in flight "
        f"on it {result.in_flight}, failed {result.failed} of {result.failed + result.done}; "
        f"left after stop: {result.left}",
        file=sys.stderr,
    )
    for error in dict.fromkeys(result.errors):
        print(f"    {error}", file=sys.stderr)


if __name__ == "__main__":
    main()
