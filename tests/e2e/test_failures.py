"""Whatever is killed, the model comes back by itself under its id, and `stop` leaves nothing."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO, Any

import psutil
import pytest

from paddock.launcher.cluster.head import read_record
from paddock.launcher.hosts import processes
from paddock.registry.errors import GatewayError
from tests.conftest import Paddock

DEADLINE = 40.0


def until(condition: Callable[[], Any]) -> Any:
    """Waits for a true value; for what another process is about to do, which has no event."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")


def model(paddock: Paddock, uid: str) -> dict[str, Any]:
    """The model as the gateway that runs shows it, in the words of `list --json`."""
    instances = paddock.client().instances()
    return next((m for m in instances if m["model_uid"] == uid), {"state": None})


def engine_pid(paddock: Paddock, uid: str) -> int:
    """The process id of the engine of its first replica."""
    return int(model(paddock, uid)["replica_statuses"][0]["pid"])


def actor_pid(engine: int) -> int:
    """The process id of the actor: the parent of the engine's warden."""
    warden = psutil.Process(engine).parent()
    assert warden is not None
    return int(warden.ppid())


def replica(paddock: Paddock, uid: str) -> dict[str, Any]:
    """Its first replica, as REST shows it."""
    return dict(model(paddock, uid)["replica_statuses"][0])


def failed(paddock: Paddock, uid: str) -> dict[str, Any]:
    """Waits until the model has failed; its diagnosis."""
    found: dict[str, Any] = until(lambda: model(paddock, uid)["diagnosis"])
    assert model(paddock, uid)["state"] == "failed"
    return found


def restarted(paddock: Paddock, uid: str, restarts: int = 1) -> dict[str, Any]:
    """Waits until the model is ready after so many restarts; its first replica."""
    until(lambda: model(paddock, uid)["restarts"] >= restarts)
    until(lambda: model(paddock, uid)["state"] == "ready")
    found = replica(paddock, uid)
    assert found["restarts"] == model(paddock, uid)["restarts"] == restarts
    assert found["next_try_at"] is None
    return found


def test_killed_engine_is_started_again(shared_paddock: Paddock) -> None:
    """A killed engine comes back with the same id and plan; the last failure has its signal."""
    shared_paddock.ok("launch", "tiny-mixtral", "-f", "ggufv2", "-q", "Q4_K_M", "-u", "killed")
    before, engine = model(shared_paddock, "killed"), engine_pid(shared_paddock, "killed")
    os.kill(engine, signal.SIGKILL)
    after = restarted(shared_paddock, "killed")
    assert after["pid"] != engine
    assert after["replica_uid"] == "killed-rep0"
    assert after["last_failure"]["cause"] == "engine_killed"
    assert after["last_failure"]["signal"] == "SIGKILL"
    assert after["last_failure"]["lines"]
    assert after["error_message"] is None
    again = model(shared_paddock, "killed")
    assert again["diagnosis"] is None
    assert again["plan"] == before["plan"]
    assert again["instance_created_ts"] == before["instance_created_ts"]
    assert shared_paddock.ok("generate", "-u", "killed", "--max-tokens", "4", "The old").strip()
    shared_paddock.ok("terminate", "-u", "killed")


def test_restarts_back_off(shared_paddock: Paddock) -> None:
    """A replica whose engine is killed again waits longer, and says until when and why."""
    shared_paddock.ok("launch", "tiny-mixtral", "-en", "echo", "-u", "often")
    for kills in (1, 2):
        os.kill(engine_pid(shared_paddock, "often"), signal.SIGKILL)
        waiting = until(
            partial(lambda n: _waiting(replica(shared_paddock, "often"), restarts=n), kills)
        )
        assert waiting["model_state"] == "pending"
        assert waiting["last_failure"]["cause"] == "engine_killed"
        restarted(shared_paddock, "often", kills)
    # From one second on, each is double the one before, and up to a quarter shorter.
    events = shared_paddock.client()._call("GET", "/v1/models/often/events")
    told = re.findall(r"starts again in ([\d.]+) s", str(events))
    first, second = map(float, told)
    assert 0.7 <= first <= 1.0
    assert 1.4 <= second <= 2.0
    (row,) = [line for line in shared_paddock.ok("list").splitlines() if line.startswith("often ")]
    assert row.endswith("ready (2 restarts, last engine_killed)")
    shown = shared_paddock.ok("describe", "often")
    assert "restart    on-failure, any number of tries" in shown
    assert "  last failure  engine_killed: echo was ended by SIGKILL" in shown
    assert shared_paddock.json("describe", "often")["restarts"] == 2
    shared_paddock.ok("terminate", "-u", "often")


