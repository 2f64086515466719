"""One gateway for each home, found or started; ports, keys and Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import socket

import psutil

from tests.conftest import Paddock
from tests.e2e.terminal import converse
from tests.e2e.test_failures import model, until


def test_two_gateways_started_at_once_end_as_one(paddock: Paddock) -> None:
    """Commands that all find no gateway start one between them, and all succeed."""
    several = [paddock.start("list", "--json") for _ in range(4)]
    for process in several:
        out, said = process.communicate(timeout=60)
        assert process.returncode == 0, said
        assert json.loads(out) == []
    # Those that came second may still be on their way out.
    until(lambda: len(_gateways(paddock)) == 1)


def _gateways(paddock: Paddock) -> list[str]:
    return [line for line in paddock.processes() if line.endswith("paddock serve")]


def test_second_gateway_says_where_the_first_is(shared_paddock: Paddock, tiny: str) -> None:
    """`paddock serve` in a home that has a gateway ends with its own exit code, and names it."""
    done = shared_paddock.run("serve")
    assert done.returncode == 6
    assert str(shared_paddock.record["endpoint"]) in done.stderr


def test_taken_port_says_by_what(paddock: Paddock) -> None:
    """The process that holds the port is named, by `serve` and by a command that starts it."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = str(holder.getsockname()[1])
        for arguments in (("serve",), ("list",)):
            done = paddock.run(*arguments, PADDOCK_PORT=port)
            assert done.returncode == 5
            assert f"port {port}" in done.stderr
            assert f"pid {os.getpid()}" in done.stderr


def test_serve_runs_until_interrupted_and_leaves_no_record(paddock: Paddock) -> None:
    """`serve --json` prints its endpoint once it answers; Ctrl-C ends it with 0."""
    process = paddock.start("serve", "--json")
    assert process.stdout is not None
    lines = ""
    while "}" not in lines:
        lines += process.stdout.readline()
    endpoint = json.loads(lines)["endpoint"]
    assert paddock.client().endpoint == endpoint
    assert paddock.client().health()["status"] == "ok"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 0
    assert not (paddock.home / "gateway.json").exists()


def test_interrupt_in_a_pipe_cancels_the_launch(shared_paddock: Paddock) -> None:
    """SIGINT without a terminal calls the launch off and leaves nothing behind."""
    process = shared_paddock.start(
        *("launch", "tiny-mixtral", "-en", "echo", "-u", "off", "--load_seconds", "600")
    )
    until(lambda: model(shared_paddock, "off")["state"] == "starting")
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "cancelled" in said
    assert model(shared_paddock, "off")["state"] is None
    assert not [line for line in shared_paddock.processes() if '"model": "off"' in line]


def test_interrupt_on_a_terminal_asks_first(shared_paddock: Paddock) -> None:
    """Ctrl-C on a terminal offers to cancel: `n` lets the launch go on, `y` calls it off."""
    arguments = ["launch", "tiny-mixtral", "-en", "echo", "-u", "asked", "--load_seconds", "600"]
    asked, interrupt = "Cancel the launch?", ("starting: echo", b"\x03")
    code, said = converse(shared_paddock, arguments, [interrupt, (asked, b"n\n")])
    assert "goes on starting" in said
    assert code == 0
    assert model(shared_paddock, "asked")["state"] == "starting"
    shared_paddock.ok("terminate", "-u", "asked")

    code, said = converse(shared_paddock, arguments, [interrupt, (asked, b"y\n")])
    assert code == 130
    assert "cancelled" in said
    assert model(shared_paddock, "asked")["state"] is None


def test_terminating_a_launch_from_elsewhere_ends_the_waiting_command(
    shared_paddock: Paddock,
) -> None:
    """A launch that somebody else terminates ends for the one who waits for it, as called off."""
    process = shared_paddock.start(
        *("launch", "tiny-mixtral", "-en", "echo", "-u", "elsewhere", "--load_seconds", "600")
    )
    until(lambda: model(shared_paddock, "elsewhere")["state"] == "starting")
    shared_paddock.ok("terminate", "-u", "elsewhere")
    process.communicate(timeout=60)
    assert process.returncode == 130


def test_gateway_that_ends_finishes_its_answers(paddock: Paddock) -> None:
    """On SIGTERM a stream goes on to its end, streams of events end, and the model lives on."""
    paddock.ok("launch", "tiny-mixtral", "-en", "echo", "-u", "slow", "--token_seconds", "0.05")
    events = paddock.start("events", "--json")
    try:
        assert events.stdout is not None
        assert events.stdout.readline()
        pieces = paddock.client().generate("slow", "word " * 60)
        assert next(pieces) == "word"
        gateway = psutil.Process(int(paddock.record["pid"]))
        gateway.terminate()
        assert len(list(pieces)) == 60  # 59 words, and the event that says why it ended
        gateway.wait(20)
        events.wait(20)
    finally:
        events.kill()
        events.communicate()
    paddock.ok("list")  # starts the next gateway, which adopts it
    until(lambda: model(paddock, "slow")["state"] == "ready")
