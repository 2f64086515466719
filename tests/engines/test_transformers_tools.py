"""Transformers calls tools and thinks, in the form of the chat template.

tiny-mixtral has learnt neither, so that a grammar makes it say what a model would, where nothing
else does.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engines.child import Child
from tests.engines.test_transformers import ENGINE, WEIGHTS, wanted
from tests.templates import HERMES, with_calls

CHATS = "/v1/chat/completions"
MESSAGES: list[dict[str, Any]] = [{"role": "user", "content": "Feed the lion."}]
FEED = {
    "type": "object",
    "properties": {"food": {"enum": ["hay", "fish"]}, "count": {"type": "integer", "maximum": 9}},
    "required": ["food"],
}
TOOLS: list[dict[str, Any]] = [
    {"type": "function", "function": {"name": "feed", "parameters": FEED}},
    {"type": "function", "function": {"name": "wash"}},
]
CALL = '<tool_call>\n{"name": "feed", "arguments": {"food": "hay"}}\n</tool_call>'


@pytest.fixture(autouse=True)
def installed(transformers_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine is found where it was installed."""
    monkeypatch.setenv("PADDOCK_HOME", str(transformers_home))


@pytest.fixture(scope="module")
def hermes(transformers_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    """A model that calls as Hermes does, and thinks as Qwen 3 does."""
    thinks = HERMES.replace(
        "{{- '<|im_start|>assistant\\n' }}",
        "{{- '<|im_start|>assistant\\n' + ('<think>\\n' if enable_thinking else '') }}",
    )
    yield from started(transformers_home, tmp_path_factory, template=thinks, form="hermes")


def started(
    home: Path,
    folders: pytest.TempPathFactory,
    weights: Path = WEIGHTS,
    template: str = HERMES,
    form: str = "hermes",
) -> Iterator[Child]:
    changes = {"chat_template": template, "tool_format": form, "reasoning_format": "qwen3"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PADDOCK_HOME", str(home))
        log = folders.mktemp("engine") / "log"
        with Child(ENGINE, wanted(weights, context_length=1024, **changes), log) as made:
            made.await_health()
            yield made


def ask(child: Child, **fields: Any) -> dict[str, Any]:
    """The one choice of an answer; its stream must join to the same."""
    body = {"messages": MESSAGES, "max_tokens": 400, "temperature": 0, **fields}
    status, answer = child.post(CHATS, body)
    assert status == 200, answer
    (choice,) = answer["choices"]
    joined: dict[str, Any] = {"role": "assistant", "content": "", "calls": []}
    for event in child.stream(CHATS, {**body, "stream": True}):
        delta = event["choices"][0]["delta"]
        for key in ("content", "reasoning_content"):
            if key in delta:
                joined[key] = joined.get(key, "") + delta[key]
        for call in delta.get("tool_calls", ()):
            if "id" in call:
                assert call["index"] == len(joined["calls"])
                joined["calls"].append([call["function"]["name"], ""])
            joined["calls"][call["index"]][1] += call["function"]["arguments"]
    message = dict(choice["message"])
    calls = [call["function"] for call in message.pop("tool_calls", ())]
    told = [[call["name"], call["arguments"]] for call in calls]
    assert joined == {**message, "calls": told}
    assert event["choices"][0]["finish_reason"] == choice["finish_reason"]
    return {**message, "calls": told, "reason": choice["finish_reason"]}


def saying(text: str) -> str:
    """A grammar of one text."""
    return f"%llguidance {{}}\nstart: {json.dumps(text, ensure_ascii=False)}"


def test_a_required_tool_is_called(hermes: Child) -> None:
    """Any of them, or the one that is named, by its own schema."""
    for temperature in (0, 1.5):
        fields = {"tools": TOOLS, "temperature": temperature, "seed": 3}
        required = ask(hermes, **fields, tool_choice="required", parallel_tool_calls=False)
        assert (len(required["calls"]), required["reason"]) == (1, "tool_calls")
        named = {"type": "function", "function": {"name": "feed"}}
        told = ask(hermes, **fields, tool_choice=named)
        ((name, arguments),) = told["calls"]
        assert (name, told["content"], told["reason"]) == ("feed", "", "tool_calls")
        found = json.loads(arguments)
        assert found["food"] in {"hay", "fish"}
        assert found.get("count", 0) <= 9
    wash = {"type": "function", "function": {"name": "wash"}}
    assert ask(hermes, tools=TOOLS, tool_choice=wash)["calls"] == [["wash", "{}"]]


def test_calls_of_the_models_own_are_read(hermes: Child) -> None:
    """After a text, and several; the choice is its own."""
    text = f"Here it comes.\n{CALL}\n{CALL.replace('hay', 'fish')}"
    told = ask(hermes, tools=TOOLS, grammar=saying(text))
    assert told["content"] == "Here it comes."
    assert told["calls"] == [["feed", '{"food": "hay"}'], ["feed", '{"food": "fish"}']]
    assert told["reason"] == "tool_calls"


def test_without_tools_nothing_is_a_call(hermes: Child) -> None:
    """Neither with `tool_choice` none, of which the model sees none."""
    for fields in ({}, {"tools": TOOLS, "tool_choice": "none"}):
        told = ask(hermes, grammar=saying(CALL), **fields)
        assert (told["content"], told["calls"], told["reason"]) == (CALL, [], "stop")
    _, plain = hermes.post(f"{CHATS}/input_tokens", {"messages": MESSAGES})
    _, none = hermes.post(
        f"{CHATS}/input_tokens", {"messages": MESSAGES, "tools": TOOLS, "tool_choice": "none"}
    )
    _, shown = hermes.post(f"{CHATS}/input_tokens", {"messages": MESSAGES, "tools": TOOLS})
    assert plain == none
    assert shown["input_tokens"] > plain["input_tokens"]


def test_a_call_that_is_cut_off_has_its_arguments_so_far(hermes: Child) -> None:
    """And the reason is the length; before its name is there, there is neither call nor text."""
    named = {"type": "function", "function": {"name": "feed"}}
    whole = ask(hermes, tools=TOOLS, tool_choice=named)
    seen = set()
    for most in range(1, 40, 3):
        told = ask(hermes, tools=TOOLS, tool_choice=named, max_tokens=most)
        if told["reason"] != "length":
            break
        assert told["content"] == ""
        seen.add(len(told["calls"]))
        for name, arguments in told["calls"]:
            assert name == "feed"
            assert whole["calls"][0][1].startswith(arguments)
    assert seen == {0, 1}


def test_one_call_at_most_where_several_are_not_wanted(hermes: Child) -> None:
    """Of the model's own choice, too, which a grammar then holds to that."""
    fields = {"tools": TOOLS, "parallel_tool_calls": False, "temperature": 1.5}
    for seed in range(3):
        assert len(ask(hermes, **fields, seed=seed, max_tokens=60)["calls"]) <= 1
        told = ask(hermes, **fields, seed=seed, tool_choice="required")
        # It may think as long as it likes before.
        assert len(told["calls"]) == 1 or told["reason"] == "length"


def test_strict_tools_are_called_by_their_schema_or_not_at_all(hermes: Child) -> None:
    """A keyword that cannot be enforced is passed over of others."""
    function = {"name": "feed", "parameters": {**FEED, "not": {"required": ["x"]}}}
    for strict, status in ((True, 400), (False, 200)):
        tool = {"type": "function", "function": {**function, "strict": strict}}
        body = {"messages": MESSAGES, "tools": [tool], "tool_choice": "required", "max_tokens": 99}
        found, answer = hermes.post(CHATS, body)
        assert found == status, answer
        if strict:
            assert answer["error"]["param"] == "tools"
    tool = {"type": "function", "function": {"name": "feed", "parameters": FEED, "strict": True}}
    assert ask(hermes, tools=[tool], max_tokens=20)["reason"] in {"stop", "length"}


def test_results_and_calls_go_back_into_the_prompt(hermes: Child) -> None:
    """Arguments as the template takes them, whatever the client sends."""
    counts = []
    for arguments in ('{"food": "hay"}', '{ "food":"hay" }'):
        call = {"id": "c1", "type": "function"}
        call["function"] = {"name": "feed", "arguments": arguments}  # type: ignore[assignment]
        messages = [
            *MESSAGES,
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "Done."}]},
        ]
        status, counted = hermes.post(f"{CHATS}/input_tokens", {"messages": messages})
        assert status == 200, counted
        counts.append(counted["input_tokens"])
    assert counts[0] == counts[1]


