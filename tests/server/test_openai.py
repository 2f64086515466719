"""OpenAI's own SDK against a real gateway: what it asks for is honoured, emulated or refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from paddock.client import Client
from tests.lazy import Lazy

openai = Lazy("openai")

PROMPT = "The old elephant"
CHAT: list[Any] = [{"role": "user", "content": "What do you eat?"}]
SCHEMA = {
    "type": "object",
    "properties": {"food": {"enum": ["grass", "fish"]}},
    "required": ["food"],
    "additionalProperties": False,
}


@pytest.fixture
def sdk(client: Client) -> Any:
    with openai.OpenAI(base_url=f"{client.endpoint}/v1", api_key="none", max_retries=0) as made:
        yield made


def complete(sdk: Any, tiny: str, **fields: Any) -> Any:
    fields = {"prompt": PROMPT, "max_tokens": 6, "temperature": 0, **fields}
    return sdk.completions.create(model=tiny, **fields)


def chat(sdk: Any, tiny: str, **fields: Any) -> Any:
    fields = {"messages": CHAT, "max_completion_tokens": 6, "temperature": 0, **fields}
    return sdk.chat.completions.create(model=tiny, **fields)


def test_models_are_listed_and_retrieved(sdk: Any, tiny: str) -> None:
    """The launched model is in the list and can be had by its id; another id is a 404."""
    assert tiny in [model.id for model in sdk.models.list()]
    assert sdk.models.retrieve(tiny).id == tiny
    with pytest.raises(openai.NotFoundError, match="nobody"):
        sdk.models.retrieve("nobody")


def test_completion_streamed_is_the_completion_whole(sdk: Any, tiny: str) -> None:
    """Pieces joined are the whole text; finish reason, model and id agree in all events."""
    whole = complete(sdk, tiny)
    events = list(complete(sdk, tiny, stream=True))
    assert "".join(e.choices[0].text for e in events) == whole.choices[0].text
    assert events[-1].choices[0].finish_reason == whole.choices[0].finish_reason == "length"
    assert {e.model for e in events} == {whole.model} == {tiny}
    assert len({e.id for e in events}) == 1
    assert whole.object == events[0].object == "text_completion"


def test_ids_are_unique(sdk: Any, tiny: str) -> None:
    """No two answers have the same id, of whatever route."""
    found = [complete(sdk, tiny, max_tokens=1).id for _ in range(5)]
    found += [chat(sdk, tiny, max_completion_tokens=1, n=2).id for _ in range(5)]
    assert len(set(found)) == 10


def test_usage_in_streams_comes_where_it_is_asked_for(sdk: Any, tiny: str) -> None:
    """With `include_usage` the last event has no choices and the usage; without, none has usage."""
    for make in (complete, chat):
        plain = list(make(sdk, tiny, stream=True))
        assert all(event.usage is None for event in plain)
        assert all(event.choices for event in plain)
        asked = list(make(sdk, tiny, stream=True, stream_options={"include_usage": True}))
        assert all(event.usage is None for event in asked[:-1])
        assert asked[-1].choices == []
        assert asked[-1].usage is not None
        assert asked[-1].usage.completion_tokens == 6
        assert asked[-1].usage == make(sdk, tiny).usage or asked[-1].usage.prompt_tokens > 0


def test_n_gives_so_many_choices_and_their_usage(sdk: Any, tiny: str) -> None:
    """`n` choices, more than there are slots; all their tokens are counted, the prompt once."""
    one = complete(sdk, tiny)
    many = complete(sdk, tiny, n=7, temperature=1, seed=1)
    assert [choice.index for choice in many.choices] == list(range(7))
    assert len({choice.text for choice in many.choices}) > 1
    assert many.usage.prompt_tokens == one.usage.prompt_tokens
    assert many.usage.completion_tokens == 7 * 6
    assert many.usage.total_tokens == one.usage.prompt_tokens + 42
    chats = chat(sdk, tiny, n=3)
    assert [choice.message.content for choice in chats.choices] == [
        chat(sdk, tiny).choices[0].message.content
    ] * 3


def test_list_of_prompts_is_answered_prompt_by_prompt(sdk: Any, tiny: str) -> None:
    """Choices come in the order of the prompts, `n` for each; usage counts all of them."""
    singles = [complete(sdk, tiny, prompt=prompt) for prompt in (PROMPT, "A zebra")]
    both = complete(sdk, tiny, prompt=[PROMPT, "A zebra"], n=2)
    assert [choice.text for choice in both.choices] == [
        one.choices[0].text for one in singles for _ in range(2)
    ]
    assert both.usage.prompt_tokens == sum(one.usage.prompt_tokens for one in singles)
    assert both.usage.completion_tokens == 4 * 6


def test_parts_are_streamed_side_by_side(sdk: Any, tiny: str) -> None:
    """A stream of several choices numbers each event's; joined they are the whole answer."""
    whole = complete(sdk, tiny, prompt=[PROMPT, "A zebra"])
    texts = ["", ""]
    ends = 0
    usages = []
    options = {"include_usage": True}
    for event in complete(
        sdk, tiny, prompt=[PROMPT, "A zebra"], stream=True, stream_options=options
    ):
        for choice in event.choices:
            texts[choice.index] += choice.text
            ends += choice.finish_reason == "length"
        usages += [event.usage] if event.usage else []
    assert texts == [choice.text for choice in whole.choices]
    assert ends == 2
    assert [usage.completion_tokens for usage in usages] == [12]


