"""Keys of a gateway that others can reach: made once, shown once, kept nowhere."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from paddock.client import Client
from paddock.launcher.hosts import processes
from paddock.registry.errors import GatewayError
from tests.conftest import Paddock

KEY = re.compile(r"pk-[A-Za-z0-9_-]{43}")


def serve(paddock: Paddock, *options: str) -> tuple[subprocess.Popen[str], str]:
    """A gateway that answers, and its endpoint."""
    process = paddock.start("serve", "--host", "0.0.0.0", "--json", *options)
    assert process.stdout is not None
    lines = ""
    while "}" not in lines:
        line = process.stdout.readline()
        assert line, process.communicate()
        lines += line
    return process, str(json.loads(lines)["endpoint"])


def end(process: subprocess.Popen[str]) -> str:
    """Ends a gateway; what it said on stderr."""
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 0
    return said


def holding(folder: Path, secret: str) -> list[Path]:
    """The files below a folder that hold a secret."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return [path for path in files if secret.encode() in path.read_bytes()]


def status(endpoint: str, key: str) -> int:
    """What a caller with a key gets."""
    try:
        Client(endpoint, key).models()
    except GatewayError as error:
        return error.status
    return 200


def test_first_start_makes_a_key_and_shows_it_once(paddock: Paddock) -> None:
    """The first start where others can reach prints a key; no file and no log ever has it."""
    process, endpoint = serve(paddock, "--log-level", "debug")
    assert status(endpoint, "") == 401
    assert status(endpoint, "pk-wrong-key-of-somebody") == 401
    # It has been written before the endpoint was told; what is read now stays out of `end`.
    assert process.stderr is not None
    said = os.read(process.stderr.fileno(), 65536).decode()
    (secret,) = KEY.findall(said)
    assert status(endpoint, secret) == 200
    assert Client(endpoint, secret).instances() == []
    with pytest.raises(GatewayError, match="nobody"):
        Client(endpoint, secret).describe("nobody")
    said += end(process)
    assert said.count(secret) == 1
    assert "wrong-key" not in said

    process, endpoint = serve(paddock)
    assert status(endpoint, secret) == 200
    made = Client(endpoint, secret).create_key("app", "inference", ["a"])
    assert status(endpoint, made["key"]) == 200
    again = end(process)
    assert not KEY.search(again)
    assert "paddock keys create" in again
    for key in (secret, made["key"]):
        assert holding(paddock.home, key) == []


def test_gateway_in_the_background_shows_its_first_key_too(paddock: Paddock) -> None:
    """The command that starts the gateway shows the key; the gateway's log does not have it.

    Commands of the same user on the same machine go on without a key, and others need one.
    """
    first = paddock.run("list", PADDOCK_HOST="0.0.0.0")
    assert first.returncode == 0, first.stderr
    (secret,) = KEY.findall(first.stderr)
    assert holding(paddock.home, secret) == []
    endpoint = str(paddock.record["endpoint"])
    assert status(endpoint, secret) == 200
    assert status(endpoint, "") == 401
    again = paddock.run("list", PADDOCK_HOST="0.0.0.0")
    assert again.returncode == 0
    assert not KEY.search(again.stderr)
    record = paddock.home / "gateway.json"
    assert record.stat().st_mode & 0o077 == 0
    assert (paddock.home / "keys.json").stat().st_mode & 0o077 == 0

    denied = paddock.run("list", "--endpoint", endpoint)
    assert denied.returncode == 2
    assert "API key" in denied.stderr
    assert "paddock keys create" in denied.stderr
    wrong = paddock.run("list", "--api-key", "hay")
    assert wrong.returncode == 2
    # `stop` is one of the commands that need no key here, and nothing of the key is left then.
    assert paddock.run("stop").returncode == 0
    assert not record.exists()


