"""Large bodies are read and written as any other JSON, in calls that are short."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddock.registry.errors import BadValue
from paddock.registry.json_codec import encode
from paddock.server.http import large
from paddock.server.http.body import parse

LONG, PIECE = 20, 16
SHORT_BYTES = 500
"""What is left of each body below once its long texts are out."""
BASE64 = base64.b64encode(bytes(range(256)) * 400).decode()
PICTURE = f"data:image/png;base64,{BASE64}"


def strings() -> st.SearchStrategy[str]:
    """Texts, some of them long, of what may stand at a cut."""
    atoms = st.sampled_from(
        ["a", "Ab3+", '"', "\\", "\\\\", '\\"', "é", "\n", "你", "🐘", "\\ud83d"]
    )
    return st.text(max_size=8) | st.lists(atoms, max_size=60).map("".join)


@pytest.fixture(autouse=True)
def short_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short texts count as long, and are cut into many pieces."""
    monkeypatch.setattr(large, "LONG_BYTES", LONG)
    monkeypatch.setattr(large, "_PIECE_SIZE", PIECE)


@settings(max_examples=300, deadline=None)
@given(
    st.recursive(
        strings() | st.integers() | st.none() | st.booleans(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(strings(), inner, max_size=3),
        max_leaves=12,
    )
)
def test_any_json_is_read_and_written_the_same(value: Any) -> None:
    """Escaped or as UTF-8, with long texts as values and as names: nothing changes."""
    written = encode(value)
    assert large.dumps(value) == written
    for raw in (written, json.dumps(value, indent=1).encode()):
        assert large.loads(raw, parse) == parse(raw) == value


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from([b'"', b"\\", b"u", b"d83d", b"e", b"\xe4", b"\xbd", b"a" * 9])))
def test_what_is_no_json_is_refused_as_ever(parts: list[bytes]) -> None:
    """Whatever bytes stand in a text, the answer is the parser's own."""
    raw = b'{"a": "%b"}' % b"".join(parts)
    assert outcome(lambda: large.loads(raw, parse)) == outcome(lambda: parse(raw))


def outcome(work: Callable[[], Any]) -> Any:
    """What comes of it, or the text of its refusal."""
    try:
        return work()
    except BadValue as error:
        return str(error)


def _content(part: Any) -> Any:
    return {"messages": [{"role": "user", "content": [part, {"type": "text", "text": "é"}]}] * 2}


@pytest.mark.parametrize("is_escaped", [False, True])
@pytest.mark.parametrize(
    "body",
    [
        _content({"type": "image_url", "image_url": {"url": PICTURE}}),
        _content({"type": "image", "source": {"type": "base64", "data": BASE64}}),
        _content({"type": "input_audio", "input_audio": {"data": BASE64, "format": "wav"}}),
        {"prompt": "The old elephant eats hay. " * 4000},
        {"prompt": '{"say": "C:\\new\\\\"}\n' * 4000},
        {"prompt": "象吃草。🐘" * 8000},
        {"input": ["a" * 100_000, "b", "c" * 100_000]},
    ],
    ids=["picture", "Anthropic's picture", "sound", "text", "code", "characters", "several"],
)
def test_no_call_reads_or_writes_much_at_once(
    monkeypatch: pytest.MonkeyPatch, body: Any, is_escaped: bool
) -> None:
    """Neither parser nor writer sees more than a piece of a long text: others get their turn."""
    read: list[int] = []
    written: list[int] = []

    decode_text = large._decode_text

    def noted_parse(raw: bytes) -> Any:
        read.append(len(raw))
        return parse(raw)

    def noted_decode_text(piece: bytes) -> str:
        read.append(len(piece))
        return decode_text(piece)

    def noted_encode(value: Any) -> bytes:
        found = encode(value)
        written.append(len(found))
        return found

    raw = json.dumps(body, ensure_ascii=is_escaped).encode()
    monkeypatch.setattr(large, "_decode_text", noted_decode_text)
    assert large.loads(raw, noted_parse) == body
    monkeypatch.setattr(large, "encode", noted_encode)
    assert large.dumps(body) == encode(body)
    for lengths in (read, written):
        assert len(lengths) > 1000
        assert max(lengths) < SHORT_BYTES


def test_what_has_no_long_text_is_read_and_written_at_once() -> None:
    """As without this module, and in one call."""
    calls: list[bytes] = []

    def noted(raw: bytes) -> Any:
        calls.append(raw)
        return parse(raw)

    body = {"prompt": ["a", 'b"\\'], "max_tokens": 3}
    assert large.loads(encode(body), noted) == body
    assert calls == [encode(body)]
    assert large.dumps(body) == encode(body)


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
