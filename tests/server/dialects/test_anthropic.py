"""Anthropic's own SDK against a real gateway: its messages, streams, tools, counts and errors."""

from __future__ import annotations

import json
from typing import Any

import pytest

from paddock.client import Client
from paddock.registry.errors import BadValue, FieldRefused
from paddock.server.dialects.anthropic import Messages, messages, to_openai
from paddock.server.dialects.base import Model
from tests.conftest import Paddock
from tests.lazy import Lazy

anthropic = Lazy("anthropic")

CHAT: list[Any] = [{"role": "user", "content": "What do you eat?"}]
FEED: Any = {
    "name": "feed",
    "description": "Feeds it",
    "input_schema": {
        "type": "object",
        "properties": {"food": {"enum": ["grass", "fish"]}},
        "required": ["food"],
        "additionalProperties": False,
    },
}
PIXEL = "iVBORw0KGgo="
IMAGE: Any = {
    "type": "image",
    "source": {"type": "base64", "media_type": "image/png", "data": PIXEL},
}


@pytest.fixture(params=["", "/anthropic"])
def sdk(client: Client, request: pytest.FixtureRequest) -> Any:
    """A client of either root; both have the same routes."""
    root = f"{client.endpoint}{request.param}"
    with anthropic.Anthropic(base_url=root, api_key="none", max_retries=0) as made:
        yield made


def wish(uid: str, fields: dict[str, Any]) -> dict[str, Any]:
    """A request. The SDK has no words of its own for sampling; it sends what it is given."""
    found = {"model": uid, "messages": CHAT, "max_tokens": 8, **fields}
    found.setdefault("extra_body", {}).setdefault("temperature", 0)
    return found


def ask(sdk: Any, uid: str, **fields: Any) -> Any:
    return sdk.messages.create(**wish(uid, fields))


def stream(sdk: Any, uid: str, **fields: Any) -> Any:
    return sdk.messages.stream(**wish(uid, fields))


def test_message_is_what_a_chat_would_have_answered(sdk: Any, client: Client, tiny: str) -> None:
    """One text block with the chat's text, its length as usage, and why it ended."""
    answer = ask(sdk, tiny)
    assert (answer.type, answer.role, answer.model) == ("message", "assistant", tiny)
    assert answer.id.startswith("msg_")
    assert answer.stop_reason == "max_tokens"
    assert answer.usage.output_tokens == 8
    (block,) = answer.content
    chat = client.chat(tiny, CHAT, max_tokens=8, temperature=0)
    assert block.text == chat["choices"][0]["message"]["content"]
    assert answer.usage.input_tokens == chat["usage"]["prompt_tokens"]
    assert ask(sdk, tiny).id != answer.id


def test_message_that_ends_by_itself_says_so(sdk: Any, tiny: str) -> None:
    """The model's own end is `end_turn`, though stop sequences were given."""
    answer = ask(sdk, tiny, max_tokens=200, stop_sequences=["xyzzy"])
    assert (answer.stop_reason, answer.stop_sequence) == ("end_turn", None)


def test_stream_has_the_events_of_the_whole_message(sdk: Any, tiny: str) -> None:
    """The helper puts the same message together; events come in Anthropic's order."""
    whole = ask(sdk, tiny)
    with stream(sdk, tiny) as events:
        text = "".join(events.text_stream)
        final = events.get_final_message()
    assert text == whole.content[0].text == final.content[0].text
    assert final.usage == whole.usage
    assert (final.model, final.stop_reason) == (tiny, "max_tokens")
    kinds = [event.type for event in ask(sdk, tiny, stream=True)]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(kinds[2:-3]) == {"content_block_delta"}


def test_system_is_read_as_text_and_as_blocks(sdk: Any, tiny: str) -> None:
    """Both are the same prompt, longer than without; cache marks change nothing."""
    block = {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}
    found = [
        ask(sdk, tiny, system=system).usage.input_tokens for system in ("Be brief.", [block], [])
    ]
    assert found[0] == found[1] > found[2]


def test_answer_that_was_begun_is_continued(sdk: Any, tiny: str) -> None:
    """A conversation that ends with the assistant is continued behind its last word."""
    text = ask(sdk, tiny).content[0].text
    begun = [*CHAT, {"role": "assistant", "content": text}]
    assert ask(sdk, tiny, messages=begun, max_tokens=3).content[0].text not in text


