"""The table of abilities."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator

import pytest

from paddock.registry.abilities import (
    BUILT_IN,
    Ability,
    abilities,
    find_ability,
    model_types,
    needed_ability,
    smallest_request,
    type_of,
)
from paddock.registry.errors import BadValue, UnknownName

FLY = Ability("fly", "bird", is_needed=True, path="/fly", probes=({"where": "a"},))


@pytest.fixture
def flying(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package brings an ability and its type, and tries to replace a built-in one."""

    def points(group: str) -> list[importlib.metadata.EntryPoint]:
        assert group == "paddock.abilities"
        return [
            importlib.metadata.EntryPoint("fly", f"{__name__}:FLY", group),
            importlib.metadata.EntryPoint("chat", f"{__name__}:EVIL", group),
            importlib.metadata.EntryPoint("gone", "no.such.module:X", group),
        ]

    monkeypatch.setattr(importlib.metadata, "entry_points", points)
    abilities.cache_clear()
    yield
    abilities.cache_clear()


EVIL = Ability("chat", "bird")


def test_each_type_has_one_ability_that_its_models_need() -> None:
    """And a smallest request, which shows that the model computes."""
    needed = [ability for ability in BUILT_IN if ability.is_needed]
    assert len({ability.model_type for ability in needed}) == len(needed) == len(model_types())
    for ability in needed:
        assert ability.path.startswith("/")
        assert ability.probes
        assert needed_ability(ability.model_type) == ability


@pytest.mark.parametrize(
    ("names", "type_", "path"),
    [
        (("generate", "chat", "tools"), "LLM", "/completions"),
        (("embed",), "embedding", "/embeddings"),
        (("rerank",), "rerank", "/rerank"),
        (("embed", "chat"), "LLM", "/completions"),
        ((), "LLM", "/completions"),
    ],
)
def test_abilities_tell_the_type_and_the_probe(
    names: tuple[str, ...], type_: str, path: str
) -> None:
    """A model that talks is an LLM, whatever else it can do."""
    assert type_of(names) == type_
    assert smallest_request(names)[0] == path


@pytest.mark.usefixtures("flying")
def test_a_package_adds_an_ability_and_replaces_none() -> None:
    """Its type comes with it; what cannot be read is left out."""
    assert find_ability("fly") == FLY
    assert find_ability("chat") != EVIL
    assert abilities()["chat"] != EVIL
    assert "bird" in model_types()
    assert needed_ability("bird") == FLY
    assert smallest_request(("fly",)) == ("/fly", {"where": "a"})
    assert find_ability("gone") is None


def test_unknown_types_and_bad_names_are_refused() -> None:
    """With the types that there are."""
    with pytest.raises(UnknownName, match="embedding"):
        needed_ability("fish")
    with pytest.raises(BadValue, match="small letters"):
        Ability("Fly High")