def test_token_ids_are_taken_as_a_prompt(sdk: Any, tiny: str) -> None:
    """One list of ids is one prompt, a list of such lists are several."""
    assert len(complete(sdk, tiny, prompt=[1, 2, 3]).choices) == 1
    assert len(complete(sdk, tiny, prompt=[[1, 2, 3], [4]]).choices) == 2


def test_echo_puts_the_prompt_first(sdk: Any, tiny: str) -> None:
    """`echo` gives prompt and answer; with no tokens asked for, the prompt alone."""
    text = complete(sdk, tiny).choices[0].text
    assert complete(sdk, tiny, echo=True).choices[0].text == PROMPT + text
    streamed = "".join(e.choices[0].text for e in complete(sdk, tiny, echo=True, stream=True))
    assert streamed == PROMPT + text
    alone = complete(sdk, tiny, echo=True, max_tokens=0)
    assert alone.choices[0].text == PROMPT
    assert alone.usage.completion_tokens == 0


@pytest.mark.parametrize("count", [0, 2])
def test_logprobs_of_completions_have_the_old_shape(sdk: Any, tiny: str, count: int) -> None:
    """Tokens, log probabilities, the `count` best, and offsets into the text; streamed too."""
    found = complete(sdk, tiny, logprobs=count).choices[0]
    assert "".join(found.logprobs.tokens) == found.text
    assert all(value <= 0 for value in found.logprobs.token_logprobs)
    assert [len(best) for best in found.logprobs.top_logprobs] == [count] * 6
    offsets = [found.text[:offset] for offset in found.logprobs.text_offset]
    assert offsets == ["".join(found.logprobs.tokens[:i]) for i in range(6)]
    streamed = [
        event.choices[0].logprobs
        for event in complete(sdk, tiny, logprobs=count, stream=True)
        if event.choices[0].logprobs
    ]
    assert [t for one in streamed for t in one.tokens] == found.logprobs.tokens
    assert [t for one in streamed for t in one.text_offset] == found.logprobs.text_offset


def test_logprobs_of_chats(sdk: Any, tiny: str) -> None:
    """Each token with as many alternatives as were asked for."""
    found = chat(sdk, tiny, logprobs=True, top_logprobs=3).choices[0]
    assert "".join(one.token for one in found.logprobs.content) == found.message.content
    assert {len(one.top_logprobs) for one in found.logprobs.content} == {3}


def test_stop_ends_before_the_text(sdk: Any, tiny: str) -> None:
    """The text ends before the stop text, and the reason says so."""
    text = complete(sdk, tiny, max_tokens=20).choices[0].text
    word = text.split()[3]
    found = complete(sdk, tiny, max_tokens=20, stop=[f" {word}"]).choices[0]
    assert found.finish_reason == "stop"
    assert found.text == text[: text.index(f" {word}")]


def test_seed_repeats_and_penalties_change(sdk: Any, tiny: str) -> None:
    """The same seed gives the same text; a bias decides the token."""
    first, second = (complete(sdk, tiny, temperature=1, seed=7).choices[0].text for _ in range(2))
    assert first == second
    forced = complete(sdk, tiny, logit_bias={"300": 100}, max_tokens=3).choices[0].text
    assert forced != complete(sdk, tiny, max_tokens=3).choices[0].text
    penal = complete(sdk, tiny, max_tokens=40, frequency_penalty=2, presence_penalty=2)
    assert penal.choices[0].text != complete(sdk, tiny, max_tokens=40).choices[0].text


