"""The one place that decides how things are shown: results to stdout, talk to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from paddock.registry.reference import is_reference


class Output:
    """Human text or JSON. Commands call this and never print by themselves."""

    def __init__(self, as_json: bool = False) -> None:
        self.as_json = as_json

    def result(self, data: Any, text: str) -> None:
        """What the command was called for: `data` as JSON, or `text`."""
        print(json.dumps(data, indent=2, default=str) if self.as_json else text, flush=True)

    def talk(self, text: str) -> None:
        """What helps a person and no program."""
        print(text, file=sys.stderr, flush=True)

    def piece(self, text: str) -> None:
        """A piece of a streamed result."""
        sys.stdout.write(text)
        sys.stdout.flush()


def say_reading(name: str, output: Output) -> None:
    """Says what takes its time, where the name is a reference."""
    if is_reference(name):
        output.talk(f"reading what {name} holds")


def table(head: Sequence[str], rows: Iterable[Sequence[str]], right: Iterable[int] = ()) -> str:
    """Aligned columns under a head; `right` are the columns whose cells stand to the right."""
    lines = [tuple(head), *(tuple(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    to_right = set(right)
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in to_right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def size(count: float) -> str:
    """Bytes in decimal units, as model cards and file listings state them."""
    for unit in ("B", "kB", "MB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"
