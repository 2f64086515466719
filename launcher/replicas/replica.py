"""One running copy of a model: brings the weights, starts the engine, looks after it, ends it.

`Replica` is a plain class; `launcher/cluster/bridge.py` runs it as a detached Ray actor on the
planned node. All its methods are coroutines on one event loop, so its state has one writer. Tokens
do not pass through it: the gateway talks to `ReplicaStatus.endpoint`. `generate` and `chat` are
there for Ray programs that hold the handle.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import psutil

from paddock.engines import load_engine
from paddock.engines.base import Engine, Serving
from paddock.launcher.hosts import gpus, processes
from paddock.launcher.hosts.environ import engine_environment
from paddock.launcher.hosts.machine import disk, mapped_bytes, memory, oom_kills, own_bytes
from paddock.launcher.planning.plan import LaunchPlan
from paddock.launcher.replicas.diagnosis import (
    LINES,
    Cause,
    Diagnosis,
    Failure,
    diagnose_excess,
    diagnose_exit,
    launch_command,
)
from paddock.launcher.replicas.engine_client import EngineClient
from paddock.launcher.replicas.health import (
    AGAIN_SECONDS,
    ANSWER_SECONDS,
    COMPUTE_SECONDS,
    GPU_ANSWER_SECONDS,
    TOKEN_SECONDS,
    Health,
    Look,
)
from paddock.launcher.replicas.limit import loading_limit, serving_limit
from paddock.launcher.replicas.logs import read_after, read_tail
from paddock.launcher.replicas.prompt import Prompt, replace_own, settle_prompt
from paddock.launcher.replicas.relay import Relay
from paddock.launcher.replicas.status import ReplicaConfig, ReplicaStatus
from paddock.registry.abilities import smallest_request
from paddock.registry.errors import CorruptFile, HubFailure
from paddock.registry.files import make_private, open_private
from paddock.registry.formats import weight_format
from paddock.registry.gguf import check_gguf
from paddock.registry.shards import file_bytes, shard_names

WARDEN = Path(__file__).with_name("warden.py")
READY_POLL = 0.025
READY_ANSWER = 1.0
LIFE_SECONDS = 1.0
WATCH_SECONDS = 20.0
MEASURE_SECONDS = 300.0
"""Between two looks at what an engine that serves has taken."""
MEMORY_SHARE = 0.95
"""Of what was planned, without which no engine is started: plans are a little too large."""
EXIT_LINES = 600
"""Last lines in which the cause of an engine's end is looked for: it may have many processes."""
RESUMABLE_CAUSES = {
    "disk_full",
    "rate_limited",
    "stalled",
    "checksum_mismatch",
    "gated_repo",
    "token_refused",
    "not_writable",
    "cancelled",
}
"""Once one of these causes is mended, the same launch goes on where it stopped."""


