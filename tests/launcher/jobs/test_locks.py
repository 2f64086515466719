"""Locks against a hub on loopback: what is made, what is refused, what is said of changes."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path
from typing import Any

import pytest

from paddock.launcher.jobs.run_lock import Bench, compare, make, verify
from paddock.launcher.planning.plan import PlannedFile, PlannedWeights
from paddock.launcher.weights import Terms, fetch
from paddock.registry.errors import HubFailure
from paddock.registry.lockfile import LockedModel
from paddock.registry.spec import Source
from tests.fakes import COMMIT, HubServer, git_of, sha256_of
from tests.launcher.conftest import DATA, FILE, REPO
from tests.launcher.weights.test_hubs import HUBS, REPOSITORY, SHA, failure, get, weights

ZOO = "keeper/zoo"
PARTS = [f"big-0000{number}-of-00002.gguf" for number in (1, 2)]


@pytest.fixture
def bench(terms: Terms) -> Bench:
    return Bench(terms, lambda _: None, threading.Event())


def entry(planned: PlannedWeights, bench: Bench, *, newest: bool = False) -> LockedModel:
    """The lock of these weights, as a model's."""
    return LockedModel.model_validate(
        {
            "model": "zoo",
            "format": "ggufv2" if planned.files else "pytorch",
            "size": "7",
            "quantization": "Q4_0",
            "engine": "llama.cpp",
            "engine_version": "1",
            **make(planned, newest, bench),
        }
    )


def pinned(lock: LockedModel, **changes: Any) -> PlannedWeights:
    """The weights as a locked plan has them."""
    source = lock.source
    files = (PlannedFile(name=source.file),) if source.file else ()
    given = {"hub": lock.hub, "id": lock.id, "revision": source.revision, "files": files}
    return PlannedWeights(**given, size_bytes=1, here=False, lock=lock, **changes)


def rows(models: list[LockedModel], bench: Bench, *caches: tuple[str, Source]) -> list[Any]:
    found: list[Any] = []
    compare(models, caches, bench, found.append)
    return found


@pytest.mark.parametrize("name", HUBS)
def test_a_lock_is_made_without_the_large_files(hub: HubServer, bench: Bench, name: str) -> None:
    """Commit, sizes and SHA-256 come with the list; of a GGUF nothing is fetched."""
    lock = entry(weights(name, FILE), bench)
    assert [(f.name, f.size_bytes, f.digest) for f in lock.files] == [
        (FILE, len(DATA), f"sha256:{SHA}")
    ]
    assert lock.commit == (COMMIT if name == "huggingface" else None)
    assert hub.files() == []


@pytest.mark.parametrize("name", HUBS)
def test_every_file_has_a_sha256(hub: HubServer, bench: Bench, name: str) -> None:
    """Of what Hugging Face names by git's SHA-1 alone, the small file is fetched and read."""
    hub.repos[ZOO] = dict(REPOSITORY)
    lock = entry(weights(name, id=ZOO), bench)
    needed = ("config.json", "model.safetensors", "tokenizer.json")
    assert [file.name for file in lock.files] == list(needed)
    for file in lock.files:
        assert file.sha256 == sha256_of(REPOSITORY[file.name])
        large = file.name.endswith(".safetensors") or name == "modelscope"
        assert file.git == (None if large else git_of(REPOSITORY[file.name]))
    expected = [] if name == "modelscope" else ["config.json", "tokenizer.json"]
    assert sorted(hub.files()) == expected


@pytest.mark.parametrize("name", HUBS)
@pytest.mark.parametrize("whole", [True, False])
def test_what_is_cached_is_locked_as_it_is(
    hub: HubServer, bench: Bench, name: str, whole: bool
) -> None:
    """The same lock as from the hub, without a request; with `newest` the hub is asked."""
    hub.repos[ZOO] = dict(REPOSITORY)
    planned = weights(name, id=ZOO) if whole else weights(name, FILE)
    before = entry(planned, bench)
    get(planned, bench.terms)
    hub.asked.clear()
    assert entry(planned, bench) == before
    assert hub.asked == []
    hub.repos[ZOO]["config.json"] = hub.repos[REPO][FILE] = b"{ }"
    assert entry(planned, bench) == before
    assert entry(planned, bench, newest=True) != before


