"""Engines' environments: made whole or not at all, and not pulled from under what runs."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from zipfile import ZipFile

import pytest

from paddock.engines.environment import CURRENT, Environment
from paddock.launcher import environments
from paddock.launcher.environments import install, remove
from paddock.registry.errors import EngineInUse, InstallFailed


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    """One that needs nothing from an index."""
    monkeypatch.setenv("PADDOCK_HOME", str(tmp_path))
    monkeypatch.setattr(environments, "_installer", lambda: "pip")
    pins = tmp_path / "pins.txt"
    pins.write_text("# nothing\n")
    return Environment("plain", (pins,), "pip", ("json",))


def test_installed_environment_is_found_and_removed(
    environment: Environment, tmp_path: Path
) -> None:
    """It has a version, its own interpreter and no trace after it was removed."""
    assert "paddock engine install plain" in environment.detect().missing
    steps: list[str] = []
    made = install(environment, tmp_path, steps.append)
    assert steps[0] == "making the environment for cpu, with pip"
    assert environment.made(tmp_path) == made
    assert environment.detect().version == made.versions["pip"]
    where = subprocess.run(
        [made.python, "-c", "import sys; print(sys.prefix)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert where.stdout.strip() == str(made.folder)
    assert remove(environment, tmp_path)
    assert not remove(environment, tmp_path)
    assert not environment.folder(tmp_path).exists()
    assert environment.detect().missing


def test_complete_pins_bring_nothing_else(environment: Environment, tmp_path: Path) -> None:
    """What they depend on stays out; metadata is written where a distribution lacks it."""
    wheel = tmp_path / "needy-1-py3-none-any.whl"
    needs = "Metadata-Version: 2.1\nName: needy\nVersion: 1\nRequires-Dist: no-such==1\n"
    with ZipFile(wheel, "w") as file:
        file.writestr("needy.py", "")
        file.writestr("needy-1.dist-info/METADATA", needs)
        file.writestr("needy-1.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        file.writestr("needy-1.dist-info/RECORD", "")
    environment.requirements[0].write_text(f"{wheel}\n")
    metadata = {"shown": "2.0+cpu", "needy": "9"}
    lone = replace(environment, modules=("needy",), complete=True, metadata=metadata)
    assert lone.digest("cpu") != environment.digest("cpu")
    made = install(lone, tmp_path, print)
    assert (made.versions["shown"], made.versions["needy"]) == ("2.0+cpu", "1")
    assert "no-such" not in made.versions


@pytest.mark.parametrize("how", ["requirement", "import"])
def test_broken_install_leaves_the_old_one(
    environment: Environment, tmp_path: Path, how: str
) -> None:
    """What failed says its last lines, and nothing of it stays on the disk."""
    made = install(environment, tmp_path, print)
    modules = environment.modules
    if how == "requirement":
        environment.requirements[0].write_text("./no-such-wheel.whl\n")
    else:
        modules = ("no_such_module",)
    broken = Environment("plain", environment.requirements, "pip", modules)
    with pytest.raises(InstallFailed) as error:
        install(broken, tmp_path, print)
    assert any("no" in line and "such" in line for line in error.value.lines)
    assert broken.made(tmp_path) == made
    left = [path.name for path in broken.folder(tmp_path).iterdir()]
    assert sorted(left) == sorted([made.folder.name, CURRENT])


def test_other_pins_ask_for_a_new_install(environment: Environment, tmp_path: Path) -> None:
    """An environment of another Paddock is not taken for this one's."""
    old = install(environment, tmp_path, print)
    environment.requirements[0].write_text("# other\n")
    assert "paddock engine install plain" in environment.detect().missing
    new = install(environment, tmp_path, print)
    assert new.folder != old.folder
    assert not old.folder.exists()
    assert environment.detect().version


def test_what_runs_is_not_pulled_from_under(environment: Environment, tmp_path: Path) -> None:
    """In use it is not removed, and a renewal leaves it until it is not."""
    made = install(environment, tmp_path, print)
    with subprocess.Popen([made.python, "-c", "input()"], stdin=subprocess.PIPE) as process:
        with pytest.raises(EngineInUse, match=str(process.pid)):
            remove(environment, tmp_path)
        renewed = install(environment, tmp_path, print)
        assert made.python.exists()
        process.communicate()
    install(environment, tmp_path, print)
    assert not made.folder.exists()
    assert not renewed.folder.exists()


def test_damaged_record_counts_as_none(environment: Environment, tmp_path: Path) -> None:
    """Half a file, or one that names what is gone, is no environment."""
    made = install(environment, tmp_path, print)
    record = environment.folder(tmp_path) / CURRENT
    whole = json.loads(record.read_text())
    for text in ("{", "[]", json.dumps({**whole, "folder": "gone"})):
        record.write_text(text)
        assert environment.made(tmp_path) is None
    record.write_text(json.dumps(whole))
    assert environment.made(tmp_path) == made