def _waiting(found: dict[str, Any], restarts: int) -> dict[str, Any] | None:
    return found if found["restarts"] == restarts and found["next_try_at"] is not None else None


def test_killed_engine_stays_failed_where_the_launch_says_so(shared_paddock: Paddock) -> None:
    """With `--restart never` it is failed with its cause, and the id can be launched anew."""
    launch = ("launch", "tiny-mixtral", "-f", "ggufv2", "-q", "Q4_K_M", "-u", "once")
    shared_paddock.ok(*launch, "--restart", "never")
    os.kill(engine_pid(shared_paddock, "once"), signal.SIGKILL)
    diagnosis = failed(shared_paddock, "once")
    assert diagnosis["cause"] == "engine_killed"
    assert diagnosis["signal"] == "SIGKILL"
    assert diagnosis["lines"]
    assert replica(shared_paddock, "once")["restarts"] == 0
    assert replica(shared_paddock, "once")["next_try_at"] is None
    refused = shared_paddock.run("generate", "-u", "once", "hi")
    assert refused.returncode == 3
    assert "engine_killed" in refused.stderr
    shared_paddock.ok(*launch)
    assert model(shared_paddock, "once")["restart"] == "on-failure"
    shared_paddock.ok("terminate", "-u", "once")


def test_restarts_end_where_the_launch_says_so(shared_paddock: Paddock) -> None:
    """After `--restart-tries` failures in a row the model is failed with the last cause."""
    shared_paddock.ok(
        *("launch", "tiny-mixtral", "-en", "echo", "-u", "twice", "--restart-tries", "1")
    )
    os.kill(engine_pid(shared_paddock, "twice"), signal.SIGKILL)
    os.kill(restarted(shared_paddock, "twice")["pid"], signal.SIGKILL)
    assert failed(shared_paddock, "twice")["cause"] == "engine_killed"
    assert replica(shared_paddock, "twice")["restarts"] == 1
    shared_paddock.ok("terminate", "-u", "twice")


def test_request_waits_for_an_engine_that_is_started_again(shared_paddock: Paddock) -> None:
    """A request that comes while the only replica is started again is answered afterwards."""
    shared_paddock.ok("launch", "tiny-mixtral", "-en", "echo", "-u", "patient")
    os.kill(engine_pid(shared_paddock, "patient"), signal.SIGKILL)
    until(lambda: _waiting(replica(shared_paddock, "patient"), restarts=1))
    assert shared_paddock.ok("generate", "-u", "patient", "soon back") == "soon back\n"
    shared_paddock.ok("terminate", "-u", "patient")


def test_request_that_ends_its_engine_is_not_tried_elsewhere(shared_paddock: Paddock) -> None:
    """It is answered 502 `EngineDied` and ends one engine of two; that one comes back."""
    shared_paddock.ok(
        *("launch", "tiny-mixtral", "-en", "echo", "-u", "poison", "-r", "2"),
        *("--die_after", "1"),
    )
    with pytest.raises(GatewayError) as refused:
        shared_paddock.client().complete("poison", "one two three")
    assert refused.value.status == 502
    assert refused.value.error["code"] == "EngineDied"
    assert refused.value.error["cause"] == "engine_exited"
    restarts = until(lambda: model(shared_paddock, "poison")["restarts"])
    until(lambda: _all_ready(model(shared_paddock, "poison")))
    assert restarts == model(shared_paddock, "poison")["restarts"] == 1
    shared_paddock.ok("terminate", "-u", "poison")


def test_request_that_takes_too_much_memory_costs_its_replica_alone(
    shared_paddock: Paddock,
) -> None:
    """It is answered 502 with the cause, is not tried elsewhere, and the replica comes back."""
    shared_paddock.ok(
        *("launch", "tiny-mixtral", "-en", "echo", "-u", "hungry", "-r", "2"),
        *("--hoard_mb", "600", "--token_seconds", "5", "--memory-limit", "300MB"),
    )
    pids = {one["pid"] for one in model(shared_paddock, "hungry")["replica_statuses"]}
    with pytest.raises(GatewayError) as refused:
        shared_paddock.client().complete("hungry", "one two three")
    assert refused.value.status == 502
    assert refused.value.error["cause"] == "memory_limit"
    until(lambda: model(shared_paddock, "hungry")["restarts"])
    until(lambda: _all_ready(model(shared_paddock, "hungry")))
    after = model(shared_paddock, "hungry")
    assert after["restarts"] == 1
    assert len(pids & {one["pid"] for one in after["replica_statuses"]}) == 1
    shared_paddock.ok("terminate", "-u", "hungry")


