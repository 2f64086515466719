"""What was measured: kept, joined, exported, taken and forgotten."""

from __future__ import annotations

import copy
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from paddock.engines.evidence import Asked, Measurement, Subject, options_text
from paddock.launcher.truth.store import FILE, TruthStore, machine
from paddock.registry.errors import BadValue

SUBJECT = Subject("llama.cpp", "1", "m 7 ggufv2 Q4_K_M", options_text({"b": 1, "a": None}), 2048, 4)
MEASURED = Measurement(SUBJECT, 100.0, 5_000, 2_000, 2_500, load_seconds=1.5)


@pytest.fixture
def store(tmp_path: Path) -> TruthStore:
    """An empty one."""
    return TruthStore(tmp_path)


def test_what_was_measured_is_there_for_the_next(store: TruthStore, tmp_path: Path) -> None:
    """For this store and for another process's, which reads the same file."""
    other = TruthStore(tmp_path)
    assert other.evidence().measured == {}
    store.note(MEASURED)
    assert store.evidence().measured == {SUBJECT: MEASURED}
    assert other.evidence().measured == {SUBJECT: MEASURED}
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600


def test_later_measurements_keep_what_they_have_not_seen(store: TruthStore) -> None:
    """The newer start counts, the highest peak, and a speed that only the older has seen."""
    store.note(replace(MEASURED, speed=30.0, longest_prompt=600, peak_bytes=9_000))
    store.note(replace(MEASURED, at=200.0, start_bytes=2_100))
    (kept,) = store.evidence().measured.values()
    assert (kept.at, kept.start_bytes, kept.peak_bytes) == (200.0, 2_100, 9_000)
    assert (kept.speed, kept.longest_prompt) == (30.0, 600)


def test_other_weights_by_the_same_name_begin_anew(store: TruthStore) -> None:
    """What a file of another size took says nothing of this one."""
    store.note(replace(MEASURED, peak_bytes=9_000))
    later = replace(MEASURED, weights_bytes=7_000)
    store.note(later)
    assert list(store.evidence().measured.values()) == [later]


def test_what_engines_say_is_kept_beside(store: TruthStore) -> None:
    """And goes with the measurements of the same weights."""
    asked = Asked(5_000, 4_000, 100, 50, 10, 5_000, at=7.0)
    store.note_asked(SUBJECT, asked)
    store.note(MEASURED)
    assert store.evidence().asked == {SUBJECT: asked}
    assert store.forget(lambda one: one.subject.engine == "vLLM") == 0
    assert store.forget(lambda one: one.subject.engine == "llama.cpp") == 1
    assert (store.evidence().asked, store.evidence().measured) == ({}, {})


def test_export_of_this_machine_is_taken_as_measured_here(
    store: TruthStore, tmp_path: Path
) -> None:
    """Round trip into another home."""
    store.note(MEASURED)
    other = TruthStore(tmp_path / "other")
    assert other.take(store.export()) == 1
    assert other.evidence() == store.evidence()


def test_export_of_another_machine_needs_a_label_and_yields_to_what_was_measured_here(
    store: TruthStore,
) -> None:
    """Refused by the machine's name; with a label it counts where there is nothing better."""
    exported = {"version": 1, "machine": "elsewhere", "measurements": [MEASURED.to_json()]}
    with pytest.raises(BadValue, match=r"'elsewhere'.*--label"):
        store.take(exported)
    assert store.take(exported, "workstation") == 1
    assert store.evidence().measured[SUBJECT].machine == "workstation"
    here = replace(MEASURED, at=300.0)
    store.note(here)
    assert store.take(exported, "workstation") == 0
    assert store.evidence().measured[SUBJECT] == here


def _with(path: tuple[str, ...], value: Any) -> Any:
    document = {
        "version": 1,
        "machine": machine(),
        "measurements": [copy.deepcopy(MEASURED.to_json())],
    }
    at: Any = document
    for key in path[:-1]:
        at = at[0] if key == "0" else at[key]
    if value is None:
        at.pop(path[-1])
    else:
        at[path[-1]] = value
    return document


@pytest.mark.parametrize(
    ("document", "named"),
    [
        ([], "list"),
        ({"version": 1}, "dict"),
        (_with(("version",), 9), "9"),
        (_with(("measurements",), {}), "dict"),
        (_with(("measurements", "0", "peak_bytes"), -1), "peak_bytes"),
        (_with(("measurements", "0", "peak_bytes"), "many"), "many"),
        (_with(("measurements", "0", "peak_bytes"), True), "peak_bytes"),
        (_with(("measurements", "0", "speed"), float("nan")), "speed"),
        (_with(("measurements", "0", "at"), None), "at"),
        (_with(("measurements", "0", "wings"), 2), "wings"),
        (_with(("measurements", "0", "subject"), 2), "subject"),
        (_with(("measurements", "0", "subject", "slots"), None), "slots"),
        (_with(("measurements", "0", "subject", "options"), "{}"), "options"),
    ],
)
def test_what_is_no_export_is_refused_by_name(store: TruthStore, document: Any, named: str) -> None:
    """And nothing of it is taken."""
    with pytest.raises(BadValue, match=named):
        store.take(document)
    assert store.evidence().measured == {}


def test_broken_file_is_set_aside(store: TruthStore, tmp_path: Path) -> None:
    """Planning goes on without it, and what is measured next is kept."""
    (tmp_path / FILE).write_bytes(b"no database at all" * 100)
    assert store.evidence().measured == {}
    store.note(MEASURED)
    store.note(MEASURED)
    assert store.evidence().measured == {SUBJECT: MEASURED}


def test_rows_of_another_version_are_left_out(store: TruthStore, tmp_path: Path) -> None:
    """One that cannot be read hides no other."""
    store.note(MEASURED)
    with sqlite3.connect(tmp_path / FILE) as db:
        db.execute("INSERT INTO measured VALUES ('x', 1, '{\"subject\": {}}')")
        db.execute("INSERT INTO asked VALUES ('x', 1, 'nonsense')")
    assert store.evidence().measured == {SUBJECT: MEASURED}
