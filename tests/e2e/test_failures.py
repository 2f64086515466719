"""Whatever is killed, the model ends in a stated condition, and `stop` leaves nothing."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from paddock.launcher import processes
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
    return int(psutil.Process(engine).parent().ppid())


def failed(paddock: Paddock, uid: str) -> dict[str, Any]:
    """Waits until the model has failed; its diagnosis."""
    found: dict[str, Any] = until(lambda: model(paddock, uid)["diagnosis"])
    assert model(paddock, uid)["state"] == "failed"
    return found


def test_killed_engine_fails_with_its_signal_and_can_be_launched_again(
    shared_paddock: Paddock,
) -> None:
    """The diagnosis has the signal and the engine's last lines; the id can be launched anew."""
    launch = ("launch", "tiny-mixtral", "-f", "ggufv2", "-q", "Q4_K_M", "-u", "killed")
    shared_paddock.ok(*launch)
    os.kill(engine_pid(shared_paddock, "killed"), signal.SIGKILL)
    diagnosis = failed(shared_paddock, "killed")
    assert diagnosis["cause"] == "engine_killed"
    assert diagnosis["signal"] == "SIGKILL"
    assert diagnosis["lines"]
    refused = shared_paddock.run("generate", "-u", "killed", "hi")
    assert refused.returncode == 3
    assert "engine_killed" in refused.stderr
    shared_paddock.ok(*launch)
    shared_paddock.ok("terminate", "-u", "killed")


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


def test_killed_actor_takes_its_engine_along(shared_paddock: Paddock) -> None:
    """When the actor is killed the replica is `failed` with `actor_died`, and no engine is left."""
    shared_paddock.ok("launch", "tiny-mixtral", "-en", "echo", "-u", "orphan", "--child", "true")
    engine = psutil.Process(engine_pid(shared_paddock, "orphan"))
    (child,) = engine.children()
    os.kill(actor_pid(engine.pid), signal.SIGKILL)
    assert failed(shared_paddock, "orphan")["cause"] == "actor_died"
    _, alive = psutil.wait_procs([engine, child], timeout=DEADLINE)
    assert not alive
    shared_paddock.ok("terminate", "-u", "orphan")


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


def test_killed_ray_fails_the_models_and_the_next_launch_starts_another(paddock: Paddock) -> None:
    """When all of Ray is killed, models fail with a cause, and launching works again."""
    paddock.ok("launch", "tiny-mixtral", "-en", "echo")
    gateway = paddock.record["pid"]
    instance = (paddock.home / "instance").read_text().strip()
    for process in processes.belonging(instance):
        if process.pid != gateway:
            process.kill()
    assert failed(paddock, "tiny-mixtral")["cause"] in {"actor_died", "node_lost"}
    paddock.ok("launch", "tiny-mixtral", "-en", "echo")
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
