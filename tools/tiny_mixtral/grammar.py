"""Parse generated stories with the generator's own sentence shapes, any slot filling allowed.

A story is in the grammar as far as its text is a chain of known shapes. Because slots are captured,
the parse also says whether what a sentence claims of the story's animal is true, and whether the
animal and the keeper stay the same.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from . import stories as s
from .zoo import (
    SIZES,
    SPEEDS,
    Animal,
    add_article,
    capitalize,
    inflect_past,
    list_values,
    load_animals,
)

SLOT = re.compile(r"\{(\w+)\}")
# Slots that state a fact about the story's animal, and how the fact is worded.
FACT_SLOTS: dict[str, Callable[[Animal], str]] = {
    "food": lambda a: a.food,
    "home": lambda a: a.home,
    "origin": lambda a: a.origin,
    "colour": lambda a: a.colour,
    "covering": lambda a: a.covering,
    "legs": lambda a: a.legs,
    "sounded": lambda a: inflect_past(a.sound),
    "skill": lambda a: a.skill,
    "size": lambda a: a.size,
    "speed": lambda a: a.speed,
    "baby": lambda a: a.baby,
    "a_size": lambda a: add_article(a.size),
    "a_speed": lambda a: add_article(a.speed),
    "a_kind": lambda a: add_article(a.kind),
}


@dataclass(frozen=True)
class Parse:
    """What a story's text turned out to be."""

    sentences: int
    known: int
    """Sentences that are one of the shapes."""
    claims: int
    true_claims: int
    """Claims about the story's animal, and those that the facts bear out."""
    same_animal: bool
    same_keeper: bool
    ended: bool
    """The story's last sentence is an ending, and nothing is cut off."""


@cache
def list_fillings(slot: str) -> tuple[str, ...]:
    """List what a slot may hold, longest first so that a pattern takes the whole phrase."""
    animals = [animal.name for animal in load_animals()]
    name = slot.removeprefix("friend_")
    special = {
        "animal": animals,
        "friend": animals,
        "faster": animals,
        "slower": animals,
        "an_animal": [add_article(a) for a in animals],
        "a_friend": [add_article(a) for a in animals],
        "A_friend": [capitalize(add_article(a)) for a in animals],
        "adj": s.ADJECTIVES,
        "adj2": s.ADJECTIVES,
        "an_adj": [add_article(a) for a in s.ADJECTIVES],
        "an_adj2": [add_article(a) for a in s.ADJECTIVES],
        "keeper": s.WOMEN + s.MEN,
        "child": s.GIRLS + s.BOYS,
        "child_word": ("girl", "boy"),
        "thing": s.THINGS,
        "a_thing": [add_article(t) for t in s.THINGS],
        "place": s.PLACES,
        "place_tree": ("the big tree", "the apple tree", "the oak tree"),
        "season": s.SEASONS,
        "weather": s.WEATHERS,
        "time": s.TIMES,
        "feeling": s.FEELINGS,
        "sounded": [inflect_past(a.sound) for a in load_animals()],
        "covering_bare": [v.removeprefix("a ") for v in list_values("covering")],
        "a_size": [add_article(v) for v in SIZES],
        "a_speed": [add_article(v) for v in SPEEDS],
        "a_kind": [add_article(v) for v in list_values("kind")],
        "faster_speed": SPEEDS,
    }
    fillings = special.get(name) or list_values(name)
    return tuple(sorted(set(fillings), key=lambda text: (-len(text), text)))


def compile_shape(shape: str) -> re.Pattern[str]:
    """Turn a shape into a pattern that ends where a sentence ends; a repeated slot must repeat."""
    seen: set[str] = set()
    pattern = ""
    for place, part in enumerate(SLOT.split(shape)):
        if place % 2 == 0:
            pattern += re.escape(part)
        elif part in seen:
            pattern += f"(?P={part})"
        else:
            seen.add(part)
            pattern += f"(?P<{part}>{'|'.join(map(re.escape, list_fillings(part)))})"
    return re.compile(pattern + r"(?= |$)")


@cache
def compile_grammar() -> tuple[tuple[re.Pattern[str], bool], ...]:
    """Compile every shape, with whether it is an ending; shapes without slots come first."""
    endings = set(s.ENDINGS)
    shapes = sorted(s.list_shapes(), key=lambda shape: "{" in shape)
    return tuple((compile_shape(shape), shape in endings) for shape in shapes)


def match_sentence(text: str, start: int) -> tuple[re.Match[str], bool] | None:
    """Find the longest shape that the text continues with."""
    best: tuple[re.Match[str], bool] | None = None
    for pattern, ending in compile_grammar():
        found = pattern.match(text, start)
        if found and (best is None or found.end() > best[0].end()):
            best = (found, ending)
    return best


def skip_sentence(text: str, start: int) -> int:
    """Return where the next sentence begins after one that no shape fits."""
    end = re.compile(r'[.!?]"? (?=["A-Z])').search(text, start)
    return end.end() if end else len(text)


def find_hero(text: str) -> Animal | None:
    """Return the animal that the text names first."""
    names = "|".join(animal.name for animal in load_animals())
    first = re.search(rf"\b({names})\b", text)
    if first is None:
        return None
    return next(animal for animal in load_animals() if animal.name == first[1])


def judge_claims(slots: dict[str, str], hero: Animal) -> list[bool]:
    """Say for each fact in a sentence about the hero whether it is true."""
    return [slots[name] == word(hero) for name, word in FACT_SLOTS.items() if name in slots]


def parse_story(text: str) -> Parse:
    """Parse a whole story, opening included."""
    text = text.strip()
    hero = find_hero(text)
    claims: list[bool] = []
    heroes: set[str] = set()
    keepers: set[str] = set()
    place = sentences = known = 0
    ended = False
    while place < len(text):
        sentences += 1
        found = match_sentence(text, place)
        if found is None:
            ended = False
            place = skip_sentence(text, place)
            continue
        match, ended = found
        known += 1
        slots = match.groupdict()
        heroes |= {slots["animal"]} if "animal" in slots else set()
        keepers |= {slots["keeper"]} if "keeper" in slots else set()
        claims += judge_claims(slots, hero) if hero else []
        place = match.end() + 1
    return Parse(
        sentences=sentences,
        known=known,
        claims=len(claims),
        true_claims=sum(claims),
        same_animal=len(heroes) <= 1,
        same_keeper=len(keepers) <= 1,
        ended=ended,
    )


@cache
def list_words() -> frozenset[str]:
    """List every word that a story can contain, in lower case."""
    fillings = " ".join(
        filling
        for shape in s.list_shapes()
        for slot in SLOT.findall(shape)
        for filling in list_fillings(slot)
    )
    plain = " ".join(SLOT.sub(" ", shape) for shape in s.list_shapes())
    return frozenset(re.findall(r"[a-z]+", f"{fillings} {plain}".lower()))


def count_known_words(text: str) -> tuple[int, int]:
    """Return how many words a text has and how many of them the stories know."""
    words = re.findall(r"[a-z]+", text.lower())
    return len(words), sum(word in list_words() for word in words)
