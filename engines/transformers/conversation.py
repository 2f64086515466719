"""What a chat request means to a model: its prompt, what its answer may have in it, and must be.

Without torch. The chat template decides: whether it takes contents in parts and arguments as
objects is tried with it, once.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import sys
from collections.abc import Sequence
from typing import Any

from calls import FORMS, Expected, markers
from grammars import Tool, Wanted, bind_answer, write_grammar
from llguidance import LLMatcher

Message = dict[str, Any]
_ANY_OBJECT = {"type": "object"}
_TAIL = 24
"""Tokens at a prompt's end, among which is what begins a thought."""


class Refused(Exception):
    """A request that cannot be served; `field` is what is wrong with it."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class Conversation:
    """The chat template of a model, and the form in which it calls tools and thinks.

    Attributes:
        kept: special tokens that are part of that form, so that they must not be left out of texts.
    """

    def __init__(self, tokenizer: Any, format: str | None, thought: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._format: str = format if format is not None and format in FORMS else ""
        self._thought = tuple(thought)
        special = _special_tokens(tokenizer)
        texts = markers(self._format, self._thought)
        self._tokens = {
            token: number for token, number in special.items() if any(token in t for t in texts)
        }
        self.kept = frozenset(self._tokens.values())
        self.dropped = frozenset(special.values()) - self.kept
        self._takes_parts = _takes_parts(tokenizer)
        self._takes_objects = bool(self._format) and _takes_objects(tokenizer)

    def prompt(self, body: dict[str, Any]) -> list[int]:
        """The tokens of a request's prompt. Raises `Refused`."""
        if not self._tokenizer.chat_template:
            raise Refused("the model has no chat template", "messages")
        messages = [self._taken(message) for message in _named(body["messages"])]
        tools = _shown(body)
        if tools and not self._format:
            raise Refused("the model's calls of tools cannot be read", "tools")
        try:
            # The template writes the special tokens itself, so none are added to its text.
            encoded = self._tokenizer.apply_chat_template(
                messages,
                tools=tools or None,
                add_generation_prompt=body.get("add_generation_prompt", True),
                tokenize=True,
                return_dict=True,
                **(body.get("chat_template_kwargs") or {}),
            )
        except Exception as error:  # a template may raise anything for what it does not take
            raise Refused(f"the chat template refused the messages: {error}", "messages") from error
        return list(encoded["input_ids"])

    def expect(self, body: dict[str, Any], prompt: list[int]) -> Expected | None:
        """What the answer may have in it; None: text alone."""
        tools = _shown(body)
        if not tools and not self._thought:
            return None
        thinks = False
        if self._thought:
            tail = str(self._tokenizer.decode(prompt[-_TAIL:])).rstrip()
            thinks = tail.endswith(self._thought[0].rstrip())
        schemas = {tool["function"]["name"]: _schema(tool["function"]) for tool in tools}
        required = body.get("tool_choice") not in (None, "auto", "none")
        form = self._format if tools else ""
        return Expected(form, schemas, required and bool(tools), self._thought, thinks)

    def grammar(self, body: dict[str, Any], expected: Expected | None) -> str:
        """What holds the answer to the choice of tools or to its form; empty: nothing has to.

        Raises `Refused`.
        """
        if expected is None or not expected.format:
            answer: str = body.get("answer_grammar") or ""
            if answer and expected is not None:
                answer = str(bind_answer(answer, expected.thought, expected.thinks, self._tokens))
            return answer
        choice, parallel = body.get("tool_choice"), body.get("parallel_tool_calls") is not False
        functions = [tool["function"] for tool in _shown(body)]
        if isinstance(choice, dict):
            name = choice["function"]["name"]
            functions, parallel = [one for one in functions if one["name"] == name], False
        strict = any(function.get("strict") for function in functions)
        if not (expected.required or strict or not parallel):
            return ""
        tools = tuple(
            Tool(one["name"], expected.tools[one["name"]], bool(one.get("strict")))
            for one in functions
        )

        def written(tools: tuple[Tool, ...]) -> str:
            wanted = Wanted(
                format=expected.format,
                tools=tools,
                required=expected.required,
                parallel=parallel,
                thought=expected.thought,
                thinks=expected.thinks,
                tokens=self._tokens,
            )
            return str(write_grammar(wanted))

        grammar: str = written(tools)
        if not LLMatcher.validate_grammar(grammar):
            return grammar
        # What cannot be enforced is left to the model, but for what was asked for as strict.
        fits = [not LLMatcher.validate_grammar(written((tool,))) for tool in tools]
        grammar = written(
            tuple(
                tool if fit or tool.strict else Tool(tool.name, _ANY_OBJECT)
                for tool, fit in zip(tools, fits, strict=True)
            )
        )
        if reason := LLMatcher.validate_grammar(grammar):
            raise Refused(f"the tools' arguments cannot be enforced: {reason}", "tools")
        return grammar

    def new_id(self) -> str:
        """An id for a call. Mistral's templates want nine letters and digits."""
        if self._format.startswith("mistral"):
            return secrets.token_hex(5)[:9]
        return f"call_{secrets.token_hex(12)}"

    def _taken(self, message: Message) -> Message:
        """A message as the template takes it."""
        if isinstance(message.get("content"), list) and not self._takes_parts:
            # One text, a line for each part, as llama.cpp and vLLM join them.
            parts = message["content"]
            text = "\n".join(str(part.get("text", "")) for part in parts)
            message = {**message, "content": text}
        if message.get("content") is None:
            message = {**message, "content": ""}
        if self._format.startswith("mistral") and message.get("tool_call_id"):
            message = {**message, "tool_call_id": _short(message["tool_call_id"])}
        if message.get("tool_calls"):
            calls = [self._called(call) for call in message["tool_calls"]]
            message = {**message, "tool_calls": calls}
        return message

    def _called(self, call: dict[str, Any]) -> dict[str, Any]:
        """A call of the history as the template takes it."""
        function = call["function"]
        if self._takes_objects and isinstance(function.get("arguments"), str):
            arguments = json.loads(function["arguments"] or "{}")
            call = {**call, "function": {**function, "arguments": arguments}}
        if self._format.startswith("mistral") and call.get("id"):
            call = {**call, "id": _short(call["id"])}
        return call


