"""A route together with what the document says of it and whose keys reach it.

Each resource's file makes its own: path, endpoint, shapes and scope stand in one place, and
`/openapi.json` and the guard are derived from them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from starlette.routing import Route

EVENTS = "text/event-stream"
TEXT = {"type": "string"}
FLAG = {"type": "boolean"}
RouteScope = Literal["open", "monitor", "inference", "admin"]
"""Whose requests reach a route: anybody's; a key's of this scope, or of scope `admin`."""


@dataclass(frozen=True)
class Query:
    """A query parameter, with its JSON schema."""

    name: str
    schema: dict[str, Any]
    description: str
    required: bool = False


@dataclass(frozen=True)
class RouteDoc:
    """What one method of one route takes and answers.

    Attributes:
        tag: the part of the document that it stands in.
        answer: the type of its JSON answer; None: `null`, or nothing where there is a `media`.
        body: the type of the JSON that it takes.
        summary: what it does; empty: the first line of the endpoint's docstring.
        media: what it answers besides JSON.
        status: of an answer that is no error.
        scope: whose keys reach it.
        events: the shapes of a stream's events, by name.
        fails_alike: answers of 500 and more have the shape of the others.
    """

    tag: str
    answer: Any = None
    body: Any = None
    query: tuple[Query, ...] = ()
    summary: str = ""
    media: str = ""
    status: int = 200
    scope: RouteScope = "admin"
    events: tuple[tuple[str, Any], ...] = ()
    fails_alike: bool = False


class Operation(Route):
    """One method of one path."""

    def __init__(self, method: str, path: str, endpoint: Any, doc: RouteDoc) -> None:
        super().__init__(path, endpoint=endpoint, methods=[method])
        self.method = method
        self.doc = doc

    @property
    def summary(self) -> str:
        """What it does, in words."""
        return self.doc.summary or (self.endpoint.__doc__ or "").partition("\n")[0]
