"""What the gateway costs: tokens through Paddock beside the same engine without it.

    python bench/data_path.py [--rounds 5] [--nginx /usr/sbin/nginx] [--json]

Two fresh llama.cpp processes with the same settings serve tiny-mixtral: one launched by Paddock and
reached through its gateway, one started by hand and reached directly. Each round measures both in
turn, at 1, 8 and 32 streams of 128 tokens and with one-token requests on a kept connection, so that
what else the machine does hits both. With `--nginx`, an nginx with one worker and no buffering
stands in front of the second engine as well: what a proxy in C gets in the gateway's place. Engine
and nginx run in sessions of their own, as Paddock's do: some kernels share cores out by session.

The load comes from this process: raw sockets that count events and parse nothing. "Between pieces"
is the time from one read of a client to its next.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit
from urllib.request import urlopen

import uvloop

from paddock.client import Client
from paddock.engines import load_engine
from paddock.engines.base import Serving
from paddock.launcher.planning.plan import LaunchPlan
from paddock.registry.catalog import specs_root

STREAMS = (1, 8, 32)
TOKENS = 128
REQUESTS_PER_STREAM = {1: 24, 8: 6, 32: 3}
SINGLES = 300
UID = "bench"
LAUNCH = ("tiny-mixtral", "-q", "Q4_K_M", "--n_parallel", "32")
# Fixed length and no early end: every stream is 128 events, whatever the model says.
PROMPT = {"prompt": "The old elephant", "ignore_eos": True, "cache_prompt": False}


@dataclass(frozen=True)
class Target:
    """One way to the engine; `pid` is the process in between, if there is one."""

    name: str
    host: str
    port: int
    key: str
    pid: int = 0
    prompt: Mapping[str, object] = field(default_factory=lambda: PROMPT)

    def ran_seconds(self) -> float:
        """What the scheduler says that the process has run, all threads; the tick is too coarse."""
        total = 0
        for task in Path(f"/proc/{self.pid}/task").glob("*/schedstat") if self.pid else ():
            total += int(task.read_text().split()[0])
        return total / 1e9

    def request(self, **fields: object) -> bytes:
        """A whole HTTP request for a completion."""
        body = json.dumps({"model": UID, **self.prompt, **fields}).encode()
        head = (
            f"POST /v1/completions HTTP/1.1\r\nHost: {self.host}:{self.port}\r\n"
            f"Authorization: Bearer {self.key}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


class Answer(asyncio.Protocol):
    """Counts the events of one answer at a time on one connection."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.events = 0
        self.first = 0.0
        self.last = 0.0
        self.gaps: list[float] = []
        self.tail = b""
        self.done: asyncio.Future[None] | None = None
        self.streamed = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport."""
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Counts; the answer is over at the end of its chunks, or of its one body."""
        self.events += data.count(b"data: {")
        if self.events:  # the head comes before, and from an engine much earlier
            now = time.perf_counter()
            if self.first:
                self.gaps.append(now - self.last)
            else:
                self.first = now
            self.last = now
        self.tail = (self.tail + data)[-64:] if self.streamed else self.tail + data
        over = self.tail.endswith(b"\r\n0\r\n\r\n") or self.tail.endswith(b"\n\n0\r\n\r\n")
        if not self.streamed and not over:
            head, found, body = self.tail.partition(b"\r\n\r\n")
            length = head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]
            over = bool(found and length.strip() and len(body) >= int(length))
        if over and self.done is not None and not self.done.done():
            self.done.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        """An end before the answer's is an error."""
        if self.done is not None and not self.done.done():
            end = self.tail[-64:].decode(errors="replace")
            self.done.set_exception(error or ConnectionError(f"closed too early, after {end!r}"))