def test_what_the_client_left_is_locked_without_its_other_files(
    hub: HubServer, bench: Bench
) -> None:
    """A snapshot of another tool has more than the model needs: that is not locked."""
    from huggingface_hub import hf_hub_download

    hub.repos[ZOO] = dict(REPOSITORY)
    before = entry(weights("huggingface", id=ZOO), bench)
    for name in REPOSITORY:
        hf_hub_download(ZOO, name)
    assert entry(weights("huggingface", id=ZOO), bench) == before


@pytest.mark.parametrize("name", HUBS)
@pytest.mark.parametrize("whole", [True, False])
def test_a_locked_download_brings_the_very_files(
    hub: HubServer, bench: Bench, name: str, whole: bool
) -> None:
    """From the commit; then nothing is asked any more, offline or not."""
    hub.repos[ZOO] = dict(REPOSITORY)
    planned = weights(name, id=ZOO) if whole else weights(name, FILE)
    lock = entry(planned, bench)
    found = get(pinned(lock), bench.terms)
    folder = found if whole else found.parent
    for file in lock.files:
        assert hashlib.sha256((folder / file.name).read_bytes()).hexdigest() == file.sha256
    hub.asked.clear()
    assert get(pinned(lock, offline=True), bench.terms) == found
    assert get(pinned(lock), bench.terms) == found
    assert hub.asked == []


def test_what_a_lock_brought_first_is_cached_for_all(hub: HubServer, bench: Bench) -> None:
    """Without a request; a branch that was cached before stays where it was."""
    lock = entry(weights("huggingface", FILE), bench)
    found = get(pinned(lock), bench.terms)
    hub.asked.clear()
    assert get(weights("huggingface", FILE), bench.terms) == found
    assert hub.asked == []
    other = lock.model_copy(update={"commit": "a" * 40})
    (found.parents[2] / "refs" / "main").write_text("b" * 40)
    (found.parents[1] / ("b" * 40)).mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.fakes.COMMIT", "a" * 40)
        assert get(pinned(other), bench.terms).parent.name == "a" * 40
    assert (found.parents[2] / "refs" / "main").read_text() == "b" * 40


@pytest.mark.parametrize("wanted", ["big.gguf", PARTS[0]])
def test_all_parts_of_a_split_file_are_locked(hub: HubServer, bench: Bench, wanted: str) -> None:
    """And come, in order, the first one as the file."""
    hub.repos[ZOO] = {name: name.encode() for name in PARTS}
    lock = entry(weights("huggingface", wanted, id=ZOO), bench)
    assert [file.name for file in lock.files] == PARTS
    assert rows([lock], bench)[0]["state"] == "current"
    assert get(pinned(lock), bench.terms).name == PARTS[0]
    assert sorted(hub.files()) == PARTS


@pytest.mark.parametrize("name", HUBS)
def test_other_bytes_than_the_locked_are_refused(hub: HubServer, bench: Bench, name: str) -> None:
    """A file that the hub lists with another digest: `checksum_mismatch`, and nothing comes."""
    lock = entry(weights(name, FILE), bench)
    hub.repos[REPO][FILE] = b"x" + DATA[1:]
    found = failure(pinned(lock), bench.terms)
    assert found.cause == "checksum_mismatch"
    assert SHA in str(found)
    assert hub.files() == []
    hub.repos[REPO][FILE] = DATA + b"x"
    assert failure(pinned(lock), bench.terms).cause == "checksum_mismatch"


