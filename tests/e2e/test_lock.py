"""Locks by the command line: written, obeyed, verified, and held against the hub."""

from __future__ import annotations

import json
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from paddock.launcher.hosts import processes
from tests.conftest import Paddock
from tests.e2e.test_failures import model, until
from tests.e2e.test_pull import FILE, MIXTRAL, VARIANT, tiny_gguf
from tests.e2e.test_pull import hub as hub_fixture
from tests.fakes import COMMIT, HubServer, sha256_of

hub = hub_fixture
NAME = "mixtral-v0.1"
VERSION = "engine_version"


@pytest.fixture
def lock(here: Paddock, tmp_path: Path) -> Path:
    """A lock of mixtral-v0.1 in Q4_K_M."""
    return locked(here, tmp_path)


def locked(paddock: Paddock, folder: Path) -> Path:
    path = folder / "paddock.lock"
    paddock.ok("lock", NAME, *VARIANT, "--file", str(path))
    return path


def changed(lock: Path, old: str, new: str) -> None:
    text = lock.read_text()
    assert old in text
    lock.write_text(text.replace(old, new))


def failing(paddock: Paddock, *arguments: str) -> Any:
    """The error of a command that must fail, as JSON, and its exit code."""
    done = paddock.run(*arguments, "--json")
    return done.returncode, json.loads(done.stdout)["error"]


def test_a_lock_pins_what_a_launch_brings(here: Paddock, hub: HubServer, lock: Path) -> None:
    """The locked commit and digest, though the branch has moved; and offline from then on."""
    entry = yaml.safe_load(lock.read_text())["models"][NAME]
    (file,) = entry["files"]
    assert (entry["hub"], entry["id"], entry["commit"]) == ("huggingface", MIXTRAL, COMMIT)
    assert (file["name"], file["sha256"]) == (FILE, sha256_of(tiny_gguf("Q4_K_M")))
    assert file["size_bytes"] == len(tiny_gguf("Q4_K_M"))
    assert entry["engine"] == "llama.cpp"
    assert hub.files() == []
    at = ("--locked", "--lock-file", str(lock))
    plan = here.json("launch", NAME, *at, "--dry-run")
    assert plan["weights"]["revision"] == COMMIT
    assert here.json("launch", NAME, *at)["plan"]["weights"]["lock"]["commit"] == COMMIT
    assert hub.files() == [FILE]
    assert f"/revision/{COMMIT}" in " ".join(hub.asked)
    assert here.ok("generate", "-u", NAME, "The old elephant", "--max-tokens", "5").strip()
    here.ok("terminate", "-u", NAME)
    hub.asked.clear()
    here.ok("launch", NAME, *at, "--offline")
    assert hub.asked == []
    again = lock.with_name("again.lock")
    here.ok("lock", "--file", str(again))
    assert again.read_text() == lock.read_text()


def test_what_the_lock_does_not_allow_is_refused(here: Paddock, hub: HubServer, lock: Path) -> None:
    """Other variants, other engines and other bytes, each with both named."""
    at = ("launch", NAME, "--locked", "--lock-file", str(lock))
    code, error = failing(here, *at, "-q", "Q8_0")
    assert (code, error["code"]) == (2, "NotLocked")
    assert (error["locked"], error["found"]) == ("Q4_K_M", "Q8_0")
    version = yaml.safe_load(lock.read_text())["models"][NAME][VERSION]
    changed(lock, version, "another 1.0")
    code, error = failing(here, *at)
    assert (code, error["locked"], error["found"]) == (2, "another 1.0", version)
    changed(lock, "another 1.0", version)
    hub.repos[MIXTRAL][FILE] = tiny_gguf("Q5_0")
    code, error = failing(here, *at)
    assert (code, error["diagnosis"]["cause"]) == (4, "checksum_mismatch")
    assert "--locked" in error["diagnosis"]["next_command"]
    assert hub.files() == []
    code, error = failing(here, "pull", NAME, "--locked", "--lock-file", str(lock))
    assert (code, error["diagnosis"]["cause"]) == (4, "checksum_mismatch")
    hub.repos[MIXTRAL][FILE] = tiny_gguf("Q4_K_M")
    done = here.ok("pull", NAME, "--locked", "--lock-file", str(lock))
    assert Path(done.strip()).read_bytes() == tiny_gguf("Q4_K_M")


