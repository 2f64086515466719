"""docs/add-an-engine.md, to the letter: an engine of another package is installed and serves."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Paddock, make_paddock

EXAMPLE = Path(__file__).parent.parent.parent / "docs" / "example-engine"


@pytest.fixture(scope="module")
def parrot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Paddock]:
    """A home, with the example installed where these processes alone find it."""
    where = tmp_path_factory.mktemp("installed")
    # A copy, for a build leaves its traces.
    source = tmp_path_factory.mktemp("source") / "example"
    subprocess.run(["cp", "-r", str(EXAMPLE), str(source)], check=True)
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(where)]
    subprocess.run([*install, str(source)], check=True)
    made = make_paddock(tmp_path_factory.mktemp("parrot"))
    made.environ["PYTHONPATH"] = str(where)
    yield made
    assert made.run("stop").returncode == 0
    assert made.processes() == []


def test_it_is_listed_and_looked_over(parrot: Paddock) -> None:
    """Beside Paddock's own; the doctor starts it."""
    rows = {row["name"]: row for row in parrot.json("engine", "list")["engines"]}
    assert rows["parrot"]["version"] == "1.0"
    told = parrot.json("engine", "doctor", "parrot")
    assert [check["name"] for check in told["checks"]] == ["found", "serves"]
    assert told["ok"]


def test_it_serves_with_its_options(parrot: Paddock) -> None:
    """A model that no spec lists it for, its own options, and what it cannot do refused by name."""
    launch = ("launch", "tiny-mixtral", "--model-engine", "parrot", "--model-uid", "polly")
    wrong = parrot.run(*launch, "--time", "3")
    assert wrong.returncode == 2
    assert "times" in wrong.stderr
    parrot.ok(*launch, "--times", "3")
    said = parrot.ok("generate", "--model-uid", "polly", "Hello")
    assert said.strip() == "Hello Hello Hello"
    assert parrot.client().complete("polly", "a b", n=2)["choices"][1]["text"] == "a b a b a b"
    refused = parrot.run("generate", "--model-uid", "polly", "--temperature", "0", "Hello")
    assert "temperature" in refused.stderr
    assert "parrot" in refused.stderr
