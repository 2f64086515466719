"""Bodies with pictures in them are read and written as any other JSON."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddock.registry.errors import BadValue
from paddock.server import large
from paddock.server.body import parse
from paddock.server.treatment import dump

PICTURE = "data:image/png;base64," + base64.b64encode(bytes(range(256)) * 400).decode()


def strings() -> st.SearchStrategy[str]:
    """Texts, some of them with long runs of base64 at their end, in their middle, or broken."""
    run = st.integers(0, 40).map(lambda count: "Ab3+" * count)
    return st.text(max_size=8) | st.builds(
        lambda head, one, end: f"{head};base64,{one}{end}",
        st.text(max_size=4),
        run,
        st.sampled_from(["", "\\", '"', "é", " ", "\n", ";base64,", ";base64," + "x" * 60]),
    )


@pytest.fixture(autouse=True)
def short_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short runs count as long, and are looked at in several pieces."""
    monkeypatch.setattr(large, "LONG_BYTES", 20)
    monkeypatch.setattr(large, "_PIECE_BYTES", 7)


@settings(max_examples=300, deadline=None)
@given(
    st.recursive(
        strings() | st.integers() | st.none() | st.booleans(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(strings(), inner, max_size=3),
        max_leaves=12,
    )
)
def test_any_json_is_read_and_written_the_same(value: Any) -> None:
    """Escaped or as UTF-8, with runs in texts and in names: nothing changes."""
    try:
        written = dump(value)
    except ValueError:
        return
    assert json.loads(large.dumps(value)) == json.loads(written)
    for raw in (written, json.dumps(value, indent=1).encode()):
        try:
            expected = parse(raw)
        except BadValue:
            with pytest.raises(BadValue):
                large.loads(raw, parse)
        else:
            assert large.loads(raw, parse) == expected


def test_parser_sees_no_picture() -> None:
    """What is parsed, and what is dumped, is short."""
    seen: list[bytes] = []

    def noted(raw: bytes) -> Any:
        seen.append(raw)
        return json.loads(raw)

    body = {"messages": [{"content": [{"image_url": {"url": PICTURE}}, {"text": "é"}]}] * 2}
    raw = json.dumps(body).encode()
    assert large.loads(raw, noted) == body
    assert len(seen) == 1
    assert len(seen[0]) < 500
    assert large.dumps(body) == dump(body)


@pytest.mark.parametrize(
    "broken",
    ['{"a": "%s', '{"a": %s"}', '{"a": "%s", }', '{"a": NaN, "b": "%s"}', '["%s", "\\ud800"]'],
)
def test_error_is_that_of_the_body_as_it_came(broken: str) -> None:
    """The position and the text in it are the client's."""
    raw = (broken % PICTURE).encode()
    with pytest.raises(BadValue) as expected:
        parse(raw)
    with pytest.raises(BadValue) as caught:
        large.loads(raw, parse)
    assert str(caught.value) == str(expected.value)
