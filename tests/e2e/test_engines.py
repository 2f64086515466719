"""Engines other than llama.cpp behind the same command line and the same API."""

from __future__ import annotations

import tomllib
from pathlib import Path

from paddock.engines import load_engine
from tests.conftest import Paddock, make_paddock


def test_engines_are_listed_with_what_is_wrong(paddock: Paddock) -> None:
    """Without its environment an engine is refused by the command that would install it."""
    rows = {row["name"]: row for row in paddock.json("engine", "list")["engines"]}
    assert rows["llama.cpp"]["installed"]
    assert not rows["Transformers"]["installed"]
    assert "paddock engine install transformers" in paddock.ok("engine", "list")
    refused = paddock.run("launch", "tiny-mixtral", "-f", "pytorch")
    assert refused.returncode == 4
    assert "paddock engine install transformers" in refused.stderr
    for name, says in (("transfomers", "did you mean Transformers"), ("llama.cpp", "needs no")):
        wrong = paddock.run("engine", "install", name)
        assert wrong.returncode == 2
        assert says in wrong.stderr
    assert paddock.json("engine", "remove", "transformers")["removed"] is False


def test_engines_of_a_model_are_the_same_with_and_without_a_gateway(
    paddock: Paddock, shared_paddock: Paddock
) -> None:
    """What each serves of it, or why nothing; a missing engine is a reason, and no failure."""
    told = paddock.json("engine", "list", "--model-name", "mixtral-v0.1")
    assert told == shared_paddock.json("engine", "list", "--model-name", "mixtral-v0.1")
    assert told["llama.cpp"][0]["model_format"] == "ggufv2"
    assert "paddock engine install transformers" in told["Transformers"]
    assert "Q4_K_M" in paddock.ok("engine", "list", "-n", "mixtral-v0.1")


def test_paddocks_own_environment_is_enough_for_what_the_extra_brings(
    transformers_home: Path, tmp_path: Path
) -> None:
    """Plain safetensors are served from it; the rest is refused with the command that helps."""
    environment = load_engine("Transformers").environment
    assert environment is not None
    made = environment.installed(transformers_home)
    assert made is not None
    paddock = make_paddock(tmp_path / "own")
    # What `pip install paddock[transformers]` would have put beside Paddock.
    paddock.environ["PYTHONPATH"] = str(next(made.folder.glob("lib/python*/site-packages")))
    engines = {row["name"]: row for row in paddock.json("engine", "list")["engines"]}
    assert engines["Transformers"]["version"] == made.versions["transformers"]
    told = paddock.json("engine", "doctor", "transformers")
    assert [check["ok"] for check in told["checks"]] == [True, True, True]
    try:
        for wanted in (("-f", "gptq"), ("-f", "pytorch", "-q", "4-bit")):
            refused = paddock.run("launch", "tiny-mixtral", *wanted)
            assert refused.returncode == 4
            assert "paddock engine install transformers" in refused.stderr
    finally:
        paddock.ok("stop")


def test_the_extras_pins_are_the_environments() -> None:
    """One place says which versions; the other repeats it."""
    root = Path(__file__).parent.parent.parent
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    pins = (root / "engines" / "transformers" / "requirements.txt").read_text("utf-8").splitlines()
    assert set(project["optional-dependencies"]["transformers"]) <= set(pins)