def test_a_lock_that_is_wrong_is_told_with_its_line(
    here: Paddock, lock: Path, tmp_path: Path
) -> None:
    """Nothing is launched; a model that is not in it and a missing file too."""
    changed(lock, "quantization", "quantisation")
    done = here.run("launch", NAME, "--locked", "--lock-file", str(lock))
    assert done.returncode == 2
    assert f"{lock}:7: models.{NAME}.quantisation: unknown field" in done.stderr
    changed(lock, "quantisation", "quantization")
    done = here.run("launch", "tiny-mixtral", "--locked", "--lock-file", str(lock))
    assert (done.returncode, "unknown locked model" in done.stderr) == (2, True)
    none = str(tmp_path / "none.lock")
    done = here.run("verify", "--locked", "--file", none)
    assert (done.returncode, f"{none}: is not there" in done.stderr) == (2, True)
    assert here.json("list") == []


def test_the_pin_comes_back_after_a_reboot(alone: Paddock, hub: HubServer, tmp_path: Path) -> None:
    """The next gateway launches by the same lock, whatever the branch has by then."""
    lock = locked(alone, tmp_path)
    alone.ok("launch", NAME, "--locked", "--lock-file", str(lock))
    for process in processes.belonging((alone.home / "instance").read_text().strip()):
        with suppress(psutil.Error):  # one ends another
            process.kill()
    until(lambda: not alone.processes())
    hub.repos[MIXTRAL][FILE] = tiny_gguf("Q5_0")
    alone.ok("list")
    until(lambda: model(alone, NAME)["state"] == "ready")
    assert model(alone, NAME)["plan"]["weights"]["lock"]["files"][0]["name"] == FILE
    (row,) = alone.json("verify", "--locked", "--file", str(lock))["files"]
    assert row["state"] == "as_locked"


def test_verifying_tells_each_file_and_by_its_exit_code(
    here: Paddock, hub: HubServer, lock: Path
) -> None:
    """Missing, as locked, or with other bytes; without --locked it is `cache verify`."""
    missing = here.run("verify", "--locked", "--file", str(lock))
    assert (missing.returncode, "MISSING" in missing.stdout) == (1, True)
    path = Path(here.ok("pull", NAME, "--locked", "--lock-file", str(lock)).strip())
    assert "as locked" in here.ok("verify", NAME, "--locked", "--file", str(lock))
    assert "whole" in here.ok("verify")
    path.resolve().write_bytes(tiny_gguf("Q5_0"))
    done = here.run("verify", "--locked", "--file", str(lock), "--json")
    (row,) = json.loads(done.stdout)["files"]
    assert (done.returncode, row["state"]) == (1, "differs")
    assert row["found"] == sha256_of(tiny_gguf("Q5_0"))
    assert here.run("verify").returncode == 1


def test_what_is_newer_upstream_is_told(
    here: Paddock, hub: HubServer, lock: Path, tmp_path: Path
) -> None:
    """With sizes; the exit code is 0 unless it is asked for, and without a lock caches count."""
    file = ("--file", str(lock))
    (row,) = here.json("outdated", *file, "--exit-code")["models"]
    assert (row["state"], row["engine_version"]) == ("current", row["locked_engine_version"])
    hub.repos[MIXTRAL][FILE] = tiny_gguf("Q5_0")
    text = here.ok("outdated", *file)
    assert f"~ {FILE}, 2.6 MB → " in text
    assert here.run("outdated", NAME, *file, "--exit-code").returncode == 1
    hub.repos[MIXTRAL][FILE] = tiny_gguf("Q4_K_M")
    changed(lock, "xllamacpp", "older")
    assert here.run("outdated", *file, "--exit-code").returncode == 1
    hub.repos["gone/gone"] = hub.repos.pop(MIXTRAL)
    (row,) = here.json("outdated", *file)["models"]
    assert (row["state"], row["error"]["cause"]) == ("unknown", "not_found")
    hub.repos[MIXTRAL] = hub.repos.pop("gone/gone")
    here.ok("pull", NAME, *VARIANT)
    done = here.start("outdated", "--json", cwd=here.home)
    out, said = done.communicate(timeout=60)
    assert done.returncode == 0, said
    (row,) = json.loads(out)["models"]
    assert (row["model"], row["state"], row["engine"]) == (NAME, "current", None)


