"""What a model's chat template means for its requests: refusals by name, and ends of answers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from paddock.engines import load_engine
from paddock.launcher.fleet.status import ModelStatus
from paddock.launcher.planning.plan import LaunchRequest
from paddock.launcher.planning.resolve import resolve
from paddock.launcher.replicas.status import ReplicaStatus
from paddock.registry.catalog import Catalog
from paddock.registry.errors import NotAble
from paddock.registry.json_codec import encode
from paddock.server.dialects import openai
from paddock.server.dialects.base import Model
from tests.launcher.replicas.test_prompt import HOST

MESSAGES = [{"role": "user", "content": "a"}]
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]


def model(engine: str = "llama.cpp", **chat: Any) -> Model:
    """One that chats in such a way."""
    fields = load_engine(engine).fields
    return Model("m", ("generate", "chat"), engine, fields, 100, chat=chat)


def sent(of: Model, **fields: Any) -> dict[str, Any]:
    """What its engine is sent for a chat."""
    body = {"model": "m", "messages": MESSAGES, **fields}
    (part,) = openai.chat(body, of, encode(body)).bodies
    return dict(json.loads(part))


def status(**chat: Any) -> ModelStatus:
    """A model whose replica chats in such a way."""
    request = LaunchRequest.parse(model_name="tiny-mixtral", force=True)
    plan = resolve(request, Catalog.load(), [HOST]).model_copy(
        update={"abilities": ("generate", "chat", "tools")}
    )
    replicas = (ReplicaStatus("m-rep0"), ReplicaStatus("m-rep1", state="ready", chat=chat))
    return ModelStatus("m", plan, 0.0, replicas)


def test_a_model_without_a_template_has_no_chat() -> None:
    """Its abilities say so, and a request gets the reason and the way out."""
    bare = status(source="none", reason="the weights bring no chat template")
    assert bare.abilities == ("generate",)
    with pytest.raises(NotAble, match="no chat template; launch it with --chat-template FILE"):
        openai.chat({"model": "m", "messages": MESSAGES}, Model.of(bare))


def test_tools_that_the_template_does_not_show_are_refused() -> None:
    """They would be dropped in silence."""
    toolless = status(source="spec", tools=False, reason="")
    assert toolless.abilities == ("generate", "chat")
    with pytest.raises(NotAble, match="shows no tools"):
        openai.chat({"model": "m", "messages": MESSAGES, "tools": TOOLS}, Model.of(toolless))
    assert "tools" in status(source="weights", tools=None, reason="").abilities


@pytest.mark.parametrize("engine", ["vLLM", "SGLang"])
def test_tokens_that_end_a_turn_are_sent_with_chats(engine: str) -> None:
    """Beside the request's own; nothing is added where the weights name them all."""
    assert sent(model(engine, stop_token_ids=[7]))["stop_token_ids"] == [7]
    assert sent(model(engine, stop_token_ids=[7]), stop_token_ids=[3])["stop_token_ids"] == [3, 7]
    assert "stop_token_ids" not in sent(model(engine, stop_token_ids=[]))
    assert "stop_token_ids" not in sent(model(stop_token_ids=[7]))  # llama.cpp knows them


def test_texts_that_end_a_turn_are_sent_with_chats() -> None:
    """Beside the request's own, be they one or several."""
    plain = model(stop=["User:"])
    assert sent(plain)["stop"] == ["User:"]
    assert sent(plain, stop="x")["stop"] == ["x", "User:"]
    assert sent(plain, stop=["x", "y"])["stop"] == ["x", "y", "User:"]
