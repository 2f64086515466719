"""The lockfile: what is written, what is read, what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from paddock.registry.errors import InvalidLock, UnknownName
from paddock.registry.lockfile import (
    LockedModel,
    Lockfile,
    parse_entry,
    parse_lock,
    read_lock,
    write_lock,
)

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SHA = "ab" * 32


def entry(**changes: Any) -> dict[str, Any]:
    given = {
        "model": "mixtral-v0.1",
        "format": "ggufv2",
        "size": "46_7",
        "quantization": "Q4_K_M",
        "hub": "huggingface",
        "id": "TheBloke/Mixtral-8x7B-v0.1-GGUF",
        "revision": "main",
        "commit": COMMIT,
        "engine": "llama.cpp",
        "engine_version": "xllamacpp 1.2",
        "files": [{"name": "m.gguf", "size_bytes": 26_440_000_000, "sha256": SHA}],
    }
    return {key: value for key, value in {**given, **changes}.items() if value is not None}


TEXT = f"""\
# Written by `paddock lock`, and meant to be committed.
version: 1
models:
  mixtral-v0.1:
    format: ggufv2
    size: "46_7"
    quantization: Q4_K_M
    hub: huggingface
    id: TheBloke/Mixtral-8x7B-v0.1-GGUF
    revision: main
    commit: {COMMIT}
    engine: llama.cpp
    engine_version: "xllamacpp 1.2"
    files:
      - {{name: m.gguf, size_bytes: 26440000000, sha256: {SHA}}}