def test_response_format_makes_json_of_the_schema(sdk: Any, tiny: str) -> None:
    """The answer is JSON of the schema, whatever the model would have said."""
    schema = {"name": "meal", "schema": SCHEMA, "strict": True}
    answer = chat(
        sdk,
        tiny,
        max_completion_tokens=100,
        response_format={"type": "json_schema", "json_schema": schema},
    )
    assert json.loads(answer.choices[0].message.content)["food"] in {"grass", "fish"}


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"suffix": "the end"}, "suffix"),
        ({"best_of": 3}, "best_of"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"stop": ""}, "stop"),
        ({"stop": ["a", ""]}, "stop"),
        ({"extra_body": {"repetition_penalty": 0}}, "repetition_penalty"),
        ({"top_p": 7}, "top_p"),
        ({"n": 0}, "n 0"),
        ({"n": 1000}, "n 1000"),
        ({"presence_penalty": 9}, "presence_penalty"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"stop": 5}, "stop"),
        ({"logprobs": 99}, "logprobs"),
        ({"echo": True, "logprobs": 1}, "echo"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[1], [-2]]}, "prompt"),
        ({"stream_options": {"usage": True}}, "stream_options"),
        ({"extra_body": {"temprature": 1}}, "temperature"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(
    sdk: Any, tiny: str, fields: dict[str, Any], says: str
) -> None:
    """Wrong values and fields that the engine lacks are a 400 that names the field."""
    with pytest.raises(openai.BadRequestError) as refused:
        complete(sdk, tiny, **fields)
    assert says in str(refused.value)
    body: Any = refused.value.body
    assert body["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"content": "x"}]}, "role"),
        ({"messages": [{"role": "user", "content": 5}]}, "content"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": 2}, "logprobs"),
        ({"audio": {"voice": "x"}}, "audio"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"response_format": {"type": "nonsense"}}, "response_format"),
    ],
)
def test_chats_refuse_what_they_cannot_honour(
    sdk: Any, tiny: str, fields: dict[str, Any], says: str
) -> None:
    """As in completions; abilities that the model lacks are named."""
    with pytest.raises(openai.BadRequestError) as refused:
        chat(sdk, tiny, **fields)
    assert says in str(refused.value)


def test_neutral_fields_change_nothing(sdk: Any, tiny: str) -> None:
    """Fields that identify a caller or ask for a default are taken; null is as not given."""
    plain = complete(sdk, tiny).choices[0].text
    told = complete(
        sdk, tiny, user="me", best_of=1, logit_bias={}, stop=None, suffix=None, echo=False
    )
    assert told.choices[0].text == plain
    chat(sdk, tiny, user="me", metadata={"a": "b"}, store=False, tool_choice="none")


def test_prompt_beyond_the_context_is_refused_with_both_numbers(sdk: Any, tiny: str) -> None:
    """The error has the prompt's tokens and the context's; 10 MB are refused like 30 kB."""
    for repeats in (5_000, 1_700_000):
        with pytest.raises(openai.BadRequestError) as refused:
            complete(sdk, tiny, prompt="hello " * repeats)
        body: Any = refused.value.body
        assert body["n_ctx"] == 2048
        assert body["n_prompt_tokens"] == 3 * repeats + 2
        assert body["code"] == "context_length_exceeded"
        assert "maximum context length is 2048 tokens" in body["message"]


def test_unknown_model_is_404(sdk: Any, tiny: str) -> None:
    """The message names it, and near ones."""
    with pytest.raises(openai.NotFoundError, match=f"did you mean {tiny}"):
        complete(sdk, f"{tiny}y")


TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {"name": "feed", "description": "Feeds it", "parameters": SCHEMA},
    }
]


def test_tools_are_called(sdk: Any, toolful: str) -> None:
    """A required tool is called with arguments of its schema, whole and streamed alike."""
    fields: dict[str, Any] = {
        "tools": TOOLS,
        "tool_choice": "required",
        "max_completion_tokens": 200,
    }
    answer = chat(sdk, toolful, **fields).choices[0]
    (call,) = answer.message.tool_calls
    assert answer.finish_reason == "tool_calls"
    assert call.function.name == "feed"
    assert json.loads(call.function.arguments)["food"] in {"grass", "fish"}
    name, arguments = "", ""
    for event in chat(sdk, toolful, stream=True, **fields):
        for delta in event.choices[0].delta.tool_calls or []:
            name += delta.function.name or ""
            arguments += delta.function.arguments or ""
    assert name == "feed"
    assert json.loads(arguments)["food"] in {"grass", "fish"}


def test_named_tool_is_the_one_that_is_called(sdk: Any, toolful: str) -> None:
    """Of several tools the named one is called; definitions in its schema are followed."""
    schema = {
        "type": "object",
        "properties": {"who": {"$ref": "#/$defs/Animal"}},
        "required": ["who"],
        "$defs": {"Animal": {"enum": ["lion"]}},
    }
    other = {"type": "function", "function": {"name": "wash", "parameters": schema}}
    named = {"type": "function", "function": {"name": "wash"}}
    fields = {"tools": [*TOOLS, other], "tool_choice": named, "max_completion_tokens": 200}
    (call,) = chat(sdk, toolful, **fields).choices[0].message.tool_calls
    assert call.function.name == "wash"
    assert json.loads(call.function.arguments) == {"who": "lion"}
    either = chat(sdk, toolful, **{**fields, "tool_choice": "required"}).choices[0].message
    assert either.tool_calls[0].function.name in {"feed", "wash"}
    with pytest.raises(openai.BadRequestError, match="tool_choice"):
        chat(sdk, toolful, **{**fields, "tool_choice": {"function": {"name": "fly"}}})


def test_tools_that_may_not_be_used_are_not_shown(sdk: Any, tiny: str) -> None:
    """With `tool_choice` none a model without the ability answers as if there were no tools."""
    plain = chat(sdk, tiny).choices[0].message.content
    assert chat(sdk, tiny, tools=TOOLS, tool_choice="none").choices[0].message.content == plain
