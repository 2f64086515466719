"""The error tree: one line each, near names, and fields for JSON."""

import inspect
import re

import pytest

from paddock.registry import errors
from paddock.registry.errors import (
    BadValue,
    NoEngine,
    NoRoom,
    NotLaunched,
    PaddockError,
    Refused,
    UidInUse,
    UnknownName,
    near,
)

CLASSES = [
    value
    for value in vars(errors).values()
    if inspect.isclass(value) and issubclass(value, PaddockError)
]


def test_the_tree_in_the_docstring_is_the_tree_in_the_code() -> None:
    """Every class stands in the docstring, at the depth that it has."""
    drawn = dict[str, int]()
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"    ((?:[│├└─ ]{4})*)([A-Z]\w+)(?:\s|$)", line)
        if found:
            drawn[found[2]] = len(found[1]) // 4
    assert drawn == {cls.__name__: len(cls.__mro__) - len(PaddockError.__mro__) for cls in CLASSES}


@pytest.mark.parametrize(
    ("value", "best"),
    [("mixtrl", "mixtral-v0.1"), ("MIXTRAL", "mixtral-v0.1"), ("tiny", "tiny-mixtral")],
)
def test_near_names_forgive_case_and_slips(value: str, best: str) -> None:
    """A slip, another case or a part of the name finds the name."""
    assert best in near(value, ["mixtral-v0.1", "tiny-mixtral", "qwen3"])


@pytest.mark.parametrize("value", ["zzzz", "", "q" * 10_000])
def test_far_names_are_not_offered(value: str) -> None:
    """What resembles nothing gets no suggestion."""
    assert near(value, ["mixtral-v0.1", "tiny-mixtral"]) == ()


def test_unknown_name_lists_what_is_known_where_that_is_short() -> None:
    """Few names are all listed, many are not; near ones come first."""
    few = str(UnknownName.among("engine", "lama.cpp", ["llama.cpp", "echo"]))
    assert few == ("unknown engine 'lama.cpp'; did you mean llama.cpp? (known: llama.cpp, echo)")
    many = str(UnknownName.among("model", "zzz", [f"m{n}" for n in range(100)]))
    assert many == "unknown model 'zzz'"


@pytest.mark.parametrize(
    "error",
    [
        UnknownName("model", "a\nb" * 1000),
        BadValue("size", "x\r\n" * 1000, "no"),
        BadValue("size", {"a": ["\n"] * 500}, "no"),
        NotLaunched("a\nb\x1b[31m"),
    ],
)
def test_what_a_user_sent_stays_one_short_line(error: PaddockError) -> None:
    """Line breaks, control characters and megabytes in a value do not reach the terminal."""
    said = str(error)
    assert said.isprintable()
    assert len(said) < 300


def test_messages_end_in_the_way_out() -> None:
    """The errors that a user can act on say what to do."""
    assert "paddock terminate --model-uid m" in str(UidInUse("m", "ready"))
    assert str(NoRoom("memory", "here", 2 * 10**9, 10**9, "do this")).endswith("; do this")
    refused = NoEngine("m x", {"llama.cpp": "not installed"}, ("m y",))
    assert "llama.cpp: not installed" in str(refused)
    assert str(refused).endswith("what can be served: m y")


def test_fields_are_what_the_error_was_made_of() -> None:
    """JSON output gets the fields by name."""
    assert UidInUse("m", "ready").fields() == {"uid": "m", "state": "ready"}
    assert issubclass(UidInUse, Refused)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("org/name", "hf:org/name or ms:org/name"),
        ("p/x.gguf", "./p/x.gguf"),
        ("a/b/c", "./a/b/c"),
        ("x.gguf", "./x.gguf"),
        ("mixtral", ""),
        ("llama3:8b", ""),
    ],
)
def test_a_name_that_looks_like_a_place_is_told_how_to_name_it(name: str, hint: str) -> None:
    """A repository by its hub's prefix, a file by its path."""
    told = str(UnknownName.among("model", name, ["tiny-mixtral"]))
    assert (hint in told) if hint else ("is named" not in told)
    assert "is named" not in str(UnknownName.among("engine", name, ["vLLM"]))