"""


def lock(*entries: dict[str, Any]) -> Lockfile:
    return Lockfile(models=tuple(map(parse_entry, entries)))


def refused(text: str) -> str:
    with pytest.raises(InvalidLock) as caught:
        parse_lock(text.encode(), "paddock.lock")
    said = str(caught.value)
    assert "\n" not in said
    assert said.endswith("; to make it anew: paddock lock MODEL")
    return said.removesuffix("; to make it anew: paddock lock MODEL")


def test_the_text_is_what_the_page_says() -> None:
    """One file a line, fields in their order, no time in it; and it is read back as it was."""
    assert lock(entry()).text() == TEXT
    assert parse_lock(TEXT.encode(), "x") == lock(entry())


def test_the_same_entries_give_the_same_text() -> None:
    """Whatever the order in which models and files came."""
    files = [
        {"name": "b.safetensors", "size_bytes": 1, "sha256": SHA},
        {"name": "a.json", "size_bytes": 2, "sha256": SHA, "git": COMMIT},
    ]
    zoo = entry(model="Zoo", format="pytorch", quantization="none", files=files)
    turned = entry(model="Zoo", format="pytorch", quantization="none", files=files[::-1])
    text = lock(entry(), zoo).text()
    assert lock(turned, entry()).text() == text
    assert parse_lock(text.encode(), "x").text() == text
    assert text.index("a.json") < text.index("b.safetensors")


def test_any_yaml_reader_finds_the_same() -> None:
    """Text that another reader could take for a number or a flag is quoted."""
    files = [
        {"name": 'no "way",\' {x}: #1.gguf', "size_bytes": 0, "sha256": "1" * 64},
        {"name": "ü/1e5", "size_bytes": 1, "sha256": "1e" + "0" * 62},
    ]
    odd = entry(model="no", size="7", engine_version="1.0", files=files, hub="path", id="/a b",
                commit=None, revision=None)  # fmt: skip
    text = lock(odd).text()
    found = yaml.safe_load(text)["models"]["no"]
    assert {**odd, "model": "no"} == {**found, "model": "no"}
    assert parse_lock(text.encode(), "x") == lock(odd)


def test_an_empty_lock_is_one() -> None:
    """It locks nothing."""
    assert parse_lock(Lockfile().text().encode(), "x") == Lockfile()
    assert parse_lock(b"version: 1\n", "x").models == ()


def test_an_entry_replaces_that_of_its_model_and_no_other() -> None:
    """And names are compared without case."""
    other = entry(model="zoo")
    merged = lock(entry(), other).merged([parse_entry(entry(quantization="Q8_0"))])
    assert merged.entry("MIXTRAL-v0.1").quantization == "Q8_0"
    assert merged.entry("zoo") == parse_entry(other)
    with pytest.raises(UnknownName, match="unknown locked model 'zo'; did you mean zoo"):
        merged.entry("zo")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("version: 1", "version: 2", ":2: version: is '2', and this Paddock reads 1"),
        ("version: 1\n", "", ": version: is missing"),
        ("models:", "modles:", ":3: modles: unknown field; did you mean models?"),
        ("quantization:", "quantisation:", ":7: models.mixtral-v0.1.quantisation: unknown field; "
         "did you mean quantization?"),
        ("ggufv2", "gguf", ":5: models.mixtral-v0.1.format: must be "),
        ('"46_7"', "big", ":6: models.mixtral-v0.1.size: size 'big'"),
        ("    engine: llama.cpp\n", "", ":4: models.mixtral-v0.1.engine: is missing"),
        (COMMIT, "main", ":11: models.mixtral-v0.1.commit: 'main' is not"),
        (SHA, "ab", ":15: models.mixtral-v0.1.files[0].sha256: 'ab' is not"),
        ("26440000000", "-1", ":15: models.mixtral-v0.1.files[0].size_bytes: must be"),
        ("m.gguf", "../m.gguf", ":15: models.mixtral-v0.1.files[0].name: '../m.gguf' is not"),
        ("name: m.gguf", "nane: m.gguf", ":15: models.mixtral-v0.1.files[0].n"),
        ("hub: huggingface", "hub: local", ":11: models.mixtral-v0.1.commit: only hubs have"),
        ("TheBloke/Mixtral", "Mixtral", ":9: models.mixtral-v0.1.id: 'Mixtral-8x7B-v0.1-GGUF'"),
        ("engine: llama.cpp", "engine:", ":12: models.mixtral-v0.1.engine: no value"),
        ("  mixtral-v0.1:", "<<<<<<< ours\n  mixtral-v0.1:", ":4: a merge conflict"),
        ("format: ggufv2", "format: ggufv2\n    format: awq", ":6: models.mixtral-v0.1.format: "),
        ("models:", "models: [", ": not YAML"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_line_and_field(old: str, new: str, says: str) -> None:
    """And with the way out."""
    assert old in TEXT
    assert refused(TEXT.replace(old, new, 1)).startswith("paddock.lock")
    assert says in refused(TEXT.replace(old, new, 1))


@pytest.mark.parametrize("text", ["", "[]", "version: 1\nmodels: []", "version: 1\nmodels: {x: 1}"])
def test_what_is_no_mapping_is_refused(text: str) -> None:
    """At the top, of the models, and of one."""
    assert refused(text)


def test_a_file_that_is_not_there_or_no_file_is_refused(tmp_path: Path) -> None:
    """With its path; a pipe is not waited for."""
    with pytest.raises(InvalidLock, match=r"none\.lock: is not there"):
        read_lock(tmp_path / "none.lock")
    with pytest.raises(InvalidLock, match=r"cannot be read|not a regular file"):
        read_lock(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidLock, match="not a regular file"):
        read_lock(tmp_path / "pipe")


def test_a_file_is_twice_in_no_entry() -> None:
    """Nor does an entry have none."""
    file = entry()["files"][0]
    with pytest.raises(InvalidLock, match=r"files\[1\].name: 'm.gguf' is listed twice"):
        parse_entry(entry(files=[file, file]))
    with pytest.raises(InvalidLock, match="files: must have at least one item"):
        parse_entry(entry(files=[]))
    with pytest.raises(InvalidLock, match="must be a mapping"):
        parse_entry([])


@pytest.mark.parametrize("identity", ["a/../../etc", "/etc", "a/.."])
def test_local_weights_stay_below_the_specs(identity: str) -> None:
    """An id that leads elsewhere is refused; so is a path that is not absolute."""
    with pytest.raises(InvalidLock, match="id: "):
        parse_entry(entry(hub="local", id=identity, commit=None, revision=None))
    with pytest.raises(InvalidLock, match="id: "):
        parse_entry(entry(hub="path", id="a/b", commit=None, revision=None))


def test_it_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that fails leaves the old file and nothing beside it; a link stays a link."""
    path, link = tmp_path / "real.lock", tmp_path / "paddock.lock"
    write_lock(path, lock(entry()))
    link.symlink_to(path)
    write_lock(link, Lockfile())
    assert link.is_symlink()
    assert read_lock(path) == Lockfile()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(InvalidLock, match="cannot be written: No space left"):
        write_lock(path, lock(entry()))
    assert read_lock(path) == Lockfile()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["paddock.lock", "real.lock"]


def test_an_entry_passes_through_json() -> None:
    """As the command line sends it."""
    found = parse_entry(entry())
    sent = json.loads(json.dumps(found.model_dump(mode="json", exclude_none=True)))
    assert parse_entry(sent) == found
    assert isinstance(found, LockedModel)
    assert found.size_bytes == 26_440_000_000
