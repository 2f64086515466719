"""OpenAI's SDK against `/v1/responses` of a real gateway: answers, events, tools, refusals."""

from __future__ import annotations

import json
from typing import Any

import pytest

from paddock.client import Client
from paddock.server.dialects.responses import Responses, to_openai
from tests.lazy import Lazy

openai = Lazy("openai")

SCHEMA = {
    "type": "object",
    "properties": {"food": {"enum": ["grass", "fish"]}},
    "required": ["food"],
    "additionalProperties": False,
}
FEED: Any = {"type": "function", "name": "feed", "parameters": SCHEMA, "strict": True}


@pytest.fixture
def sdk(client: Client) -> Any:
    with openai.OpenAI(base_url=f"{client.endpoint}/v1", api_key="none", max_retries=0) as made:
        yield made


def ask(sdk: Any, uid: str, **fields: Any) -> Any:
    given = {"input": "What do you eat?", "max_output_tokens": 8, "temperature": 0}
    return sdk.responses.create(model=uid, **{**given, **fields})


def test_response_is_what_a_chat_would_have_answered(sdk: Any, client: Client, tiny: str) -> None:
    """One message with the chat's text; its length as usage; cut off, it says why."""
    answer = ask(sdk, tiny)
    chat = client.chat(
        tiny, [{"role": "user", "content": "What do you eat?"}], max_tokens=8, temperature=0
    )
    assert answer.output_text == chat["choices"][0]["message"]["content"]
    assert (answer.object, answer.model) == ("response", tiny)
    assert answer.id.startswith("resp_")
    assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    (item,) = answer.output
    assert (item.type, item.role, item.content[0].annotations) == ("message", "assistant", [])
    assert answer.usage.input_tokens == chat["usage"]["prompt_tokens"]
    assert answer.usage.output_tokens == 8
    assert answer.usage.total_tokens == answer.usage.input_tokens + 8
    assert ask(sdk, tiny, max_output_tokens=200).status == "completed"


def test_answer_says_what_was_asked(sdk: Any, tiny: str) -> None:
    """The request's own fields are in it; it was not stored, whatever was asked."""
    answer = ask(sdk, tiny, store=True, metadata={"a": "b"}, user="me", truncation="disabled")
    assert answer.metadata == {"a": "b"}
    assert (answer.temperature, answer.max_output_tokens, answer.user) == (0, 8, "me")
    assert answer.model_extra["store"] is False
    assert answer.previous_response_id is None


