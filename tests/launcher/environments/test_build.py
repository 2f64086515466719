"""Engines' environments: made whole or not at all, and not pulled from under what runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Literal
from zipfile import ZipFile

import pytest
from uv import find_uv_bin

from paddock.engines import engines
from paddock.engines.environment import CURRENT, Environment
from paddock.launcher.environments import build
from paddock.launcher.environments.build import install, remove
from paddock.registry.errors import EngineInUse, InstallFailed

pytestmark = pytest.mark.engines

ENVIRONMENTS = {one.name: one.environment for one in engines() if one.environment is not None}


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    """One that needs nothing from an index, made by uv, which takes a tenth of pip's time."""
    monkeypatch.setenv("PADDOCK_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(build, "_installer", lambda: "uv")
    pins = tmp_path / "pins.txt"
    pins.write_text(f"{_wheel(tmp_path, 'modest')}\n")
    return Environment("plain", (pins,), "modest", ("json", "modest"))


def _wheel(folder: Path, name: str, needs: str = "") -> Path:
    """A package of that name, and what it says that it needs."""
    wheel = folder / f"{name}-1-py3-none-any.whl"
    with ZipFile(wheel, "w") as file:
        file.writestr(f"{name}.py", "")
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n{needs}"
        file.writestr(f"{name}-1.dist-info/METADATA", metadata)
        file.writestr(f"{name}-1.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        file.writestr(f"{name}-1.dist-info/RECORD", "")
    return wheel


def _needy(folder: Path) -> Path:
    """A package that wants another, which there is not."""
    return _wheel(folder, "needy", "Requires-Dist: no-such==1\n")


def _change(pins: Path) -> None:
    pins.write_text(pins.read_text() + "# changed\n")


def test_installed_environment_is_found_and_removed(
    environment: Environment, tmp_path: Path
) -> None:
    """It has a version, its own interpreter and no trace after it was removed."""
    assert "paddock engine install plain" in environment.detect().missing
    steps: list[str] = []
    made = install(environment, tmp_path, steps.append)
    assert steps[0] == "making the environment for cpu, with uv"
    assert environment.installed(tmp_path) == made
    assert environment.detect().version == made.versions["modest"]
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


def test_what_an_install_imports_sees_no_secret(
    environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine's own code is asked with the variables that engines get."""
    monkeypatch.setenv("HF_TOKEN", "secret")
    asks = replace(environment, architectures="import json, os; print(json.dumps([*os.environ]))")
    seen = install(asks, tmp_path, print).architectures
    assert "PATH" in seen
    assert "HF_TOKEN" not in seen


def test_an_environment_is_for_its_user_alone(
    environment: Environment, tmp_path: Path, umask: None
) -> None:
    """Nobody else can enter it, or hold its lock."""
    install(environment, tmp_path, print)
    folder = environment.folder(tmp_path)
    (lock,) = folder.parent.glob("*.lock")
    ours = (folder.parent, folder, folder / CURRENT, lock)
    assert [path for path in ours if path.stat().st_mode & 0o077] == []


def test_complete_pins_bring_nothing_else(environment: Environment, tmp_path: Path) -> None:
    """What they depend on stays out; metadata is written where a distribution lacks it."""
    wheel = _needy(tmp_path)
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
    broken = Environment("plain", environment.requirements, "modest", modules)
    with pytest.raises(InstallFailed) as error:
        install(broken, tmp_path, print)
    assert any("no" in line and "such" in line for line in error.value.lines)
    assert broken.installed(tmp_path) == made
    left = [path.name for path in broken.folder(tmp_path).iterdir()]
    assert sorted(left) == sorted([made.folder.name, CURRENT])


def test_other_pins_ask_for_a_new_install(environment: Environment, tmp_path: Path) -> None:
    """An environment of another Paddock is not taken for this one's."""
    old = install(environment, tmp_path, print)
    _change(environment.requirements[0])
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
        assert environment.installed(tmp_path) is None
    record.write_text(json.dumps(whole))
    assert environment.installed(tmp_path) == made


@pytest.mark.parametrize("installer", ["uv", "pip"])
def test_uv_and_pip_make_the_same_of_the_pins(
    environment: Environment,
    tmp_path: Path,
    installer: Literal["uv", "pip"],
) -> None:
    """And what an engine knows is asked of it once, and kept with its version."""
    environment.requirements[0].write_text(f"{_needy(tmp_path)}\n")
    asking = replace(
        environment,
        distribution="needy",
        modules=("needy",),
        complete=True,
        architectures="import json, needy; print('chatter'); print(json.dumps(['Z', 'A']))",
    )
    made = install(asking, tmp_path, print, installer=installer)
    assert made.versions["needy"] == "1"
    assert asking.detect().version == "1"
    assert asking.detect().architectures == ("A", "Z")


@pytest.mark.parametrize("python", ["3.11", "3.13"])
@pytest.mark.parametrize("name", [name for name, one in ENVIRONMENTS.items() if one.cuda])
def test_pins_for_gpus_go_together(name: str, python: str) -> None:
    """What needs a GPU to run is resolved at least; the set is the whole of what is needed."""
    environment = ENVIRONMENTS[name]
    (pins, *_) = environment.pins("cuda")
    resolve = ("pip", "compile", "--quiet", "--no-header", "--no-annotate", "--python-version")
    done = subprocess.run(
        [find_uv_bin(), *resolve, python, "--python-platform", "x86_64-manylinux_2_34", pins],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    pinned = {line for line in pins.read_text().splitlines() if not line.startswith("#")}
    assert set(map(_spelt, done.stdout.splitlines())) == set(map(_spelt, pinned))


def _spelt(pin: str) -> str:
    return pin.lower().replace("_", "-")


def test_a_gpu_has_pins_of_its_own(environment: Environment, tmp_path: Path) -> None:
    """Where there are any; the environment says which it was made for, and is renewed by those."""
    other = tmp_path / "cuda.txt"
    other.write_text("./no-such-wheel.whl\n")
    both = replace(environment, cuda=(other,))
    assert both.pins("cuda") == (other,)
    assert environment.pins("cuda") == environment.pins("cpu") == both.pins("cpu")
    with pytest.raises(InstallFailed):
        install(both, tmp_path, print, "cuda")
    other.write_text(environment.requirements[0].read_text())
    assert install(both, tmp_path, print, "cuda").accelerator == "cuda"
    assert both.detect().version
    _change(other)
    assert both.detect().missing
