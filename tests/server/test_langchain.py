"""LangChain against a real gateway: its OpenAI classes, and its own copies of Xinference's."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from paddock.client import Client
from tests.lazy import Lazy

embeddings = Lazy("langchain_community.embeddings")
llms = Lazy("langchain_community.llms")
messages = Lazy("langchain_core.messages")
theirs = Lazy("langchain_openai")
tools = Lazy("langchain_core.tools")

PROMPT = "The old elephant"
TEXTS = ["The elephant eats grass.", "The stock market fell today."]


def chatting(client: Client, uid: str, **fields: Any) -> Any:
    given = {"temperature": 0, "max_retries": 0, "max_completion_tokens": 200, **fields}
    return theirs.ChatOpenAI(model=uid, base_url=f"{client.endpoint}/v1", api_key="none", **given)


def test_chat_answers_streams_and_counts(client: Client, tiny: str) -> None:
    """Whole, in pieces and asynchronously it is the same text; usage comes with each."""
    model = chatting(client, tiny, stream_usage=True)
    whole = model.invoke("What do you eat?")
    assert whole.text
    assert whole.usage_metadata is not None
    assert whole.usage_metadata["output_tokens"] > 0
    pieces = list(model.stream("What do you eat?"))
    assert len(pieces) > 2
    assert "".join(piece.text for piece in pieces) == whole.text
    counted = [piece.usage_metadata for piece in pieces if piece.usage_metadata]
    assert counted[-1]["output_tokens"] == whole.usage_metadata["output_tokens"]


async def test_chat_streams_asynchronously(client: Client, tiny: str) -> None:
    """`astream` reads the same stream."""
    model = chatting(client, tiny)
    pieces = [piece.text async for piece in model.astream("What do you eat?")]
    assert "".join(pieces) == (await model.ainvoke("What do you eat?")).text


def test_chat_over_responses(client: Client, tiny: str) -> None:
    """The same over `/v1/responses`, whole and streamed."""
    plain = chatting(client, tiny).invoke("What do you eat?").text
    model = chatting(client, tiny, use_responses_api=True)
    assert model.invoke("What do you eat?").text == plain
    assert "".join(piece.text for piece in model.stream("What do you eat?")) == plain


def feed(food: Literal["grass", "fish"]) -> str:
    """Feeds it."""
    return f"It ate {food}."


def test_tools_are_bound_and_answered(client: Client, toolful: str) -> None:
    """A bound tool is called, its result goes back in, streamed too."""
    model, tool = chatting(client, toolful), tools.tool(feed)
    bound = model.bind_tools([tool], tool_choice="feed")
    answer = bound.invoke("What do you eat?")
    (call,) = answer.tool_calls
    assert call["name"] == "feed"
    assert call["args"]["food"] in {"grass", "fish"}
    streamed: Any = None
    for piece in bound.stream("What do you eat?"):
        streamed = piece if streamed is None else streamed + piece
    assert streamed.tool_calls[0]["name"] == "feed"
    result = messages.ToolMessage(content=tool.invoke(call["args"]), tool_call_id=call["id"])
    history = [messages.HumanMessage("What do you eat?"), answer, result]
    assert isinstance(model.bind_tools([tool]).invoke(history), messages.AIMessage)


class Meal(BaseModel):
    """What somebody eats."""

    plants: bool
    size: int


def test_structured_output_is_of_the_class(client: Client, tiny: str) -> None:
    """A class becomes a schema, and the answer one of its objects."""
    model = chatting(client, tiny).with_structured_output(Meal, method="json_schema")
    assert isinstance(model.invoke("What do you eat?"), Meal)


def test_completions_of_several_prompts(client: Client, tiny: str) -> None:
    """A list of prompts is one request, answered in its order; one prompt streams."""
    model = theirs.OpenAI(
        model=tiny,
        base_url=f"{client.endpoint}/v1",
        api_key="none",
        temperature=0,
        max_tokens=8,
        max_retries=0,
        n=1,
    )
    found = model.generate([PROMPT, "A zebra"])
    alone = [model.invoke(prompt) for prompt in (PROMPT, "A zebra")]
    assert [one[0].text for one in found.generations] == alone
    assert found.llm_output is not None
    assert found.llm_output["token_usage"]["completion_tokens"] == 16
    assert "".join(model.stream(PROMPT)) == alone[0]


class Vocabulary:
    """Words and ids of the embedding model, where LangChain would fetch another's from the net."""

    def __init__(self, words: list[str]) -> None:
        self._ids = {word: number for number, word in enumerate(words)}

    def encode(self, text: str, **_: Any) -> list[int]:
        """`[CLS]`, the words of a text that has no others, `[SEP]`."""
        words = text.lower().replace(".", " .").split()
        return [101, *(self._ids[word] for word in words), 102]

    encode_ordinary = encode


@pytest.mark.parametrize("by_ids", [False, True])
def test_embeddings_of_texts_and_of_token_ids(
    client: Client, embedder: str, minilm: Path, monkeypatch: pytest.MonkeyPatch, by_ids: bool
) -> None:
    """LangChain sends texts or, where it checks the context's length, token ids."""
    words = (minilm / "vocab.txt").read_text().split("\n")
    monkeypatch.setattr("tiktoken.encoding_for_model", lambda _: Vocabulary(words))
    model = theirs.OpenAIEmbeddings(
        model=embedder,
        base_url=f"{client.endpoint}/v1",
        api_key="none",
        check_embedding_ctx_length=by_ids,
        max_retries=0,
    )
    first, second = model.embed_documents(TEXTS)
    assert len(first) == 384
    assert model.embed_query(TEXTS[0]) == pytest.approx(first, abs=1e-3)
    other = embeddings.XinferenceEmbeddings(server_url=client.endpoint, model_uid=embedder)
    assert other.embed_query(TEXTS[1]) == pytest.approx(second, abs=1e-3)
    assert other.embed_documents(TEXTS)[0] == pytest.approx(first, abs=1e-3)


def test_xinferences_class_generates_and_streams(client: Client, tiny: str) -> None:
    """LangChain's own class for Xinference, whole and in pieces."""
    options = {"max_tokens": 8, "temperature": 0}
    model = llms.Xinference(server_url=client.endpoint, model_uid=tiny)
    whole = model.invoke(PROMPT, generate_config=options)
    assert whole
    streaming = {**options, "stream": True}
    assert model.invoke(PROMPT, generate_config=streaming) == whole
    pieces = list(model.stream(PROMPT, generate_config=streaming))
    assert len(pieces) > 2
    assert "".join(pieces) == whole