def test_thoughts_are_split_from_the_answer(hermes: Child) -> None:
    """Those that the model begins, and those that the prompt begins; and their tokens counted."""
    told = ask(hermes, grammar=saying("<think>\nWell.\n</think>\n\nSo."))
    assert (told["reasoning_content"], told["content"]) == ("Well.", "So.")
    on = {"chat_template_kwargs": {"enable_thinking": True}}
    told = ask(hermes, grammar=saying("Well.\n</think>\n\nSo."), **on)
    assert (told["reasoning_content"], told["content"]) == ("Well.", "So.")
    body = {"messages": MESSAGES, "grammar": saying("Well.</think>So."), "max_tokens": 99, **on}
    usage = hermes.post(CHATS, body)[1]["usage"]
    counted = usage["completion_tokens_details"]["reasoning_tokens"]
    assert 0 < counted < usage["completion_tokens"]
    off = ask(hermes, grammar=saying("Well. </think>"))
    assert "reasoning_content" not in off


def test_a_thought_comes_before_a_required_call(hermes: Child) -> None:
    """As the model was taught; it ends, or the answer is cut off within."""
    on = {"chat_template_kwargs": {"enable_thinking": True}}
    told = ask(hermes, tools=TOOLS, tool_choice="required", **on, max_tokens=30)
    assert (told["calls"], told["content"], told["reason"]) == ([], "", "length")
    assert told["reasoning_content"]


