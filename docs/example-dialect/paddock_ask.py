"""A dialect for Paddock in one file: `POST /ask` takes a question and answers with text.

    curl localhost:9997/ask -d '{"model": "tiny-mixtral", "question": "Who is there?"}'
    {"answer": "…"}

With `"stream": true` the answer comes as lines of JSON.
"""

from __future__ import annotations

from typing import Any

from paddock.registry.errors import BadValue
from paddock.registry.json_codec import encode
from paddock.server.dialects import openai
from paddock.server.dialects.base import Body, Call, Dialect
from paddock.server.http.operation import RouteDoc
from paddock.server.http.shapes import Shape
from paddock.server.proxy.steps import Encoder, Event

FIELDS = {"model", "question", "stream", "max_tokens"}
LINES = "application/x-ndjson"


class Ask(Shape):
    """A question to a model."""

    model: str
    question: str
    stream: bool = False
    max_tokens: int | None = None


class Answer(Shape):
    """What the model says."""

    answer: str


class Lines:
    """Answers as lines of JSON. See `paddock.server.proxy.steps.Encoder`."""

    content_type = LINES.encode()

    def event(self, event: Event) -> bytes:
        """A piece of the text."""
        texts = [choice["delta"].get("content") or "" for choice in event.get("choices", ())]
        return encode({"text": "".join(texts)}) + b"\n" if any(texts) else b""

    def close(self) -> bytes:
        """The last line."""
        return encode({"done": True}) + b"\n"

    def error(self, error: dict[str, Any]) -> bytes:
        """An error after the first line."""
        return encode(error) + b"\n"

    def encode_answer(self, answer: Event) -> dict[str, Any]:
        """The answer of a request that does not stream."""
        return {"answer": answer["choices"][0]["message"]["content"]}


def to_openai(request: Body) -> tuple[Body, Encoder]:
    """The question as a chat.

    Raises:
        BadValue: there is no question, or a field that this dialect does not have.
    """
    for name in request:
        if name not in FIELDS:
            raise BadValue(name, request[name], f"is not a field; these are: {sorted(FIELDS)}")
    if not isinstance(request.get("question"), str):
        raise BadValue("question", request.get("question"), "is needed, as text")
    messages = [{"role": "user", "content": request["question"]}]
    chat = {name: value for name, value in request.items() if name != "question"}
    return {**chat, "messages": messages}, Lines()


DOC = RouteDoc("ask", Answer, Ask, summary="Answers a question", media=LINES)
DIALECT = Dialect("ask", (Call("/ask", "chat", DOC, openai.chat, to_openai),))