def _all_ready(found: dict[str, Any]) -> bool:
    return all(one["model_state"] == "ready" for one in found["replica_statuses"])


def test_terminate_ends_a_model_that_waits_for_its_next_start(shared_paddock: Paddock) -> None:
    """Between two starts, `terminate` ends the model and nothing is started any more."""
    shared_paddock.ok("launch", "tiny-mixtral", "-en", "echo", "-u", "over")
    os.kill(engine_pid(shared_paddock, "over"), signal.SIGKILL)
    until(lambda: _waiting(replica(shared_paddock, "over"), restarts=1))
    shared_paddock.ok("terminate", "-u", "over")
    assert model(shared_paddock, "over")["state"] is None
    assert not [line for line in shared_paddock.processes() if '"model": "over"' in line]


def test_hung_engine_is_replaced(shared_paddock: Paddock) -> None:
    """An engine that neither answers nor computes is ended and started again."""
    shared_paddock.ok("launch", "tiny-mixtral", "-en", "echo", "-u", "hung", "--child", "true")
    engine = psutil.Process(engine_pid(shared_paddock, "hung"))
    (child,) = engine.children()
    engine.suspend()
    after = restarted(shared_paddock, "hung")
    assert after["last_failure"]["cause"] == "engine_hung"
    assert after["pid"] != engine.pid
    _, alive = psutil.wait_procs([engine, child], timeout=DEADLINE)
    assert not alive
    assert shared_paddock.ok("generate", "-u", "hung", "awake again") == "awake again\n"
    shared_paddock.ok("terminate", "-u", "hung")


def test_logs_are_those_of_the_engine_that_runs(shared_paddock: Paddock) -> None:
    """After a restart, `logs` shows the new engine's lines, and the last failure the old one's."""
    shared_paddock.ok("launch", "tiny-mixtral", "-en", "echo", "-u", "logged", "--say", "hear ye")
    first = shared_paddock.ok("logs", "-u", "logged").splitlines()
    following = shared_paddock.start("logs", "-u", "logged", "--follow")
    try:
        assert following.stdout is not None
        _read_lines(following.stdout, "hear ye", 1)
        os.kill(engine_pid(shared_paddock, "logged"), signal.SIGKILL)
        after = restarted(shared_paddock, "logged")
        assert "hear ye" in after["last_failure"]["lines"]
        again = shared_paddock.ok("logs", "-u", "logged").splitlines()
        assert again.count("hear ye") == first.count("hear ye") == 1
        _read_lines(following.stdout, "hear ye", 1)
    finally:
        following.kill()
        following.communicate()
    shared_paddock.ok("terminate", "-u", "logged")


def _read_lines(stream: IO[str], line: str, count: int) -> None:
    """Reads on until the line has come so many times."""
    while count:
        count -= stream.readline().strip() == line


def test_exit_code_of_an_engine_is_told(shared_paddock: Paddock) -> None:
    """An engine that ends by itself while starting gives its exit code and what it said."""
    done = shared_paddock.run(
        *("launch", "tiny-mixtral", "-en", "echo", "-u", "exits"),
        *("--exit_code", "7", "--say", "out of hay"),
    )
    assert done.returncode == 4
    assert "engine_exited" in done.stderr
    assert "exited with code 7" in done.stderr
    assert "| out of hay" in done.stderr
    assert model(shared_paddock, "exits")["diagnosis"]["exit_code"] == 7
    shared_paddock.ok("terminate", "-u", "exits")


