"""`GET /metrics`: what is counted, of whom, and what is not."""

from __future__ import annotations

import http.client
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import urlsplit

import pytest
from prometheus_client.parser import text_string_to_metric_families

from paddock.client import Client
from paddock.engines.environment import find_accelerator
from paddock.launcher.fleet.fleet import Fleet
from paddock.launcher.replicas.status import ReplicaStatus
from paddock.server.telemetry import metrics
from paddock.server.telemetry.metrics import COUNTERS, GAUGES, HISTOGRAMS, Load, Metrics
from paddock.server.telemetry.timeline import Timeline
from tests.e2e.test_failures import until

ROUTE = "/v1/completions"
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parsed(text: str) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def status(uid: str, *states: str) -> Any:
    replicas = [
        ReplicaStatus(f"{uid}-rep{n}", state=cast(Any, state), restarts=n)
        for n, state in enumerate(states)
    ]
    memory = SimpleNamespace(needed_bytes=7)
    plan = SimpleNamespace(node="local", memory=memory)
    return SimpleNamespace(uid=uid, state=states[0], replicas=replicas, plan=plan)


class Zoo:
    """Stands for a fleet: only `models` is asked."""

    def __init__(self, *models: Any) -> None:
        self.found = list(models)

    def models(self) -> list[Any]:
        return self.found


async def scrape(metrics: Metrics) -> Samples:
    answer = await metrics.metrics(cast(Any, None))
    return parsed(bytes(answer.body).decode())


def timeline(uid: str = "a", **fields: Any) -> Timeline:
    moments = {"received": 10.0, "asked": 10.1, "taken": 10.6, "sent": 10.701, "first": 11.0}
    moments |= {"done": 13.0}
    given = {"replica_id": f"{uid}-rep0", "status": 200, **moments, **fields}
    return Timeline(ROUTE, uid, **given)


def value(samples: Samples, name: str, **labels: str) -> float | None:
    return samples.get((name, frozenset(labels.items())))


async def test_request_is_counted_with_its_times_and_tokens() -> None:
    """Each part of a streamed request's time goes to its histogram; usage counts the tokens."""
    metrics = Metrics(cast(Fleet, Zoo(status("a", "ready"))))
    metrics.observe(timeline(streamed=True, prompt_tokens=4, completion_tokens=21, events=30))
    found = await scrape(metrics)
    labels = {"model": "a", "replica": "a-rep0", "route": ROUTE}
    assert value(found, "paddock_requests_total", **labels, status="200") == 1
    assert value(found, "paddock_prompt_tokens_total", **labels) == 4
    assert value(found, "paddock_completion_tokens_total", **labels) == 21
    sums = {h.name: value(found, f"{h.name}_sum", **labels) for h in HISTOGRAMS}
    assert sums == pytest.approx(
        {
            "paddock_request_duration_seconds": 3.0,
            "paddock_time_to_first_token_seconds": 1.0,
            "paddock_inter_token_seconds": 0.1,
            "paddock_queue_seconds": 0.5,
            "paddock_gateway_seconds": 0.201,
            "paddock_engine_seconds": 0.299,
        }
    )
    bucket = "paddock_request_duration_seconds_bucket"
    assert value(found, bucket, **labels, le="2.5") == 0
    assert value(found, bucket, **labels, le="5.0") == 1
    assert value(found, bucket, **labels, le="+Inf") == 1


@pytest.mark.parametrize("level", ["DEBUG", "INFO"])
def test_requests_for_inference_are_logged_at_level_debug(
    level: str, caplog: pytest.LogCaptureFixture
) -> None:
    """They go past uvicorn's access log. At other levels nothing is logged."""
    caplog.set_level(level)
    Metrics(cast(Fleet, Zoo(status("a", "ready")))).observe(timeline(status=499))
    line = "\"POST /v1/completions\" 499 in 3.000 s, 'a' on a-rep0: queue;dur=500.00"
    assert [line in one for one in caplog.messages] == [True] * (level == "DEBUG")


async def test_events_count_as_tokens_where_the_engine_says_no_usage() -> None:
    """A stream without usage counts each event as a completion token."""
    metrics = Metrics(cast(Fleet, Zoo(status("a", "ready"))))
    metrics.observe(timeline(streamed=True, events=5, status=499))
    found = await scrape(metrics)
    labels = {"model": "a", "replica": "a-rep0", "route": ROUTE}
    assert value(found, "paddock_completion_tokens_total", **labels) == 5
    assert value(found, "paddock_requests_total", **labels, status="499") == 1


