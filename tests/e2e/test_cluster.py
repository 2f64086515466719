"""Replicas on a Ray cluster that somebody else runs, on a node that is not the gateway's."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from paddock.launcher.cluster.head import read_record
from paddock.launcher.hosts import processes
from tests.conftest import Paddock
from tests.e2e.test_failures import DEADLINE, actor_pid, engine_pid, model, replica, until


@pytest.fixture
def cluster(paddock: Paddock, tmp_path: Path) -> Iterator[tuple[Paddock, dict[str, Any]]]:
    """The command line over a foreign Ray cluster of two nodes."""
    token = tmp_path / "token"
    token.write_text("t" * 64)
    environ = paddock.environ | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("ray_nodes.py"))],
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    nodes = json.loads(process.stdout.readline())
    joined = replace(paddock, environ=environ | {"RAY_ADDRESS": nodes["address"]})
    try:
        yield joined, nodes
        joined.ok("stop")
    finally:
        process.communicate("", timeout=60)


def test_replica_on_another_node_is_reached_through_its_relay(
    cluster: tuple[Paddock, dict[str, Any]],
) -> None:
    """A model launched on the second node answers, its relay asks for the key, and stop ends it."""
    paddock, nodes = cluster
    paddock.ok("launch", "tiny-mixtral", "-en", "echo", "--node", nodes["other"], "-u", "far")
    model = next(m for m in paddock.json("list") if m["model_uid"] == "far")
    assert model["plan"]["node"] == nodes["other"]
    assert paddock.ok("generate", "-u", "far", "over the hills") == "over the hills\n"

    endpoint = model["replica_statuses"][0]["endpoint"]
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{endpoint}/health", timeout=10)
    assert refused.value.code == 401
    assert "relay" in refused.value.read().decode()

    paddock.ok("launch", "tiny-mixtral", "-f", "ggufv2", "-q", "Q4_K_M", "-u", "near")
    assert paddock.ok("generate", "-u", "near", "--max-tokens", "4", "The old elephant").strip()
    paddock.ok("terminate", "-u", "far")
    assert [m["model_uid"] for m in paddock.json("list")] == ["near"]


def test_replica_of_a_lost_node_moves(cluster: tuple[Paddock, dict[str, Any]]) -> None:
    """When its node is lost, a replica starts again on one that lives, and says that it moved."""
    paddock, nodes = cluster
    paddock.ok("launch", "tiny-mixtral", "-en", "echo", "--node", nodes["other"], "-u", "nomad")
    paddock.ok("launch", "tiny-mixtral", "-en", "echo", "--node", "local", "-u", "settler")
    engine = psutil.Process(engine_pid(paddock, "nomad"))
    settler = engine_pid(paddock, "settler")
    os.kill(nodes["raylet"], signal.SIGKILL)
    until(lambda: model(paddock, "nomad")["restarts"])
    until(lambda: model(paddock, "nomad")["state"] == "ready")
    moved = replica(paddock, "nomad")
    assert moved["replica_uid"] == "nomad-rep0"
    assert moved["last_failure"]["cause"] in {"node_lost", "actor_died"}
    assert moved["pid"] != engine.pid
    assert processes.gone(engine, DEADLINE)
    assert paddock.ok("generate", "-u", "nomad", "pitched anew") == "pitched anew\n"
    with urllib.request.urlopen(f"{paddock.record['endpoint']}/v1/models/nomad/events") as answer:
        texts = [event["event_content"] for event in json.load(answer)]
    assert [text for text in texts if text.startswith("nomad-rep0 moves to ")]
    assert model(paddock, "settler")["restarts"] == 0
    assert engine_pid(paddock, "settler") == settler


def test_handle_streams_from_a_ray_program(shared_paddock: Paddock, tiny: str) -> None:
    """A Ray program gets the actor's handle by the model's id; `generate` and `chat` stream."""
    program = f"""
from paddock.client.actor import replica_actor
model = replica_actor({tiny!r})
import ray
pieces = [ray.get(ref) for ref in model.generate.remote("The old elephant", max_tokens=12)]
assert len(pieces) > 5, pieces
said = [{{"role": "user", "content": "What does a lion eat?"}}]
chat = [ray.get(ref) for ref in model.chat.remote(said, max_tokens=12)]
assert len(chat) > 3, chat
print("streamed", "".join(pieces))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=shared_paddock.environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "streamed" in done.stdout


def test_replicas_share_the_requests(shared_paddock: Paddock) -> None:
    """Two replicas run two engines, and requests side by side go to both."""
    shared_paddock.ok(
        *("launch", "tiny-mixtral", "-en", "echo", "-u", "twin", "-r", "2"),
        *("--token_seconds", "0.2"),
    )
    model = next(m for m in shared_paddock.json("list") if m["model_uid"] == "twin")
    assert len({r["pid"] for r in model["replica_statuses"]}) == 2
    prompt = "one two three four five"
    several = [shared_paddock.start("generate", "-u", "twin", "--json", prompt) for _ in range(2)]
    answers = [json.loads(process.communicate(timeout=60)[0]) for process in several]
    # Each engine numbers its own answers: both were the first of theirs.
    assert [answer["id"] for answer in answers] == ["echo-2", "echo-2"]
    shared_paddock.ok("terminate", "-u", "twin")


def test_stop_ends_what_a_dead_gateway_has_left_on_other_nodes(
    cluster: tuple[Paddock, dict[str, Any]],
) -> None:
    """A gateway and a bridge that were killed leave a replica on another node: `stop` ends it.

    The shell that stops does not know the cluster's address; the home's record does.
    """
    paddock, nodes = cluster
    paddock.ok("launch", "tiny-mixtral", "-en", "echo", "--node", nodes["other"], "-u", "far")
    (replica,) = next(iter(paddock.json("list")))["replica_statuses"]
    engine = psutil.Process(replica["pid"])
    actor = psutil.Process(actor_pid(engine.pid))
    record = read_record(paddock.home)
    assert record is not None
    assert record.bridge is not None
    for pid in (paddock.record["pid"], record.bridge[0]):
        os.kill(pid, signal.SIGKILL)
    environ = {name: value for name, value in paddock.environ.items() if name != "RAY_ADDRESS"}
    assert replace(paddock, environ=environ).json("stop")["models"] == ["far"]
    assert processes.gone(engine, 0.1)
    assert processes.gone(actor, 0.1)
