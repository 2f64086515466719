"""What open streams cost the gateway in memory while nothing flows.

    python bench/idle_streams.py [--streams 1000] [--json]

An echo model that says a word an hour is asked by so many clients at once; each waits on its own
connection, with one of the gateway's to the engine behind it. The gateway's resident memory is read
before, once a first burst of as many short requests has grown its pools, and while all wait.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import psutil

HOUR = 3600


def request(uid: str, **fields: object) -> bytes:
    """A completion to be streamed."""
    body = json.dumps({"model": uid, "prompt": "word " * 200, "stream": True, **fields}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Content-Type: application/json\r\n\r\n".encode() + body


async def hold(host: str, port: int, pid: int, streams: int) -> tuple[int, int]:
    """Resident bytes of the gateway before and with so many open streams."""
    gateway = psutil.Process(pid)

    async def ask(data: bytes, wait: bool) -> asyncio.StreamWriter:
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(data)
        if wait:
            await reader.readuntil(b"[DONE]")
            writer.close()
        return writer

    for _ in range(0, streams, 50):
        await asyncio.gather(*(ask(request("quick", max_tokens=1), True) for _ in range(50)))
    before = gateway.memory_info().rss
    writers = [await ask(request("slow"), False) for _ in range(streams)]
    while open_connections(gateway) < 2 * streams:  # noqa: ASYNC110 - another process's
        await asyncio.sleep(0.2)
    after = gateway.memory_info().rss
    for writer in writers:
        writer.transport.abort()
    return before, after


def open_connections(gateway: psutil.Process) -> int:
    """Connections of the gateway, to clients and to engines."""
    return sum(c.status == psutil.CONN_ESTABLISHED for c in gateway.net_connections("tcp"))


def main() -> None:
    """Prints bytes a stream."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--streams", type=int, default=1000, help="streams held at once")
    parser.add_argument("--json", action="store_true", help="machine output")
    arguments = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("PADDOCK_", "RAY_"))}
    paddock = [sys.executable, "-m", "paddock"]
    with tempfile.TemporaryDirectory() as home:
        environ |= {"PADDOCK_HOME": home, "PADDOCK_PORT": "0"}
        launch = [*paddock, "launch", "tiny-mixtral", "-en", "echo", "--slots", "5000", "-u"]
        try:
            subprocess.run([*launch, "quick"], env=environ, check=True, capture_output=True)
            slow = [*launch, "slow", "--token_seconds", str(HOUR)]
            subprocess.run(slow, env=environ, check=True, capture_output=True)
            record = json.loads((Path(home) / "gateway.json").read_text())
            parts = urlsplit(record["endpoint"])
            before, after = asyncio.run(
                hold(parts.hostname or "", parts.port or 0, record["pid"], arguments.streams)
            )
        finally:
            subprocess.run([*paddock, "stop"], env=environ, check=False, capture_output=True)
    each = (after - before) / arguments.streams
    if arguments.json:
        print(json.dumps({"before_bytes": before, "after_bytes": after, "bytes_a_stream": each}))
    else:
        print(f"{arguments.streams} idle streams: {before / 1e6:.1f} MB → {after / 1e6:.1f} MB")
        print(f"{each / 1e3:.1f} kB a stream")


if __name__ == "__main__":
    main()
