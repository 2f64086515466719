"""Vectors that are cut shorter, as models allow it that were trained for it (matryoshka). Pure."""

from __future__ import annotations

import math
import struct
from base64 import b64decode, b64encode
from typing import Any

from paddock.registry.errors import BadValue
from paddock.server.proxy.steps import Event

UNIT = 1e-3
"""A vector whose length is within this of 1 is scaled to 1 again once it is cut."""


def shorten(size: int, answer: Event) -> Event:
    """The answer to a request for vectors, each with its first `size` numbers.

    Raises:
        BadValue: the model's vectors are shorter.
    """
    data = [{**row, "embedding": _short(row["embedding"], size)} for row in answer["data"]]
    return {**answer, "data": data}


def _short(vector: Any, size: int) -> Any:
    if isinstance(vector, str):  # base64 of float32, as OpenAI's SDK asks for it
        raw = b64decode(vector)
        numbers = _scaled(list(struct.unpack(f"<{len(raw) // 4}f", raw)), size)
        return b64encode(struct.pack(f"<{size}f", *numbers)).decode()
    return _scaled(vector, size)


def _scaled(vector: list[float], size: int) -> list[float]:
    if size > len(vector):
        raise BadValue("dimensions", size, f"the model has {len(vector)} at most")
    short = vector[:size]
    length = math.hypot(*short)
    if abs(math.hypot(*vector) - 1) > UNIT or not length:
        return short
    return [number / length for number in short]
