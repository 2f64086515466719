"""How many threads llama.cpp should have: tokens a second by `n_threads`, alone and beside others.

    python bench/threads.py            # the bundled model, under a minute
    python bench/threads.py FILE.gguf  # another one

Prints a table: for each number of threads the median of some generations, with the machine as it
is, and beside one and two processes that keep a core busy, as a gateway and a client would. The
adapter's default, one thread fewer than processors, comes from this. Run it on a quiet machine.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from paddock.engines import load_engine
from paddock.engines.base import Serving
from paddock.registry.catalog import specs_root

TINY = specs_root() / "weights" / "tiny-mixtral" / "ggufv2" / "tiny-mixtral.Q4_K_M.gguf"
TOKENS = 100
ROUNDS = 3
SECONDS = 1.0
BUSY = "while True: pass"
KEY = "bench"


@contextlib.contextmanager
def engine(weights: Path, threads: int) -> Iterator[int]:
    """Runs llama.cpp with so many threads; its port."""
    adapter = load_engine("llama.cpp")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    options = adapter.options.parse(adapter.name, {"n_threads": threads})
    command = adapter.command(Serving("m", weights, port, KEY, 512, 1, ("generate",), options))
    child = subprocess.Popen(
        command.argv,
        env={**os.environ, **command.environ},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 120
        while not healthy(port):
            if child.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"llama.cpp did not start with {threads} threads")
            time.sleep(0.05)
        yield port
    finally:
        child.kill()
        child.wait()


def healthy(port: int) -> bool:
    """Whether the engine answers."""
    try:
        return ask(port, "GET", "/health")[0] == 200
    except (OSError, http.client.HTTPException):
        return False


def ask(port: int, method: str, path: str, body: object = None) -> tuple[int, dict[str, object]]:
    """One request: status and JSON."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        connection.request(method, path, json.dumps(body) if body else None, headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def rate(port: int) -> float:
    """Tokens a second of one generation, by the clock on the wall."""
    body = {"prompt": "The old elephant", "max_tokens": TOKENS, "ignore_eos": True}
    begin = time.perf_counter()
    status, answer = ask(port, "POST", "/v1/completions", body)
    seconds = time.perf_counter() - begin
    assert status == 200, answer
    return TOKENS / seconds


def median_rate(port: int) -> float:
    """The median of at least three generations, and of as many as a second holds."""
    end = time.monotonic() + SECONDS
    rates: list[float] = []
    while len(rates) < ROUNDS or time.monotonic() < end:
        rates.append(rate(port))
    return statistics.median(rates)


@contextlib.contextmanager
def beside(count: int) -> Iterator[None]:
    """Keeps so many processes busy."""
    started = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def main() -> None:
    """Prints the table."""
    weights = Path(sys.argv[1]) if len(sys.argv) > 1 else TINY
    cpus = len(os.sched_getaffinity(0))
    print(f"{weights.name}, {cpus} processors, load before: {os.getloadavg()[0]:.1f}")
    print(f"{'n_threads':>9} {'alone':>8} {'+1 busy':>8} {'+2 busy':>8}  median tokens/s")
    counts = sorted({*range(1, min(cpus, 4) + 1), max(1, cpus // 2), max(1, cpus - 1), cpus})
    for threads in counts:
        with engine(weights, threads) as port:
            rate(port)
            row = []
            for others in range(3):
                with beside(others):
                    row.append(median_rate(port))
        print(f"{threads:>9} " + " ".join(f"{value:8.0f}" for value in row), flush=True)


if __name__ == "__main__":
    main()