@pytest.mark.parametrize("name", HUBS)
def test_files_outside_the_lock_are_refused(hub: HubServer, bench: Bench, name: str) -> None:
    """One that the hub has besides, one that it has no more, one that lies in the folder."""
    hub.repos[ZOO] = dict(REPOSITORY)
    lock = entry(weights(name, id=ZOO), bench)
    hub.repos[ZOO]["special_tokens_map.json"] = b"{}"
    found = failure(pinned(lock), bench.terms)
    assert (found.cause, "special_tokens_map.json" in str(found)) == ("checksum_mismatch", True)
    hub.repos[ZOO] = {n: c for n, c in REPOSITORY.items() if n != "tokenizer.json"}
    found = failure(pinned(lock), bench.terms)
    assert (found.cause, "tokenizer.json" in str(found)) == ("checksum_mismatch", True)
    assert "model.safetensors" not in hub.files()
    hub.repos[ZOO] = dict(REPOSITORY)
    folder = get(pinned(lock), bench.terms)
    (folder / "model-2.safetensors").write_bytes(b"more")
    found = failure(pinned(lock), bench.terms)
    assert (found.cause, "model-2.safetensors" in str(found)) == ("checksum_mismatch", True)
    (folder / "model-2.safetensors").unlink()
    (folder / "README.md").write_text("no engine reads it")
    assert get(pinned(lock), bench.terms) == folder


@pytest.mark.parametrize("name", HUBS)
def test_cached_bytes_count_only_if_they_are_the_locked(
    hub: HubServer, bench: Bench, name: str
) -> None:
    """A file that was changed is fetched anew; offline it is not taken."""
    lock = entry(weights(name, FILE), bench)
    path = get(pinned(lock), bench.terms)
    path.resolve().write_bytes(b"x" + DATA[1:])
    assert failure(pinned(lock, offline=True), bench.terms).cause == "hub_unreachable"
    assert get(pinned(lock), bench.terms).read_bytes() == DATA


def test_a_small_file_is_held_to_its_sha256(hub: HubServer, bench: Bench) -> None:
    """Though the hub's list has git's SHA-1 alone."""
    hub.repos[ZOO] = dict(REPOSITORY)
    lock = entry(weights("huggingface", id=ZOO), bench)
    files = tuple(
        file.model_copy(update={"sha256": "0" * 64}) if file.name == "config.json" else file
        for file in lock.files
    )
    found = failure(pinned(lock.model_copy(update={"files": files})), bench.terms)
    assert (found.cause, "config.json" in str(found)) == ("checksum_mismatch", True)


def test_files_at_a_path_are_locked_by_their_bytes(home: Path, bench: Bench) -> None:
    """Once changed, they are refused; whole again, they are read again."""
    folder = home / "my zoo"
    folder.mkdir(parents=True)
    path = folder / "the z.gguf"
    path.write_bytes(DATA)
    planned = weights("path", "the z.gguf", id=str(folder), here=True)
    lock = entry(planned, bench)
    assert (lock.commit, lock.files[0].sha256) == (None, SHA)
    assert [row["state"] for row in rows([lock], bench)] == ["local"]
    locked = planned.model_copy(update={"lock": lock})
    assert get(locked, bench.terms) == path
    path.write_bytes(b"x" + DATA[1:])
    found = failure(locked, bench.terms)
    assert found.cause == "checksum_mismatch"
    path.write_bytes(DATA)
    assert get(locked, bench.terms) == path


@pytest.mark.parametrize("name", HUBS)
def test_verifying_says_of_each_file_what_it_is(hub: HubServer, bench: Bench, name: str) -> None:
    """As locked, with other bytes, or missing."""
    hub.repos[ZOO] = dict(REPOSITORY)
    lock = entry(weights(name, id=ZOO), bench)

    def states() -> dict[str, str]:
        found: list[Any] = []
        verify([lock], bench, found.append)
        return {row["name"]: row["state"] for row in found}

    assert states()["model.safetensors"] == "missing"
    folder = get(pinned(lock), bench.terms)
    assert set(states().values()) == {"as_locked"}
    (folder / "tokenizer.json").resolve().write_bytes(b"{}")
    (folder / "config.json").unlink()
    assert states() == {
        "config.json": "missing",
        "model.safetensors": "as_locked",
        "tokenizer.json": "differs",
    }


