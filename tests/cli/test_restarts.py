"""What `list`, `describe` and `events` say of a replica that is started again."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any, cast

from paddock.cli.describe import description
from paddock.cli.events import _line
from paddock.cli.models import _row
from paddock.cli.talk import _launched
from paddock.client import Client
from tests.conftest import Paddock

FAILURE = {
    "cause": "oom",
    "message": "memory ran out",
    "lines": ["no more"],
    "next_command": "paddock logs --model-uid m",
}


def replica(**changes: Any) -> dict[str, Any]:
    """A replica as REST shows it, which waits for its next start."""
    waiting = {
        "replica_uid": "m-rep0",
        "model_state": "pending",
        "worker_address": "n1",
        "pid": None,
        "endpoint": None,
        "created_ts": 0,
        "restarts": 1,
        "last_failure": FAILURE,
        "chat": None,
        "next_try_at": 1002.0,
    }
    return {**waiting, **changes}


def model(one: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A model with this replica."""
    plan = {
        "model": "tiny",
        "format": "ggufv2",
        "quantization": "Q2_K",
        "engine": "echo",
        "memory": {"total_bytes": 1},
        "attached": {"url": "http://x"},
    }
    shown = {
        "model_uid": "m",
        "model_name": "tiny",
        "state": one["model_state"],
        "replica": 1,
        "replica_statuses": [one],
        "restart": "on-failure",
        "restarts": one["restarts"],
        "restart_tries": None,
        "silence_seconds": None,
        "diagnosis": None,
        "plan": plan,
    }
    return {**shown, **changes}


def test_policies_that_do_not_exist_are_refused(paddock: Paddock) -> None:
    """By name and value, with what there is instead; nothing is launched."""
    cases = {
        ("--restart", "sometimes"): ("restart", "always, on-failure, never"),
        ("--restart-tries", "-1"): ("restart_tries", "must be 0 or more"),
        ("--restart_tries", "-1"): ("restart_tries", "must be 0 or more"),
    }
    for (option, value), (name, instead) in cases.items():
        done = paddock.run("launch", "tiny-mixtral", "-en", "echo", option, value)
        said = done.stderr.splitlines()[-1]
        assert done.returncode == 2
        assert name in said
        assert value in said
        assert instead in said
    assert paddock.json("list") == []


def test_list_says_why_and_when() -> None:
    """Of one that waits the cause and the seconds, of one that serves how often it restarted."""
    waiting = replica(next_try_at=time.time() + 90)
    assert _row(model(waiting))[-1] in {f"pending (oom; starts again in {s} s)" for s in (89, 90)}
    serving = replica(model_state="ready", next_try_at=None)
    assert _row(model(serving))[-1] == "ready (1 restart, last oom)"
    quiet = replica(model_state="ready", next_try_at=None, restarts=0, last_failure=None)
    assert _row(model(quiet))[-1] == "ready"


def test_replica_that_is_not_heard_of_counts_as_one_that_serves() -> None:
    """`list` counts it, and `run` takes its model in place of launching another."""
    lost = model(replica(model_state="unreachable", endpoint="http://x", next_try_at=None))
    loading = model(replica(model_state="unreachable", next_try_at=None))
    assert [_row(one)[5] for one in (lost, loading)] == ["1/1", "0/1"]
    for models, found in (([loading], None), ([loading, lost], "m")):
        client = cast(Client, SimpleNamespace(instances=lambda models=models: models))
        assert _launched(client, "tiny", None) == found


def test_describe_says_why_and_when() -> None:
    """With the engine's last lines and what would help."""
    assert description(model(replica()), now=1000.5).splitlines()[1:] == [
        "state      pending, 1 restart",
        "",
        "m-rep0 is pending on n1, 1 restart",
        "  last failure  oom: memory ran out",
        "    | no more",
        "  try           paddock logs --model-uid m",
        "  next start    in 1.5 s",
    ]


def test_events_say_why_and_when() -> None:
    """In place of the note, which says the same with less."""
    data = {
        "replica_uid": "m-rep0",
        "state": "pending",
        "note": "starts again after oom, try 1",
        "restarts": 1,
        "last_failure": FAILURE,
        "next_try_at": 1002.0,
        "diagnosis": None,
        "gone": False,
        "at": 1000.5,
    }
    said = _line("replica", data).partition("  ")[2]
    assert said == "m-rep0 is pending; oom: memory ran out; starts again in 1.5 s, restart 1"


def test_describe_says_how_it_calls_and_thinks() -> None:
    """Or why it has no tools."""
    chat = {"source": "weights", "format": None, "reason": "", "reasoning_format": "qwen3"}
    told = description(model(replica(chat={**chat, "tool_format": "hermes"})), now=0)
    assert "  calls tools   as hermes\n  thinks        as qwen3" in told
    denied = {**chat, "reasoning_format": None, "tools_reason": "its template shows none"}
    assert "  no tools      its template shows none" in description(
        model(replica(chat=denied)), now=0
    )
