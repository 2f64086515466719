"""A replica as a plain object: its states, its failures, and that it leaves no process behind."""

import asyncio
import contextlib
import dataclasses
import itertools
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from paddock.engines.base import Detection, Host
from paddock.launcher.hosts.host import probe_host
from paddock.launcher.planning.plan import LaunchPlan, LaunchRequest, PlannedGpu
from paddock.launcher.planning.resolve import resolve
from paddock.launcher.replicas import replica as replica_module
from paddock.launcher.replicas.engine_client import EngineClient
from paddock.launcher.replicas.health import MISSES
from paddock.launcher.replicas.logs import read_tail
from paddock.launcher.replicas.replica import Replica
from paddock.launcher.replicas.status import ReplicaConfig, ReplicaStatus
from paddock.registry.catalog import Catalog, specs_root
from tests.conftest import open_to_others

pytestmark = pytest.mark.engines

DEADLINE = 60.0
INSTANCE = f"test-of-replicas-{os.getpid()}"
TINY = specs_root() / "weights" / "tiny-mixtral" / "ggufv2" / "tiny-mixtral.Q4_K_M.gguf"


def planned(host: Host | None = None, **request: Any) -> LaunchPlan:
    request = {"model_name": "tiny-mixtral", "model_uid": "zoo/m", **request}
    paths = [request["model_path"]] if "model_path" in request else []
    asked = LaunchRequest.parse(**request)
    return resolve(asked, Catalog.load(), [host or probe_host(specs_root(), paths)])


def echo(**options: Any) -> LaunchPlan:
    return planned(model_engine="echo", engine_options=options)


Make = Callable[..., Replica]


@pytest.fixture
async def make(home: Path) -> AsyncIterator[Make]:
    """Makes replicas over the test's home folder; ends them and looks for what is left."""
    made: list[Replica] = []

    def build(plan: LaunchPlan, **changes: Any) -> Replica:
        given = {"replica_id": f"zoo/m-rep{len(made)}", "home": str(home), "instance": INSTANCE}
        made.append(Replica(ReplicaConfig(plan=plan.to_json(), **{**given, **changes})))
        return made[-1]

    yield build
    for replica in made:
        await asyncio.wait_for(replica.stop(), DEADLINE)
    assert left() == []


def left() -> list[psutil.Process]:
    """Processes of any replica of this process."""
    return psutil.Process().children(recursive=True)


async def until(replica: Replica, *states: str) -> ReplicaStatus:
    status = await replica.begin()
    async with asyncio.timeout(DEADLINE):
        while status.state not in states:
            status = await replica.watch(status.version)
    return status


async def ready(replica: Replica) -> ReplicaStatus:
    status = await until(replica, "ready", "failed")
    assert status.state == "ready", status.diagnosis
    return status


async def failed(replica: Replica) -> dict[str, Any]:
    status = await until(replica, "ready", "failed")
    assert status.state == "failed"
    assert status.diagnosis is not None
    assert status.endpoint is None
    return status.diagnosis


@pytest.mark.parametrize("engine", ["echo", "llama.cpp"])
async def test_a_replica_gets_ready_serves_and_stops(make: Make, engine: str) -> None:
    """Ready means that it answers; stopped means that its processes are gone."""
    replica = make(planned(model_engine=engine))
    status = await ready(replica)
    assert status.endpoint is not None
    assert status.pid in {process.pid for process in left()}
    headers = {"Authorization": f"Bearer {status.key}"}
    body = {"model": "zoo/m", "prompt": "The old elephant", "max_tokens": 3}
    async with (
        aiohttp.ClientSession(status.endpoint, headers=headers) as session,
        session.post("/v1/completions", json=body) as answer,
    ):
        assert (await answer.json())["model"] == "zoo/m"
    text = [part async for part in replica.generate("The old elephant", max_tokens=3)]
    assert len("".join(text)) > 2
    messages = [{"role": "user", "content": "What does a lion eat?"}]
    assert "".join([part async for part in replica.chat(messages, max_tokens=3)])
    stopped = await replica.stop()
    assert (stopped.state, stopped.pid, stopped.endpoint) == ("stopped", None, None)
    assert left() == []


async def test_states_come_in_order_and_versions_grow(make: Make) -> None:
    """A watcher that is quick enough sees pending, starting, ready, in growing versions."""
    replica = make(echo(load_seconds=0.05))
    seen: list[tuple[int, str]] = []
    status = await replica.begin()
    assert (await replica.begin()).state in {"pending", "downloading", "starting"}
    async with asyncio.timeout(DEADLINE):
        while status.state != "ready":
            seen.append((status.version, status.state))
            status = await replica.watch(status.version)
    versions = [version for version, _ in seen]
    assert versions == sorted(set(versions))
    assert list(dict.fromkeys(state for _, state in seen)) == ["pending", "starting"]


