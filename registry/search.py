"""Finds models in the catalogue by words and filters. Pure, and without pydantic.

A model is found if every word stands somewhere in its names, its hubs' ids, its abilities, its
architecture or its description. Where it stands says how well it fits: see `PLACES`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from paddock.registry.errors import BadValue, UnknownName, near

Raw = dict[str, Any]
"""A spec as `Catalog.raw` gives it."""


def _ids(spec: Raw) -> Iterator[str]:
    return (source["id"] for weights in spec["weights"] for source in weights["sources"])


# The points of a query word that equals a word of the place, begins one, or is within one.
PLACES: tuple[tuple[Callable[[Raw], Iterable[str]], tuple[int, int, int]], ...] = (
    (lambda spec: (spec["name"],), (100, 80, 60)),
    (lambda spec: spec["aliases"], (90, 70, 50)),
    (lambda spec: (*spec["abilities"], spec["type"]), (55, 45, 0)),
    (_ids, (40, 30, 20)),
    (lambda spec: (spec["architecture"]["name"],), (30, 25, 20)),
    (lambda spec: (spec["description"],), (20, 12, 0)),
)
_WHOLE_QUERY = 1000
_BEGINS_WITH_QUERY = 200
_LEAST_WITHIN = 3
"""The least letters of a query word that also counts within another word."""
_WORD = re.compile(r"[^\W_]+(?:\.[0-9]+)*")
_SIZE = re.compile(r"([0-9]{1,5})(?:[._]([0-9]{1,4}))?[bB]?")
LARGEST = "99999"


@dataclass(frozen=True)
class Filters:
    """Conditions on a model: one of the formats and engines, all of the abilities and languages.

    `billions` are the least and the largest size. Made by `checked`.
    """

    abilities: tuple[str, ...] = ()
    formats: tuple[str, ...] = ()
    engines: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    billions: tuple[float, float] | None = None

    @classmethod
    def checked(
        cls, specs: Sequence[Raw], size: str | None = None, **wanted: Iterable[str]
    ) -> Filters:
        """The filters with the names' own spelling.

        Raises:
            UnknownName: a value that no model has; with the near ones.
            BadValue: a size that is none.
        """
        known = {
            "abilities": {a for spec in specs for a in spec["abilities"]},
            "formats": {w["format"] for spec in specs for w in spec["weights"]},
            "engines": {e for spec in specs for w in spec["weights"] for e in w["engines"]},
            "languages": {code for spec in specs for code in spec["languages"]},
            "types": {spec["type"] for spec in specs},
        }
        values = {
            field: tuple(_known(field, name, known[field]) for name in names)
            for field, names in wanted.items()
        }
        return cls(**values, billions=None if size is None else parse_sizes(size))

    def allow(self, spec: Raw) -> bool:
        """Whether the model passes the filters that do not look at single weights."""
        return (
            set(self.abilities) <= set(spec["abilities"])
            and set(self.languages) <= set(spec["languages"])
            and (not self.types or spec["type"] in self.types)
        )

    def weights(self, spec: Raw) -> list[Raw]:
        """The model's weights that pass the filters."""
        low, high = self.billions or (0.0, float("inf"))
        return [
            entry
            for entry in spec["weights"]
            if (not self.formats or entry["format"] in self.formats)
            and (not self.engines or set(self.engines) & set(entry["engines"]))
            and low <= billions(entry["size"]) <= high
        ]


_KINDS = {
    "abilities": "ability",
    "formats": "format",
    "engines": "engine",
    "languages": "language",
    "types": "model type",
}


def _known(field: str, value: str, known: Iterable[str]) -> str:
    names = {name.casefold(): name for name in sorted(known)}
    if value.casefold() not in names:
        raise UnknownName.among(_KINDS[field], value, names.values())
    return names[value.casefold()]


def billions(size: str) -> float:
    """A canonical size as a number: `46_7` is 46.7."""
    return float(size.replace("_", "."))


def parse_sizes(text: str) -> tuple[float, float]:
    """A size in billions, or a range of them: `7`, `0_5..8`, `..8`, `30..`. Raises `BadValue`."""
    low, dots, high = text.strip().partition("..")
    if not dots:
        high = low
    elif low or high:
        low, high = low or "0", high or LARGEST
    ends = [_SIZE.fullmatch(end) for end in (low, high)]
    values = [float(f"{end[1]}.{end[2] or 0}") for end in ends if end is not None]
    if len(values) < 2:
        reason = "must be billions of parameters, such as 7 or 0_5, or a range such as 1..8 or ..8"
        raise BadValue("size", text, reason)
    if values[0] > values[1]:
        raise BadValue("size", text, "begins above its end")
    return values[0], values[1]


@dataclass(frozen=True)
class Hit:
    """A model that matches, and its weights that fit the filters."""

    spec: Raw
    weights: tuple[Raw, ...]


def search(specs: Iterable[Raw], words: Sequence[str], filters: Filters) -> list[Hit]:
    """The models that match all words and the filters, best first; without words, in order.

    Of models that fit the words equally well, the newest comes first.
    """
    query = [word for text in words for word in _WORD.findall(text.casefold())]
    scored: list[tuple[int, Hit]] = []
    for spec in specs:
        score = _score(spec, query)
        if score is not None and filters.allow(spec) and (weights := filters.weights(spec)):
            scored.append((score, Hit(spec, tuple(weights))))
    if query:
        scored.sort(key=lambda pair: pair[1].spec["name"].casefold())
        scored.sort(key=lambda pair: (pair[0], pair[1].spec["released"]), reverse=True)
    return [hit for _, hit in scored]


def near_names(specs: Iterable[Raw], words: Sequence[str]) -> tuple[str, ...]:
    """Names of models that resemble the words, for a search without a match."""
    names = [name for spec in specs for name in (spec["name"], *spec["aliases"])]
    close = [name for text in ("-".join(words), *words) for name in near(text, names)]
    return tuple(dict.fromkeys(close))[:5]


def _score(spec: Raw, words: Sequence[str]) -> int | None:
    """How well the words fit; None if a word matches nothing."""
    if not words:
        return 0
    places = [(_Place(list(texts(spec))), worth) for texts, worth in PLACES]
    total = 0
    for word in words:
        best = max(place.worth(word, worth) for place, worth in places)
        if not best:
            return None
        total += best
    query = _compact("".join(words))
    names = [_compact(name) for name in (spec["name"], *spec["aliases"])]
    if query in names:
        return total + _WHOLE_QUERY
    return total + (_BEGINS_WITH_QUERY if names[0].startswith(query) else 0)


class _Place:
    """The words of some texts, and the texts without separators between words."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._words = {word for text in texts for word in _split(text)}
        self._compact = [_compact(text) for text in texts]

    def worth(self, word: str, worth: tuple[int, int, int]) -> int:
        exact, begins, within = worth
        if word in self._words:
            return exact
        if any(known.startswith(word) for known in self._words):
            return begins
        plain = _compact(word)
        inside = len(plain) >= _LEAST_WITHIN and any(plain in text for text in self._compact)
        return within if inside else 0


def _split(text: str) -> Iterator[str]:
    for word in _WORD.findall(text.casefold()):
        yield word
        # qwen2.5 is found by qwen, bge2 by bge.
        yield from re.findall(r"[^\W\d_]+", word)


def _compact(text: str) -> str:
    return re.sub(r"[\W_]", "", text.casefold())
