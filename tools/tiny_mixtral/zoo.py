"""Facts about the zoo's animals: the one source of truth for stories, dialogues and their checks.

The facts are a children's-book view of each animal (one colour, one main food, one home), read from
`animals.csv`. "Swims" means "is known as a good swimmer".
"""

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

SIZES = ("tiny", "small", "medium-sized", "large", "huge")
SPEEDS = ("very slow", "slow", "quick", "fast", "very fast")

# Verbs whose past tense does not follow the rules in `inflect_past`.
IRREGULAR_PAST = {"sing": "sang", "hum": "hummed"}


@dataclass(frozen=True)
class Animal:
    """One animal and what the zoo says about it; every field is a word or a phrase."""

    name: str
    plural: str
    kind: str
    colour: str
    covering: str
    legs: str
    food: str
    home: str
    origin: str
    sound: str
    skill: str
    size: str
    speed: str
    flies: bool
    swims: bool
    baby: str

    @property
    def size_rank(self) -> int:
        """Place among the sizes, the smallest 0."""
        return SIZES.index(self.size)

    @property
    def speed_rank(self) -> int:
        """Place among the speeds, the slowest 0."""
        return SPEEDS.index(self.speed)


def read_animal(row: dict[str, str]) -> Animal:
    """Turn one row of the table into an animal."""
    flags = {name: row[name] == "yes" for name in ("flies", "swims")}
    facts: dict[str, Any] = {**row, **flags}
    return Animal(**facts)


@cache
def load_animals() -> tuple[Animal, ...]:
    """Read every animal, in the order of the table."""
    with (Path(__file__).parent / "animals.csv").open(newline="", encoding="utf-8") as lines:
        return tuple(map(read_animal, csv.DictReader(lines)))


@cache
def list_values(attribute: str) -> tuple[str, ...]:
    """Return the distinct values that an attribute takes in the zoo, longest first."""
    values = {str(getattr(animal, attribute)) for animal in load_animals()}
    return tuple(sorted(values, key=lambda value: (-len(value), value)))


def add_article(phrase: str) -> str:
    """Put "a" or "an" before a phrase."""
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def capitalize(sentence: str) -> str:
    """Raise the first letter and leave the others as they are."""
    return sentence[:1].upper() + sentence[1:]


def inflect_third(verb: str) -> str:
    """Return a verb's third person singular: roar → roars, hiss → hisses."""
    return verb + ("es" if verb.endswith(("s", "sh", "ch", "x", "z")) else "s")


def inflect_past(verb: str) -> str:
    """Return a verb's past tense: roar → roared, whine → whined, sing → sang."""
    return IRREGULAR_PAST.get(verb, verb + ("d" if verb.endswith("e") else "ed"))
