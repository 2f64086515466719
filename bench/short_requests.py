"""What a short request costs: answers of three words through Paddock, beside nginx and the engine.

    python -m bench.short_requests [--rounds 3] [--nginx /usr/sbin/nginx] [--json]

The echo engine answers at once, so that the figures are those of what stands before it. Two of its
processes run with the same settings: one launched by Paddock, one started by hand and reached
directly and through nginx. `wrk` holds 64 connections from one thread (Debian has it as a package).
Each round asks all of them in turn. Processor time is that of the process in between, all threads,
as the scheduler counts it. "First chunk" is of streams one after another from this process, and the
time in front of the engine's own.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import uvloop

from bench.data_path import Target, ask, engine, gateway, nginx

CONNECTIONS = 64
SECONDS = 4
FIRST_CHUNKS = 400
BODIES: Mapping[str, Mapping[str, object]] = {
    "whole": {"model": "bench", "prompt": "one two three", "max_tokens": 5},
    "stream": {"model": "bench", "prompt": "one two three", "max_tokens": 5, "stream": True},
}
SCRIPT = """
wrk.method = "POST"
wrk.body = '{body}'
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer {key}"
"""


def load(target: Target, body: Mapping[str, object], folder: Path) -> tuple[float, float]:
    """Requests a second, and processor milliseconds of the process in between for each.

    Raises:
        SystemExit: some answers were errors.
    """
    script = folder / "post.lua"
    script.write_text(SCRIPT.format(body=json.dumps(body), key=target.key))
    url = f"http://{target.host}:{target.port}/v1/completions"
    ran = target.ran_seconds()
    done = subprocess.run(
        ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}", "-s", str(script), url],
        capture_output=True,
        text=True,
        check=True,
        start_new_session=True,
    )
    if "Non-2xx" in done.stdout:
        raise SystemExit(f"{target.name}: {done.stdout}")
    count = re.search(r"(\d+) requests in", done.stdout)
    rate = re.search(r"Requests/sec: *([0-9.]+)", done.stdout)
    assert count is not None
    assert rate is not None
    return float(rate[1]), (target.ran_seconds() - ran) / int(count[1]) * 1000


async def first_chunk(target: Target) -> float:
    """Median milliseconds to the first event of a stream, one request after another."""
    request = replace(target, prompt=BODIES["stream"]).request()
    answer, took = None, []
    for _ in range(FIRST_CHUNKS):
        began = time.perf_counter()
        try:
            answer = await ask(target, request, answer, True)
        except ConnectionError:
            answer = None
            continue
        took.append((answer.first - began) * 1000)
    return statistics.median(took)


def measure(targets: list[Target], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Figure → target → one value a round; the first round warms up and does not count."""
    figures: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(rounds + 1):
            for target in targets if turn % 2 == 0 else targets[::-1]:
                values: dict[str, float] = {}
                for kind, body in BODIES.items():
                    rate, spent = load(target, body, Path(folder))
                    values |= {f"{kind}, requests/s": rate, f"{kind}, CPU ms": spent}
                values["first chunk ms"] = uvloop.run(first_chunk(target))
                for figure, value in values.items() if turn else ():
                    figures.setdefault(figure, {}).setdefault(target.name, []).append(value)
    return figures


def report(figures: Mapping[str, Mapping[str, list[float]]]) -> None:
    """Prints the median of each figure, and the range."""
    names = list(next(iter(figures.values())))
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; median (range)")
    print(f"{'':22}" + "".join(f"{name:>26}" for name in names))
    for figure, by_target in figures.items():
        cells = []
        for name in names:
            values = by_target[name]
            digits = 0 if "requests" in figure else 3
            low, high = min(values), max(values)
            middle = statistics.median(values)
            cells.append(f"{middle:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})")
        print(f"{figure:22}" + "".join(f"{cell:>26}" for cell in cells))
    if "nginx" in names:
        for kind in BODIES:
            rates = figures[f"{kind}, requests/s"]
            ratios = [a / b for a, b in zip(rates["paddock"], rates["nginx"], strict=True)]
            print(f"{kind}: {statistics.median(ratios):.2f} of nginx's requests/s")


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each figure")
    parser.add_argument("--nginx", default="", help="an nginx program to measure beside")
    parser.add_argument("--json", action="store_true", help="machine output")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        launch = ["tiny-mixtral", "-q", "Q4_K_M", "--model-engine", "echo", "--slots", "64"]
        through, plan = stack.enter_context(gateway(home, launch))
        direct = stack.enter_context(engine(plan, home))
        others = stack.enter_context(nginx(arguments.nginx, direct))
        figures = measure([direct, through, *others], arguments.rounds)
    if arguments.json:
        print(json.dumps(figures, indent=2))
    else:
        report(figures)


if __name__ == "__main__":
    main()