def test_key_of_the_environment_works_and_is_not_passed_on(paddock: Paddock) -> None:
    """With PADDOCK_API_KEY no key is made; bridge, replicas and engines do not inherit it.

    A key for inference reaches the model, and cannot end it.
    """
    keyed = {"PADDOCK_API_KEY": "hay-of-this-test", "PADDOCK_HOST": "0.0.0.0"}
    started = paddock.run("list", **keyed)
    assert started.returncode == 0
    assert not KEY.search(started.stderr)
    assert not (paddock.home / "keys.json").exists()
    assert holding(paddock.home, "hay-of-this-test") == []
    endpoint = str(paddock.record["endpoint"])
    assert status(endpoint, "hay-of-this-test") == 200
    paddock.ok("launch", "tiny-mixtral", "-en", "echo", "-u", "barn")
    environs = [
        process.environ()
        for process in processes.belonging((paddock.home / "instance").read_text().strip())
        if process.pid != paddock.record["pid"]
    ]
    assert len(environs) > 1
    assert not any("PADDOCK_API_KEY" in environ for environ in environs)
    app = Client(endpoint, paddock.json("keys", "create", "--scope", "inference")["key"])
    assert app.complete("barn", "hay")["choices"]
    with pytest.raises(GatewayError, match="needs scope admin"):
        app.terminate("barn")


def test_keys_command_makes_lists_and_revokes(paddock: Paddock) -> None:
    """On the gateway's machine no key is needed to make one; it counts with the next request."""
    paddock.ok("list")
    endpoint = str(paddock.record["endpoint"])
    assert status(endpoint, "") == 200
    first = paddock.run("keys", "create", "--name", "laptop", "--json")
    assert "asks everyone" in first.stderr
    made = json.loads(first.stdout)
    assert made["scope"] == "admin"
    assert status(endpoint, "") == 401
    assert status(endpoint, made["key"]) == 200
    (row,) = paddock.json("keys", "list")
    assert row["id"] == made["id"]
    assert "key" not in row
    assert "hash" not in row
    assert "laptop" in paddock.ok("keys", "list")
    revoked = paddock.run("keys", "revoke", made["id"], "--json")
    assert json.loads(revoked.stdout)["revoked"] is True
    assert "goes on asking" in revoked.stderr
    assert [status(endpoint, key) for key in ("", made["key"])] == [401, 401]
    assert paddock.json("list") == []
    second = paddock.run("keys", "create", "--json")
    assert "asks everyone" not in second.stderr
    assert status(endpoint, json.loads(second.stdout)["key"]) == 200
    missing = paddock.run("keys", "revoke", made["id"])
    assert missing.returncode == 2
    assert made["id"] in missing.stderr


def test_keys_command_asks_the_gateway_that_is_named(paddock: Paddock) -> None:
    """With `--endpoint` the keys are that gateway's, and an admin's key is needed."""
    admin = paddock.ok("keys", "create").strip()
    paddock.ok("list")
    there = ("--endpoint", str(paddock.record["endpoint"]))
    made = paddock.ok("keys", "create", "--model", "a", *there, "--api-key", admin).strip()
    assert KEY.fullmatch(made)
    refused = paddock.run("keys", "list", *there)
    assert refused.returncode == 2
    assert "API key" in refused.stderr
    beyond = paddock.run("keys", "list", *there, "--api-key", made)
    assert beyond.returncode == 2
    assert "needs scope admin" in beyond.stderr
    rows = paddock.json("keys", "list", *there, "--api-key", admin)
    assert [(row["scope"], row["models"]) for row in rows] == [
        ("admin", []),
        ("inference", ["a"]),
    ]
    paddock.ok("keys", "revoke", rows[1]["id"], *there, "--api-key", admin)
    assert len(paddock.json("keys", "list")) == 1
    # The key that is revoked may be the one that asks for it.
    last = paddock.run("keys", "revoke", rows[0]["id"], *there, "--api-key", admin)
    assert last.returncode == 0, last.stderr
    assert "paddock keys create" in last.stderr