def test_stop_sequence_ends_before_its_text_and_is_named(sdk: Any, tiny: str) -> None:
    """Whole and streamed: the text ends before it, and the message names which it was."""
    text = ask(sdk, tiny).content[0].text
    word = f" {text.split()[3]}"
    fields: Any = {"stop_sequences": ["xyzzy", word]}
    answer = ask(sdk, tiny, **fields)
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", word)
    assert answer.content[0].text == text[: text.index(word)]
    with stream(sdk, tiny, **fields) as events:
        final = events.get_final_message()
    assert (final.stop_reason, final.stop_sequence) == ("stop_sequence", word)
    assert final.content[0].text == answer.content[0].text


def test_tools_are_called_whole_and_streamed(sdk: Any, toolful: str) -> None:
    """A required tool is called with input of its schema; the stream's pieces are its JSON."""
    choice: Any = {"type": "tool", "name": "feed", "disable_parallel_tool_use": True}
    fields: Any = {"tools": [FEED], "tool_choice": choice, "max_tokens": 200}
    answer = ask(sdk, toolful, **fields)
    (call,) = answer.content
    assert (answer.stop_reason, call.type, call.name) == ("tool_use", "tool_use", "feed")
    assert call.input["food"] in {"grass", "fish"}
    with stream(sdk, toolful, **{**fields, "tool_choice": {"type": "any"}}) as events:
        pieces = "".join(e.partial_json for e in events if e.type == "input_json")
        final = events.get_final_message()
    assert json.loads(pieces) == final.content[0].input
    assert final.stop_reason == "tool_use"
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "It is full."}
    history = [
        *CHAT,
        {"role": "assistant", "content": answer.to_dict()["content"]},
        {"role": "user", "content": [result, {"type": "text", "text": "And now?"}]},
    ]
    after = ask(sdk, toolful, messages=history, tools=[FEED])
    assert after.usage.input_tokens > answer.usage.input_tokens
    assert ask(sdk, toolful, tools=[FEED], tool_choice={"type": "none"}).stop_reason != "tool_use"


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"system": "You are a zebra."},
        {"tools": [FEED]},
        {"messages": [*CHAT, {"role": "assistant", "content": "Grass."}, *CHAT]},
    ],
)
def test_count_is_what_the_message_has(sdk: Any, toolful: str, fields: dict[str, Any]) -> None:
    """The count of a conversation is the usage of the message that answers it."""
    counted = sdk.messages.count_tokens(**{"model": toolful, "messages": CHAT, **fields})
    assert counted.input_tokens == ask(sdk, toolful, **fields).usage.input_tokens > 5


def test_models_are_listed_and_retrieved(client: Client, tiny: str) -> None:
    """Under `/anthropic`, where they have its shape."""
    root = f"{client.endpoint}/anthropic"
    with anthropic.Anthropic(base_url=root, api_key="none", max_retries=0) as sdk:
        (found,) = [model for model in sdk.models.list() if model.id == tiny]
        assert sdk.models.retrieve(tiny) == found
        assert found.display_name == "tiny-mixtral"
        assert found.created_at.year >= 2026
        assert found.max_input_tokens == 2048
        with pytest.raises(anthropic.NotFoundError, match="nobody"):
            sdk.models.retrieve("nobody")