async def test_the_environment_has_the_instance_and_not_ray(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Engines are marked as ours, and do not find our Ray."""
    monkeypatch.setenv("RAY_ADDRESS", "x:1")
    status = await ready(make(echo()))
    environ = psutil.Process(status.pid).environ()
    assert environ["PADDOCK_INSTANCE"] == INSTANCE
    assert not [name for name in environ if name.startswith("RAY_")]


async def test_logs_are_for_their_user_alone(make: Make, home: Path, umask: None) -> None:
    """On any node: in a home that is made for them, and where an older version's log was open."""
    first = make(echo(say="once"), replica_id="m-rep0")
    log = Path((await ready(first)).log)
    await first.stop()
    await asyncio.to_thread(log.chmod, 0o644)
    await ready(make(echo(say="again"), replica_id="m-rep0"))
    assert read_tail(log.with_suffix(".log.1"), 9)[0] == "once"
    assert open_to_others(home) == set()


async def test_an_engine_that_exits_at_the_start_says_why(make: Make) -> None:
    """The exit code and the last lines are in the diagnosis, and a next command."""
    found = await failed(make(echo(say="no such luck", exit_code=3)))
    assert found["cause"] == "engine_exited"
    assert found["exit_code"] == 3
    assert found["lines"] == ("no such luck",)
    assert found["next_command"] == "paddock logs --model-uid zoo/m"


async def test_engine_that_hangs_is_noticed_and_ended(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped, it answers nothing and computes nothing: unhealthy, without an endpoint."""
    for name, seconds in (("ANSWER_SECONDS", 0.3), ("COMPUTE_SECONDS", 0.1), ("AGAIN_SECONDS", 0)):
        monkeypatch.setattr(replica_module, name, seconds)
    replica = make(planned(model_engine="llama.cpp"), health_seconds=0.05)
    status = await ready(replica)
    assert status.pid is not None
    os.kill(status.pid, signal.SIGSTOP)
    status = await until(replica, "unhealthy", "failed", "stopped")
    assert (status.state, status.endpoint) == ("unhealthy", None)
    assert status.diagnosis is not None
    assert status.diagnosis["cause"] == "engine_hung"
    stopped = await replica.stop()
    assert stopped.state == "stopped"
    assert left() == []


async def test_engine_that_is_slow_to_answer_but_computes_is_left_alone(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its health route is silent at every look; its processor time speaks for it."""
    monkeypatch.setattr(replica_module, "AGAIN_SECONDS", 0)
    monkeypatch.setattr(replica_module, "COMPUTE_SECONDS", 0.01)
    replica = make(echo(), health_seconds=0.01)
    await ready(replica)
    looks = 0

    def silent(*_: Any) -> bool:
        nonlocal looks
        looks += 1
        return False

    monkeypatch.setattr(replica, "_healthy", silent)
    clock = iter(range(10_000))
    monkeypatch.setattr(replica_module, "_cpu_seconds", lambda _: float(next(clock)))
    async with asyncio.timeout(DEADLINE):
        while looks < 3 * MISSES:  # noqa: ASYNC110 - its looks are no events
            await asyncio.sleep(0.01)
    assert (await replica.begin()).state == "ready"


async def test_probe_tells_an_engine_that_works_from_one_that_does_not(make: Make) -> None:
    """By a token where a slot is free; by what its slots count where all are taken."""
    replica = make(planned(model_engine="llama.cpp"))
    status = await ready(replica)
    assert await replica.probe(full=False) == "answers"
    pieces = replica.generate("The old elephant", max_tokens=2000, ignore_eos=True)
    long = asyncio.ensure_future(anext(pieces))
    await long
    assert await replica.probe(full=True) == "busy"
    assert status.pid is not None
    os.kill(status.pid, signal.SIGSTOP)
    answers = [await replica.probe(full=True) for _ in range(3)]
    assert answers[0] == "silent"
    assert (await replica.begin()).state == "unhealthy"


async def test_an_engine_that_dies_while_it_serves_is_a_failure(make: Make) -> None:
    """The signal is named, and the endpoint is gone."""
    replica = make(planned(model_engine="llama.cpp"))
    status = await ready(replica)
    assert status.pid is not None
    os.kill(status.pid, signal.SIGKILL)
    status = await until(replica, "failed")
    assert status.diagnosis is not None
    assert status.diagnosis["cause"] == "engine_killed"
    assert status.diagnosis["signal"] == "SIGKILL"
    assert status.endpoint is None
    assert left() == []


async def test_a_killed_warden_is_a_failure_too(make: Make) -> None:
    """Without its warden the engine is gone, and the replica knows."""
    replica = make(echo())
    status = await ready(replica)
    (warden,) = psutil.Process().children()
    warden.kill()
    status = await until(replica, "failed")
    assert status.diagnosis is not None
    assert status.diagnosis["cause"] == "engine_killed"


async def test_an_engine_that_goes_with_the_machine_has_not_exited(make: Make) -> None:
    """Going down, a machine tells all to stop, and many engines exit with 0 then."""
    replica = make(echo())
    await ready(replica)
    (warden,) = psutil.Process().children()
    warden.terminate()
    status = await until(replica, "failed")
    assert status.diagnosis is not None
    found = {name: status.diagnosis[name] for name in ("cause", "signal", "exit_code")}
    assert found == {"cause": "engine_killed", "signal": "SIGTERM", "exit_code": None}


async def test_an_engine_that_the_kernel_ended_for_memory_is_known(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its signal is that of any other killing."""
    kills = itertools.count()
    monkeypatch.setattr(replica_module, "oom_kills", lambda: next(kills))
    replica = make(echo())
    status = await ready(replica)
    assert status.pid is not None
    os.kill(status.pid, signal.SIGKILL)
    status = await until(replica, "failed")
    assert status.diagnosis is not None
    assert (status.diagnosis["cause"], status.diagnosis["signal"]) == ("oom", "SIGKILL")


async def test_an_engine_over_its_memory_limit_is_ended_and_says_so(make: Make) -> None:
    """While it loads and while it serves, with both figures and the way to a higher limit."""
    diagnosis = await failed(make(echo().model_copy(update={"memory_limit": 1_000_000})))
    assert diagnosis["cause"] == "memory_limit"
    assert "more than its limit of 0.0 GB, and was ended" in diagnosis["message"]
    assert " --memory-limit 1GB" in diagnosis["next_command"]
    replica = make(echo(hoard_mb=600).model_copy(update={"memory_limit": 300_000_000}))
    await ready(replica)
    with contextlib.suppress(Exception):
        async for _ in replica.generate("one two three", max_tokens=3):
            pass
    status = await until(replica, "failed")
    assert status.diagnosis is not None
    assert (status.diagnosis["cause"], status.diagnosis["signal"]) == ("memory_limit", "SIGKILL")
    assert status.endpoint is None
    assert left() == []


async def test_a_limit_leaves_room_beside_the_plan(make: Make) -> None:
    """The plan's 45 MB and a margin; 600 MB more are within it."""
    replica = make(echo(hoard_mb=600))
    await ready(replica)
    answer = [part async for part in replica.generate("one two three", max_tokens=3)]
    assert "".join(answer) == "one two three"
    assert (await replica.begin()).state == "ready"


async def test_a_full_disk_is_named_where_an_engine_ends_for_want_of_its_log(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the log of the start before, which has the first cause, is kept."""
    monkeypatch.setattr(replica_module, "_is_full", lambda _: True)
    replica = make(echo(exit_code=3))
    folder = Path((await replica.begin()).log).parent
    status = await until(replica, "failed")
    assert status.diagnosis is not None
    assert status.diagnosis["cause"] == "disk_full"
    assert str(folder) in status.diagnosis["message"]


async def test_an_empty_log_takes_no_logs_place(make: Make, home: Path) -> None:
    """The one before may have the cause of all that follows."""
    logs = home / "logs"
    logs.mkdir(parents=True)
    name = "zoo%2Fm-rep0.log"
    (logs / name).write_text("")
    (logs / f"{name}.1").write_text("why")
    await ready(make(echo()))
    assert (logs / f"{name}.1").read_text() == "why"


async def test_an_engine_of_which_nothing_can_tell_is_left_alone(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU, where it counts no tokens, a token that does not come says nothing."""
    replica = make(echo())
    await ready(replica)
    monkeypatch.setattr(Replica, "_on_processor", False)
    monkeypatch.setattr(EngineClient, "post", lambda *_: (0, "TimeoutError"))
    assert [await replica.probe(full=False) for _ in range(MISSES)] == ["busy"] * MISSES
    assert (await replica.begin()).state == "ready"


async def test_a_stubborn_engine_and_its_child_are_killed(make: Make) -> None:
    """What ignores SIGTERM is gone after the grace, with everything that it started."""
    replica = make(echo(ignore_term=True, child=True), stop_grace=0.2)
    await ready(replica)
    assert len(left()) == 3
    assert (await replica.stop()).state == "stopped"
    assert left() == []


async def test_a_launch_can_be_called_off_at_any_moment(make: Make) -> None:
    """Stopping while it starts ends in `stopped`, never in `failed`, and leaves nothing."""
    for turns in range(0, 30, 3):
        replica = make(echo(load_seconds=60), stop_grace=30)
        status = await replica.begin()
        for _ in range(turns):
            await asyncio.sleep(0)
        status = await asyncio.wait_for(replica.stop(), 20)  # less than the grace
        assert status.state == "stopped"
        assert status.diagnosis is None
        assert left() == []
    starting = make(echo(load_seconds=60))
    await until(starting, "starting")
    assert (await starting.stop()).state == "stopped"


async def test_stopping_twice_and_before_the_start_is_fine(make: Make) -> None:
    """`stop` is safe at any time and as often as you like."""
    replica = make(echo())
    assert (await replica.stop()).state == "stopped"
    other = make(echo())
    await ready(other)
    first, second = await asyncio.gather(other.stop(), other.stop())
    assert first.state == second.state == "stopped"


async def test_an_engine_that_falls_silent_is_given_up(make: Make) -> None:
    """Neither ready nor a sign of life for too long is a failure, and ends the engine."""
    found = await failed(make(echo(load_seconds=600), silence=0.3))
    assert found["cause"] == "start_timeout"
    assert left() == []


async def test_memory_that_others_have_taken_since_the_plan_is_said(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With both figures, before anything runs; what was forced is started all the same."""
    plan = planned(model_engine="llama.cpp")
    monkeypatch.setattr(replica_module, "memory", lambda: (10**12, 10_000_000))
    diagnosis = await failed(make(plan))
    assert diagnosis["cause"] == "oom_host"
    assert "GB, and 0.01 GB are free; when it was planned, " in diagnosis["message"]
    assert " --fit " in diagnosis["next_command"]
    assert left() == []
    estimate = plan.memory.model_copy(update={"free_bytes": 10})
    await ready(make(plan.model_copy(update={"memory": estimate})))


@pytest.mark.parametrize("content", [b"not a GGUF", None])
async def test_broken_weights_fail_before_the_engine_starts(
    make: Make, tmp_path: Path, content: bytes | None
) -> None:
    """A file that is cut short or no GGUF is `corrupt_file`, with the way to give another."""
    path = tmp_path / "tiny.Q4_K_M.gguf"
    path.write_bytes(TINY.read_bytes()[:-5000] if content is None else content)
    found = await failed(make(planned(model_path=str(path))))
    assert found["cause"] == "corrupt_file"
    assert str(path) in found["message"]
    assert "--model-path" in found["next_command"]


async def test_weights_that_went_away_are_said(make: Make, tmp_path: Path) -> None:
    """A file that was there when it was planned and is not now is `not_found`."""
    path = tmp_path / "tiny.Q4_K_M.gguf"
    path.write_bytes(TINY.read_bytes())
    plan = planned(model_path=str(path))
    path.unlink()
    assert (await failed(make(plan)))["cause"] == "not_found"


async def test_a_hub_out_of_reach_fails_soon(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cause, what was tried and the way to weights on disk."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    engines = {"llama.cpp": Detection("1")}
    host = Host("local", "here", 2, 10**12, 10**12, 10**12, engines)
    plan = planned(host, model_name="mixtral-v0.1", format="ggufv2", quantization="Q2_K")
    found = await failed(make(plan, hub_timeout=2.0))
    assert found["cause"] == "hub_unreachable"
    assert "127.0.0.1:9" in found["tried"][0]
    assert "--model-path" in found["next_command"]


async def test_engine_sees_its_own_gpus_alone(make: Make) -> None:
    """By the driver's order; whoever else starts engines may number them by another."""
    group = tuple(
        PlannedGpu(index=index, name="x", uuid=f"GPU-{index}", total_bytes=2, free_bytes=1)
        for index in (2, 5)
    )
    for gpus, seen in ((group, "2,5"), ((), None)):
        plan = echo().model_copy(update={"gpus": (gpus,) if gpus else ()})
        status = await ready(make(plan, gpus=tuple(one.index for one in gpus)))
        environ = psutil.Process(status.pid).environ()
        assert environ.get("CUDA_VISIBLE_DEVICES") == seen
        assert environ.get("CUDA_DEVICE_ORDER") == (seen and "PCI_BUS_ID")


async def test_the_log_is_on_disk_and_has_a_tail(make: Make, home: Path) -> None:
    """What the engine prints is in a file under the home folder, and its end can be asked for."""
    replica = make(echo(say="good morning"))
    status = await ready(replica)
    assert Path(status.log).is_relative_to(home / "logs")
    assert "good morning" in await asyncio.to_thread(Path(status.log).read_text)
    assert (await replica.tail(100))[0] == "good morning"
    assert await replica.tail(1) != []
    assert await make(echo()).tail(5) == []


async def test_the_key_stays_out_of_texts(make: Make) -> None:
    """A status that is logged does not show the key of its endpoint."""
    status = await ready(make(echo()))
    assert status.key
    assert status.key not in repr(status)
    assert dataclasses.asdict(status)["key"] == status.key