def test_stream_has_the_events_of_the_whole_response(sdk: Any, tiny: str) -> None:
    """Numbered without a gap, in OpenAI's order; the last has the whole response."""
    whole = ask(sdk, tiny, max_output_tokens=200)
    events = list(ask(sdk, tiny, max_output_tokens=200, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events]
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert kinds[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert set(kinds[4:-4]) == {"response.output_text.delta"}
    final = events[-1].response
    assert "".join(event.delta for event in events[4:-4]) == whole.output_text
    assert final.output_text == whole.output_text
    assert final.usage.output_tokens == whole.usage.output_tokens
    assert {event.response.id for event in (events[0], events[1], events[-1])} == {final.id}
    assert list(ask(sdk, tiny, stream=True))[-1].type == "response.incomplete"


def test_helper_puts_a_stream_together(sdk: Any, tiny: str) -> None:
    """The SDK's `stream` gives the text in pieces and the final response."""
    with sdk.responses.stream(model=tiny, input="What do you eat?", temperature=0) as events:
        text = "".join(e.delta for e in events if e.type == "response.output_text.delta")
        final = events.get_final_response()
    assert final.output_text == text


def test_conversation_comes_as_items(sdk: Any, tiny: str) -> None:
    """Instructions and messages make the same prompt as a chat; what was answered goes back in."""
    text = ask(sdk, tiny)
    again: list[Any] = [
        {"role": "user", "content": [{"type": "input_text", "text": "What do you eat?"}]},
        *(item.to_dict() for item in text.output),
        {"type": "message", "role": "user", "content": "And now?"},
    ]
    longer = ask(sdk, tiny, input=again)
    told = ask(sdk, tiny, input=again, instructions="Be brief.")
    asked = [{"role": "developer", "content": "Be brief."}, *again]
    assert text.usage.input_tokens < longer.usage.input_tokens < told.usage.input_tokens
    assert ask(sdk, tiny, input=asked).usage.input_tokens == told.usage.input_tokens


def test_tools_are_called_whole_and_streamed(sdk: Any, toolful: str) -> None:
    """A required function is called with arguments of its schema; its output goes back in."""
    fields: Any = {"tools": [FEED], "tool_choice": "required", "max_output_tokens": 200}
    answer = ask(sdk, toolful, **fields)
    (call,) = answer.output
    assert (call.type, call.name, call.status) == ("function_call", "feed", "completed")
    assert json.loads(call.arguments)["food"] in {"grass", "fish"}
    assert answer.status == "completed"
    named = {"type": "function", "name": "feed"}
    events = list(ask(sdk, toolful, **{**fields, "tool_choice": named, "stream": True}))
    pieces = [e.delta for e in events if e.type == "response.function_call_arguments.delta"]
    (done,) = [e for e in events if e.type == "response.function_call_arguments.done"]
    assert "".join(pieces) == done.arguments == events[-1].response.output[0].arguments
    assert done.name == "feed"
    history: list[Any] = [
        {"role": "user", "content": "What do you eat?"},
        call.to_dict(),
        {"type": "function_call_output", "call_id": call.call_id, "output": "It is full."},
    ]
    after = ask(sdk, toolful, input=history, tools=[FEED])
    assert after.usage.input_tokens > answer.usage.input_tokens


def test_text_format_makes_json_of_the_schema(sdk: Any, tiny: str) -> None:
    """The text is JSON of the schema."""
    wanted = {"type": "json_schema", "name": "meal", "schema": SCHEMA, "strict": True}
    answer = ask(sdk, tiny, max_output_tokens=100, text={"format": wanted})
    assert json.loads(answer.output_text)["food"] in {"grass", "fish"}
    assert answer.text.format.name == "meal"
    assert ask(sdk, tiny, text={"format": {"type": "text"}}).output_text == (
        ask(sdk, tiny).output_text
    )


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"background": True}, "background"),
        ({"truncation": "auto"}, "truncation"),
        ({"include": ["message.output_text.logprobs"]}, "include"),
        ({"max_tool_calls": 3}, "max_tool_calls"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"tools": [{"type": "web_search"}]}, "web_search"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tools": [FEED]}, "tools"),
        ({"tool_choice": {"type": "file_search"}}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"reasoning": {"effort": "low"}}, "reasoning"),
        ({"reasoning": {"summary": "detailed"}}, "reasoning.summary"),
        ({"text": {"format": {"type": "grammar"}}}, "text.format"),
        ({"text": {"verbosity": "low"}}, "verbosity"),
        ({"input": []}, "input"),
        ({"input": [{"role": "judge", "content": "x"}]}, "input[0].role"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "item_reference"),
        ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "input_file"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "image_url"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"service_tier": "flex"}, "service_tier"),
        ({"instructions": 5}, "instructions"),
        ({"extra_body": {"n": 2}}, "n 2"),
        ({"extra_body": {"temprature": 2}}, "temperature"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(
    sdk: Any, tiny: str, fields: dict[str, Any], says: str
) -> None:
    """A 400 that names the field, as responses call it."""
    with pytest.raises(openai.BadRequestError) as refused:
        ask(sdk, tiny, **fields)
    assert says in str(refused.value)


def test_unknown_model_is_404(sdk: Any, tiny: str) -> None:
    """Streamed or not."""
    for streamed in (False, True):
        with pytest.raises(openai.NotFoundError, match=f"did you mean {tiny}"):
            ask(sdk, f"{tiny}y", stream=streamed)


def chunk(finish: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def read(data: bytes) -> list[dict[str, Any]]:
    found = []
    for block in data.decode().split("\n\n")[:-1]:
        name, payload = block.split("\n")
        found.append(json.loads(payload.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


def test_items_begin_and_end_one_by_one() -> None:
    """Thoughts, text and each of two calls are items of their own, numbered in their order."""
    encoder = Responses({"model": "m"})
    function = {"name": "feed", "arguments": "{}"}
    events = [
        chunk(reasoning_content="Hm"),
        chunk(content="I"),
        chunk(tool_calls=[{"index": 0, "id": "a", "function": {**function, "arguments": "{"}}]),
        chunk(tool_calls=[{"index": 0, "function": {"arguments": "}"}}]),
        chunk(tool_calls=[{"index": 1, "id": "b", "function": function}]),
        chunk("tool_calls"),
        {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 9}},
    ]
    found = read(b"".join(map(encoder.event, events)) + encoder.close())
    assert [e["sequence_number"] for e in found] == list(range(len(found)))
    added = [e for e in found if e["type"] == "response.output_item.added"]
    done = [e for e in found if e["type"] == "response.output_item.done"]
    kinds = ["reasoning", "message", "function_call", "function_call"]
    assert [e["item"]["type"] for e in added] == [e["item"]["type"] for e in done] == kinds
    assert [e["output_index"] for e in added] == [0, 1, 2, 3]
    assert [e["item"]["id"] for e in added] == [e["item"]["id"] for e in done]
    final = found[-1]["response"]
    assert final["output"] == [e["item"] for e in done]
    assert final["output"][2] | {"id": ""} == {
        "id": "",
        "type": "function_call",
        "status": "completed",
        "call_id": "a",
        "name": "feed",
        "arguments": "{}",
    }
    assert final["usage"]["total_tokens"] == 12
    assert final["status"] == "completed"


def test_error_ends_a_stream() -> None:
    """It has OpenAI's fields, and the object that its SDK raises; nothing follows it."""
    encoder = Responses({"model": "m"})
    encoder.event(chunk(content="I"))
    told: Any = {"message": "gone", "code": "EngineLost", "type": "server_error"}
    (event,) = read(encoder.error({"error": told}))
    assert (event["type"], event["message"], event["error"]) == ("error", "gone", told)
    assert encoder.event(chunk(content="I")) + encoder.close() == b""


def test_turn_of_the_assistant_is_one_message() -> None:
    """Thoughts, text and calls that follow one another are one message of the chat."""
    items = [
        {"type": "reasoning", "id": "r", "summary": [], "content": [{"text": "Hm"}]},
        {"role": "assistant", "content": [{"type": "output_text", "text": "I feed it."}]},
        {"type": "function_call", "call_id": "a", "name": "feed", "arguments": "{}"},
        {"type": "function_call", "call_id": "b", "name": "feed", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "a", "output": "Done."},
        {"role": "user", "content": [{"type": "input_image", "image_url": "https://e.org/z.png"}]},
    ]
    chat, _ = to_openai({"model": "m", "input": items})
    turn, result, shown = chat["messages"]
    assert (turn["reasoning_content"], turn["content"]) == ("Hm", "I feed it.")
    assert [call["id"] for call in turn["tool_calls"]] == ["a", "b"]
    assert result == {"role": "tool", "tool_call_id": "a", "content": "Done."}
    url = {"url": "https://e.org/z.png"}
    assert shown["content"] == [{"type": "image_url", "image_url": url}]
