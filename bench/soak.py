"""Random faults for a while, with a seed; at the end nothing may be lost, and nothing may be left.

    python -m bench.soak [--seconds 1800] [--seed 1] [--json]

Models are launched, ended and asked all the time, while engines, wardens, actors, the bridge, the
gateway and Ray are killed and engines are stopped. Then it is quiet: every model that is wanted
must serve with all its replicas, each in one actor and one engine; memory and open files of the
gateway and the bridge must be as before; and once all models are ended no engine and no row may be
left, and after `paddock stop` no process. Exits with 1, and says what is wrong, where that is not
so.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import psutil

from bench.faults import Home, home, kill_bridge, kill_of_ray
from paddock.launcher.hosts import processes
from paddock.registry.errors import PaddockError

UIDS = ("a", "b", "c")
QUIET_SECONDS = 240.0
"""How long everything may take to be well once the faults are over."""
GROWN_BYTES, GROWN_FILES = 40_000_000, 40
"""What the gateway and the bridge may hold more than at their first look, in ten minutes' work."""
GROWN_UP_SECONDS = 20.0
"""A younger process may still be importing, and is not looked at."""


@dataclass
class Soak:
    """One run. `wanted` maps model ids to their replicas."""

    home: Home
    rng: random.Random
    wanted: dict[str, int] = field(default_factory=dict)
    done: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    first: dict[int, tuple[str, int, int]] = field(default_factory=dict)
    over: threading.Event = field(default_factory=threading.Event)

    def replicas(self) -> list[dict[str, Any]]:
        """All replicas that are listed; none while nobody answers."""
        with suppress(OSError, ValueError, KeyError, PaddockError):
            return [r for one in self.home.client().instances() for r in one["replica_statuses"]]
        return []

    def engines(self) -> list[psutil.Process]:
        """The engines of replicas that serve, in a stable order."""
        engines = []
        for one in self.replicas():
            if one["pid"] is not None:
                with suppress(psutil.Error):
                    engines.append(psutil.Process(one["pid"]))
        return engines

    def launch(self) -> None:
        """A model comes."""
        uid = self.rng.choice(UIDS)
        replicas = self.rng.randint(1, 2)
        done = self.home.paddock(
            *("launch", "tiny-mixtral", "-en", "echo", "-u", uid, "-r", str(replicas))
        )
        if done.returncode == 0:
            self.wanted[uid] = replicas
        # A launch whose first start meets a fault is reported, and its model stays as failed.
        elif uid not in self.wanted:
            self.home.paddock("terminate", "-u", uid)

    def terminate(self) -> None:
        """A model goes."""
        uid = self.rng.choice(UIDS)
        done = self.home.paddock("terminate", "-u", uid)
        if done.returncode == 0:
            self.wanted.pop(uid, None)

    def kill(self, up: int) -> None:
        """SIGKILL to an engine (0), its warden (1) or its actor (2)."""
        for engine in self.engines()[:1] if self.rng.random() < 0.5 else self.engines()[-1:]:
            with suppress(psutil.Error, IndexError):
                (engine, *engine.parents())[up].kill()

    def hang(self) -> None:
        """SIGSTOP to an engine that serves. One that loads may be silent for two minutes."""
        for one in self.replicas():
            if one["model_state"] == "ready" and one["pid"] is not None:
                with suppress(psutil.Error):
                    psutil.Process(one["pid"]).suspend()
                return

    def kill_gateway(self) -> None:
        """SIGKILL to the gateway; the next command starts another."""
        with suppress(OSError, ValueError, psutil.Error):
            psutil.Process(self.home.record["pid"]).kill()
        self.home.paddock("list")

    def step(self) -> None:
        """One thing happens."""
        kinds: dict[str, tuple[int, Callable[[], None]]] = {
            "launch": (5, self.launch),
            "terminate": (3, self.terminate),
            "engine killed": (5, lambda: self.kill(0)),
            "warden killed": (3, lambda: self.kill(1)),
            "actor killed": (3, lambda: self.kill(2)),
            "engine hung": (1, self.hang),
            "bridge killed": (2, lambda: kill_bridge(self.home)),
            "gateway killed": (1, self.kill_gateway),
            "raylet killed": (1, lambda: kill_of_ray(self.home, "raylet")),
        }
        (name,) = self.rng.choices(list(kinds), [weight for weight, _ in kinds.values()])
        self.done[name] += 1
        with suppress(psutil.Error, OSError, AssertionError, PaddockError):
            kinds[name][1]()
        self.look()
        time.sleep(self.rng.uniform(0.2, 2.0))

    def ask(self) -> None:
        """Asks models until it is over."""
        while not self.over.is_set():
            uid = random.choice(UIDS)  # noqa: S311 - not part of what the seed decides
            try:
                self.home.client().complete(uid, "a b c d", max_tokens=4)
                self.answers["answered"] += 1
            except (OSError, ValueError, KeyError, PaddockError) as error:
                self.answers[type(error).__name__] += 1
            self.over.wait(0.05)

    def look(self) -> None:
        """Notes what the gateway and the bridge hold once they have begun in earnest."""
        for pid, held in self.holders().items():
            self.first.setdefault(pid, held)

    def holders(self) -> dict[int, tuple[str, int, int]]:
        """Process id → role, resident bytes and open files."""
        holders = {}
        for process in processes.belonging(self.home.instance, {"gateway", "bridge"}):
            with suppress(psutil.Error):
                if time.time() - process.create_time() < GROWN_UP_SECONDS:
                    continue
                role = process.environ()[processes.ROLE_VARIABLE]
                holders[process.pid] = (role, process.memory_info().rss, process.num_fds())
        return holders

    def troubles(self) -> list[str]:
        """What is not as it is wanted now; empty if all is well."""
        troubles = []
        try:
            listed = {one["model_uid"]: one for one in self.home.client().instances()}
        except (OSError, ValueError, KeyError, PaddockError) as error:
            return [f"the gateway does not answer: {error}"]
        for uid, count in self.wanted.items():
            states = [r["model_state"] for r in listed.get(uid, {}).get("replica_statuses", [])]
            if states != ["ready"] * count:
                troubles.append(f"{uid} has {states}, and {count} are wanted")
        if extra := listed.keys() - self.wanted.keys():
            troubles.append(f"{sorted(extra)} are listed, and nobody wants them")
        actors = Counter(
            process.environ().get(processes.ACTOR_VARIABLE)
            for process in processes.belonging(self.home.instance, {"engine"})
        )
        if len(actors) != sum(self.wanted.values()):
            troubles.append(f"engines of {len(actors)} actors for {sum(self.wanted.values())}")
        return troubles

    def until_well(self) -> list[str]:
        """The troubles that stay; empty once there are none."""
        deadline = time.monotonic() + QUIET_SECONDS
        while True:
            try:
                troubles = self.troubles()
            except psutil.Error:  # a process ended while it was looked at
                continue
            if not troubles or time.monotonic() > deadline:
                return troubles
            time.sleep(0.2)

    def growth(self) -> list[str]:
        """Processes that hold much more than when they were first seen."""
        growth = []
        for pid, (role, resident, files) in self.holders().items():
            _, first_resident, first_files = self.first.get(pid, (role, resident, files))
            more, open_files = resident - first_resident, files - first_files
            if more > GROWN_BYTES or open_files > GROWN_FILES:
                growth.append(f"the {role} holds {more / 1e6:.0f} MB and {open_files} files more")
        return growth