class Replica:
    """Supervises one engine process. `begin` once, then `watch` for changes, `stop` at the end."""

    def __init__(self, config: ReplicaConfig) -> None:
        self._config = config
        self._plan = LaunchPlan.from_json(config.plan)
        self._engine: Engine = load_engine(self._plan.engine)
        self._key = secrets.token_hex(24)  # no sign in it that an engine could take for an option
        name = config.replica_id.replace("/", "%2F")
        self._log = Path(config.home) / "logs" / f"{name}.log"
        self._status = ReplicaStatus(
            config.replica_id,
            key=self._key,
            started_at=time.time(),
            log=str(self._log),
            actor_pid=os.getpid(),
        )
        self._changed = asyncio.Event()
        self._cancelled = threading.Event()
        self._life_task: asyncio.Task[None] | None = None
        self._fetching: asyncio.Future[Path | None] | None = None
        self._projector: Path | None = None
        self._prompt = Prompt()
        self._warden: asyncio.subprocess.Process | None = None
        self._end_task: asyncio.Task[dict[str, Any]] | None = None
        self._relay: Relay | None = None
        self._oom_kills = self._newest_oom_kills = oom_kills()
        self._port = 0
        self._looked_at = 0.0
        self._cpu_seconds = 0.0
        self._health = Health()
        self._work = Health()
        self._counters: tuple[str, ...] | None = None
        self._probed_at = 0.0
        self._probed_cpu_seconds = 0.0
        self._weights_bytes = 0
        self._mapped: frozenset[str] = frozenset()
        self._mapped_bytes = 0
        self._launched_at = self._measured_at = 0.0
        self._limit = 0

    async def begin(self) -> ReplicaStatus:
        """Starts the life of the replica, once, and returns at once."""
        if self._life_task is None:
            self._life_task = asyncio.create_task(self._live())
        return self._status

    async def watch(self, since: int) -> ReplicaStatus:
        """The status as soon as it is newer than `since`, or after a while as it is."""
        deadline = time.monotonic() + WATCH_SECONDS
        while self._status.version <= since:
            left = deadline - time.monotonic()
            if left <= 0:
                break
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), left)
        return self._status

    async def stop(self) -> ReplicaStatus:
        """Ends the engine, gracefully then by force; returns when no process of it is left."""
        self._cancelled.set()
        if self._status.state == "unhealthy" and self._status.pid is not None:
            # It would not mind a SIGTERM: there is nothing to wait for.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._status.pid, signal.SIGKILL)
        if self._status.state not in {"failed", "stopped"}:
            self._set(state="stopping", endpoint=None)
        if self._fetching is not None:
            self._fetching.cancel()
        await self._measure_again()
        self._slip_leash()
        if self._life_task is not None:
            await asyncio.wait([self._life_task])
        if self._relay is not None:
            await self._relay.close()
            self._relay = None
        if self._status.state != "failed":
            self._set(state="stopped", endpoint=None, pid=None)
        return self._status

    async def tail(self, lines: int) -> list[str]:
        """The engine's last lines."""
        return await asyncio.to_thread(read_tail, self._log, lines)

    async def log_after(self, offset: int) -> tuple[int, str]:
        """What the engine has logged after `offset` bytes, in pieces, and the new offset."""
        return await asyncio.to_thread(read_after, self._log, offset)

    async def generate(self, prompt: str, **fields: Any) -> AsyncIterator[str]:
        """Streams the text that continues `prompt`; `fields` are those of `/v1/completions`."""
        body = {"model": self._plan.model_id, "prompt": prompt, **fields}
        async for choice in self._ready_client().stream("/v1/completions", body):
            yield choice.get("text", "")

    async def chat(self, messages: list[dict[str, Any]], **fields: Any) -> AsyncIterator[str]:
        """Streams the answer's text; `fields` are those of `/v1/chat/completions`.

        Raises:
            RuntimeError: the replica is not ready, or has no chat template.
        """
        if self._prompt.source == "none":
            raise RuntimeError(f"{self._config.replica_id} has {self._prompt.note or 'no chat'}")
        body = {"model": self._plan.model_id, "messages": messages, **fields}
        async for choice in self._ready_client().stream("/v1/chat/completions", body):
            yield choice.get("delta", {}).get("content") or ""

    async def _live(self) -> None:
        """Weights, engine, ready, and then whatever ends it. Never raises."""
        try:
            weights = await self._bring_weights()
            await asyncio.to_thread(self._check_memory)
            self._prompt = await asyncio.to_thread(settle_prompt, self._plan, weights)
            try:
                await self._start_engine(weights)
                await self._until_ready()
            except Failure as failure:
                if failure.diagnosis.cause != "chat_template" or self._prompt.source != "weights":
                    raise
                # Only the engine can tell whether it reads the weights' own.
                reason = failure.diagnosis.message
                self._prompt = await asyncio.to_thread(replace_own, self._plan, weights, reason)
                await self._start_engine(weights)
                await self._until_ready()
            await self._until_token()
            load_seconds = time.monotonic() - self._launched_at
            await self._open_relay()
            took = await self._measure(load_seconds)
            await self._set_limit()
            endpoint = self._relay.endpoint if self._relay else f"http://127.0.0.1:{self._port}"
            self._set(
                state="ready",
                endpoint=endpoint,
                note=self._prompt.note,
                ready_at=time.time(),
                took=took,
                chat=self._prompt.to_json(),
            )
            end = await self._until_end()
            self._note_peak(end)
            if self._status.state != "unhealthy":  # else the diagnosis is there: it hung
                self._fail_unless_stopping(await self._exit_diagnosis(end))
        except Failure as failure:
            await self._end_engine()
            self._fail_unless_stopping(failure.diagnosis)
        except asyncio.CancelledError:
            await self._end_engine()
        except Exception as error:  # noqa: BLE001 - the actor's border: a bug becomes a diagnosis
            await self._end_engine()
            lines = traceback.format_exc().strip().splitlines()
            message = f"{type(error).__name__}: {error}"
            self._fail_unless_stopping(Diagnosis("internal", message, None, tuple(lines[-12:])))

    async def _bring_weights(self) -> Path | None:
        from paddock.launcher.weights import Progress, Terms, fetch

        planned = self._plan.weights
        loop = asyncio.get_running_loop()

        def report(progress: Progress) -> None:
            loop.call_soon_threadsafe(self._downloaded, progress.to_json())

        if not planned.here:
            self._set(state="downloading", note=f"{planned.id} from {planned.hub}")
        terms = Terms(Path(self._config.home), self._config.hub_timeout)
        try:
            self._fetching = asyncio.ensure_future(
                asyncio.to_thread(fetch, planned, terms, report, self._cancelled)
            )
            weights = await self._fetching
            if planned.projector_alone is not None:
                self._fetching = asyncio.ensure_future(
                    asyncio.to_thread(
                        fetch, planned.projector_alone, terms, report, self._cancelled
                    )
                )
                self._projector = await self._fetching
            if weights is not None and weight_format(self._plan.format).is_single_file:
                for name in shard_names(weights.name) or (weights.name,):
                    await asyncio.to_thread(check_gguf, weights.with_name(name))
        except HubFailure as error:
            raise Failure(self._hub_diagnosis(error)) from error
        except CorruptFile as error:
            again = launch_command(self._plan, "--model-path", "PATH_OF_A_WHOLE_FILE")
            raise Failure(Diagnosis("corrupt_file", str(error), again)) from error
        except OSError as error:
            again = launch_command(self._plan, "--model-path", "FILE_OR_FOLDER")
            message = f"the weights cannot be read: {error}"
            raise Failure(Diagnosis("load_failed", message, again)) from error
        return weights

    def _hub_diagnosis(self, error: HubFailure) -> Diagnosis:
        extra = () if error.cause in RESUMABLE_CAUSES else ("--model-path", "FILE_OR_FOLDER")
        following = launch_command(self._plan, *extra)
        # The registry knows no causes by type; hubs raise only those of the list.
        cause = cast(Cause, error.cause)
        return Diagnosis(cause, str(error), following, tried=error.tried)

    def _downloaded(self, progress: dict[str, Any]) -> None:
        if self._status.state in {"pending", "downloading"}:
            files = tuple(progress.pop("files"))
            total = progress.pop("total_bytes") or None
            self._set(state="downloading", files=files, total_bytes=total, **progress)

    def _check_memory(self) -> None:
        """Begins nothing where others have taken the memory since the plan was made.

        Not for what did not fit then either, and was launched all the same; and not for a GPU's,
        whose engine says it itself.
        """
        planned = self._plan.memory
        needed_bytes = planned.total_bytes - (planned.weights_bytes if planned.paged else 0)
        _, free_bytes = memory()
        if planned.gpus or not planned.fits or free_bytes >= MEMORY_SHARE * needed_bytes:
            return
        message = (
            f"it needs {needed_bytes / 1e9:.2f} GB, and {free_bytes / 1e9:.2f} GB are free; when "
            f"it was planned, {planned.free_bytes / 1e9:.2f} GB were"
        )
        raise Failure(Diagnosis("oom_host", message, launch_command(self._plan, "--fit")))

    async def _start_engine(self, weights: Path | None) -> None:
        if self._cancelled.is_set():
            raise asyncio.CancelledError
        self._set(
            state="starting",
            note=f"{self._plan.engine} loads {self._plan.quantization}",
            bytes_per_second=None,
            seconds_left=None,
        )
        self._port = _free_port()
        command = self._engine.command(
            Serving(
                model_id=self._plan.model_id,
                weights=weights,
                port=self._port,
                api_key=self._key,
                context_length=self._plan.context_length,
                slots=self._plan.slots,
                abilities=self._plan.abilities,
                options=self._engine.options.parse(self._plan.engine, self._plan.options),
                chat_template=self._prompt.template,
                chat_template_file=await asyncio.to_thread(self._write_template),
                stop_ids=self._prompt.stop_ids,
                projector=self._projector,
                quantization=self._plan.quantization,
                cache_bytes=self._plan.memory.cache_bytes,
                gpu_share=self._plan.gpu_share,
                tool_format=self._prompt.tool_format,
                reasoning_format=self._prompt.reasoning_format,
                embedding=self._plan.embedding,
                ranking=self._plan.ranking,
            )
        )
        self._weights_bytes = await asyncio.to_thread(_size, weights, self._plan.weights.size_bytes)
        if not self._plan.memory.paged:
            self._mapped = frozenset(str(one.resolve()) for one in _tensor_files(weights))
        make_private(self._log.parent)
        own = {**command.environ, processes.INSTANCE_VARIABLE: self._config.instance}
        own |= {
            processes.ROLE_VARIABLE: processes.ENGINE,
            processes.ACTOR_VARIABLE: self._config.actor,
        }
        if self._config.gpus:
            # CUDA's own order is by speed; the driver's, which is counted by, is that of the bus.
            own["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
            own["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, self._config.gpus))
        environ = engine_environment(os.environ, own)
        # The start before may be the one whose end is to be understood.
        with contextlib.suppress(FileNotFoundError):
            if self._log.stat().st_size:
                before = self._log.replace(self._log.with_suffix(".log.1"))
                before.chmod(0o600)  # an older version's
        self._launched_at = time.monotonic()
        self._limit = loading_limit(self._plan, memory()[0])
        with open_private(self._log, "wb") as log:
            self._warden = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(WARDEN), str(self._config.stop_grace)),
                str(self._limit),
                *command.argv,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=environ,
                start_new_session=True,
            )
        assert self._warden.stdout is not None
        first = await self._warden.stdout.readline()
        self._end_task = asyncio.create_task(self._wait_end(self._warden))
        self._set(pid=json.loads(first)["pid"] if first else None)
        if self._cancelled.is_set():  # `stop` came while there was no leash to slip yet
            self._slip_leash()

    def _write_template(self) -> Path | None:
        """The chat template in a file, for engines that take it as no argument."""
        if self._prompt.template is None:
            return None
        path = self._log.with_suffix(".jinja")
        with open_private(path, "wb") as file:
            file.write(self._prompt.template.encode())
        return path

    async def _wait_end(self, warden: asyncio.subprocess.Process) -> dict[str, Any]:
        """The warden's last report; if it was killed, its engine was killed with it."""
        assert warden.stdout is not None
        last = await warden.stdout.read()
        await warden.wait()
        if not last.strip() and self._status.pid is not None:
            # The warden was killed: the kernel has ended the engine, but not its children.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._status.pid, signal.SIGKILL)
            await asyncio.to_thread(self._end_rest)
        lost = {"code": None, "signal": 9, "stopped": False, "held_bytes": 0, "peak_bytes": 0}
        return dict(json.loads(last)) if last.strip() else lost

    def _end_rest(self) -> None:
        """Ends what the engine started and the kernel did not end with it. Blocks."""
        rest = processes.belonging(self._config.instance, actor=self._config.actor)
        processes.end(rest, 0.0)

    async def _until_ready(self) -> None:
        """Polls the engine's health every 25 ms; gives up when it ended or shows no life."""
        assert self._end_task is not None
        life, since = self._life_sign(), time.monotonic()
        while not await asyncio.to_thread(self._healthy):
            if self._end_task.done():
                raise Failure(await self._exit_diagnosis(self._end_task.result()))
            now, sign = time.monotonic(), self._life_sign()
            if sign != life:
                life, since = sign, now
            elif now - since > self._config.silence:
                message = f"no sign of life from {self._plan.engine} for {now - since:.0f} s"
                lines = tuple(read_tail(self._log, LINES))
                following = f"paddock logs --model-uid {self._plan.model_id}"
                raise Failure(Diagnosis("start_timeout", message, following, lines))
            await asyncio.wait([self._end_task], timeout=READY_POLL)

    async def _until_end(self) -> dict[str, Any]:
        """Waits for the engine's end, and looks meanwhile whether it still answers."""
        assert self._end_task is not None
        while True:
            pause = AGAIN_SECONDS if self._health.misses else self._config.health_seconds
            await asyncio.wait([self._end_task], timeout=pause)
            if self._end_task.done():
                return self._end_task.result()
            # Of long ago they say nothing of this engine; of just now, the news of it may be on its
            # way.
            self._oom_kills, self._newest_oom_kills = self._newest_oom_kills, oom_kills()
            if self._status.state == "ready":
                await self._look()
                if time.monotonic() - self._measured_at > MEASURE_SECONDS:
                    await self._measure_again()

    @property
    def _on_processor(self) -> bool:
        return not self._config.gpus and not self._plan.memory.gpus

    async def _look(self) -> None:
        """One look at the health route."""
        assert self._end_task is not None
        limit = ANSWER_SECONDS if self._on_processor else GPU_ANSWER_SECONDS
        answer = asyncio.create_task(asyncio.to_thread(self._healthy, limit))
        await asyncio.wait([answer, self._end_task], return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            return  # it has ended, which says more
        look = Look(answered=answer.result())
        if not look.answered and self._on_processor:
            computed = await self._computing()
            look = replace(look, computed_seconds=computed, seconds=COMPUTE_SECONDS)
        elif not look.answered:
            look = replace(look, has_moved=await self._counters_moved())
        self._health.note(look)
        if self._health.is_hung:
            self._hang("does not answer its health route")

    async def _computing(self) -> float:
        """The processor time of the engine within the next second."""
        assert self._end_task is not None
        before = _cpu_seconds(self._status.pid)
        await asyncio.wait([self._end_task], timeout=COMPUTE_SECONDS)
        return _cpu_seconds(self._status.pid) - before

    async def probe(self, full: bool) -> str:
        """Whether the engine still generates, where requests have heard nothing for a while.

        By one token, unless all slots are taken (`full`), and by its counters. Says `answers`,
        `busy`, `silent`, or the replica's state where it is not ready.
        """
        if self._status.state != "ready":
            return self._status.state
        now, computed = time.monotonic(), _cpu_seconds(self._status.pid)
        first = not self._probed_at
        if first:  # nothing to compare with yet
            await self._counters_moved()
            self._probed_at, self._probed_cpu_seconds = now, computed
        answered = False
        if not full:
            path, body = self._smallest()
            status, _ = await asyncio.to_thread(self._client.post, path, body, TOKEN_SECONDS)
            answered = status == 200
        elif first:
            return "busy"
        moved = None if answered else await self._counters_moved()
        now, computed_now = time.monotonic(), _cpu_seconds(self._status.pid)
        look = Look(
            answered=answered,
            has_moved=moved,
            computed_seconds=computed_now - self._probed_cpu_seconds
            if self._on_processor
            else None,
            seconds=now - self._probed_at,
        )
        self._probed_at, self._probed_cpu_seconds = now, computed_now
        if not answered and look.has_moved is None and look.computed_seconds is None:
            return "busy"  # nothing here can tell; the gateway's own limit will
        self._work.note(look)
        if self._work.is_hung:
            self._hang("has requests, and generates nothing")
        return "answers" if answered else "silent" if self._work.misses else "busy"

    async def _measure(self, load_seconds: float) -> dict[str, Any] | None:
        """What the engine has taken until now; None where that cannot be told."""
        pid = self._status.pid
        now = await asyncio.to_thread(self._taken, pid) if pid else 0
        self._measured_at = time.monotonic()
        if not now:
            return None
        return {
            "weights_bytes": self._weights_bytes,
            "start_bytes": now,
            "peak_bytes": now,
            "load_seconds": round(load_seconds, 3),
        }

    def _taken(self, pid: int) -> int:
        """Memory that the engine holds, of GPUs if it computes there.

        Some engines leave weights in the pages of their files, where a plan counts them as memory.
        """
        if self._on_processor:
            self._mapped_bytes = mapped_bytes(pid, self._mapped)
            return own_bytes(pid) + self._mapped_bytes
        held = gpus.held_bytes()
        with contextlib.suppress(psutil.Error):
            first = psutil.Process(pid)
            return sum(held.get(one.pid, 0) for one in (first, *first.children(recursive=True)))
        return 0

    async def _set_limit(self) -> None:
        """Tells the warden how much memory an engine that serves may hold, by what it holds now."""
        pid, warden = self._status.pid, self._warden
        if pid is None or warden is None or warden.stdin is None or warden.stdin.is_closing():
            return
        held = await asyncio.to_thread(own_bytes, pid)
        total, _ = memory()
        self._limit = serving_limit(self._plan, total, held, self._engine.allocates_cache)
        with contextlib.suppress(OSError):  # the warden has ended, which says more
            warden.stdin.write(f"{self._limit}\n".encode())
            await warden.stdin.drain()

    async def _measure_again(self) -> None:
        """Tells what the engine has taken, if it is more than before."""
        before = self._status.took
        later = await self._measure(0.0) if before is not None else None
        if before is not None and later is not None and later["peak_bytes"] > before["peak_bytes"]:
            self._set(took={**before, "peak_bytes": later["peak_bytes"]})

    def _note_peak(self, end: dict[str, Any]) -> None:
        """Tells the most that the engine held while it served, unless it went over its limit."""
        took = self._status.took
        if took is None or not self._on_processor or end["held_bytes"]:
            return
        peak = end["peak_bytes"] + self._mapped_bytes
        if peak > took["peak_bytes"]:
            self._set(took={**took, "peak_bytes": peak})

    async def _counters_moved(self) -> bool | None:
        """Whether the engine's counters differ from those of the last time; None: no counters."""
        progress = self._engine.progress
        if progress is None:
            return None
        status, text = await asyncio.to_thread(self._client.get, progress.path, ANSWER_SECONDS)
        if status != 200:
            return None
        before, self._counters = self._counters, tuple(progress.pattern.findall(text))
        return before is not None and before != self._counters

    def _hang(self, how: str) -> None:
        """The engine counts as hung: no new requests, and whoever keeps the fleet ends it."""
        message = f"{self._plan.engine} {how}, and shows no other sign of life"
        following = f"paddock logs --model-uid {self._plan.model_id}"
        lines = tuple(read_tail(self._log, LINES))
        diagnosis = Diagnosis("engine_hung", message, following, lines).to_json()
        self._set(state="unhealthy", endpoint=None, note=message, diagnosis=diagnosis)

    def _life_sign(self) -> tuple[int, float]:
        """What changes while an engine loads: its log, or the time that it has computed.

        A load from a slow disk can be silent for many minutes and be well. The time is that of all
        its processes, for some engines load in others than the first; looked up each second.
        """
        now = time.monotonic()
        if now - self._looked_at >= LIFE_SECONDS:
            self._looked_at, self._cpu_seconds = now, round(_cpu_seconds(self._status.pid), 1)
        return self._log.stat().st_size, self._cpu_seconds

    def _healthy(self, timeout: float = READY_ANSWER) -> bool:
        return self._client.ask("GET", self._engine.health_path, None, timeout)[0] == 200

    async def _until_token(self) -> None:
        """Asks for one token with our key: ready means that it answers, and that it is ours."""
        self._set(note="asking for one token")
        path, body = self._smallest()
        assert self._end_task is not None
        answer = asyncio.create_task(asyncio.to_thread(self._client.post, path, body))
        await asyncio.wait([answer, self._end_task], return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise Failure(await self._exit_diagnosis(self._end_task.result()))
        status, text = answer.result()
        if status != 200:
            message = f"{self._plan.engine} got ready, but one token failed: {status} {text[:300]}"
            following = f"paddock logs --model-uid {self._plan.model_id}"
            raise Failure(
                Diagnosis("probe_failed", message, following, tuple(read_tail(self._log, LINES)))
            )

    def _smallest(self) -> tuple[str, dict[str, Any]]:
        """The smallest request that makes the engine compute: its route and body."""
        path, body = smallest_request(self._plan.abilities)
        return f"/v1{path}", {"model": self._plan.model_id, **body}

    @property
    def _client(self) -> EngineClient:
        return EngineClient(self._port, self._key)

    def _ready_client(self) -> EngineClient:
        if self._status.state != "ready":
            raise RuntimeError(f"{self._config.replica_id} is {self._status.state}")
        return self._client

    async def _open_relay(self) -> None:
        if self._config.relay:
            self._relay = Relay(_node_address(), self._port, self._key)
            await self._relay.open()

    def _slip_leash(self) -> None:
        """Closes the warden's stdin, which tells it to end the engine."""
        if self._warden is not None and self._warden.stdin is not None:
            self._warden.stdin.close()

    async def _end_engine(self) -> None:
        self._slip_leash()
        if self._end_task is not None:
            await self._end_task

    async def _exit_diagnosis(self, end: dict[str, Any]) -> Diagnosis:
        folder = self._log.parent
        if self._status.state != "ready" and await asyncio.to_thread(_is_full, folder):
            message = f"the disk of {folder} is full, and {self._plan.engine} ends without its log"
            return Diagnosis("disk_full", f"{message}; make room", launch_command(self._plan))
        lines = await asyncio.to_thread(read_tail, self._log, EXIT_LINES)
        if end["held_bytes"]:
            return diagnose_excess(self._plan, end["held_bytes"], self._limit, lines)
        if end["stopped"]:  # by a signal to its warden: the service or the machine is being ended
            end = {**end, "code": None, "signal": signal.SIGTERM}
        is_oom = end["signal"] == signal.SIGKILL and oom_kills() > self._oom_kills
        return diagnose_exit(self._engine, self._plan, end["code"], end["signal"], lines, is_oom)

    def _fail_unless_stopping(self, diagnosis: Diagnosis) -> None:
        if not self._cancelled.is_set():
            self._set(state="failed", endpoint=None, pid=None, diagnosis=diagnosis.to_json())

    def _set(self, **changes: Any) -> None:
        if self._cancelled.is_set() and changes.get("state") not in {"stopping", "stopped"}:
            changes.pop("state", None)
        self._status = replace(self._status, version=self._status.version + 1, **changes)
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def _is_full(folder: Path) -> bool:
    """Whether not even a page can be written below a folder."""
    _, free = disk(folder)
    return free < 4096


def _node_address() -> str:
    """The address at which the cluster knows this node."""
    import ray

    return str(ray.util.get_node_ip_address())


def _size(weights: Path | None, planned_bytes: int) -> int:
    """Bytes of the files that the engine is given; of a folder as planned, once they are there."""
    if weights is None or weights.is_dir():
        return sum(one.stat().st_size for one in _tensor_files(weights)) or planned_bytes
    return file_bytes(weights)


def _tensor_files(weights: Path | None) -> list[Path]:
    return [] if weights is None or not weights.is_dir() else list(weights.glob("*.safetensors"))


def _cpu_seconds(pid: int | None) -> float:
    """Seconds that a process and those below it have computed."""
    total = 0.0
    with contextlib.suppress(psutil.Error):
        first = psutil.Process(pid)
        for process in (first, *first.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                total += times.user + times.system
    return total


def _free_port() -> int:
    """A port that is free on loopback now; the engine's own key tells if another one took it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