@pytest.mark.parametrize(
    ("victim", "cause"), [("actor", "actor_died"), ("warden", "engine_killed")]
)
def test_killed_keeper_takes_its_engine_along(
    shared_paddock: Paddock, victim: str, cause: str
) -> None:
    """When actor or warden is killed, its engine ends whole, and the replica starts again."""
    uid = f"keeper-{victim}"
    shared_paddock.ok("launch", "tiny-mixtral", "-en", "echo", "-u", uid, "--child", "true")
    engine = psutil.Process(engine_pid(shared_paddock, uid))
    (child,) = engine.children()
    warden = engine.parent()
    assert warden is not None
    os.kill(actor_pid(engine.pid) if victim == "actor" else warden.pid, signal.SIGKILL)
    _, alive = psutil.wait_procs([engine, child], timeout=DEADLINE)
    assert not alive
    after = restarted(shared_paddock, uid)
    assert after["last_failure"]["cause"] == cause
    assert after["pid"] != engine.pid
    assert shared_paddock.ok("generate", "-u", uid, "still here") == "still here\n"
    shared_paddock.ok("terminate", "-u", uid)


@pytest.mark.parametrize(("name", "bytes_kept"), [("cut.gguf", 1_000_000), ("junk.gguf", 0)])
def test_corrupt_file_is_a_failed_launch(
    shared_paddock: Paddock, tmp_path: Path, name: str, bytes_kept: int
) -> None:
    """A GGUF that is cut short, or none at all, fails with `corrupt_file` and says so."""
    whole = Path("specs/weights/tiny-mixtral/ggufv2/tiny-mixtral.Q4_K_M.gguf").read_bytes()
    (tmp_path / name).write_bytes(whole[:bytes_kept] or b"no GGUF at all" * 100)
    done = shared_paddock.run(
        *("launch", "tiny-mixtral", "-f", "ggufv2", "-q", "Q4_K_M", "-u", "corrupt"),
        *("-mp", str(tmp_path / name)),
    )
    assert done.returncode == 4
    assert "corrupt_file" in done.stderr
    assert name in done.stderr
    assert "--model-path PATH_OF_A_WHOLE_FILE" in done.stderr
    shared_paddock.ok("terminate", "-u", "corrupt")


def test_no_network_is_a_failed_launch_with_what_was_tried(paddock: Paddock) -> None:
    """Without a hub the cause is `hub_unreachable`, with the address tried and the way around."""
    done = paddock.run(
        *("launch", "--model-name", "mixtral-v0.1"),
        *("--model-format", "ggufv2", "--quantization", "Q4_K_M"),
        HF_ENDPOINT="http://127.0.0.1:9",
        PADDOCK_HUB_TIMEOUT="2",
    )
    assert done.returncode == 4
    assert done.stdout == ""
    assert "hub_unreachable" in done.stderr
    assert "tried Hugging Face, http://127.0.0.1:9" in done.stderr
    assert "--model-path" in done.stderr


def test_models_outlive_the_gateway(paddock: Paddock) -> None:
    """A killed gateway leaves models serving; the next one adopts the same engine process."""
    paddock.ok("launch", "tiny-mixtral", "-en", "echo")
    engine = engine_pid(paddock, "tiny-mixtral")
    os.kill(paddock.record["pid"], signal.SIGKILL)
    assert psutil.pid_exists(engine)
    paddock.ok("list")  # starts the next gateway
    until(lambda: model(paddock, "tiny-mixtral")["state"] == "ready")
    assert engine_pid(paddock, "tiny-mixtral") == engine
    assert paddock.ok("generate", "-u", "tiny-mixtral", "still here") == "still here\n"


def test_launch_survives_the_gateway(paddock: Paddock) -> None:
    """A gateway that is killed in the middle of a launch does not end the launch."""
    paddock.ok("launch", "tiny-mixtral", "-en", "echo", "-u", "first")
    launching = paddock.start(
        *("launch", "tiny-mixtral", "-en", "echo", "-u", "slow", "--load_seconds", "2")
    )
    until(lambda: model(paddock, "slow")["state"] == "starting")
    os.kill(paddock.record["pid"], signal.SIGKILL)
    _, said = launching.communicate(timeout=DEADLINE)
    assert launching.returncode == 5
    assert "no Paddock gateway answers" in said
    paddock.ok("list")  # starts the next gateway
    until(lambda: model(paddock, "slow")["state"] == "ready")


def test_models_come_back_after_a_reboot(paddock: Paddock) -> None:
    """With every process gone, the next gateway starts what was launched."""
    paddock.ok("launch", "tiny-mixtral", "-en", "echo")
    instance = (paddock.home / "instance").read_text().strip()
    for process in processes.belonging(instance):
        process.kill()
    until(lambda: not paddock.processes())
    paddock.ok("list")  # starts the next gateway
    until(lambda: model(paddock, "tiny-mixtral")["state"] == "ready")


