"""Vectors a second through Paddock beside the same engine without it.

    python -m bench.embeddings MODEL_FOLDER [--rounds 5] [--json]

A model of sentence-transformers in a folder, such as all-MiniLM-L6-v2, is launched twice with the
same settings: by Paddock, and by hand. Each round asks both in turn, by 1, 8 and 32 clients on kept
connections, one short sentence a request: what is gathered into batches is gathered by the engine.
"paddock engine install sentence-transformers" comes first, into the home that PADDOCK_HOME names.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bench.data_path import UID, Target, engine
from paddock.client import Client
from paddock.launcher.planning.plan import LaunchPlan
from paddock.registry.settings import read_settings

CLIENTS = (1, 8, 32)
REQUESTS = {1: 100, 8: 40, 32: 20}
TEXT = "The elephants and the lions live in the zoo where many people come to see them"


def ask(target: Target, number: int, count: int) -> list[float]:
    """Seconds of each of `count` requests, on one connection; sentences of all lengths."""
    connection = http.client.HTTPConnection(target.host, target.port, timeout=120)
    head = {"Content-Type": "application/json", "Authorization": f"Bearer {target.key}"}
    took = []
    for turn in range(count):
        text = " ".join(TEXT.split()[: 4 + (number * 7 + turn) % 12])
        body = {"model": UID, "input": f"{turn} {text}", "encoding_format": "base64"}
        began = time.perf_counter()
        connection.request("POST", "/v1/embeddings", json.dumps(body), head)
        answer = connection.getresponse()
        data = answer.read()
        took.append(time.perf_counter() - began)
        if answer.status != 200:
            raise SystemExit(f"{target.name}: {answer.status} {data[:200]!r}")
    connection.close()
    return took


@contextmanager
def gateway(home: Path, folder: Path, engines: Path) -> Iterator[tuple[Target, LaunchPlan]]:
    """The model launched by Paddock."""
    (home / "engines").symlink_to(engines)
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("PADDOCK_", "RAY_"))}
    environ |= {"PADDOCK_HOME": str(home), "PADDOCK_PORT": "0"}
    paddock = [sys.executable, "-m", "paddock"]
    try:
        launch = ["launch", str(folder), "-u", UID]
        subprocess.run([*paddock, *launch], env=environ, check=True, capture_output=True)
        endpoint = json.loads((home / "gateway.json").read_text())["endpoint"]
        (model,) = Client(endpoint).instances(UID)
        yield (
            Target("paddock", "127.0.0.1", urlsplit(endpoint).port or 0, ""),
            LaunchPlan.from_json(model["plan"]),
        )
    finally:
        subprocess.run([*paddock, "stop"], env=environ, check=False, capture_output=True)


def measure(targets: list[Target], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Figure → target → one value a round."""
    found: dict[str, dict[str, list[float]]] = {}
    with ThreadPoolExecutor(max(CLIENTS)) as pool:
        for target in targets:  # warm: code, and torch's first passes of each shape
            list(pool.map(lambda n, one=target: ask(one, n, 10), range(8)))
        for turn in range(rounds):
            for target in targets if turn % 2 == 0 else targets[::-1]:
                for count in CLIENTS:
                    began = time.perf_counter()
                    asked = [REQUESTS[count]] * count
                    each = pool.map(partial(ask, target), range(count), asked)
                    took = sorted(chain.from_iterable(each))
                    rate = len(took) / (time.perf_counter() - began)
                    for figure, value in (
                        (f"vectors/s, {count} clients", rate),
                        (f"ms each, median, {count} clients", statistics.median(took) * 1000),
                        (f"ms each, p99, {count} clients", took[len(took) * 99 // 100] * 1000),
                    ):
                        found.setdefault(figure, {}).setdefault(target.name, []).append(value)
    return found


def report(found: dict[str, Any]) -> None:
    """Prints medians, and how Paddock's stand to the engine's own."""
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(f"{'':34}{'engine':>12}{'paddock':>12}{'ratio':>8}")
    for figure, values in found.items():
        own, ours = (statistics.median(values[name]) for name in ("engine", "paddock"))
        print(f"{figure:34}{own:12.1f}{ours:12.1f}{ours / own:8.2f}")


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    folder = given.folder.absolute()
    engines = read_settings().home / "engines"
    with (
        tempfile.TemporaryDirectory() as home,
        gateway(Path(home), folder, engines) as (paddock, plan),
        engine(plan, folder) as bare,
    ):
        found = measure([bare, paddock], given.rounds)
    print(json.dumps(found, indent=2)) if given.json else report(found)


if __name__ == "__main__":
    main()