def test_unknown_model_is_not_found(sdk: Any, tiny: str) -> None:
    """Its class, Anthropic's envelope and our own fields, streamed or not."""
    for fields in ({}, {"stream": True}):
        with pytest.raises(anthropic.NotFoundError) as refused:
            ask(sdk, f"{tiny}y", **fields)
        body: Any = refused.value.body
        assert body["type"] == "error"
        assert body["error"]["type"] == "not_found_error"
        assert body["error"]["close"] == [tiny]
        assert body["detail"] == body["error"]["message"]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"extra_body": {"max_tokens": None}}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"extra_body": {"temperature": -1}}, "temperature"),
        ({"stop_sequences": "x"}, "stop_sequences"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "judge", "content": "x"}]}, "role"),
        ({"messages": [{"role": "user", "content": 5}]}, "content"),
        ({"messages": [{"role": "user", "content": [{"type": "document"}]}]}, "document"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "text"),
        ({"messages": [{"role": "user", "content": [IMAGE]}]}, "vision"),
        ({"system": [{"type": "image"}]}, "system"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "web_search"),
        ({"tools": [{"name": "f"}]}, "input_schema"),
        ({"tools": [FEED]}, "tools"),
        ({"tool_choice": "any"}, "tool_choice"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "reasoning"),
        ({"thinking": {"type": "sometimes"}}, "thinking"),
        ({"output_config": {"effort": "low"}}, "reasoning"),
        ({"output_config": {"task_budget": 5}}, "task_budget"),
        ({"container": "c"}, "container"),
        ({"inference_geo": "us"}, "inference_geo"),
        ({"service_tier": "priority"}, "service_tier"),
        ({"extra_body": {"mcp_servers": [{"name": "x"}]}}, "mcp_servers"),
        ({"extra_body": {"n": 2}}, "n 2"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(
    sdk: Any, tiny: str, fields: dict[str, Any], says: str
) -> None:
    """A 400 in Anthropic's envelope that names the field."""
    with pytest.raises(anthropic.BadRequestError) as refused:
        ask(sdk, tiny, **fields)
    body: Any = refused.value.body
    assert body["error"]["type"] == "invalid_request_error"
    assert says in body["error"]["message"]


def test_too_long_a_prompt_is_refused_in_its_envelope(sdk: Any, tiny: str) -> None:
    """The engine's refusal has its numbers beside Anthropic's fields."""
    with pytest.raises(anthropic.BadRequestError) as refused:
        ask(sdk, tiny, messages=[{"role": "user", "content": "hello " * 5000}])
    body: Any = refused.value.body
    assert body["error"]["type"] == "invalid_request_error"
    assert body["error"]["n_ctx"] == 2048


def test_neutral_fields_change_nothing(sdk: Any, tiny: str) -> None:
    """Fields that identify a caller or ask for a default are taken, and every beta header."""
    told = ask(
        sdk,
        tiny,
        metadata={"user_id": "me"},
        service_tier="auto",
        thinking={"type": "disabled"},
        output_config={"effort": "high"},
        stop_sequences=[],
        extra_headers={"anthropic-beta": "whatever-2026-01-01", "anthropic-version": "1"},
    )
    assert told.content == ask(sdk, tiny).content
    told = ask(sdk, tiny, extra_body={"top_k": 1, "min_p": 0.1, "temperature": 1})
    assert told.content == ask(sdk, tiny).content


def test_json_of_a_schema(sdk: Any, tiny: str) -> None:
    """The text is JSON of the schema in `output_config.format`."""
    wanted = {"type": "json_schema", "schema": FEED["input_schema"]}
    answer = ask(sdk, tiny, max_tokens=100, output_config={"format": wanted})
    assert json.loads(answer.content[0].text)["food"] in {"grass", "fish"}


async def test_asynchronous_client_streams(client: Client, tiny: str) -> None:
    """The SDK's other client reads the same stream."""
    sdk = anthropic.AsyncAnthropic(base_url=client.endpoint, api_key="none", max_retries=0)
    async with (
        sdk,
        sdk.messages.stream(model=tiny, max_tokens=8, messages=CHAT) as events,
    ):
        text = "".join([piece async for piece in events.text_stream])
        assert text == (await events.get_final_message()).content[0].text  # type: ignore[union-attr]


def test_engine_that_dies_is_told_in_its_words(client: Client, shared_paddock: Paddock) -> None:
    """In the middle of a stream it is Anthropic's event `error`, which the SDK raises."""
    shared_paddock.ok("launch", "tiny-mixtral", "-en", "echo", "-u", "mortal", "--die_after", "3")
    body = {"model": "mortal", "max_tokens": 9, "messages": CHAT}
    with anthropic.Anthropic(base_url=client.endpoint, api_key="none", max_retries=0) as sdk:
        events: Any = sdk.messages.create(**body, stream=True)  # type: ignore[call-overload]
        with pytest.raises(anthropic.APIStatusError, match="broke off") as lost:
            list(events)
    told: Any = lost.value.body
    assert (told["type"], told["error"]["type"]) == ("error", "api_error")
    shared_paddock.ok("terminate", "-u", "mortal")


def given(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "max_tokens": 5, "messages": CHAT, **fields}


def test_images_become_parts() -> None:
    """Base64 becomes a data URL, a URL stays one; text around them keeps its place."""
    sources = [
        {"type": "base64", "media_type": "image/png", "data": PIXEL},
        {"type": "url", "url": "https://example.org/zebra.png"},
    ]
    content: list[dict[str, Any]] = [{"type": "text", "text": "See"}]
    content += [{"type": "image", "source": source} for source in sources]
    chat, _ = to_openai(given(messages=[{"role": "user", "content": content}]))
    (message,) = chat["messages"]
    assert message["content"] == [
        {"type": "text", "text": "See"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
        {"type": "image_url", "image_url": {"url": "https://example.org/zebra.png"}},
    ]
    wrong = {"type": "image", "source": {"type": "file", "file_id": "x"}}
    with pytest.raises(BadValue, match="file"):
        to_openai(given(messages=[{"role": "user", "content": [wrong]}]))


def test_history_of_tools_and_thoughts_is_kept() -> None:
    """Thoughts, calls and results come in the chat's own places, errors said to be such."""
    history = [
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": ""},
                {"type": "text", "text": "I feed it."},
                {"type": "tool_use", "id": "t1", "name": "feed", "input": {"food": "Grün"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": "No.", "is_error": True},
                {"type": "text", "text": "Go on"},
            ],
        },
    ]
    chat, _ = to_openai(given(messages=history))
    call = {
        "id": "t1",
        "type": "function",
        "function": {"name": "feed", "arguments": '{"food": "Grün"}'},
    }
    assert chat["messages"] == [
        {
            "role": "assistant",
            "content": "I feed it.",
            "reasoning_content": "Hm.",
            "tool_calls": [call],
        },
        {"role": "tool", "tool_call_id": "t1", "content": "Error:\nNo."},
        {"role": "user", "content": "Go on"},
    ]


def reasoner(**fields: Any) -> Model:
    from paddock.engines.base import RequestFields

    taken = RequestFields(honoured=frozenset(("max_tokens",)), **fields)
    return Model("m", ("generate", "chat", "reasoning"), "some", taken, 2048)


def test_thinking_is_translated_where_the_engine_can() -> None:
    """It is an argument of the chat template; its budget is given where there is one."""
    fields = frozenset(("chat_template_kwargs", "reasoning_budget_tokens"))
    thinking = {"type": "enabled", "budget_tokens": 1024}
    chat, encoder = to_openai(given(thinking=thinking))
    body = json.loads(messages(chat, reasoner(chat=fields), b"", encoder).bodies[0])
    assert body["chat_template_kwargs"] == {"enable_thinking": True}
    assert body["reasoning_budget_tokens"] == 1024
    with pytest.raises(FieldRefused, match="enable_thinking"):
        messages(chat, reasoner(), b"", encoder)


def chunk(finish: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def read(data: bytes) -> list[dict[str, Any]]:
    found = []
    for block in data.decode().split("\n\n")[:-1]:
        name, payload = block.split("\n")
        found.append(json.loads(payload.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


def test_blocks_open_and_close_one_by_one() -> None:
    """Thoughts, text and each of two calls are blocks of their own, numbered in their order."""
    encoder = Messages("m")
    function = {"name": "feed", "arguments": ""}
    events = [
        chunk(role="assistant", content=None),
        chunk(reasoning_content="Hm"),
        chunk(reasoning_content="."),
        chunk(content="I"),
        chunk(tool_calls=[{"index": 0, "id": "a", "function": function}]),
        chunk(tool_calls=[{"index": 0, "function": {"arguments": "{}"}}]),
        chunk(tool_calls=[{"index": 1, "id": "b", "function": {**function, "arguments": "{}"}}]),
        chunk("tool_calls"),
        {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 9}},
    ]
    found = read(b"".join(map(encoder.event, events)) + encoder.close())
    started = [e["content_block"]["type"] for e in found if e["type"] == "content_block_start"]
    assert started == ["thinking", "text", "tool_use", "tool_use"]
    order = [(e["type"][14:], e["index"]) for e in found if "index" in e]
    expected = [("start", 0), ("delta", 0), ("delta", 0), ("stop", 0)]
    expected += [("start", 1), ("delta", 1), ("stop", 1)]
    expected += [(step, at) for at in (2, 3) for step in ("start", "delta", "stop")]
    assert order == expected
    assert found[-2]["delta"]["stop_reason"] == "tool_use"
    assert found[-2]["usage"]["input_tokens"] == 3
    assert found[-2]["usage"]["output_tokens"] == 9


def test_error_ends_a_stream() -> None:
    """It is an event of its own, and nothing follows it."""
    encoder = Messages("m")
    encoder.event(chunk(content="I"))
    (told,) = read(encoder.error({"error": {"message": "gone", "type": "server_error"}}))
    assert told["error"] == {"message": "gone", "type": "api_error"}
    assert encoder.event(chunk(content="I")) + encoder.close() == b""


def test_call_that_was_cut_off_is_a_call_without_input() -> None:
    """Its text is no answer; the reason is the length, by which clients ask again for more."""
    call = {"id": "a", "type": "function", "function": {"name": "feed", "arguments": '{"fo'}}
    choice = {"message": {"content": None, "tool_calls": [call]}, "finish_reason": "length"}
    found = Messages("m").encode_answer({"choices": [choice]})
    assert found["content"] == [{"type": "tool_use", "id": "a", "name": "feed", "input": {}}]
    assert found["stop_reason"] == "max_tokens"