def test_probabilities_are_of_all_tokens(hermes: Child) -> None:
    """Also of those that are in a call."""
    body = {"messages": MESSAGES, "max_tokens": 400, "temperature": 0, "tools": TOOLS}
    wish = {**body, "tool_choice": "required", "logprobs": True, "parallel_tool_calls": False}
    _, answer = hermes.post(CHATS, wish)
    listed = answer["choices"][0]["logprobs"]["content"]
    assert "".join(token["token"] for token in listed).startswith("<tool_call>")


@pytest.fixture(scope="module")
def mistral(
    transformers_home: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Child, dict[str, int]]]:
    """A model that calls as Mistral's do, with special tokens, and the tokens' numbers."""
    weights = tmp_path_factory.mktemp("mistral") / "weights"
    shutil.copytree(WEIGHTS, weights)
    file = weights / "tokenizer.json"
    data = json.loads(file.read_text())
    vocabulary, merges = data["model"]["vocab"], data["model"]["merges"]
    tokens: dict[str, int] = {}
    for text in ("[TOOL_CALLS]", "[ARGS]"):
        merge = merges.pop()
        parts = merge.split(" ") if isinstance(merge, str) else merge
        tokens[text] = vocabulary.pop("".join(parts))
        vocabulary[text] = tokens[text]
        added = dict(data["added_tokens"][0], id=tokens[text], content=text, special=True)
        data["added_tokens"].append(added)
    file.write_text(json.dumps(data))
    for child in started(
        transformers_home,
        tmp_path_factory,
        weights,
        with_calls("mistral_args").replace("[CALL_ID]abcdefghi", ""),
        "mistral_args",
    ):
        yield child, tokens


def test_special_tokens_that_begin_a_call_are_read(mistral: tuple[Child, dict[str, int]]) -> None:
    """Of a required call, whose grammar asks for them, and of the model's own."""
    child, tokens = mistral
    named = {"type": "function", "function": {"name": "feed"}}
    body = {"messages": MESSAGES, "tools": TOOLS, "tool_choice": named, "max_tokens": 99}
    _, answer = child.post(CHATS, {**body, "logprobs": True, "temperature": 0})
    (call,) = answer["choices"][0]["message"]["tool_calls"]
    assert call["function"]["name"] == "feed"
    assert json.loads(call["function"]["arguments"])["food"] in {"hay", "fish"}
    assert (len(call["id"]), call["id"].isalnum()) == (9, True)
    listed = [token["token"] for token in answer["choices"][0]["logprobs"]["content"]]
    assert listed[0] == "[TOOL_CALLS]"
    assert "[ARGS]" in listed
    begin, split = tokens["[TOOL_CALLS]"], tokens["[ARGS]"]
    own = f'%llguidance {{}}\nstart: "Yes." <[{begin}]> "feed" <[{split}]> "{{\\"food\\": 1}}"'
    told = ask(child, tools=TOOLS, grammar=own)
    assert (told["content"], told["calls"]) == ("Yes.", [["feed", '{"food": 1}']])


def test_an_answer_is_bound_behind_its_thought(hermes: Child) -> None:
    """A thought in the prompt goes on first; without one the answer begins at once."""
    only = {"answer_grammar": '%llguidance {}\nstart: "yes" | "no"'}
    told = ask(hermes, **only)
    assert told["content"] in {"yes", "no"}
    on = ask(hermes, **only, chat_template_kwargs={"enable_thinking": True}, max_tokens=60)
    # tiny-mixtral thinks until its tokens are spent, and nothing of that is an answer.
    assert on["reasoning_content"]
    assert not on["content"] or on["content"] in {"yes", "no"}
