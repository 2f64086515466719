"""The state file: what is written is read back, whole or not at all."""

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from paddock.launcher.store import SCHEMA_VERSION, ModelRow, ReplicaRow, Store
from paddock.registry.errors import BadValue


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "paddock.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    opened = Store(path)
    yield opened
    opened.close()


def model(uid: str, created: float = 1.0, replicas: int = 2) -> ModelRow:
    rows = tuple(
        ReplicaRow(f"{uid}-rep{number}", number, "pending", None) for number in range(replicas)
    )
    return ModelRow(uid, {"model_name": "é"}, {"engine": "echo"}, created, rows)


def test_a_model_is_read_back(store: Store, path: Path) -> None:
    """Another process that opens the file finds every field."""
    store.add(model("a"))
    other = Store(path)
    assert other.models() == (model("a"),)
    other.close()


def test_models_come_oldest_first(store: Store) -> None:
    """The order is that of the launches."""
    for uid, created in (("c", 3.0), ("a", 2.0), ("b", 1.0)):
        store.add(model(uid, created))
    assert [row.uid for row in store.models()] == ["b", "a", "c"]


def test_a_state_is_kept_with_its_diagnosis(store: Store) -> None:
    """One replica's failure changes that replica's row alone."""
    store.add(model("a"))
    store.set_state("a-rep1", "failed", {"cause": "oom"})
    first, second = store.models()[0].replicas
    assert (first.state, first.diagnosis) == ("pending", None)
    assert (second.state, second.diagnosis) == ("failed", {"cause": "oom"})
    store.set_state("a-rep1", "ready", None)
    assert store.models()[0].replicas[1].diagnosis is None


def test_a_model_is_replaced_whole(store: Store) -> None:
    """Launching a failed model again leaves no row of the earlier one."""
    store.add(model("a", replicas=3))
    store.add(model("a", 2.0, replicas=1))
    assert store.models() == (model("a", 2.0, replicas=1),)


def test_a_removed_model_takes_its_replicas_along(store: Store, path: Path) -> None:
    """No row is left in either table, and the others stay."""
    store.add(model("a"))
    store.add(model("b"))
    store.remove("a")
    store.remove("never there")
    assert [row.uid for row in store.models()] == ["b"]
    with sqlite3.connect(path) as raw:
        assert raw.execute("SELECT count(*) FROM replicas").fetchone() == (2,)
    raw.close()


def test_what_fails_halfway_changes_nothing(store: Store) -> None:
    """A replica id that another model has rolls the whole addition back."""
    store.add(model("a"))
    clash = ModelRow("b", {}, {}, 2.0, (ReplicaRow("a-rep0", 0, "pending", None),))
    with pytest.raises(sqlite3.IntegrityError):
        store.add(clash)
    assert store.models() == (model("a"),)
    store.add(model("c"))  # the transaction is closed, and the next one works


def test_the_file_is_in_wal_mode(store: Store, path: Path) -> None:
    """Readers never block the gateway."""
    with sqlite3.connect(path) as raw:
        assert raw.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert raw.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
    raw.close()


def test_a_file_of_another_version_is_refused(path: Path) -> None:
    """A newer Paddock's state is named, and left as it is."""
    path.parent.mkdir()
    with sqlite3.connect(path) as raw:
        raw.execute("PRAGMA user_version = 99")
    raw.close()
    before = path.read_bytes()
    with pytest.raises(BadValue, match=r"version 99.*PADDOCK_HOME") as error:
        Store(path)
    assert str(path) in str(error.value)
    assert path.read_bytes()[100:] == before[100:]


def test_a_file_that_is_no_database_is_refused(path: Path) -> None:
    """Any other file in its place is an error that names it."""
    path.parent.mkdir()
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(BadValue, match=r"paddock\.db.*not a database"):
        Store(path)


def test_two_that_start_at_once_both_open(path: Path) -> None:
    """Whoever comes second finds the tables made."""
    failures: list[BaseException] = []
    barrier = threading.Barrier(8)

    def start() -> None:
        barrier.wait()
        try:
            Store(path).close()
        except (sqlite3.Error, BadValue) as error:
            failures.append(error)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_added_replicas_never_get_a_number_again(store: Store) -> None:
    """Numbers go on behind all that the model ever had, whatever was removed."""
    store.add(model("a"))
    assert [row.id for row in store.grow("a", 2, {"replicas": 4})] == ["a-rep2", "a-rep3"]
    store.shrink("a", "a-rep3", {"replicas": 3})
    store.shrink("a", "never there", {"replicas": 3})
    assert [row.number for row in store.grow("a", 1, {"replicas": 4})] == [4]
    (found,) = store.models()
    assert [row.number for row in found.replicas] == [0, 1, 2, 4]
    assert found.plan == {"replicas": 4}


def test_a_file_of_version_1_is_brought_up(path: Path) -> None:
    """Models of an earlier Paddock are kept, and their next replica gets a number of its own."""
    path.parent.mkdir()
    with sqlite3.connect(path) as raw:
        raw.executescript(
            """
            CREATE TABLE models (uid TEXT PRIMARY KEY, request TEXT NOT NULL, plan TEXT NOT NULL,
                created REAL NOT NULL) STRICT;
            CREATE TABLE replicas (id TEXT PRIMARY KEY, uid TEXT NOT NULL REFERENCES models (uid)
                ON DELETE CASCADE, number INTEGER NOT NULL, state TEXT NOT NULL, diagnosis TEXT)
                STRICT;
            INSERT INTO models VALUES ('a', '{}', '{}', 1.0), ('empty', '{}', '{}', 2.0);
            INSERT INTO replicas VALUES ('a-rep0', 'a', 0, 'ready', NULL),
                ('a-rep1', 'a', 1, 'ready', NULL);
            PRAGMA user_version = 1;
            """
        )
    raw.close()
    opened = Store(path)
    assert [row.uid for row in opened.models()] == ["a", "empty"]
    assert [row.number for row in opened.grow("a", 1, {})] == [2]
    assert [row.number for row in opened.grow("empty", 1, {})] == [0]
    opened.close()
    Store(path).close()