async def ask(target: Target, request: bytes, answer: Answer | None, streamed: bool) -> Answer:
    """One request, on the connection of `answer` if that is still open."""
    loop = asyncio.get_running_loop()
    if answer is None or answer.transport is None or answer.transport.is_closing():
        _, answer = await loop.create_connection(Answer, target.host, target.port)
    answer.events, answer.first, answer.tail, answer.streamed = 0, 0.0, b"", streamed
    answer.gaps = []
    answer.done = loop.create_future()
    assert answer.transport is not None
    answer.transport.write(request)
    await answer.done
    return answer


async def streams(target: Target, count: int) -> tuple[float, float, float]:
    """`count` streams side by side: events a second, and seconds to the first and between pieces.

    The first of these times is a median, the other the 99th percentile.
    """
    request = target.request(stream=True, max_tokens=TOKENS)
    firsts: list[float] = []
    gaps: list[float] = []
    events = 0

    async def one() -> None:
        nonlocal events
        for _ in range(REQUESTS_PER_STREAM[count]):
            began = time.perf_counter()
            answer = await ask(target, request, None, True)
            if answer.events < TOKENS:
                raise SystemExit(f"{target.name}: {answer.events} events of {TOKENS}")
            firsts.append(answer.first - began)
            gaps.extend(answer.gaps)
            events += answer.events
            assert answer.transport is not None
            answer.transport.close()

    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(count)))
    rate = events / (time.perf_counter() - began)
    return rate, statistics.median(firsts), percentile(gaps, 99)