def test_waiting_restart_survives_the_gateway(paddock: Paddock) -> None:
    """A gateway that is killed while a replica is down leaves the next one to start it."""
    paddock.ok("launch", "tiny-mixtral", "-en", "echo")
    engine = engine_pid(paddock, "tiny-mixtral")
    os.kill(paddock.record["pid"], signal.SIGKILL)
    os.kill(engine, signal.SIGKILL)
    paddock.ok("list")  # starts the next gateway
    after = restarted(paddock, "tiny-mixtral")
    assert after["pid"] != engine
    assert after["last_failure"]["cause"] == "engine_killed"


def test_killed_bridge_is_replaced_and_models_go_on(paddock: Paddock) -> None:
    """The bridge may be killed: the same engine goes on, and its next death is heard of."""
    paddock.ok("launch", "tiny-mixtral", "-en", "echo")
    engine = engine_pid(paddock, "tiny-mixtral")
    record = read_record(paddock.home)
    assert record is not None
    assert record.bridge is not None
    os.kill(record.bridge[0], signal.SIGKILL)
    assert paddock.ok("generate", "-u", "tiny-mixtral", "on and on") == "on and on\n"
    until(lambda: _bridge(paddock) not in {None, record.bridge})
    until(lambda: model(paddock, "tiny-mixtral")["state"] == "ready")
    assert engine_pid(paddock, "tiny-mixtral") == engine
    assert model(paddock, "tiny-mixtral")["restarts"] == 0
    os.kill(engine, signal.SIGKILL)
    assert restarted(paddock, "tiny-mixtral")["last_failure"]["cause"] == "engine_killed"


def _bridge(paddock: Paddock) -> Any:
    record = read_record(paddock.home)
    return record.bridge if record is not None else None


def test_models_come_back_when_all_of_ray_is_killed(paddock: Paddock) -> None:
    """The same gateway starts another Ray, and each model again under its id.

    How often it is started is left to chance: one that is placed while the rest of Ray still ends
    is placed again.
    """
    paddock.ok("launch", "tiny-mixtral", "-en", "echo")
    gateway, engine = paddock.record["pid"], engine_pid(paddock, "tiny-mixtral")
    instance = (paddock.home / "instance").read_text().strip()
    for process in processes.belonging(instance):
        if process.pid != gateway:
            process.kill()
    until(lambda: model(paddock, "tiny-mixtral")["restarts"] >= 1)
    until(lambda: model(paddock, "tiny-mixtral")["state"] == "ready")
    after = replica(paddock, "tiny-mixtral")
    assert after["last_failure"]["cause"] in {"actor_died", "node_lost"}
    assert after["pid"] != engine
    assert paddock.ok("generate", "-u", "tiny-mixtral", "back again") == "back again\n"
    assert paddock.record["pid"] == gateway


def test_stop_cleans_up_after_a_killed_gateway(paddock: Paddock) -> None:
    """`stop` without a gateway ends the models and Ray all the same, and they stay ended."""
    paddock.ok("launch", "tiny-mixtral", "-en", "echo", "--ignore_term", "true")
    os.kill(paddock.record["pid"], signal.SIGKILL)
    paddock.ok("stop")
    assert paddock.processes() == []
    assert paddock.json("list") == []


def test_stop_ends_a_gateway_that_does_not_answer(paddock: Paddock) -> None:
    """A gateway that hangs is ended by force, with its models, and that is what `stop` says."""
    paddock.ok("launch", "tiny-mixtral", "-en", "echo")
    gateway = paddock.record["pid"]
    os.kill(gateway, signal.SIGSTOP)
    stopped = paddock.json("stop")
    assert stopped["stopped"]
    assert gateway in stopped["ended_by_force"]
    assert paddock.processes() == []


def test_memory_that_others_fill_ends_no_model(paddock: Paddock) -> None:
    """Ray would kill the actor; with a bound that every machine is over, before it has started."""
    launch = ("launch", "tiny-mixtral", "-f", "ggufv2", "-q", "Q4_K_M", "-u", "kept")
    done = paddock.run(*launch, RAY_memory_usage_threshold="0.01")
    assert done.returncode == 0, done.stderr
    assert paddock.client().complete("kept", "The old", max_tokens=2)["choices"]