def test_verifying_can_be_called_off(hub: HubServer, bench: Bench) -> None:
    """Within a file."""
    lock = entry(weights("huggingface", FILE), bench)
    get(pinned(lock), bench.terms)
    bench.cancelled.set()
    with pytest.raises(HubFailure) as caught:
        verify([lock], bench, lambda _: None)
    assert caught.value.cause == "cancelled"


@pytest.mark.parametrize("name", HUBS)
def test_what_changed_upstream_is_told(
    hub: HubServer, bench: Bench, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that came, went and changed, with their sizes; another commit alone is `moved`."""
    hub.repos[ZOO] = dict(REPOSITORY)
    lock = entry(weights(name, id=ZOO), bench)
    (row,) = rows([lock], bench)
    assert (row["state"], row["error"]) == ("current", None)
    monkeypatch.setattr("tests.fakes.COMMIT", "f" * 40)
    (row,) = rows([lock], bench)
    told = name == "huggingface"
    assert row["state"] == ("moved" if told else "current")
    assert row["newest_commit"] == ("f" * 40 if told else None)
    hub.repos[ZOO]["model.safetensors"] = b"longer" * 1000
    hub.repos[ZOO]["merges.txt"] = b"a b"
    del hub.repos[ZOO]["config.json"]
    (row,) = rows([lock], bench)
    assert row["state"] == "outdated"
    assert row["added"] == [{"name": "merges.txt", "size_bytes": 3}]
    assert row["removed"] == [{"name": "config.json", "size_bytes": 2}]
    assert row["changed"] == [{"name": "model.safetensors", "size_bytes": 6000, "was_bytes": 5000}]


def test_what_is_cached_is_compared_without_a_lock(
    hub: HubServer, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what the cache tells, and no file is read."""
    get(weights("huggingface", FILE), bench.terms)
    source = Source(hub="huggingface", id=REPO, file_template=FILE)
    monkeypatch.delattr("paddock.launcher.jobs.run_lock.digest_file")
    (row,) = rows([], bench, ("zoo", source))
    assert (row["model"], row["state"], row["commit"]) == ("zoo", "current", COMMIT)
    hub.repos[REPO][FILE] = b"new"
    monkeypatch.setattr("tests.fakes.COMMIT", "e" * 40)
    (row,) = rows([], bench, ("zoo", source))
    assert (row["state"], len(row["changed"])) == ("outdated", 1)


def test_one_models_failure_does_not_hide_the_others(hub: HubServer, bench: Bench) -> None:
    """Its row has the cause."""
    hub.repos[ZOO] = dict(REPOSITORY)
    first = entry(weights("huggingface", id=ZOO), bench)
    second = entry(weights("modelscope", FILE), bench).model_copy(update={"model": "other"})
    del hub.repos[ZOO]
    gone, there = rows([first, second], bench)
    assert (gone["state"], gone["error"]["cause"]) == ("unknown", "not_found")
    assert (there["model"], there["state"]) == ("other", "current")


def test_without_a_network_what_is_cached_can_be_locked(
    hub: HubServer, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what is not is refused with its cause."""
    get(weights("huggingface", FILE), bench.terms)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert entry(weights("huggingface", FILE), bench).commit == COMMIT
    with pytest.raises(HubFailure) as caught:
        make(weights("huggingface", "zoo.Q8_0.gguf", offline=True), False, bench)
    assert caught.value.cause == "hub_unreachable"


def test_the_other_hub_is_locked_where_the_first_cannot_be_reached(
    hub: HubServer, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a launch would take it."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    other = Source(hub="modelscope", id=REPO, file_template=FILE)
    assert entry(weights("huggingface", FILE, others=(other,)), bench).hub == "modelscope"


def test_nothing_is_locked_of_what_has_no_weights(bench: Bench) -> None:
    """The plan of an engine without weights fetches nothing, locked or not."""
    none = PlannedWeights(hub="none", id="", size_bytes=0, here=True)
    assert fetch(none, bench.terms, bench.report, bench.cancelled) is None