def _shown(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The tools that the model is shown."""
    return [] if body.get("tool_choice") == "none" else list(body.get("tools") or [])


def _named(messages: list[Message]) -> list[Message]:
    """The messages, with the tool's name in each result: some templates want it."""
    names = {
        call.get("id"): call["function"]["name"]
        for message in messages
        for call in message.get("tool_calls") or ()
    }
    return [
        {**message, "name": names[message["tool_call_id"]]}
        if message.get("tool_call_id") in names and not message.get("name")
        else message
        for message in messages
    ]


def _short(name: str) -> str:
    """A call's id as nine letters and digits, the same for the same."""
    if len(name) == 9 and name.isascii() and name.isalnum():
        return name
    return hashlib.sha256(name.encode()).hexdigest()[:9]


def _schema(function: dict[str, Any]) -> dict[str, Any]:
    """The schema of a function's arguments: an object, of what it names and nothing else.

    Others are none that the function knows, unless the schema says so.
    """
    schema = {"type": "object", "properties": {}, **(function.get("parameters") or {})}
    shapes = ("additionalProperties", "patternProperties", "anyOf", "oneOf", "allOf", "$ref")
    return schema if any(key in schema for key in shapes) else schema | {shapes[0]: False}


def _special_tokens(tokenizer: Any) -> dict[str, int]:
    """The texts that are special tokens, which decoding would leave out, and their numbers."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    found = {str(token): number for number, token in added.items() if token.special}
    pairs = zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True)
    return found | {str(token): number for token, number in pairs}


def check_template(tokenizer: Any) -> None:
    """Ends the process where the chat template is no template. It may refuse the example."""
    if not tokenizer.chat_template:
        return
    from jinja2 import TemplateSyntaxError, UndefinedError

    try:
        tokenizer.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False)
    except (TemplateSyntaxError, UndefinedError) as error:
        sys.exit(f"chat_template: {error}")
    except Exception:  # noqa: BLE001 - a template may raise anything for messages that it refuses
        return


def _takes_parts(tokenizer: Any) -> bool:
    """Whether the chat template takes a content in parts. Many write the list as Python does."""
    parts = [{"type": "text", "text": "a"}]
    try:
        text = tokenizer.apply_chat_template([{"role": "user", "content": parts}], tokenize=False)
    except Exception:  # noqa: BLE001 - a template may raise anything
        return False
    return "type" not in text


def _takes_objects(tokenizer: Any) -> bool:
    """Whether the chat template takes a call's arguments as an object, and not as JSON's text."""
    function = {"name": "look_up", "arguments": {"word": "spoon"}}
    call = {"id": "abcdefghi", "type": "function", "function": function}
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
    ]
    try:
        text = tokenizer.apply_chat_template(messages, tools=None, tokenize=False)
    except Exception:  # noqa: BLE001 - a template may raise anything
        return False
    return "{'word'" not in text
