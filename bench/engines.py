"""Each engine on tiny-mixtral: launch to first token, tokens a second, memory; Paddock's share.

    python -m bench.engines [--rounds 3] [--only NAME[,NAME]] [--json]
    python -m bench.engines --defaults [--rounds 3] [--only NAME[,NAME]]

For every engine that is installed in this PADDOCK_HOME, and every variant that it serves: the same
engine is started by hand and launched by Paddock, with the settings of Paddock's plan, and both are
measured in turn at 1, 8 and 32 streams of 64 tokens. "First token" is from the start of the process
by hand, and from `paddock launch` beside a gateway and a Ray that run already, to the token of a
request for one. Memory is what the engine's processes hold for themselves after all streams.

With --defaults the engines alone are measured with each combination of what `GRID` varies, which is
what the adapters' defaults come from; the row of the default is marked. The last column is tokens
of prompts a second, of eight prompts at once of a thousand tokens each.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path

import psutil
import uvloop

from bench.data_path import UID, Target, ask, engine
from paddock.client import Client
from paddock.engines import load_engine
from paddock.launcher.hosts.host import probe_host
from paddock.launcher.hosts.machine import cpus
from paddock.launcher.planning.plan import LaunchPlan, LaunchRequest
from paddock.launcher.planning.resolve import resolve
from paddock.registry.catalog import Catalog
from paddock.registry.settings import read_settings

STREAMS = (1, 8, 32)
TOKENS = 64
PROMPTS, PROMPT_TOKENS = 8, 1000
# Every engine understands this; prompts as short as this are not worth keeping.
PROMPT = {"prompt": "The old elephant", "ignore_eos": True}
VARIANTS = {
    "llama.cpp": (("ggufv2", "Q4_K_M"), ("ggufv2", "Q8_0")),
    "Transformers": (("pytorch", "none"), ("gptq", "Int4")),
    "vLLM": (("pytorch", "none"), ("gptq", "Int4")),
}
CORES = sorted({1, max(1, cpus() - 1), cpus()})
DTYPES = ("auto", "float32")  # auto: bfloat16, as tiny-mixtral's files are
GRID: dict[str, tuple[tuple[str, str], dict[str, Sequence[object]]]] = {
    "llama.cpp": (("ggufv2", "Q4_K_M"), {"n_threads": CORES, "n_ubatch": (128, 512)}),
    "Transformers": (
        ("pytorch", "none"),
        {"n_threads": CORES, "dtype": DTYPES, "n_batch": (128, 512, 2048)},
    ),
    "vLLM": (("pytorch", "none"), {"n_threads": CORES, "dtype": DTYPES}),
}


@dataclass
class Row:
    """Figures of one engine and variant: one value a round, by hand and through Paddock."""

    engine: str
    variant: str
    first_token_seconds: dict[str, float] = field(default_factory=dict)
    memory_bytes: int = 0
    tokens_per_second: dict[int, dict[str, list[float]]] = field(default_factory=dict)


class Home:
    """A gateway with Ray in a home of its own, in which this home's engines are installed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "engines").symlink_to(read_settings().home / "engines")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PADDOCK_", "RAY_"))}
        self._environ = {**kept, "PADDOCK_HOME": str(folder), "PADDOCK_PORT": "0"}

    def run(self, *arguments: str) -> None:
        """A command of Paddock's."""
        command = [sys.executable, "-m", "paddock", *arguments]
        done = subprocess.run(
            command, env=self._environ, check=False, capture_output=True, text=True
        )
        if done.returncode:
            raise SystemExit(f"{' '.join(arguments)}:\n{done.stderr}")

    @property
    def target(self) -> Target:
        """The gateway."""
        record = json.loads((self.folder / "gateway.json").read_text())
        host, _, port = record["endpoint"].removeprefix("http://").partition(":")
        return Target("paddock", host, int(port), "", record["pid"], PROMPT)

    def model(self) -> tuple[LaunchPlan, int]:
        """The plan and the process of what is launched."""
        (model,) = Client(f"http://{self.target.host}:{self.target.port}").instances(UID)
        return LaunchPlan.from_json(model["plan"]), int(model["replica_statuses"][0]["pid"])


@contextmanager
def gateway() -> Iterator[Home]:
    """Ends with everything that it started."""
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))
        try:
            home.run("launch", "tiny-mixtral", "-en", "echo", "-u", "ray-is-up")
            yield home
        finally:
            home.run("stop")


def memory(pid: int) -> int:
    """Bytes that a process and those below it hold, each page once."""
    whole = psutil.Process(pid)
    return sum(one.memory_full_info().uss for one in (whole, *whole.children(recursive=True)))


async def rate(target: Target, count: int, each: int = 2) -> float:
    """Tokens a second at `count` streams."""
    request = target.request(stream=True, max_tokens=TOKENS)

    async def one() -> None:
        for _ in range(each):
            answer = await ask(target, request, None, True)
            assert answer.transport is not None
            answer.transport.close()

    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(count)))
    return count * each * TOKENS / (time.perf_counter() - began)


