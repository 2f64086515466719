"""vLLM behind the same command line and the same API."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import psutil
import pytest

from tests.conftest import Paddock, make_paddock
from tests.launcher.test_hubs import until

QUESTION: Any = [{"role": "user", "content": "What does the elephant eat?"}]


@pytest.fixture(scope="module")
def paddock(vllm_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Paddock]:
    """A home in which vLLM is installed and has launched tiny-mixtral."""
    home = tmp_path_factory.mktemp("vllm")
    (home / "engines").symlink_to(vllm_home / "engines")
    made = make_paddock(home)
    options = ("--dtype", "float32", "--enforce_eager", "true", "--max_num_seqs", "4")
    made.ok(
        *("launch", "tiny-mixtral", "-f", "pytorch", "--model-engine", "vLLM", "-u", "tiny"),
        *options,
    )
    yield made
    assert made.run("stop").returncode == 0
    assert made.processes() == []


@pytest.fixture
def sdk(paddock: Paddock) -> Any:
    return openai.OpenAI(base_url=f"{paddock.record['endpoint']}/v1", api_key="none")


def test_openais_client_is_answered(sdk: Any) -> None:
    """Whole, streamed, several at once, with the probabilities, the usage and a form."""
    ask = {"model": "tiny", "prompt": "The old elephant", "max_tokens": 12, "temperature": 0}
    whole = sdk.completions.create(**ask)
    assert whole.usage.completion_tokens == 12
    pieces = sdk.completions.create(**ask, stream=True)
    assert "".join(piece.choices[0].text for piece in pieces) == whole.choices[0].text
    several = sdk.completions.create(**{**ask, "temperature": 1.2}, n=3, seed=1)
    assert [choice.index for choice in several.choices] == [0, 1, 2]
    both = sdk.completions.create(**{**ask, "prompt": ["The old elephant", "A lion"]})
    assert both.choices[0].text == whole.choices[0].text
    echoed = sdk.completions.create(**ask, echo=True)
    assert echoed.choices[0].text == "The old elephant" + whole.choices[0].text
    probable = sdk.completions.create(**ask, logprobs=2)
    assert len(probable.choices[0].logprobs.tokens) == 12
    chat = sdk.chat.completions.create(
        model="tiny",
        messages=QUESTION,
        max_tokens=16,
        temperature=0,
        logprobs=True,
        top_logprobs=1,
    )
    assert "elephant" in (chat.choices[0].message.content or "").lower()
    assert chat.choices[0].logprobs is not None


def test_anthropics_client_is_answered(paddock: Paddock, sdk: Any) -> None:
    """Which asks for the count of a prompt's tokens too."""
    endpoint = paddock.record["endpoint"]
    with anthropic.Anthropic(base_url=endpoint, api_key="none") as client:
        counted = client.messages.count_tokens(model="tiny", messages=QUESTION)
        told = client.messages.create(model="tiny", messages=QUESTION, max_tokens=8)
    assert told.usage.input_tokens == counted.input_tokens
    chat = sdk.chat.completions.create(model="tiny", messages=QUESTION, max_tokens=1)
    assert chat.usage.prompt_tokens == counted.input_tokens


def test_what_the_engine_cannot_do_is_refused_by_name(sdk: Any) -> None:
    """The field, and the engine that lacks it; nothing is dropped in silence."""
    ask = {"model": "tiny", "prompt": "A lion", "max_tokens": 2}
    for field in ("priority", "use_beam_search", "prompt_logprobs", "wurst"):
        with pytest.raises(openai.BadRequestError, match=f"{field}.*vLLM"):
            sdk.completions.create(**ask, extra_body={field: 1})
    with pytest.raises(openai.BadRequestError, match="2048"):
        sdk.completions.create(**{**ask, "prompt": "the " * 3000})


def test_nothing_is_left_of_an_engine_that_is_killed(paddock: Paddock, sdk: Any) -> None:
    """Its processes outlive the first of them; with the group they all end."""
    (model,) = paddock.client().instances("tiny")
    main = psutil.Process(int(model["replica_statuses"][0]["pid"]))
    below = main.children(recursive=True)
    assert len(below) >= 2
    os.kill(main.pid, signal.SIGKILL)
    until(lambda: paddock.client().instances("tiny")[0]["state"] == "failed")
    (model,) = paddock.client().instances("tiny")
    assert model["diagnosis"]["cause"] == "engine_killed"
    psutil.wait_procs(below, timeout=30)
    assert not [process for process in below if process.is_running()]
