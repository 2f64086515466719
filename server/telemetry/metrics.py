"""What the gateway counts, for Prometheus: `GET /metrics`.

Requests are counted from their timelines, once each, when they have ended. States, memory and load
are looked at when somebody asks.

What counts as a token: the engine's own figure of the answer's `usage`. Where a stream ends without
one, each event that was passed on counts as one completion token, and no prompt token is counted;
an engine may put several tokens into an event, so that this is a lower bound.

Only ids of launched models become labels: a request for any other has an empty `model`. The series
of a model, or of a replica, go when it goes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple, get_args

import psutil
from prometheus_client import (
    CONTENT_TYPE_PLAIN_0_0_4,
    CollectorRegistry,
    Metric,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from starlette.requests import Request
from starlette.responses import Response

import paddock
from paddock.launcher.fleet.fleet import Fleet
from paddock.launcher.fleet.status import ModelStatus
from paddock.launcher.hosts.gpus import held_bytes
from paddock.launcher.hosts.host import LOCAL
from paddock.launcher.replicas.status import State
from paddock.server.http.operation import Operation, RouteDoc
from paddock.server.telemetry.timeline import Timeline

log = logging.getLogger(__name__)

_LONG = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_SHORT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5)
_TINY = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 1.0)


class Histogram(NamedTuple):
    """A histogram's name, what it measures, and its buckets' upper bounds in seconds."""

    name: str
    help: str
    bounds: tuple[float, ...]


HISTOGRAMS = (
    Histogram(
        "paddock_request_duration_seconds",
        "From a request's arrival to the last byte of its answer",
        _LONG,
    ),
    Histogram(
        "paddock_time_to_first_token_seconds",
        "From a request's arrival to the first byte of a streamed answer",
        _LONG,
    ),
    Histogram(
        "paddock_inter_token_seconds",
        "Mean time between the tokens of a streamed answer, one observation a request",
        _SHORT,
    ),
    Histogram("paddock_queue_seconds", "Wait for a replica with a free slot", _LONG),
    Histogram(
        "paddock_gateway_seconds",
        "The gateway's own time until the answer began: neither queue nor engine",
        _TINY,
    ),
    Histogram(
        "paddock_engine_seconds",
        "From the request's way to the engine to the first byte of its answer",
        _LONG,
    ),
)
COUNTERS = {
    "paddock_requests_total": "Requests that have ended, by HTTP status; 499: the client left",
    "paddock_prompt_tokens_total": "Prompt tokens, as engines count them",
    "paddock_completion_tokens_total": "Completion tokens; events of streams without usage",
    "paddock_replica_restarts_total": "Starts of a replica after a failure",
}
GAUGES = {
    "paddock_requests_in_flight": "Requests that a replica works on",
    "paddock_requests_queued": "Requests that wait for a replica",
    "paddock_running_completion_tokens": "Completion tokens so far of answers that have not ended",
    "paddock_model_state": "1 for the state that the model is in, 0 for the others",
    "paddock_replica_state": "1 for the state that the replica is in, 0 for the others",
    "paddock_replica_last_failure": "1 for the cause of a replica's last failure",
    "paddock_replica_next_start_seconds": "Seconds until a replica that failed is started again",
    "paddock_model_planned_memory_bytes": "Memory that the plan expects of all replicas together",
    "paddock_replica_memory_bytes": "Resident memory of an engine's processes on the gateway's "
    "machine; mapped weights count for each replica that shares them",
    "paddock_replica_gpu_memory_bytes": "Memory of the gateway's machine's GPUs that an engine's "
    "processes hold; of engines that compute on GPUs",
}
STATES: tuple[State, ...] = get_args(State)
_SERIES = ("model", "replica", "route")


@dataclass(frozen=True)
class Load:
    """How busy a replica is now; `replica_id` is empty for what waits for any replica.

    `tokens` have come so far of the answers that it works on.
    """

    uid: str
    replica_id: str
    in_flight: int
    queued: int
    tokens: int = 0


@dataclass(frozen=True)
class Held:
    """Memory that a replica's processes hold: of the host, and of its GPUs."""

    resident_bytes: int
    gpu_bytes: int


