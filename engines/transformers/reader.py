"""Reads a text that is still coming: every method waits where it needs more of it. Pure."""

from __future__ import annotations

import json
from collections.abc import Generator
from typing import Any, Literal, NamedTuple

Kind = Literal["content", "reasoning", "call", "arguments"]
Wait = Generator[None, None, Any]
"""What reads on: it yields where it needs more text, and returns what it has read."""
_AFTER_WORD = ",}] \t\r\n"


class Piece(NamedTuple):
    """A part of an answer. A `call` begins one, by its name; its `arguments` follow."""

    kind: Kind
    text: str


class Reader:
    """The text that has come and is not read yet, from `at` on, and the pieces that are made of it.

    `required`: the answer is a call, so that what begins like one and is cut off is nothing else.
    """

    def __init__(self, required: bool = False) -> None:
        self.text = ""
        self.at = 0
        self.ended = False
        self.cut_off = False
        self.thinks = False
        self.pieces: list[Piece] = []
        self._required = required
        self._called = False
        self._blanks = ""

    def put(self, kind: Kind, text: str) -> None:
        """Lets a piece go out; pieces of one kind are joined."""
        if kind == "call":
            self._called, self._blanks = True, ""
        elif not text:
            return
        elif self.pieces and self.pieces[-1].kind == kind:
            self.pieces[-1] = Piece(kind, self.pieces[-1].text + text)
            return
        self.pieces.append(Piece(kind, text))

    def more(self) -> Wait:
        """Waits for more text; false where there is none."""
        if self.ended:
            return False
        yield
        return True

    def starts(self, literal: str) -> Wait:
        """Whether the text goes on with this, which is then read."""
        while True:
            found = self.text[self.at : self.at + len(literal)]
            if found == literal:
                self.at += len(literal)
                return True
            if not literal.startswith(found) or not (yield from self.more()):
                return False

    def closes(self, literal: str) -> Wait:
        """Reads this if it comes, or as much of it as there is where the text is cut off."""
        if literal and not (yield from self.starts(literal)):
            self.drop_tail(literal)

    def drop_tail(self, *marks: str) -> None:
        """Forgets the text's end where it is the beginning of one of the marks, or blank."""
        rest = self.text[self.at :].lstrip()
        if self.ended and any(mark.startswith(rest) for mark in marks):
            self.at = len(self.text)

    def drop(self) -> None:
        """Forgets the rest of a text that has ended."""
        self.at = len(self.text)

    def blanks(self) -> Wait:
        """Reads blanks."""
        while True:
            while self.at < len(self.text) and self.text[self.at].isspace():
                self.at += 1
            if self.at < len(self.text) or not (yield from self.more()):
                return

    def until(self, *marks: str) -> Wait:
        """The text before the first of the marks, and the mark, both read; None: none comes."""
        begin = self.at
        while True:
            found = find_first(self.text, marks, begin)
            waits = max(overlap(self.text[begin:], mark) for mark in marks)
            # Of two marks that begin alike, the longer one may be on its way.
            if found is not None and (self.ended or found[0] < len(self.text) - waits):
                at, mark = found
                self.at = at + len(mark)
                return self.text[begin:at], mark
            if not (yield from self.more()):
                return None

    def pass_until(self, kind: Kind, *marks: str) -> Wait:
        """Lets text go out to the first of the marks, which is read; None: none comes.

        Blanks before it are held back: `put` of a call forgets them, `undo` lets them go.
        """
        while True:
            found = find_first(self.text, marks, self.at)
            stop = len(self.text) if found is None else found[0]
            if found is None and not (self.ended and not self._required):
                waits = max((overlap(self.text[self.at :], mark) for mark in marks), default=0)
                stop -= waits
            text = self._blanks + self.text[self.at : stop]
            plain = text.rstrip()
            self._blanks = text[len(plain) :]
            self.put(kind, plain)
            self.text, self.at = self.text[stop:], 0
            if found is not None:
                self.at = len(found[1])
                return found[1]
            if not (yield from self.more()):
                return None

    def undo(self, mark: str) -> None:
        """The mark that was read last is none: it is content, and what follows is read anew."""
        self.at = len(mark)
        if self.ended and self._required:
            self.at = len(self.text)
            return
        self.put("content", self._blanks + mark)
        self._blanks = ""

    def drop_blanks(self) -> None:
        """Forgets the blanks before the mark that was read last."""
        self._blanks = ""

    def finish(self) -> None:
        """Lets blanks at the end go out, unless there was a call."""
        if not self._called:
            self.put("content", self._blanks)
        self._blanks = ""

    def string(self) -> Wait:
        """A JSON text; None: there is none."""
        raw = yield from self.value()
        if raw is None or not raw.startswith('"'):
            return None
        try:
            return str(json.loads(raw, strict=False))
        except ValueError:
            return None

    def value(self, passed: bool = False) -> Wait:
        """A JSON value's text, or None where it is none; `passed`: it goes out as arguments.

        Brackets and quotes are counted, and nothing else is looked at.
        """
        begin = shown = self.at
        depth, quoted, escaped, whole = 0, False, False, False
        while True:
            while self.at < len(self.text) and not whole:
                letter = self.text[self.at]
                if not (depth or quoted) and letter in _AFTER_WORD:
                    whole = True
                    break
                self.at += 1
                if escaped:
                    escaped = False
                elif quoted:
                    escaped, quoted = letter == "\\", letter != '"'
                    whole = not (quoted or depth)
                else:
                    quoted = letter == '"'
                    depth += (letter in "{[") - (letter in "}]")
                    whole = not depth and letter in "}]"
            if passed:
                self.put("arguments", self.text[shown : self.at])
                shown = self.at
            if whole:
                return self.text[begin : self.at] or None
            if not (yield from self.more()):
                return None


def find_first(text: str, marks: tuple[str, ...], begin: int) -> tuple[int, str] | None:
    """Where the first mark is, and which, of several there the longest; None: there is none."""
    found = [(at, -len(mark), mark) for mark in marks if (at := text.find(mark, begin)) >= 0]
    return (min(found)[0], min(found)[2]) if found else None


def overlap(text: str, mark: str) -> int:
    """How many characters at the text's end begin the mark."""
    sizes = range(min(len(text), len(mark) - 1), 0, -1)
    return next((size for size in sizes if mark.startswith(text[-size:])), 0)
