"""Engines other than llama.cpp behind the same command line and the same API."""

from __future__ import annotations

import os
import signal
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from paddock.engines import load_engine
from tests.conftest import Paddock, make_paddock
from tests.launcher.test_hubs import until

QUESTION = [{"role": "user", "content": "What does the elephant eat?"}]


@pytest.fixture(scope="module")
def torchy(transformers_home: Path, equipped: Paddock) -> Iterator[Paddock]:
    """A home in which Transformers is installed, with both of its formats launched."""
    equipped.side_by_side(
        ("launch", "tiny-mixtral", "-f", "pytorch", "-u", "plain", "--dtype", "float32"),
        ("launch", "tiny-mixtral", "-f", "gptq", "-u", "quantized"),
    )
    yield equipped
    for uid in ("plain", "quantized"):
        equipped.client().terminate(uid)


@pytest.fixture
def sdk(torchy: Paddock) -> Any:
    """Untyped: its overloads want literals, and these tests vary the fields."""
    return openai.OpenAI(base_url=f"{torchy.record['endpoint']}/v1", api_key="none")


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


def test_an_installed_engine_is_not_installed_again(torchy: Paddock) -> None:
    """The command says so; and while models run from it, it is not removed."""
    done = torchy.run("engine", "install", "Transformers")
    assert done.returncode == 0
    assert "installed already" in done.stderr
    used = torchy.run("engine", "remove", "transformers")
    assert used.returncode == 2
    assert "in use" in used.stderr


@pytest.mark.parametrize("uid", ["plain", "quantized"])
def test_openais_client_is_answered(sdk: Any, uid: str) -> None:
    """Whole, streamed, several at once, stopped, with the probabilities and the usage."""
    ask = {"model": uid, "prompt": "The old elephant", "max_tokens": 12, "temperature": 0}
    whole = sdk.completions.create(**ask)
    assert whole.model == uid
    assert whole.usage.completion_tokens == 12
    pieces = sdk.completions.create(**ask, stream=True)
    assert "".join(piece.choices[0].text for piece in pieces) == whole.choices[0].text
    several = sdk.completions.create(**{**ask, "temperature": 1.2}, n=3, seed=1)
    assert [choice.index for choice in several.choices] == [0, 1, 2]
    chat = sdk.chat.completions.create(
        model=uid,
        messages=QUESTION,
        max_tokens=16,
        temperature=0,
        logprobs=True,
        top_logprobs=1,
    )
    assert "elephant" in (chat.choices[0].message.content or "").lower()
    assert chat.choices[0].logprobs is not None
    word = (chat.choices[0].message.content or "").split()[1]
    stopped = sdk.chat.completions.create(
        model=uid,
        messages=QUESTION,
        max_tokens=16,
        temperature=0,
        stop=[word],
    )
    assert stopped.choices[0].finish_reason == "stop"
    assert word not in (stopped.choices[0].message.content or "")


def test_what_the_engine_cannot_do_is_refused_by_name(sdk: Any) -> None:
    """The field, and the engine that lacks it; nothing is dropped in silence."""
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
    with pytest.raises(openai.BadRequestError, match=r"response_format.*Transformers"):
        sdk.chat.completions.create(model="plain", messages=QUESTION, response_format=schema)
    with pytest.raises(openai.BadRequestError, match="2048"):
        sdk.completions.create(model="plain", prompt="the " * 3000)


def test_an_engine_that_is_killed_has_failed_and_can_be_launched_again(
    torchy: Paddock, sdk: Any
) -> None:
    """As any engine's replica; the process it leaves is none."""
    (model,) = torchy.client().instances("plain")
    os.kill(int(model["replica_statuses"][0]["pid"]), signal.SIGKILL)
    until(lambda: torchy.client().instances("plain")[0]["state"] == "failed")
    (model,) = torchy.client().instances("plain")
    assert model["diagnosis"]["cause"] == "engine_killed"
    torchy.ok("launch", "tiny-mixtral", "-f", "pytorch", "-u", "plain")
    assert sdk.completions.create(model="plain", prompt="A lion", max_tokens=2).choices[0].text


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
    made = environment.made(transformers_home)
    assert made is not None
    paddock = make_paddock(tmp_path / "own")
    # What `pip install paddock[transformers]` would have put beside Paddock.
    paddock.environ["PYTHONPATH"] = str(next(made.folder.glob("lib/python*/site-packages")))
    engines = {row["name"]: row for row in paddock.json("engine", "list")["engines"]}
    assert engines["Transformers"]["version"] == made.versions["transformers"]
    told = paddock.json("engine", "doctor", "transformers")
    assert [check["ok"] for check in told["checks"]] == [True, True, True]
    for wanted in (("-f", "gptq"), ("-f", "pytorch", "-q", "4-bit")):
        refused = paddock.run("launch", "tiny-mixtral", *wanted, "--dry-run")
        assert refused.returncode == 4
        assert "paddock engine install transformers" in refused.stderr


def test_the_extras_pins_are_the_environments() -> None:
    """One place says which versions; the other repeats it."""
    root = Path(__file__).parent.parent.parent
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    pins = (root / "engines" / "transformers" / "requirements.txt").read_text("utf-8").splitlines()
    assert set(project["optional-dependencies"]["transformers"]) <= set(pins)
