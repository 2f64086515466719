"""Engines and their environments, over REST."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest
from starlette.types import ASGIApp

from tests.server.asgi import call, gateway


@pytest.fixture
def app(home: Path) -> Iterator[ASGIApp]:
    """A gateway without models, in this process."""
    with gateway(home) as app:
        yield app


async def test_each_engine_says_how_it_is(app: ASGIApp) -> None:
    """llama.cpp is here with a version; one that is not installed says what installs it."""
    answer = await call(app, "GET", "/v1/engines")
    found = {engine["name"]: engine for engine in answer.json["engines"]}
    llama, vllm = found["llama.cpp"], found["vLLM"]
    assert (llama["installed"], llama["reason"], llama["installable"]) == (True, None, False)
    assert llama["version"]
    assert (vllm["installed"], vllm["version"], vllm["environment"]) == (False, None, None)
    assert "paddock engine install vllm" in vllm["reason"]


async def test_each_option_can_be_asked_for_in_a_form(app: ASGIApp) -> None:
    """The options are a JSON schema in which each has a description and a type or a choice."""
    for engine in (await call(app, "GET", "/v1/engines")).json["engines"]:
        schema = engine["options"]
        jsonschema.Draft202012Validator.check_schema(schema)
        assert schema["additionalProperties"] is False
        for name, option in schema["properties"].items():
            assert option["description"], name
            assert {"type", "enum", "const", "anyOf"} & set(option), name
