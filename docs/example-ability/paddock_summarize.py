"""An ability for Paddock in one file: models that summarize, and the route on which they are asked.

A spec lists it: `abilities: [generate, summarize]`. Then:

    curl localhost:9997/v1/summaries -d '{"model": "tiny-mixtral", "text": "Once upon a time …"}'
    {"summary": "…"}
"""

from __future__ import annotations

from typing import Any

from paddock.registry.abilities import Ability
from paddock.registry.errors import BadValue
from paddock.server.dialects import openai
from paddock.server.dialects.base import Body, Call, Dialect, Model
from paddock.server.http.operation import RouteDoc
from paddock.server.http.shapes import Shape
from paddock.server.proxy.steps import Encoder, EngineRequest, Event, OpenAI

ABILITY = Ability("summarize")
MAX_TOKENS = 120


class Text(Shape):
    """A text to summarize."""

    model: str
    text: str


class Summary(Shape):
    """The text in short."""

    summary: str


class Whole(OpenAI):
    """Answers that are one object."""

    def encode_answer(self, answer: Event) -> dict[str, Any]:
        """The summary alone."""
        return {"summary": answer["choices"][0]["text"].strip()}


def to_openai(request: Body) -> tuple[Body, Encoder]:
    """The text as a prompt. Raises `BadValue` where there is none."""
    if not isinstance(request.get("text"), str):
        raise BadValue("text", request.get("text"), "is needed, as text")
    prompt = f"{request['text']}\n\nIn short:"
    return {"model": request["model"], "prompt": prompt, "max_tokens": MAX_TOKENS}, Whole()


def build(request: Body, model: Model, raw: bytes, encoder: Encoder) -> EngineRequest:
    """Makes out the request for the engine. Raises `NotAble` for a model without the ability."""
    model.needs(ABILITY.name)
    return openai.completions(request, model, raw, encoder)


DOC = RouteDoc("summaries", Summary, Text, summary="Summarizes a text")
DIALECT = Dialect("summaries", (Call("/v1/summaries", ABILITY.name, DOC, build, to_openai),))
