"""`paddock events`, as a person and as a program reads it."""

from __future__ import annotations

import json
import signal
import subprocess

from paddock.client import Client
from tests.conftest import Paddock


def read_until(process: subprocess.Popen[str], what: str) -> list[str]:
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        if what in line:
            return lines
    raise AssertionError(f"no {what!r} in {lines}")


def test_events_are_shown_as_they_happen_until_ctrl_c(
    shared_paddock: Paddock, client: Client, tiny: str
) -> None:
    """What is launched already comes first, then each state, in lines or as JSON lines."""
    shown = shared_paddock.start("events", "--logs")
    told = shared_paddock.start("events", "-u", "watched", "--type", "model", "--json")
    try:
        assert f"{tiny} is ready" in read_until(shown, tiny)[-1]
        assert json.loads(read_until(told, "snapshot")[-1])["data"] == {"models": []}
        launch = ("launch", "tiny-mixtral", "-en", "echo", "-u", "watched", "--say", "hear ye")
        shared_paddock.ok(*launch)
        # Logs are looked at a few times a second: a model that goes at once takes its lines along.
        text = "\n".join(read_until(shown, "hear ye"))
        shared_paddock.ok("terminate", "-u", "watched")
        for said in ("watched-rep0 is pending", "watched-rep0 is starting; echo loads"):
            assert said in text
        read_until(shown, "watched is gone")
        states = [json.loads(line)["data"]["state"] for line in read_until(told, '"gone": true')]
        assert states == ["pending", "starting", "ready", "stopping", "stopping"]
        for process in (shown, told):
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=30)
            assert process.returncode == 130
    finally:
        for process in (shown, told):
            process.kill()
            process.communicate()
