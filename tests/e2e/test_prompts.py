"""Chats in the model's own prompt format, or none: real llama.cpp behind a real gateway."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from paddock.registry.catalog import specs_root
from paddock.registry.prompts import find_prompt
from tests.conftest import Paddock
from tests.rewritten import TEMPLATE, rewrite

TINY = specs_root() / "weights" / "tiny-mixtral" / "ggufv2" / "tiny-mixtral.Q4_K_M.gguf"
GO = "{{ if .System }}{{ .System }}{{ end }}{{ .Prompt }}"
CONVERSATION = [
    {"role": "user", "content": "User Instruction 1"},
    {"role": "assistant", "content": "Model answer 1"},
    {"role": "user", "content": "User instruction 2"},
]
PUBLISHED = (
    " [INST] User Instruction 1 [/INST] Model answer 1</s> [INST] User instruction 2 [/INST]"
)
"""Mixtral's, without the <s> that the tokenizer adds."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """GGUFs without a chat template, and with one in Go's language."""
    folder = tmp_path_factory.mktemp("prompts")
    rewrite(TINY, folder / "bare.Q4_K_M.gguf", {TEMPLATE: None})
    rewrite(TINY, folder / "go.Q4_K_M.gguf", {TEMPLATE: GO})
    return folder


@contextmanager
def launched(paddock: Paddock, name: str, *options: str) -> Iterator[str]:
    """A model that serves, under an id of its own."""
    uid = f"prompts-{name}"
    chosen = ("--model-format", "ggufv2", "-q", "Q4_K_M", "--force", "-u", uid)
    yield paddock.ok("launch", name, *chosen, *options).strip()
    paddock.ok("terminate", "-u", uid)


def asked(paddock: Paddock, path: str, **body: Any) -> tuple[int, dict[str, Any]]:
    """Status and JSON of a request."""
    answer = requests.post(
        f"{paddock.record['endpoint']}{path}", json={"max_tokens": 2, **body}, timeout=60
    )
    return answer.status_code, answer.json()


def prompt_tokens(paddock: Paddock, uid: str) -> int:
    """How many tokens the conversation is for the engine."""
    status, answer = asked(paddock, "/v1/chat/completions", model=uid, messages=CONVERSATION)
    assert status == 200, answer
    return int(answer["usage"]["prompt_tokens"])


def published_tokens(paddock: Paddock, uid: str) -> int:
    """How many the published prompt is."""
    status, answer = asked(paddock, "/v1/completions", model=uid, prompt=PUBLISHED)
    assert status == 200, answer
    return int(answer["usage"]["prompt_tokens"])


def chat_of(paddock: Paddock, uid: str) -> dict[str, Any]:
    """How its replica says that it chats."""
    (replica,) = paddock.json("describe", uid)["replica_statuses"]
    return dict(replica["chat"])


def test_a_gguf_without_a_template_gets_the_published_prompt(
    shared_paddock: Paddock, files: Path
) -> None:
    """mixtral-instruct-v0.1 from such a file is asked as its makers publish it."""
    path = files / "bare.Q4_K_M.gguf"
    with launched(shared_paddock, "mixtral-instruct-v0.1", "--model-path", str(path)) as uid:
        assert prompt_tokens(shared_paddock, uid) == published_tokens(shared_paddock, uid)
        chat = chat_of(shared_paddock, uid)
        assert (chat["source"], chat["format"]) == ("spec", "mistral-v1")


def test_without_any_template_there_is_no_chat(shared_paddock: Paddock, files: Path) -> None:
    """tiny-mixtral's spec names no format: without its template it generates and does not chat."""
    path = files / "bare.Q4_K_M.gguf"
    with launched(shared_paddock, "tiny-mixtral", "--model-path", str(path)) as uid:
        assert asked(shared_paddock, "/v1/completions", model=uid, prompt="The")[0] == 200
        for route, body in (
            ("/v1/chat/completions", {"messages": CONVERSATION}),
            ("/v1/messages", {"messages": CONVERSATION}),
        ):
            status, answer = asked(shared_paddock, route, model=uid, **body)
            assert status == 400
            assert "no chat template" in answer["error"]["message"]
            assert "--chat-template" in answer["error"]["message"]
        told = shared_paddock.json("describe", uid)
        assert told["model_ability"] == ["generate"]


def test_a_foreign_template_leaves_a_model_that_generates(
    shared_paddock: Paddock, files: Path
) -> None:
    """A template in Go's language costs the chats; one from a file brings them back."""
    go = ("--model-path", str(files / "go.Q4_K_M.gguf"))
    with launched(shared_paddock, "tiny-mixtral", *go) as uid:
        assert asked(shared_paddock, "/v1/completions", model=uid, prompt="The")[0] == 200
        status, answer = asked(
            shared_paddock, "/v1/chat/completions", model=uid, messages=CONVERSATION
        )
        assert status == 400
        assert "chat template" in answer["error"]["message"]
    mended = files / "mended.jinja"
    mended.write_text(find_prompt("mistral-v1").template)
    with launched(shared_paddock, "tiny-mixtral", *go, "--chat-template", str(mended)) as uid:
        assert prompt_tokens(shared_paddock, uid) == published_tokens(shared_paddock, uid)
        assert chat_of(shared_paddock, uid)["source"] == "plan"
    with launched(shared_paddock, "mixtral-instruct-v0.1", *go) as uid:  # its spec's stands in
        assert prompt_tokens(shared_paddock, uid) == published_tokens(shared_paddock, uid)


def test_the_users_template_counts_before_the_weights_own(
    shared_paddock: Paddock, files: Path
) -> None:
    """A format by its name, and a template from a file, in place of the one in the GGUF."""
    own = ("--model-path", str(TINY))
    with launched(shared_paddock, "tiny-mixtral", *own) as uid:
        assert chat_of(shared_paddock, uid)["source"] == "weights"
        by_weights = prompt_tokens(shared_paddock, uid)
    with launched(shared_paddock, "tiny-mixtral", *own, "--chat-template", "chatml") as uid:
        assert prompt_tokens(shared_paddock, uid) > by_weights
        assert chat_of(shared_paddock, uid)["format"] == "chatml"


def test_a_broken_template_is_refused_before_anything_starts(
    shared_paddock: Paddock, tmp_path: Path
) -> None:
    """By its line; and a name that is no format, with the nearest."""
    (tmp_path / "broken.jinja").write_text("{% for message in messages %}\n{{ message.content }")
    done = shared_paddock.run(
        *("launch", "tiny-mixtral", "--dry-run", "--chat-template", str(tmp_path / "broken.jinja"))
    )
    assert done.returncode != 0
    assert "line 2" in done.stderr
    done = shared_paddock.run("launch", "tiny-mixtral", "--dry-run", "--chat-template", "mistralv1")
    assert done.returncode != 0
    assert "did you mean mistral-v1" in done.stderr
