"""The abilities of models. An ability is one row here, or an entry point.

Specs, plans, probes, attached endpoints and the lists of models read this table. The routes for
an ability belong to dialects (`server/dialects/`), which name it.
Importing it is cheap: entry points are looked up only for a name that is not built in.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from paddock.registry.added import load_added
from paddock.registry.errors import BadValue, UnknownName

ENTRY_POINTS = "paddock.abilities"
_NAME = re.compile(r"[a-z][a-z0-9_-]{1,31}")


@dataclass(frozen=True)
class Ability:
    """One thing that models can do.

    Attributes:
        name: in specs and plans.
        model_type: the type of models that can have it, as Xinference calls types.
        is_needed: no model of the type can be called without it.
        path: the route below an endpoint's base URL that shows it; empty: it is one of another's.
        probes: the smallest requests on that route; the first that is answered shows the ability.
        is_family: whether Xinference groups models by it, under the same name.

    Raises:
        BadValue: a name outside its grammar.
    """

    name: str
    model_type: str = "LLM"
    is_needed: bool = False
    path: str = ""
    probes: tuple[Mapping[str, Any], ...] = field(default=(), hash=False)
    is_family: bool = False

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise BadValue("ability", self.name, "must be small letters and digits")


_TALK: Mapping[str, Any] = {"messages": [{"role": "user", "content": "a"}]}
BUILT_IN = (
    Ability(
        "chat",
        path="/chat/completions",
        # Some models of OpenAI's take the newer name of max_tokens alone, and think before they
        # answer.
        probes=({**_TALK, "max_tokens": 1}, {**_TALK, "max_completion_tokens": 64}),
        is_family=True,
    ),
    Ability(
        "generate",
        is_needed=True,
        path="/completions",
        probes=({"prompt": "a", "max_tokens": 1},),
        is_family=True,
    ),
    Ability("vision", is_family=True),
    Ability("tools", is_family=True),
    Ability("reasoning", is_family=True),
    Ability("embed", "embedding", is_needed=True, path="/embeddings", probes=({"input": "a"},)),
    Ability(
        "rerank",
        "rerank",
        is_needed=True,
        path="/rerank",
        probes=({"query": "a", "documents": ["a"]},),
    ),
)
_BUILT_IN: Mapping[str, Ability] = {ability.name: ability for ability in BUILT_IN}


@cache
def abilities() -> Mapping[str, Ability]:
    """All abilities by name, built-in ones first."""
    table = dict(_BUILT_IN)
    for ability in load_added(ENTRY_POINTS, Ability):
        # A package cannot replace an ability, only add one.
        table.setdefault(ability.name, ability)
    return table


def added_abilities() -> list[str]:
    """The names of abilities that other packages add."""
    return [name for name in abilities() if name not in _BUILT_IN]


def find_ability(name: str) -> Ability | None:
    """The ability of this name, or None."""
    return _BUILT_IN.get(name) or abilities().get(name)


def model_types() -> tuple[str, ...]:
    """The types of models that abilities belong to."""
    return tuple(dict.fromkeys(one.model_type for one in abilities().values()))


def needed_ability(model_type: str) -> Ability:
    """The ability that every model of a type has.

    Raises:
        UnknownName: there is no such type.
    """
    for table in (_BUILT_IN, abilities()):
        for ability in table.values():
            if ability.model_type == model_type and ability.is_needed:
                return ability
    raise UnknownName.among("model type", model_type, model_types())


def type_of(names: Iterable[str]) -> str:
    """The type of a model that has these abilities: `LLM` if any of them is an LLM's."""
    types = [one.model_type for one in map(find_ability, names) if one is not None]
    return "LLM" if "LLM" in types or not types else types[0]


def smallest_request(names: Iterable[str]) -> tuple[str, Mapping[str, Any]]:
    """A route below `/v1`, and the smallest request on it that makes a model compute."""
    needed = needed_ability(type_of(names))
    return needed.path, needed.probes[0]


def probed_abilities() -> Mapping[str, Ability]:
    """The abilities that a request can show."""
    return {name: ability for name, ability in abilities().items() if ability.probes}
