"""What every JSON object over the wire is, and the shapes that all routes share.

Nothing is read or written through these models: they are for `/openapi.json`, and a test holds
answers against them. Every object may have more fields than are named, unless it says otherwise.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

Size = int | str
"""Billions of parameters: a number where it is whole, else text such as `0_5`."""


class Shape(BaseModel):
    """An object that may have more fields."""

    # Built when the document is asked for: the gateway's start need not wait 8 ms for it.
    model_config = ConfigDict(extra="allow", protected_namespaces=(), defer_build=True)


class ErrorFields(Shape):
    """What went wrong; beside these, the error's own fields, such as `value` or `close`."""

    message: str
    type: str
    code: str | int | None
    param: str | None = None
    layer: str | None = Field(default=None, description="`paddock`, or absent for an engine's own")


class Error(Shape):
    """Every error. `detail` is the message again, for Xinference's clients."""

    error: ErrorFields
    detail: str


class Result(Shape):
    """It was done."""

    result: bool


class Message(Shape):
    """What was done, in a word."""

    msg: str
