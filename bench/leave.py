"""How soon an engine stops when its client leaves: from the client's close to an idle slot.

    python -m bench.leave [--rounds 50] [--json]

tiny-mixtral on llama.cpp is asked for 2,000 tokens; once its slot is at work the client closes, and
llama.cpp's own `/slots` is asked until the slot is idle. Through Paddock streamed and not, and
streamed without Paddock, in turn: an engine finishes the token that it is at in any case, and the
answer of `/slots` takes its time too.
"""

from __future__ import annotations

import argparse
import http.client
import json
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from bench.data_path import UID, Target, gateway
from paddock.client import Client

TOKENS = 2000


class Slots:
    """Whether an engine is at work, over one kept connection where it keeps it."""

    def __init__(self, engine: Target) -> None:
        self._engine = engine
        self._connection = http.client.HTTPConnection(engine.host, engine.port, timeout=10)

    def at_work(self) -> bool:
        """Asks."""
        headers = {"Authorization": f"Bearer {self._engine.key}"}
        while True:
            try:
                self._connection.request("GET", "/slots", headers=headers)
                answer = json.load(self._connection.getresponse())
                return any(slot["is_processing"] for slot in answer)
            except (http.client.HTTPException, ConnectionError):
                self._connection.close()  # llama.cpp closes after 100 requests

    def wait(self, at_work: bool) -> None:
        """Asks until it is so."""
        while self.at_work() != at_work:
            pass


def leave(target: Target, slots: Slots, stream: bool) -> float:
    """Milliseconds from a client's close to the idle slot."""
    with socket.create_connection((target.host, target.port)) as client:
        client.sendall(target.request(max_tokens=TOKENS, stream=stream))
        slots.wait(at_work=True)
        if stream:
            client.recv(65536)
    began = time.perf_counter()
    slots.wait(at_work=False)
    return (time.perf_counter() - began) * 1000


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=50, help="departures of each kind")
    parser.add_argument("--json", action="store_true", help="machine output")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as home, gateway(Path(home)) as (through, _):
        (model,) = Client(f"http://{through.host}:{through.port}").instances(UID)
        (replica,) = model["replica_statuses"]
        parts = urlsplit(replica["endpoint"])
        key = psutil.Process(replica["pid"]).environ()["PADDOCK_ENGINE_KEY"]
        engine = Target("engine", parts.hostname or "", parts.port or 0, key)
        slots = Slots(engine)
        kinds = {
            "engine, streamed": (engine, True),
            "Paddock, streamed": (through, True),
            "Paddock, whole answer": (through, False),
        }
        found: dict[str, list[float]] = {name: [] for name in kinds}
        for _ in range(arguments.rounds):
            for name, (target, stream) in kinds.items():
                found[name].append(leave(target, slots, stream))
    if arguments.json:
        json.dump(found, sys.stdout, indent=2)
        return
    print(f"{'ms from close to idle slot':28}{'median':>9}{'most':>9}")
    for name, times in found.items():
        print(f"{name:28}{statistics.median(times):9.1f}{max(times):9.1f}")


if __name__ == "__main__":
    main()