def test_a_lock_holds_several_models(here: Paddock, lock: Path, tmp_path: Path) -> None:
    """One that is locked again is replaced; local weights are locked by their bytes."""
    file = ("--file", str(lock))
    here.ok("lock", "tiny-mixtral", *VARIANT, *file)
    here.ok("lock", NAME, "-f", "ggufv2", "-q", "Q8_0", *file)
    models = yaml.safe_load(lock.read_text())["models"]
    assert {name: one["quantization"] for name, one in models.items()} == {
        NAME: "Q8_0",
        "tiny-mixtral": "Q4_K_M",
    }
    assert models["tiny-mixtral"]["hub"] == "local"
    copy = tmp_path / "copy" / "tiny-mixtral.Q4_K_M.gguf"
    copy.parent.mkdir()
    copy.write_bytes(tiny_gguf("Q4_K_M"))
    here.ok("lock", "tiny-mixtral", "--model-path", str(copy), *file)
    here.ok("launch", "tiny-mixtral", "--locked", "--lock-file", str(lock))
    here.ok("terminate", "-u", "tiny-mixtral")
    copy.write_bytes(b"x" + tiny_gguf("Q4_K_M")[1:])
    code, error = failing(here, "launch", "tiny-mixtral", "--locked", "--lock-file", str(lock))
    assert (code, error["diagnosis"]["cause"]) == (4, "checksum_mismatch")


def test_nothing_is_written_where_one_model_fails(here: Paddock, lock: Path) -> None:
    """The file stays as it was; an option goes with one model only."""
    before = lock.read_text()
    file = ("--file", str(lock))
    assert here.run("lock", "tiny-mixtral", "mixtral-instruct-v0.1", *file).returncode == 4
    assert here.run("lock", "-q", "Q4_K_M", *file).returncode == 2
    assert here.run("lock", *file).returncode == 2
    assert lock.read_text() == before


def test_what_runs_in_two_variants_must_be_named(here: Paddock, tmp_path: Path) -> None:
    """Without names a lock is of what is launched; two variants of one model do not fit in it."""
    file = ("--file", str(tmp_path / "paddock.lock"))
    for number, quantization in enumerate(("Q4_K_M", "Q4_K_M", "Q8_0")):
        here.ok("launch", "tiny-mixtral", "-q", quantization, "-u", f"tiny-{number}")
        if number == 1:
            here.ok("lock", *file)
    done = here.run("lock", *file)
    assert done.returncode == 2
    assert "Q8_0" in done.stderr
    assert "name one" in done.stderr


def test_locking_is_called_off_with_ctrl_c(here: Paddock, tmp_path: Path) -> None:
    """In the middle of a file that takes minutes to read: exit code 130, and nothing is left."""
    huge = tmp_path / "tiny-mixtral.Q4_K_M.gguf"
    with huge.open("wb") as file:
        file.truncate(200 << 30)
    here.ok("list")
    path = tmp_path / "paddock.lock"
    locking = here.start("lock", "tiny-mixtral", "-mp", str(huge), "--file", str(path))
    client = here.client()

    def came() -> Any:
        return [one for one in client.locks() if one["state"] == "running" and one["came_bytes"]]

    (work,) = until(came)
    locking.send_signal(signal.SIGINT)
    _, said = locking.communicate(timeout=30)
    assert locking.returncode == 130, said
    assert client.show_lock(work["id"])["state"] == "cancelled"
    assert not [line for line in here.processes() if "jobs.run_lock" in line]
    assert not path.exists()