async def test_unknown_model_ids_are_no_labels() -> None:
    """However many ids clients make up, they share one series without a model."""
    metrics = Metrics(cast(Fleet, Zoo(status("a", "ready"))))
    for number in range(100):
        metrics.observe(Timeline(ROUTE, f"nobody-{number}", status=404, done=1.0, received=0.5))
    found = await scrape(metrics)
    names = {dict(labels).get("model") for _, labels in found} - {None}
    assert names == {"", "a"}
    labels = {"model": "", "replica": "", "route": ROUTE, "status": "404"}
    assert value(found, "paddock_requests_total", **labels) == 100


async def test_series_of_what_is_gone_are_dropped() -> None:
    """A model that was terminated, and a replica that was removed, leave the figures."""
    zoo = Zoo(status("a", "ready", "ready"), status("b", "ready"))
    metrics = Metrics(cast(Fleet, zoo))
    metrics.observe(timeline("a"))
    metrics.observe(timeline("a", replica_id="a-rep1"))
    metrics.observe(timeline("b"))
    zoo.found = [status("a", "ready")]
    found = await scrape(metrics)
    replicas = {dict(labels).get("replica") for _, labels in found} - {None}
    assert replicas == {"a-rep0"}
    assert "b" not in {dict(labels).get("model") for _, labels in found}


async def test_load_and_states_are_looked_at_when_asked() -> None:
    """Load is asked for at the scrape; of an unknown model it is left out."""
    loads = [Load("a", "a-rep0", 3, 0, 40), Load("a", "", 0, 2), Load("gone", "gone-rep0", 1, 0)]
    metrics = Metrics(cast(Fleet, Zoo(status("a", "starting"))), lambda: loads)
    found = await scrape(metrics)
    assert value(found, "paddock_requests_in_flight", model="a", replica="a-rep0") == 3
    assert value(found, "paddock_requests_queued", model="a", replica="") == 2
    running = "paddock_running_completion_tokens"
    assert value(found, running, model="a", replica="a-rep0") == 40
    assert value(found, running, model="a", replica="") is None
    assert value(found, "paddock_requests_in_flight", model="gone", replica="gone-rep0") is None
    assert value(found, "paddock_model_state", model="a", state="starting") == 1
    assert value(found, "paddock_model_state", model="a", state="ready") == 0
    assert value(found, "paddock_model_planned_memory_bytes", model="a") == 7


def test_document_lists_every_metric() -> None:
    """`docs/rest.md` has each metric with its kind and meaning, and no other."""
    text = (Path(__file__).parents[3] / "docs" / "rest.md").read_text()
    expected = [
        *(f"| `{name}` | counter | {meaning} |" for name, meaning in COUNTERS.items()),
        *(f"| `{h.name}` | histogram | {h.help} |" for h in HISTOGRAMS),
        *(f"| `{name}` | gauge | {meaning} |" for name, meaning in GAUGES.items()),
    ]
    assert re.findall(r"^\| `paddock_.*$", text, re.MULTILINE) == expected


def test_gateway_counts_what_went_through_it(client: Client) -> None:
    """A streamed and a whole answer of a real engine are in the figures, tokens and times too."""
    # A model of its own: what others have asked of `tiny` may still be counted now.
    uid = "counted"
    client.launch(
        model_name="tiny-mixtral", model_format="ggufv2", quantization="Q4_K_M", model_uid=uid
    )
    labels = {"model": uid, "replica": f"{uid}-rep0", "route": ROUTE}

    def figures() -> list[float]:
        found = scraped(client)
        names = (
            "paddock_completion_tokens_total",
            "paddock_prompt_tokens_total",
            "paddock_request_duration_seconds_count",
            "paddock_engine_seconds_count",
            "paddock_time_to_first_token_seconds_count",
            "paddock_inter_token_seconds_count",
        )
        done = value(found, "paddock_requests_total", **labels, status="200") or 0
        return [done, *(value(found, name, **labels) or 0 for name in names)]

    usage = client.complete(uid, "The old", max_tokens=5, ignore_eos=True)["usage"]
    pieces = list(client.generate(uid, "The old", max_tokens=5, ignore_eos=True))
    # A request is counted when it has ended, which its client may know a moment before.
    until(lambda: figures()[0] >= 2)
    requests, completion, prompt, *times = figures()
    assert completion >= usage["completion_tokens"] + len(pieces) - 1
    assert prompt >= usage["prompt_tokens"]
    assert [requests, *times] == [2, 2, 2, 1, 1]
    client.terminate(uid)


