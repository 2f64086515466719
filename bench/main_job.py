"""How fast the main job is: command line, gateway, first and later launches, idle memory.

    python bench/main_job.py [--runs 5] [--json]

Whole processes from outside, as a user waits for them; medians, since machines are shared. A bare
Python start and a bare llama.cpp load are measured in the same run, so that a slow machine shows.
Uses a temporary PADDOCK_HOME and ends everything that it started.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar

import psutil

from paddock.client import Client
from paddock.registry.errors import GatewayError, GatewayUnreachable

T = TypeVar("T")
PADDOCK = [str(Path(sys.executable).with_name("paddock"))]
WEIGHTS = (
    Path(__file__).parent.parent / "specs/weights/tiny-mixtral/ggufv2/tiny-mixtral.Q4_K_M.gguf"
)
BARE = """
import os, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.n_ctx, params.n_parallel = {path!r}, 8192, 4
params.cpuparams.n_threads, params.fit_params, params.verbosity = 1, False, 0
server = xllamacpp.Server(params)
os._exit(0)
"""
LAUNCH = ("launch", "--model-name", "tiny-mixtral", "--model-format", "ggufv2", "-q", "Q4_K_M")


@dataclass
class Figure:
    """One row: seconds or megabytes of each run, beside what was asked for."""

    name: str
    unit: str
    asked: float | None
    runs: list[float] = field(default_factory=list)

    def add(self, action: Callable[..., T], *arguments: object) -> T:
        """Takes the seconds that the action needs as one run."""
        began = time.perf_counter()
        result = action(*arguments)
        self.runs.append(time.perf_counter() - began)
        return result

    @property
    def median(self) -> float:
        """The figure to quote."""
        return statistics.median(self.runs)


def run(argv: list[str], environ: dict[str, str] | None = None) -> None:
    """Runs a process to its end; a failure ends the benchmark, with what it said."""
    done = subprocess.run(
        argv, env=environ, capture_output=True, text=True, timeout=120, check=False
    )
    if done.returncode:
        raise SystemExit(f"{argv}: {done.returncode}\n{done.stdout}{done.stderr}")


class Bench:
    """One home folder, made anew for each run."""

    def __init__(self, home: Path) -> None:
        self.environ = {
            k: v for k, v in os.environ.items() if not k.startswith(("PADDOCK_", "RAY_"))
        }
        self.environ |= {"PADDOCK_HOME": str(home), "PADDOCK_PORT": "0"}
        self.home = home

    def run(self, *arguments: str) -> None:
        """Runs a command of ours to its end."""
        run([*PADDOCK, *arguments], self.environ)

    def serve(self) -> subprocess.Popen[bytes]:
        """Starts the gateway and returns once it answers."""
        process = subprocess.Popen(
            [*PADDOCK, "serve"],
            env=self.environ,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while process.poll() is None:
            with suppress(OSError, ValueError, GatewayUnreachable, GatewayError):
                Client(json.loads((self.home / "gateway.json").read_text())["endpoint"]).health()
                return process
            time.sleep(0.005)
        raise SystemExit(f"the gateway ended with {process.returncode}")


def measure(runs: int) -> list[Figure]:
    """All figures, `runs` times each."""
    python = Figure("python -c pass", "s", None)
    bare = Figure("bare llama.cpp: import and load", "s", None)
    helping = Figure("paddock --help", "s", 0.150)
    listing = Figure("paddock list", "s", 0.150)
    registrations = Figure("paddock registrations", "s", 0.150)
    searching = Figure("paddock search qwen coder", "s", 0.150)
    fitting = Figure("paddock search qwen coder --fits", "s", 0.150)
    serving = Figure("paddock serve until it answers", "s", 1.5)
    idle = Figure("gateway's resident memory, no model", "MB", 120)
    first = Figure("first launch, Ray to start", "s", 7)
    later = Figure("each later launch", "s", 1.2)
    used = Figure("gateway's resident memory, four models", "MB", None)
    loading = [sys.executable, "-c", BARE.format(path=str(WEIGHTS))]
    for _ in range(runs):
        python.add(run, [sys.executable, "-c", "pass"])
        bare.add(run, loading)
        with tempfile.TemporaryDirectory() as folder:
            bench = Bench(Path(folder))
            helping.add(bench.run, "--help")
            bench.run("search")  # the first one compiles the catalogue
            registrations.add(bench.run, "registrations")
            searching.add(bench.run, "search", "qwen", "coder")
            fitting.add(bench.run, "search", "qwen", "coder", "--fits")
            gateway = serving.add(bench.serve)
            try:
                process = psutil.Process(gateway.pid)
                listing.add(bench.run, "list")
                idle.runs.append(process.memory_info().rss / 1e6)
                first.add(bench.run, *LAUNCH)
                for number in range(3):
                    later.add(bench.run, *LAUNCH, "-u", f"later-{number}")
                used.runs.append(process.memory_info().rss / 1e6)
            finally:
                bench.run("stop")
                gateway.wait(30)
    commands = [helping, listing, registrations, searching, fitting]
    return [python, bare, *commands, serving, first, later, idle, used]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=5, help="runs of each figure")
    parser.add_argument("--json", action="store_true", help="machine output")
    arguments = parser.parse_args()
    figures = measure(arguments.runs)
    if arguments.json:
        print(json.dumps([{**asdict(f), "median": f.median} for f in figures], indent=2))
        return
    load = os.getloadavg()[0]
    print(
        f"{os.cpu_count()} cores, load {load:.1f}; {arguments.runs} runs; python bench/main_job.py"
    )
    print(f"{'':40} {'median':>9} {'min':>9} {'max':>9} {'asked':>9}")
    for f in figures:
        asked = "" if f.asked is None else f"{f.asked:g} {f.unit}"
        low, high = min(f.runs), max(f.runs)
        digits = 3 if f.unit == "s" else 1
        cells = (f"{value:.{digits}f} {f.unit}".rjust(9) for value in (f.median, low, high))
        print(f"{f.name:40} {' '.join(cells)} {asked:>9}")


if __name__ == "__main__":
    main()
