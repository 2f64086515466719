"""Prompts beyond the context, as engines tell of them and as each dialect's clients know it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from paddock.server.dialects import anthropic
from paddock.server.proxy.context_excess import CODE
from paddock.server.proxy.engine_errors import error_body
from paddock.server.proxy.sinks import EngineRefused

# As llama.cpp, vLLM (two of its versions), SGLang, Transformers and sentence-transformers say it.
ERRORS: list[Any] = [
    {"error": {"code": 400, "message": "request (5007 tokens) exceeds the available context size "
               "(2048 tokens), try increasing it", "n_prompt_tokens": 5007, "n_ctx": 2048}},
    {"error": {"message": "This model's maximum context length is 2048 tokens. However, you "
               "requested 5007 tokens (5000 in the messages, 7 in the completion). Please reduce "
               "the length of the messages or completion."}},
    {"error": {"message": "This model's maximum context length is 2048 tokens. However, your "
               "request has 5007 input tokens. Please reduce the length."}},
    {"message": "The decoder prompt (length 5007) is longer than the maximum model length of "
                "2048."},
    {"error": {"message": "The input (5007 tokens) is longer than the model's context length "
               "(2048 tokens)."}},
    {"error": {"message": "the prompt has 5007 tokens, and the context 2048"}},
    {"error": {"message": "input[0]: has 5007 tokens, and the model takes 2048"}},
]  # fmt: skip


def body_of(error: Any, status: int = 400) -> dict[str, Any]:
    return error_body(EngineRefused(status, json.dumps(error).encode()))


@pytest.mark.parametrize("error", ERRORS)
def test_it_has_openais_code_and_both_numbers(error: Any) -> None:
    """Whatever the engine says; clients find them in the message and in fields of their own."""
    told = body_of(error)["error"]
    assert (told["code"], told["type"]) == (CODE, "invalid_request_error")
    assert (told["n_prompt_tokens"], told["n_ctx"], told["param"]) == (5007, 2048, "prompt")
    assert "maximum context length is 2048 tokens" in told["message"]
    assert "5007 tokens" in told["message"]
    assert told["layer"] == "engine"


def test_anthropics_clients_know_it_by_its_words() -> None:
    """Claude Code compacts its history by them."""
    told = anthropic.render_error(body_of(ERRORS[0]))
    assert told["error"]["message"] == "prompt is too long: 5007 tokens > 2048 maximum"
    assert (told["type"], told["error"]["type"]) == ("error", "invalid_request_error")


@pytest.mark.parametrize(
    "error",
    [
        {"error": {"message": "max_tokens must be at least 1, got 0 (2048)"}},
        {"error": {"message": "the model has 5 experts and a context of 2048"}},
        {"error": "context"},
        {"error": {"message": "x", "n_prompt_tokens": "5007", "n_ctx": True}},
    ],
)
def test_other_errors_stay_as_they_are(error: Any) -> None:
    """They keep the engine's words and our code."""
    assert body_of(error)["error"]["code"] == "EngineRefused"
    assert body_of(ERRORS[0], 500)["error"]["code"] == "EngineRefused"