def test_gateway_answers_its_figures(client: Client, tiny: str) -> None:
    """A real gateway tells state and memory of a real engine, in Prometheus' own format."""
    found = scraped(client)
    assert value(found, "paddock_model_state", model=tiny, state="ready") == 1
    memory = value(found, "paddock_replica_memory_bytes", model=tiny, replica=f"{tiny}-rep0")
    assert memory is not None
    assert memory > 10e6
    client.complete(tiny, "The old", max_tokens=2)
    assert list(client.generate(tiny, "The old", max_tokens=5, ignore_eos=True))
    every = {*COUNTERS, *GAUGES, *(f"{h.name}_sum" for h in HISTOGRAMS)}
    every -= {"paddock_replica_next_start_seconds", "paddock_replica_last_failure"}  # none failed
    if find_accelerator() == "cpu":
        every.remove("paddock_replica_gpu_memory_bytes")
    # A request is counted when it has ended, which its client may know a moment before.
    until(lambda: every <= {name for name, _ in scraped(client)})


async def test_restarts_are_counted_and_their_last_cause_told() -> None:
    """A replica that waits for its next start tells how long; one that serves does not."""
    waiting = ReplicaStatus(
        "a-rep0",
        state="pending",
        restarts=2,
        last_failure={"cause": "engine_killed", "message": "killed"},
        next_try_at=time.time() + 60,
    )
    model = status("a", "pending")
    model.replicas = [waiting, ReplicaStatus("a-rep1", state="ready")]
    found = await scrape(Metrics(cast(Fleet, Zoo(model))))
    labels = {"model": "a", "replica": "a-rep0"}
    restarts = "paddock_replica_restarts_total"
    assert value(found, restarts, **labels) == 2
    assert value(found, restarts, model="a", replica="a-rep1") == 0
    assert value(found, "paddock_replica_last_failure", **labels, cause="engine_killed") == 1
    left = value(found, "paddock_replica_next_start_seconds", **labels)
    assert left == pytest.approx(60, abs=5)
    next_start = "paddock_replica_next_start_seconds"
    assert value(found, next_start, model="a", replica="a-rep1") is None


def test_memory_of_gpus_is_that_of_all_of_a_replicas_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the driver's word; what runs on processors has none, and what is gone is left out."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        told = {os.getpid(): 5_000_000_000, child.pid: 700, 1: 9}
        monkeypatch.setattr(metrics, "held_bytes", lambda: told)
        held = metrics._held({"ours": os.getpid(), "its": child.pid})
        assert held["ours"].gpu_bytes == 5_000_000_700
        assert held["its"].gpu_bytes == 700
        monkeypatch.setattr(metrics, "held_bytes", dict)
        assert metrics._held({"ours": os.getpid()})["ours"].gpu_bytes == 0
        assert held["ours"].resident_bytes > held["its"].resident_bytes > 0
        child.communicate()
    assert metrics._held({"its": child.pid}) == {}


def test_tokens_of_an_answer_are_counted_while_it_streams(client: Client, tiny: str) -> None:
    """They are told before the answer has ended, and none are when its client has left."""
    client.launch(
        model_name="tiny-mixtral", model_engine="echo", model_uid="streaming", token_seconds=600
    )

    def running() -> float | None:
        labels = {"model": "streaming", "replica": "streaming-rep0"}
        return value(scraped(client), "paddock_running_completion_tokens", **labels)

    pieces = client.generate("streaming", "one two")
    assert next(pieces) == "one"
    assert running() == 1
    pieces.close()
    until(lambda: running() == 0)
    client.terminate("streaming")


def scraped(client: Client) -> Samples:
    parts = urlsplit(client.endpoint)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    connection.request("GET", "/metrics")
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return parsed(text)
