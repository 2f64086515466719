"""Finding models by words and filters."""

from __future__ import annotations

from typing import Any, cast

import pytest

from paddock.registry.errors import BadValue, UnknownName
from paddock.registry.search import Filters, near_names, parse_sizes, search
from tests.catalog import CATALOG

SPECS = list(CATALOG.raw())


def names(*words: str, size: str | None = None, **filters: Any) -> list[str]:
    found = search(SPECS, words, Filters.checked(SPECS, size, **filters))
    return [hit.spec["name"] for hit in found]


@pytest.mark.parametrize(
    ("words", "first"),
    [
        (["qwen", "coder"], "Qwen3-Coder"),
        (["coder qwen"], "Qwen3-Coder"),
        (["BGE", "m3"], "bge-m3"),
        (["bge-m3"], "bge-m3"),
        (["llama3"], "llama-3"),
        (["mixtral", "instruct", "thebloke"], "mixtral-instruct-v0.1"),
        (["tiny"], "tiny-mixtral"),
        (["XLMRoberta", "bge", "embed"], "bge-m3"),
    ],
)
def test_the_best_match_comes_first(words: list[str], first: str) -> None:
    """By name, by parts of it in any order and case, by a hub's id, by the architecture."""
    assert names(*words)[0] == first


def test_every_word_must_match() -> None:
    """One that stands nowhere leaves nothing, and names that are near are told."""
    assert names("qwen", "zebra") == []
    assert "mixtral-v0.1" in near_names(SPECS, ["mixtrel"])
    assert near_names(SPECS, []) == ()


def test_a_whole_name_comes_before_longer_ones() -> None:
    """What was typed exactly stands first, and what begins so before what only has it."""
    assert names("qwen2.5")[0] == "qwen2.5"
    found = names("mistral")
    assert found.index("mistral-v0.1") < found.index("codestral-v0.1")


def test_an_ability_is_a_word_too() -> None:
    """`vision` finds what can see, those with the word in their name before the others."""
    found = names("vision")
    able = names(abilities=["vision"])
    assert set(able) <= set(found)
    assert "vision" in found[0]


def test_filters_go_together_on_one_set_of_weights() -> None:
    """A format and a size must be had at once; abilities and languages all of them."""
    assert "qwen2.5-coder-instruct" in names("qwen", size="..2", formats=["GGUFv2"])
    both = names(abilities=["vision", "Tools"], languages=["zh"])
    specs = {spec["name"]: spec for spec in SPECS}
    assert both
    assert all({"vision", "tools"} <= set(specs[name]["abilities"]) for name in both)
    hit, *_ = search(SPECS, ["bge-m3"], Filters.checked(SPECS, formats=["ggufv2"]))
    assert [weights["format"] for weights in hit.weights] == ["ggufv2"]
    assert names("bge-m3", size="7") == []
    assert set(names(types=["rerank"])) == {s["name"] for s in SPECS if s["type"] == "rerank"}


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("abilities", "visoin", "unknown ability 'visoin'; did you mean vision"),
        ("formats", "gguf", "unknown format 'gguf'; did you mean ggufv2"),
        ("engines", "vlm", "unknown engine 'vlm'; did you mean vLLM"),
        ("languages", "xx", "unknown language 'xx'"),
        ("types", "embed", "unknown model type 'embed'; did you mean embedding"),
    ],
)
def test_unknown_values_are_refused_by_name(field: str, value: str, says: str) -> None:
    """With the near ones."""
    with pytest.raises(UnknownName) as caught:
        Filters.checked(SPECS, **cast(dict[str, Any], {field: [value]}))
    assert str(caught.value).startswith(says)


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("7", (7.0, 7.0)),
        ("0_5", (0.5, 0.5)),
        ("46.7B", (46.7, 46.7)),
        ("1..8", (1.0, 8.0)),
        ("..8", (0.0, 8.0)),
        ("30..", (30.0, 99999.0)),
    ],
)
def test_sizes_and_ranges(text: str, ends: tuple[float, float]) -> None:
    """In the spellings that a launch takes."""
    assert parse_sizes(text) == ends


@pytest.mark.parametrize("text", ["", "..", "seven", "8..1", "1..2..3", "-1", "1e3"])
def test_what_is_no_size_is_refused(text: str) -> None:
    """By its value."""
    with pytest.raises(BadValue, match="size"):
        parse_sizes(text)
