"""Times a download through Paddock beside the bare client's, from a hub on loopback, in turn.

    python bench/pull.py [--megabytes 1024] [--rounds 5] [--folder DIR]

Each download is a new process with an empty cache; the time is of the download without imports.
"memory" is the process's peak beyond what it had before the first byte. The bare client checks no
hash; `sha256` times hashing alone, in memory, of as many bytes. At the end `paddock pull` fetches
the file once through a gateway, whose memory, with that of the process that downloads, is sampled.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parent.parent
SERVER = """
import sys, threading
from tests.fakes import Zeros, hub_server
size, digest = int(sys.argv[1]), sys.argv[2]
Zeros.SHA256[size] = digest
with hub_server() as hub:
    hub.repos["zoo/large"] = {"model.gguf": Zeros(size)}
    print(hub.endpoint, flush=True)
    sys.stdin.read()
"""
HEAD = """
import json, resource, sys, threading, time
from pathlib import Path
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
"""
BARE = """
from huggingface_hub import hf_hub_download, HfApi
from huggingface_hub.utils import disable_progress_bars
disable_progress_bars()
def bring():
    return hf_hub_download("zoo/large", "model.gguf")
"""
OURS = """
from paddock.launcher.weights import Terms, fetch, load_hub
from paddock.launcher.planning.plan import PlannedFile, PlannedWeights
load_hub("huggingface")
import httpx2
def bring():
    weights = PlannedWeights(hub="huggingface", id="zoo/large", size_bytes=1, here=False,
                             files=(PlannedFile(name="model.gguf"),))
    return fetch(weights, Terms(Path(sys.argv[1])), lambda progress: None, threading.Event())
"""
TAIL = """
before, start = peak(), time.perf_counter()
path = Path(bring())
seconds = time.perf_counter() - start
assert path.stat().st_size
print(json.dumps({"seconds": seconds, "memory": peak() - before, "whole": peak()}))
"""
LARGE = """
weights:
  - format: ggufv2
    size: 0_004
    quantizations: [Q8_0]
    engines: [llama.cpp]
    sources:
      - hub: huggingface
        id: zoo/large
        file_template: model.gguf
"""
WAYS = {"huggingface_hub alone": BARE, "through Paddock": OURS}


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", help="where the caches are made; a disk with room")
    given = parser.parse_args()
    size = given.megabytes << 20
    digest, hashing = _hash(size)
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    with _server(size, digest) as endpoint:
        idle, most = _memory_of_a_pull(endpoint, given.folder)
        for _ in range(given.rounds):
            for way, code in WAYS.items():
                found[way].append(_download(code, endpoint, given.folder))
    print(f"{given.megabytes} MiB, {given.rounds} rounds; sha256 alone {hashing:.2f} s\n")
    print("| | seconds, median | least | most | MB/s, median | memory, most | whole process |")
    print("|---|---|---|---|---|---|---|")
    for way, runs in found.items():
        seconds = [run["seconds"] for run in runs]
        middle = statistics.median(seconds)
        memory, whole = (max(run[key] for run in runs) / 1e6 for key in ("memory", "whole"))
        print(
            f"| {way} | {middle:.2f} | {min(seconds):.2f} | {max(seconds):.2f} "
            f"| {size / middle / 1e6:.0f} | {memory:.0f} MB | {whole:.0f} MB |"
        )
    bare, ours = (statistics.median(r["seconds"] for r in found[way]) for way in WAYS)
    print(f"\nrate through Paddock: {bare / ours:.2f} of the bare client's")
    print(
        f"gateway and download: {idle / 1e6:.0f} MB idle, {most / 1e6:.0f} MB at most while pulling"
    )


def _hash(size: int) -> tuple[str, float]:
    digest, piece, start = hashlib.sha256(), bytes(1 << 20), time.perf_counter()
    for _ in range(size >> 20):
        digest.update(piece)
    return digest.hexdigest(), time.perf_counter() - start


@contextmanager
def _server(size: int, digest: str) -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(size), digest],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.communicate()


def _memory_of_a_pull(endpoint: str, folder: str | None) -> tuple[int, int]:
    """Resident bytes of a gateway with all below it: before a pull, and at most during it."""
    with tempfile.TemporaryDirectory(dir=folder) as home:
        spec = (ROOT / "specs" / "llm" / "tiny-mixtral.yaml").read_text("utf-8")
        head = spec.partition("\nweights:")[0].replace("name: tiny-mixtral", "name: large", 1)
        Path(home, "large.yaml").write_text(head + LARGE, "utf-8")
        environ = {k: v for k, v in os.environ.items() if "proxy" not in k.lower()}
        environ |= {"HF_ENDPOINT": endpoint, "HF_HOME": f"{home}/hf"}
        environ |= {"PADDOCK_HOME": f"{home}/paddock", "PADDOCK_PORT": "0"}
        paddock = [sys.executable, "-m", "paddock"]
        try:
            register = [*paddock, "register", "--file", f"{home}/large.yaml"]
            subprocess.run(register, env=environ, check=True, capture_output=True)
            record = json.loads(Path(home, "paddock", "gateway.json").read_text("utf-8"))
            gateway = psutil.Process(record["pid"])
            idle = most = _resident(gateway)
            with subprocess.Popen(
                [*paddock, "pull", "large"], env=environ, stdout=subprocess.DEVNULL
            ) as pull:
                while pull.poll() is None:
                    most = max(most, _resident(gateway))
                    time.sleep(0.02)
            if pull.returncode:
                raise SystemExit(f"paddock pull ended with {pull.returncode}")
        finally:
            subprocess.run([*paddock, "stop"], env=environ, check=False, capture_output=True)
    return idle, most


def _resident(process: psutil.Process) -> int:
    total = 0
    for one in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            total += one.memory_info().rss
    return total


def _download(code: str, endpoint: str, folder: str | None) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=folder) as home:
        environ = {k: v for k, v in os.environ.items() if "proxy" not in k.lower()}
        environ |= {"HF_ENDPOINT": endpoint, "HF_HOME": f"{home}/hf"}
        done = subprocess.run(
            [sys.executable, "-c", HEAD + code + TAIL, f"{home}/paddock"],
            env=environ,
            capture_output=True,
            text=True,
            check=True,
        )
    return dict(json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    main()
