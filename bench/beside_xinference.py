"""Tokens and one-token requests through Paddock, through Xinference and straight from llama.cpp.

    python -m venv /tmp/xinference
    /tmp/xinference/bin/pip install xinference==4.1.0 xllamacpp torch==2.13.0
    python bench/beside_xinference.py --python /tmp/xinference/bin/python [--rounds 3] [--json]

Xinference runs in its own environment, on a port and with a home of its own, and serves the same
GGUF file with llama.cpp, 32 slots of the same context. The load and the rounds are those of
`data_path.py`: all three ways are measured in turn in each round.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import uvloop

from bench.data_path import UID, Target, engine, gateway, measure, report
from paddock.launcher.planning.plan import LaunchPlan
from paddock.registry.catalog import specs_root

START_SECONDS = 180


def call(endpoint: str, path: str, body: object) -> Any:
    """One POST; its JSON."""
    request = Request(
        endpoint + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urlopen(request, timeout=START_SECONDS) as answer:
            return json.load(answer)
    except HTTPError as error:
        raise SystemExit(f"xinference: {path}: {error.code} {error.read().decode()}") from error


@contextmanager
def xinference(python: str, home: Path, plan: LaunchPlan) -> Iterator[Target]:
    """Xinference with the plan's weights."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    endpoint = f"http://127.0.0.1:{port}"
    program = str(Path(python).with_name("xinference-local"))
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("PADDOCK_", "XINFERENCE_"))}
    environ |= {"XINFERENCE_HOME": str(home), "XINFERENCE_AUTH_ADVANCED": "0"}
    with (home / "out.log").open("wb") as log:
        process = subprocess.Popen(
            [program, "-H", "127.0.0.1", "-p", str(port), "-mp", "0"],
            env=environ,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and process.poll() is None:
            with suppress(OSError):
                if urlopen(f"{endpoint}/v1/cluster/auth", timeout=5).status == 200:
                    break
            time.sleep(0.5)
        else:
            raise SystemExit((home / "out.log").read_text()[-2000:])
        weights = specs_root() / plan.weights.id / plan.weights.files[0].name
        call(endpoint, "/v1/model_registrations/LLM", {"model": spec(weights), "persist": False})
        launch = {
            "model_name": "bench-mixtral",
            "model_uid": UID,
            "model_engine": "llama.cpp",
            "model_format": "ggufv2",
            "model_size_in_billions": 1,
            "quantization": "Q4_K_M",
            "n_parallel": plan.slots,
            "n_ctx": plan.context_length * plan.slots,
            "n_threads": 1,
            "enable_virtual_env": False,
        }
        call(endpoint, "/v1/models", launch)
        yield Target("xinference", "127.0.0.1", port, "")
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def spec(weights: Path) -> str:
    """A custom model of Xinference's, for the one file."""
    return json.dumps(
        {
            "version": 2,
            "model_name": "bench-mixtral",
            "model_lang": ["en"],
            "model_ability": ["generate"],
            "context_length": 2048,
            "model_family": "mixtral-v0.1",
            "architectures": ["MixtralForCausalLM"],
            "model_specs": [
                {
                    "model_format": "ggufv2",
                    "model_size_in_billions": 1,
                    "quantization": "Q4_K_M",
                    "model_id": "bench/mixtral",
                    "model_uri": f"file://{weights.parent}",
                    "model_file_name_template": "tiny-mixtral.{quantization}.gguf",
                }
            ],
        }
    )


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--python", required=True, help="Python of Xinference's environment")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each figure")
    parser.add_argument("--json", action="store_true", help="machine output")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as home,
        tempfile.TemporaryDirectory() as theirs,
        gateway(Path(home)) as (through, plan),
        engine(plan) as direct,
        xinference(arguments.python, Path(theirs), plan) as other,
    ):
        found = uvloop.run(measure([direct, through, other], arguments.rounds))
    report(found, arguments.rounds, arguments.json)


if __name__ == "__main__":
    main()