async def prompt_rate(target: Target) -> float:
    """Tokens of prompts a second; no two prompts begin alike, so that no cache knows them."""
    dice = secrets.SystemRandom()

    async def one() -> None:
        made = replace(target, prompt={"prompt": dice.choices(range(5, 1000), k=PROMPT_TOKENS)})
        answer = await ask(made, made.request(max_tokens=1), None, False)
        assert answer.transport is not None
        answer.transport.close()

    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(PROMPTS)))
    return PROMPTS * PROMPT_TOKENS / (time.perf_counter() - began)


async def first_token(target: Target, began: float) -> float:
    """Seconds since `began`, once one token is here."""
    await ask(target, target.request(max_tokens=1), None, False)
    return time.perf_counter() - began


def measure(home: Home, name: str, variant: tuple[str, str], rounds: int) -> Row:
    """One engine and variant."""
    row = Row(name, " ".join(variant))
    began = time.perf_counter()
    options = ("-f", variant[0], "-q", variant[1], "-en", name, "--n_parallel", "32")
    home.run("launch", "tiny-mixtral", "-u", UID, *options)
    row.first_token_seconds["paddock"] = uvloop.run(first_token(home.target, began))
    plan, pid = home.model()
    began = time.perf_counter()
    with engine(plan) as made:
        direct = replace(made, prompt=PROMPT)
        row.first_token_seconds["engine"] = uvloop.run(first_token(direct, began))
        for turn in range(rounds + 1):
            targets = [direct, home.target]
            for target in targets if turn % 2 else targets[::-1]:
                for count in STREAMS:
                    found = uvloop.run(rate(target, count))
                    if turn:  # the first round warms up
                        by_name = row.tokens_per_second.setdefault(count, {})
                        by_name.setdefault(target.name, []).append(found)
    row.memory_bytes = memory(pid)
    home.run("terminate", "--model-uid", UID)
    return row


def settings(name: str, rounds: int) -> None:
    """Prints one engine's table of what its options do to tokens a second."""
    variant, grid = GRID[name]
    host = probe_host(read_settings().home)

    def plan(options: dict[str, object]) -> LaunchPlan:
        asked = {"format": variant[0], "quantization": variant[1], "model_engine": name}
        given = {"n_parallel": 32, **options}
        request = LaunchRequest.parse(model_name="tiny-mixtral", **asked, engine_options=given)
        return resolve(request, Catalog.load(), [host])

    default = plan({}).options
    head = f"{name} {' '.join(variant)}"
    print(f"{head:44}" + "".join(f"{count:>10}" for count in (*STREAMS, "prompts")))
    for values in product(*grid.values()):
        options = dict(zip(grid, values, strict=True))
        cells = []
        with engine(plan(options)) as made:
            target = replace(made, prompt=PROMPT)
            for count in STREAMS:
                found = [uvloop.run(rate(target, count)) for _ in range(rounds + 1)]
                cells.append(f"{statistics.median(found[1:]):>10.0f}")  # the first warms up
            found = [uvloop.run(prompt_rate(target)) for _ in range(rounds + 1)]
            cells.append(f"{statistics.median(found[1:]):>10.0f}")
        mark = " default" if all(default[key] == value for key, value in options.items()) else ""
        shown = ", ".join(f"{key} {value}" for key, value in options.items())
        print(f"{shown:44}{''.join(cells)}{mark}", flush=True)


def report(rows: list[Row]) -> None:
    """Prints the table: medians, and Paddock's ratio in brackets."""
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(f"{'':26}{'first token s':>16}{'MB':>7}" + "".join(f"{n:>18}" for n in STREAMS))
    for row in rows:
        first = row.first_token_seconds
        cells = [f"{first['engine']:.2f} ({first['paddock']:.2f})", f"{row.memory_bytes / 1e6:.0f}"]
        for count in STREAMS:
            found = {k: statistics.median(v) for k, v in row.tokens_per_second[count].items()}
            cells.append(f"{found['engine']:.0f} ({found['paddock'] / found['engine']:.2f})")
        widths = (16, 7, *(18 for _ in STREAMS))
        line = "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
        print(f"{row.engine + ' ' + row.variant:26}{line}")


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each figure")
    parser.add_argument("--only", default="", help="engines' names, with commas between them")
    parser.add_argument("--defaults", action="store_true", help="what the engines' options do")
    parser.add_argument("--json", action="store_true", help="machine output")
    arguments = parser.parse_args()
    only = set(arguments.only.split(",")) - {""} or set(VARIANTS)
    names = [name for name in VARIANTS if name in only and load_engine(name).detect().version]
    if arguments.defaults:
        print(f"{cpus()} cores, load {os.getloadavg()[0]:.1f}; tokens/s at so many streams")
        for name in names:
            settings(name, arguments.rounds)
        return
    rows = []
    with gateway() as home:
        for name in names:
            rows += [measure(home, name, one, arguments.rounds) for one in VARIANTS[name]]
    if arguments.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        report(rows)


if __name__ == "__main__":
    main()
