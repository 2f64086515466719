"""The state file: what is written comes back, and what cannot be used is refused."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

import paddock
from paddock.launcher.fleet import store as module
from paddock.launcher.fleet.deployment import Deployment, Policy, deploy
from paddock.launcher.fleet.store import SCHEMA_VERSION, SqliteStore
from paddock.launcher.planning.place import Place
from paddock.registry.errors import BadValue, StateNotWritten
from tests.launcher.replicas.test_replica import echo

OLD = Path(__file__).with_name("state-v2.db")
"""Written by the version that had rows of models and replicas."""


def deployment(uid: str = "m") -> Deployment:
    """Two replicas on two nodes, one of which has failed before."""
    plan = echo().model_copy(update={"model_id": uid})
    other = plan.model_copy(update={"node": "n1", "node_name": "n1"})
    made = deploy(plan, (Place.of(plan), Place("n1", "n1", (), other)), {"a": 1}, 7.0)
    failed = replace(
        made.replicas[1],
        start=3,
        failures=2,
        restarts=3,
        has_served=True,
        diagnosis={"cause": "oom", "message": "m", "lines": ["a"]},
    )
    return replace(made.with_replica(failed), policy=Policy("always", 5, 3.0))


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    """A new state file."""
    made = SqliteStore(tmp_path / "paddock.db")
    yield made
    await made.close()


async def test_what_is_written_comes_back(store: SqliteStore, tmp_path: Path) -> None:
    """Whole, by another gateway too; written again, it replaces what was there."""
    one, two = deployment("a"), replace(deployment("b"), created=3.0)
    await store.save(one)
    await store.save(two)
    assert await store.load() == (two, one)  # oldest first
    changed = replace(one, wanted="gone")
    await store.save(changed)
    other = SqliteStore(tmp_path / "paddock.db")
    assert await other.load() == (two, changed)
    await other.remove("a")
    await other.remove("a")
    assert await store.load() == (two,)
    await other.close()


async def test_times_of_one_gateway_are_not_kept(store: SqliteStore) -> None:
    """They are on its own clock: what waits for a restart is started by the next one at once."""
    one = deployment()
    waiting = replace(one.replicas[0], restart_at=99.0, leave_at=98.0)
    await store.save(one.with_replica(waiting))
    (kept,) = await store.load()
    assert kept.replicas[0] == one.replicas[0]


async def test_file_of_version_2_is_taken_over(tmp_path: Path) -> None:
    """Models, plans, failed replicas and numbers stay; all get a generation."""
    path = tmp_path / "paddock.db"
    shutil.copy(OLD, path)
    store = SqliteStore(path)
    tiny, echo_model = await store.load()
    assert (tiny.uid, echo_model.uid) == ("tiny", "team/echo")
    assert (tiny.wanted, tiny.next_number, tiny.plan.engine) == ("serving", 3, "llama.cpp")
    assert tiny.policy == Policy()
    assert tiny.request["model_name"] == "tiny-mixtral"
    served, failed = tiny.replicas
    assert (served.id, served.has_served, served.given_up) == ("tiny-rep0", True, False)
    assert (failed.id, failed.given_up) == ("tiny-rep1", True)
    assert (failed.diagnosis or {})["cause"] == "engine_killed"
    assert served.generation == failed.generation == tiny.generations[0].id
    assert served.place.node == "local"
    assert echo_model.plan.slots == 7
    await store.close()
    again = SqliteStore(path)
    assert await again.load() == (tiny, echo_model)
    await again.close()


async def test_file_of_a_newer_version_is_refused_with_its_writer(tmp_path: Path) -> None:
    """Nothing in it is changed."""
    path = tmp_path / "paddock.db"
    store = SqliteStore(path)
    await store.close()
    with sqlite3.connect(path) as file:
        assert file.execute("SELECT version FROM writer").fetchone() == (paddock.__version__,)
        file.execute("UPDATE writer SET version = '9.9'")
        file.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    file.close()
    before = path.read_bytes()
    with pytest.raises(BadValue, match=r"version 4 \(written by Paddock 9\.9\)"):
        SqliteStore(path)
    assert path.read_bytes() == before


def test_what_is_no_state_file_is_refused(tmp_path: Path) -> None:
    """It is named, and not touched."""
    path = tmp_path / "paddock.db"
    path.write_text("no database at all, but long enough to look like one" * 40)
    with pytest.raises(BadValue, match=r"paddock\.db"):
        SqliteStore(path)
    assert path.read_text().startswith("no database")


async def test_only_its_user_can_read_it(store: SqliteStore, tmp_path: Path) -> None:
    """With all that SQLite puts beside it."""
    await store.save(deployment())
    files = list(tmp_path.glob("paddock.db*"))  # noqa: ASYNC240 - a test may block
    assert len(files) == 3
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}


async def test_locked_file_holds_nobody_up_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop runs on while a write waits; one that waited too long is an error with the path."""
    monkeypatch.setattr(module, "LOCKED_SECONDS", 0.2)
    path = tmp_path / "paddock.db"
    store = SqliteStore(path)
    await store.save(deployment("a"))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    turns = 0
    writing = asyncio.create_task(store.save(deployment("b")))
    while not writing.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 10
    with pytest.raises(StateNotWritten, match=r"paddock\.db.*locked"):
        await writing
    other.execute("ROLLBACK")
    other.close()
    await store.save(deployment("b"))
    assert [one.uid for one in await store.load()] == ["a", "b"]
    await store.close()


async def test_full_disk_is_told_as_that(store: SqliteStore) -> None:
    """Not as a bug; what was written before stands."""
    await store.save(deployment("a"))
    store._db.execute("PRAGMA max_page_count = 1")
    big = replace(deployment("b"), request={"x": "y" * 1_000_000})
    with pytest.raises(StateNotWritten, match="No space left"):
        await store.save(big)
    assert [one.uid for one in await store.load()] == ["a"]


async def test_row_that_cannot_be_read_is_a_failed_model(
    store: SqliteStore, tmp_path: Path
) -> None:
    """It says why and what to do; the row stays as it is."""
    await store.save(deployment("a"))
    await store.save(deployment("b"))
    with sqlite3.connect(tmp_path / "paddock.db") as file:
        file.execute("UPDATE deployments SET document = 'no json' WHERE uid = 'b'")
    file.close()
    one, other = await store.load()
    assert one == deployment_like(one)
    record = other.replicas[0]
    assert (other.uid, record.given_up) == ("b", True)
    assert "cannot be read" in (record.diagnosis or {})["message"]
    assert "--model-uid b" in (record.diagnosis or {})["next_command"]


def deployment_like(one: Deployment) -> Deployment:
    """The same, for a comparison that says what differs."""
    return replace(deployment(one.uid), generations=one.generations, replicas=one.replicas)


def test_two_gateways_that_begin_at_once_make_one_file(tmp_path: Path) -> None:
    """Neither finds it half made."""
    errors: list[Exception] = []

    def begin() -> None:
        try:
            SqliteStore(tmp_path / "paddock.db").forget_all(lambda _: False)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what the test looks for
            errors.append(error)

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