def percentile(values: list[float], percent: int) -> float:
    """The value below which so many of a hundred lie."""
    return sorted(values)[len(values) * percent // 100]


async def singles(target: Target) -> list[float]:
    """Seconds of one-token requests, one after another."""
    request = target.request(max_tokens=1)
    answer, took = None, []
    for _ in range(SINGLES):
        began = time.perf_counter()
        try:
            answer = await ask(target, request, answer, False)
        except ConnectionError:
            answer = None  # llama.cpp closes after 100 requests: not what is measured
            continue
        took.append(time.perf_counter() - began)
    return took


@contextmanager
def gateway(home: Path, arguments: Sequence[str] = LAUNCH) -> Iterator[tuple[Target, LaunchPlan]]:
    """A model that `paddock launch ARGUMENTS` has started."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("PADDOCK_", "RAY_"))}
    environ |= {"PADDOCK_HOME": str(home), "PADDOCK_PORT": "0"}
    paddock = [sys.executable, "-m", "paddock"]
    launch = ["launch", *arguments, "-u", UID]
    try:
        subprocess.run([*paddock, *launch], env=environ, check=True, capture_output=True)
        record = json.loads((home / "gateway.json").read_text())
        endpoint = record["endpoint"]
        (model,) = Client(endpoint).instances(UID)
        parts = urlsplit(endpoint)
        assert parts.hostname is not None
        assert parts.port is not None
        plan = LaunchPlan.from_json(model["plan"])
        yield Target("paddock", parts.hostname, parts.port, "", record["pid"]), plan
    finally:
        subprocess.run([*paddock, "stop"], env=environ, check=False, capture_output=True)


@contextmanager
def engine(plan: LaunchPlan, weights: Path | None = None) -> Iterator[Target]:
    """The same engine with the same settings, without Paddock; the weights are ours by default."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    key = secrets.token_hex(8)
    adapter = load_engine(plan.engine)
    if weights is None:
        folder = specs_root() / plan.weights.id
        weights = folder / plan.weights.files[0].name if plan.format == "ggufv2" else folder
    command = adapter.command(
        Serving(
            model_id=UID,
            weights=weights,
            quantization=plan.quantization,
            cache_bytes=plan.memory.cache_bytes,
            port=port,
            api_key=key,
            context_length=plan.context_length,
            slots=plan.slots,
            abilities=plan.abilities,
            options=adapter.options.parse(adapter.name, plan.options),
        )
    )
    process = subprocess.Popen(
        command.argv,
        env={**os.environ, **command.environ},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        while process.poll() is None:
            with suppress(OSError):
                if urlopen(f"http://127.0.0.1:{port}/health", timeout=5).status == 200:
                    break
            time.sleep(0.02)
        yield Target("engine", "127.0.0.1", port, key)
    finally:
        process.terminate()
        process.wait(10)


NGINX = """
daemon off; master_process off; pid {home}/pid; error_log {home}/errors;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path {home}/b; proxy_temp_path {home}/p; fastcgi_temp_path {home}/f;
  uwsgi_temp_path {home}/u; scgi_temp_path {home}/s;
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://127.0.0.1:{engine}; proxy_http_version 1.1; proxy_buffering off;
      proxy_set_header Connection close;
    }}
  }}
}}
"""


@contextmanager
def nginx(program: str, behind: Target) -> Iterator[list[Target]]:
    """nginx in front of an engine; nothing, where no program is given."""
    if not program:
        yield []
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as home:
        config = Path(home) / "nginx.conf"
        config.write_text(NGINX.format(home=home, port=port, engine=behind.port))
        process = subprocess.Popen(
            [program, "-c", str(config)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            while process.poll() is None:
                with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
                    break
                time.sleep(0.02)
            yield [Target("nginx", "127.0.0.1", port, behind.key, process.pid)]
        finally:
            process.terminate()
            process.wait(10)


async def measure(targets: list[Target], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Figure → target → one value a round (one-token requests: every request)."""
    found: dict[str, dict[str, list[float]]] = {}

    def add(figure: str, target: Target, values: list[float]) -> None:
        found.setdefault(figure, {}).setdefault(target.name, []).extend(values)

    for target in targets:  # warm: connections, code, the engine's first graph
        await streams(target, 8)
        await singles(target)
    for turn in range(rounds):
        for target in targets if turn % 2 == 0 else targets[::-1]:
            for count in STREAMS:
                ran = target.ran_seconds()
                rate, first, gap = await streams(target, count)
                chunks = count * REQUESTS_PER_STREAM[count] * TOKENS
                spent = (target.ran_seconds() - ran) / chunks * 1e6
                add(f"chunks/s, {count} streams", target, [rate])
                add(f"µs/chunk between, {count} streams", target, [spent])
                add(f"first chunk ms, {count} streams", target, [first * 1000])
                add(f"between pieces ms, p99, {count} streams", target, [gap * 1000])
            add("one token ms", target, [s * 1000 for s in await singles(target)])
    return found


def report(found: dict[str, dict[str, list[float]]], rounds: int, as_json: bool) -> None:
    """Prints medians, and how each target's stands to the engine's own."""
    if as_json:
        print(json.dumps(found, indent=2))
        return
    names = list(next(iter(found.values())))
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} cores, load {load:.1f}; {rounds} rounds, in turn")
    print(f"{'':34}" + "".join(f"{name:>12} {'ratio':>7}" for name in names))

    def row(figure: str, values: dict[str, float]) -> None:
        raw = values["engine"]
        cells = (
            f"{format(values[name], '.2f') if values[name] else '–':>12} "
            f"{format(values[name] / raw, '.3f') if raw else '':>7}"
            for name in names
        )
        print(f"{figure:34}" + "".join(cells))

    for figure, by_target in found.items():
        row(figure, {name: statistics.median(by_target[name]) for name in names})
    singles = found["one token ms"]
    row("one token ms, p99", {name: percentile(singles[name], 99) for name in names})


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each figure")
    parser.add_argument("--nginx", default="", help="an nginx program to measure beside")
    parser.add_argument("--json", action="store_true", help="machine output")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as home,
        gateway(Path(home)) as (through, plan),
        engine(plan) as direct,
        nginx(arguments.nginx, direct) as others,
    ):
        found = uvloop.run(measure([direct, through, *others], arguments.rounds))
    report(found, arguments.rounds, arguments.json)


if __name__ == "__main__":
    main()