class _Series:
    """What is counted of one (model, replica, route)."""

    __slots__ = ("buckets", "completion_tokens", "prompt_tokens", "statuses", "sums")

    def __init__(self) -> None:
        self.statuses: dict[int, int] = {}
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.buckets = [[0] * (len(histogram.bounds) + 1) for histogram in HISTOGRAMS]
        self.sums = [0.0] * len(HISTOGRAMS)

    def observe(self, number: int, seconds: float) -> None:
        """Counts one observation of the histogram at `number` in the table."""
        self.buckets[number][bisect_left(HISTOGRAMS[number].bounds, seconds)] += 1
        self.sums[number] += seconds


class Metrics:
    """The figures of one application. Use from its event loop only; nothing here takes a lock."""

    def __init__(self, fleet: Fleet, load: Callable[[], Iterable[Load]] = lambda: ()) -> None:
        self._fleet = fleet
        self._load = load
        self._series: dict[tuple[str, str, str], _Series] = {}
        self._memory: dict[str, Held] = {}
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def routes(self) -> list[Operation]:
        """The one route."""
        return [
            Operation(
                "GET",
                "/metrics",
                self.metrics,
                RouteDoc("watching", media="text/plain", scope="monitor"),
            )
        ]

    def observe(self, timeline: Timeline) -> None:
        """Counts a request that has ended, whatever became of it. Call once; takes about 2 µs.

        Also logs it at level debug: uvicorn's access log sees only what passes ASGI.
        """
        if log.isEnabledFor(logging.DEBUG):
            log.debug("%s", timeline.describe())
        series = self._series.get((timeline.uid, timeline.replica_id, timeline.route))
        if series is None:
            series = self._new(timeline)
        series.statuses[timeline.status] = series.statuses.get(timeline.status, 0) + 1
        received, first, done = timeline.received, timeline.first, timeline.done
        if done:
            series.observe(0, done - received)
        if timeline.taken:
            series.observe(3, timeline.queue_seconds)
        if timeline.sent:
            series.observe(4, timeline.gateway_seconds)
        if first and timeline.sent:
            series.observe(5, timeline.engine_seconds)
        tokens = timeline.completion_tokens or timeline.events
        series.prompt_tokens += timeline.prompt_tokens
        series.completion_tokens += tokens
        if timeline.streamed and first and timeline.status < 400:
            series.observe(1, first - received)
            if tokens > 1 and done:
                series.observe(2, (done - first) / (tokens - 1))

    def _new(self, timeline: Timeline) -> _Series:
        known = any(status.uid == timeline.uid for status in self._fleet.models())
        key = (timeline.uid, timeline.replica_id) if known else ("", "")
        return self._series.setdefault((*key, timeline.route), _Series())

    async def metrics(self, _: Request) -> Response:
        """Every figure, in Prometheus' text format."""
        pids = {
            replica.replica_id: replica.pid
            for status in self._fleet.models()
            for replica in status.replicas
            if replica.pid is not None and replica.node == LOCAL
        }
        # Looking at processes reads files: a few milliseconds in which the loop must serve others.
        self._memory = await asyncio.to_thread(_held, pids)
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    def collect(self) -> Iterator[Metric]:
        """All families, for the registry."""
        models = self._fleet.models()
        self._drop_gone(models)
        yield InfoMetricFamily("paddock_build", "Version", value={"version": paddock.__version__})
        yield from self._counted()
        yield from self._states(models)
        yield from self._busy(models)

    def _drop_gone(self, models: Sequence[ModelStatus]) -> None:
        living = {("", "")}
        for status in models:
            living |= {(status.uid, replica.replica_id) for replica in status.replicas}
            living.add((status.uid, ""))
        for key in [key for key in self._series if key[:2] not in living]:
            del self._series[key]

    def _counted(self) -> Iterator[Metric]:
        requests, prompt, completion = (
            CounterMetricFamily(name, text, labels=labels)
            for (name, text), labels in zip(
                list(COUNTERS.items())[:3], ((*_SERIES, "status"), _SERIES, _SERIES), strict=True
            )
        )
        histograms = [HistogramMetricFamily(h.name, h.help, labels=_SERIES) for h in HISTOGRAMS]
        for key, series in self._series.items():
            for status, count in series.statuses.items():
                requests.add_metric([*key, str(status)], count)
            prompt.add_metric(key, series.prompt_tokens)
            completion.add_metric(key, series.completion_tokens)
            for family, histogram, counts, total in zip(
                histograms, HISTOGRAMS, series.buckets, series.sums, strict=True
            ):
                ends = [*map(str, histogram.bounds), "+Inf"]
                family.add_metric(key, list(zip(ends, accumulate(counts), strict=True)), total)
        yield from (requests, prompt, completion, *histograms)

    def _states(self, models: Sequence[ModelStatus]) -> Iterator[Metric]:
        model = _gauge("paddock_model_state", "model", "state")
        replica = _gauge("paddock_replica_state", "model", "replica", "state")
        planned = _gauge("paddock_model_planned_memory_bytes", "model")
        next_start = _gauge("paddock_replica_next_start_seconds", "model", "replica")
        name = "paddock_replica_restarts_total"
        restarts = CounterMetricFamily(name, COUNTERS[name], labels=("model", "replica"))
        failures = _gauge("paddock_replica_last_failure", "model", "replica", "cause")
        memory = _gauge("paddock_replica_memory_bytes", "model", "replica")
        on_gpus = _gauge("paddock_replica_gpu_memory_bytes", "model", "replica")
        for status in models:
            planned.add_metric([status.uid], status.plan.memory.needed_bytes)
            for state in STATES:
                model.add_metric([status.uid, state], status.state == state)
            for one in status.replicas:
                for state in STATES:
                    replica.add_metric([status.uid, one.replica_id, state], one.state == state)
                restarts.add_metric([status.uid, one.replica_id], one.restarts)
                if one.last_failure is not None:
                    cause = str(one.last_failure.get("cause", ""))
                    failures.add_metric([status.uid, one.replica_id, cause], 1)
                if one.next_try_at is not None:
                    left = max(0.0, one.next_try_at - time.time())
                    next_start.add_metric([status.uid, one.replica_id], left)
                held = self._memory.get(one.replica_id)
                if held is not None:
                    memory.add_metric([status.uid, one.replica_id], held.resident_bytes)
                if held is not None and held.gpu_bytes:
                    on_gpus.add_metric([status.uid, one.replica_id], held.gpu_bytes)
        yield from (model, replica, restarts, failures, next_start, planned, memory, on_gpus)

    def _busy(self, models: Sequence[ModelStatus]) -> Iterator[Metric]:
        known = {status.uid for status in models}
        in_flight = _gauge("paddock_requests_in_flight", "model", "replica")
        queued = _gauge("paddock_requests_queued", "model", "replica")
        tokens = _gauge("paddock_running_completion_tokens", "model", "replica")
        for load in self._load():
            if load.uid in known:
                if load.replica_id:
                    tokens.add_metric([load.uid, load.replica_id], load.tokens)
                in_flight.add_metric([load.uid, load.replica_id], load.in_flight)
                queued.add_metric([load.uid, load.replica_id], load.queued)
        yield from (in_flight, queued, tokens)


def _gauge(name: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, GAUGES[name], labels=labels)


def _held(pids: dict[str, int]) -> dict[str, Held]:
    """What each process holds with all its descendants; without those that are gone."""
    held: dict[str, Held] = {}
    on_gpus = held_bytes() if pids else {}
    for name, pid in pids.items():
        try:
            root = psutil.Process(pid)
            tree = (root, *root.children(recursive=True))
            resident = sum(one.memory_info().rss for one in tree)
        except psutil.Error:  # it ended while we looked
            continue
        held[name] = Held(resident, sum(on_gpus.get(one.pid, 0) for one in tree))
    return held