def run(seconds: float, seed: int) -> dict[str, Any]:
    """One soak: what was done, what was answered, and what is wrong."""
    with home() as here:
        soak = Soak(here, random.Random(seed))  # noqa: S311 - to be had again
        here.paddock("list")
        asking = [threading.Thread(target=soak.ask) for _ in range(2)]
        for thread in asking:
            thread.start()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            soak.step()
        soak.over.set()
        for thread in asking:
            thread.join()
        here.paddock("list")  # a gateway, if the last fault has left none
        wrong = [*soak.until_well(), *soak.growth()]
        for uid in list(soak.wanted):
            done = here.paddock("terminate", "-u", uid)
            if done.returncode:
                wrong.append(f"{uid} cannot be ended: {done.stderr.strip()}")
        soak.wanted.clear()
        wrong += soak.until_well()
        log = (here.path / "logs" / "gateway.log").read_text(errors="replace")
        here.paddock("stop")
        if left := here.left():
            wrong.append(f"{left} processes are left after stop")
        return {
            "seed": seed,
            "seconds": seconds,
            "done": dict(soak.done),
            "answers": dict(soak.answers),
            "tracebacks": log.count("Traceback (most recent call last)"),
            "wrong": wrong,
        }


def main() -> None:
    """Prints what was done; exits with 1 where something is wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1800.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="machine output")
    arguments = parser.parse_args()
    result = run(arguments.seconds, arguments.seed)
    if arguments.json:
        json.dump(result, sys.stdout, indent=2)
    else:
        for name, value in result.items():
            print(f"{name:12}{value}")
    raise SystemExit(bool(result["wrong"]))


if __name__ == "__main__":
    main()
