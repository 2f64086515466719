"""What the doctor says of engines that are well, missing, broken, or die."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from types import SimpleNamespace
from typing import cast
from zipfile import ZipFile

import pytest

from paddock import engines as engines_package
from paddock.engines import load_engine
from paddock.engines.base import Detection, Engine, EngineOptions, Host
from paddock.engines.echo import Echo, EchoOptions
from paddock.engines.environment import Environment
from paddock.launcher.environments.build import install
from paddock.launcher.environments.doctor import Check, _imports, examine
from paddock.registry.settings import read_settings

pytestmark = pytest.mark.engines


class Dying(Echo):
    """Ends as soon as it is started."""

    name = "dying"

    def fill_defaults(
        self, options: EngineOptions, host: Host, weights_bytes: int
    ) -> EngineOptions:
        return EchoOptions(exit_code=3, say="the last words")


class Ranking(Echo):
    """Serves no language models."""

    name = "ranking"
    types = ("rerank",)


@pytest.fixture
def dying(monkeypatch: pytest.MonkeyPatch) -> Iterator[Echo]:
    group = "paddock.engines"
    entries = {"dying": "Dying", "ranking": "Ranking"}.items()
    points = EntryPoints([EntryPoint(one, f"{__name__}:{name}", group) for one, name in entries])
    monkeypatch.setattr(engines_package, "entry_points", lambda group: points)
    for cached in (engines_package._table, load_engine):
        cached.cache_clear()
    yield Dying()
    for cached in (engines_package._table, load_engine):
        cached.cache_clear()


def told(engine: Echo) -> list[Check]:
    return list(examine(engine, read_settings(), lambda _: None))


def test_engine_that_is_well(home: Path) -> None:
    """It is found, and started and asked as a launch would."""
    found, serves = told(Echo())
    assert (found.ok, serves.ok) == (True, True)
    assert "ready in" in serves.says
    assert "The old elephant" in serves.says


def test_engine_that_dies_is_told_with_its_last_words(dying: Echo) -> None:
    """The cause from the closed list, and the lines."""
    _, serves = told(dying)
    assert not serves.ok
    assert serves.says.startswith("engine_exited")
    assert "the last words" in serves.lines


def test_engine_for_other_models_is_not_tried(dying: Echo) -> None:
    """It is well as far as can be told, and why no further."""
    _, serves = told(Ranking())
    assert serves.ok
    assert serves.says.endswith("it serves models of type rerank, not LLM")


def test_engines_python_sees_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it imports runs as in an engine, without the tokens of whoever asks."""
    record, program = tmp_path / "environ", tmp_path / "python"
    program.write_text(f"#!/bin/sh\nenv > {record}\n")
    program.chmod(0o755)
    made = SimpleNamespace(python=program, interpreter="", accelerator="cpu", folder=tmp_path)

    class Apart(Echo):
        environment = SimpleNamespace(  # type: ignore[assignment]  # echo has none
            name="plain", modules=("json",), active=lambda: made
        )

    monkeypatch.setenv("HF_TOKEN", "secret")
    assert _imports(cast(Engine, Apart())).ok
    names = {line.partition("=")[0] for line in record.read_text().splitlines()}
    assert "PATH" in names
    assert "HF_TOKEN" not in names


def test_environment_that_is_missing_or_broken(home: Path, tmp_path: Path) -> None:
    """What to do is said; a module that went away is named."""
    pins = tmp_path / "pins.txt"
    pins.write_text("# nothing\n")
    environment = Environment("plain", (pins,), "pip", ("extra",))

    class Apart(Echo):
        def detect(self) -> Detection:
            return environment.detect()

    Apart.environment = environment  # type: ignore[assignment]  # echo has none
    (missing,) = told(Apart())
    assert not missing.ok
    assert "paddock engine install plain" in missing.says

    wheel = tmp_path / "extra-1-py3-none-any.whl"
    with ZipFile(wheel, "w") as file:
        file.writestr("extra.py", "")
        file.writestr(
            "extra-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: extra\nVersion: 1"
        )
        file.writestr("extra-1.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        file.writestr("extra-1.dist-info/RECORD", "")
    pins.write_text(f"{wheel}\n")
    made = install(environment, read_settings().home, lambda _: None)
    assert [check.ok for check in told(Apart())][:2] == [True, True]
    next(made.folder.rglob("site-packages/extra.py")).unlink()
    _, imports = told(Apart())
    assert not imports.ok
    assert "No module named 'extra'" in imports.says
    assert imports.advice == "paddock engine install plain --force"
