"""YAML as text with lines, and the YAML that a spec has no use for."""

import pytest
import yaml

from paddock.registry import document
from paddock.registry.document import MAX_BYTES, field_name, parse
from paddock.registry.errors import InvalidSpec


@pytest.fixture(params=["libyaml", "python"], autouse=True)
def _loader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both of PyYAML's parsers must agree: not every wheel has the C one."""
    if request.param == "python":
        monkeypatch.setattr(document, "_Loader", yaml.BaseLoader)


def test_every_scalar_stays_the_text_that_was_written() -> None:
    """No value is taken for a number, a date, a truth or nothing."""
    source = "a: 46_7\nb: no\nc: 2023-12-09\nd: 1e3\ne: 0x10\nf: 12:30:45\ng: '~'\nh: \"\"\n"
    assert parse(source.encode(), "x").value == {
        "a": "46_7",
        "b": "no",
        "c": "2023-12-09",
        "d": "1e3",
        "e": "0x10",
        "f": "12:30:45",
        "g": "~",
        "h": "",
    }


def test_every_value_knows_its_line() -> None:
    """A field's line is that of its key, an item's that of its dash, a missing one's its parent."""
    source = "# top\na: 1\nb:\n  - c: 2\n    d:\n      e: |\n        text\n  - f\n"
    parsed = parse(source.encode(), "x")
    lines = {
        ("a",): 2,
        ("b",): 3,
        ("b", 0): 4,
        ("b", 0, "c"): 4,
        ("b", 0, "d"): 5,
        ("b", 0, "d", "e"): 6,
        ("b", 1): 8,
        ("b", 0, "missing"): 4,
        ("b", 0, "d", 0): 6,
        ("missing",): 2,
    }
    assert {path: parsed.line(path) for path in lines} == lines


def test_field_names_read_like_paths() -> None:
    """Keys are joined by dots, positions stand in brackets."""
    assert field_name(("weights", 0, "sources", 1, "id")) == "weights[0].sources[1].id"
    assert field_name(()) == ""


@pytest.mark.parametrize(
    ("data", "line", "field", "reason"),
    [
        (b"", 0, "", "empty"),
        (b"# only a comment\n", 0, "", "empty"),
        (b"---\n", 2, "", "no value"),
        (b"- a\n- b\n", 1, "", "must be a mapping"),
        (b"just text\n", 1, "", "must be a mapping"),
        (b"a: 1\nb: \xff\n", 2, "", "not UTF-8 (byte 0xff)"),
        ("a: 1\n".encode("utf-16"), 1, "", "not UTF-8"),
        (b"a: 1\nb: \x07\n", 2, "", "not YAML"),
        (b"a:\n\tb: 1\n", 2, "", "a tab; YAML is indented with spaces"),
        (b"a: [1, 2\nb: 3\n", 2, "", "not YAML"),
        (b"a: 1\n b: 2\n", 2, "", "not YAML"),
        (b"a: 1\nb: 2\na: 3\n", 3, "a", "given twice (first on line 1)"),
        (b"a:\n  - b: 1\n    b: 2\n", 3, "a[0].b", "given twice (first on line 2)"),
        (b"a:\nb: 1\n", 1, "a", "no value"),
        (b"a: null\n", 1, "a", "no value"),
        (b"a:\n  - x\n  - ~\n", 3, "a[1]", "no value"),
        (b"a: &x 1\n", 1, "a", "'x' is an anchor"),
        (b"a: 1\nb: *x\n", 2, "b", "'x' is an anchor"),
        (b"a: !!python/object/apply:os.system [echo]\n", 1, "a", "the tag"),
        (b"a: !!int '7'\n", 1, "a", "the tag"),
        (b"? [a, b]\n: 1\n", 1, "", "a key must be a plain name"),
        (b"a: 1\n---\nb: 2\n", 2, "", "a second document"),
        (b"a: " + b"[" * 100_000, 1, "", "nested more than"),
        (b"{a: " * 50, 1, "", "nested more than"),
        (b"a: 1\n" + b"#" * MAX_BYTES, 0, "", "at most 1048576 are read"),
    ],
)
def test_what_is_no_plain_mapping_is_refused(
    data: bytes, line: int, field: str, reason: str
) -> None:
    """Each kind of wrong file is an `InvalidSpec` with its file, line, field and reason."""
    with pytest.raises(InvalidSpec) as caught:
        parse(data, "some.yaml")
    error = caught.value
    assert (error.path, error.line, error.name_of_field) == ("some.yaml", line, field)
    assert reason in error.reason
    assert "\n" not in str(error)


def test_an_alias_bomb_is_refused_at_its_first_anchor() -> None:
    """Aliases that would multiply are never followed."""
    bomb = "a: &a [x, x]\n" + "".join(
        f"{name}: &{name} [*{before}, *{before}]\n"
        for before, name in zip("abcdefghij", "bcdefghijk", strict=True)
    )
    with pytest.raises(InvalidSpec, match="anchor") as caught:
        parse(bomb.encode(), "x")
    assert caught.value.line == 1


def test_a_byte_order_mark_is_no_fault() -> None:
    """Editors on Windows begin UTF-8 files with a mark, which is not part of the first key."""
    assert parse(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n", "x").value == {"a": "1", "b": "2"}
