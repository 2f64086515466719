"""The file of keys, and the routes over it."""

from __future__ import annotations

import json
import os
import stat
import threading
from pathlib import Path

import pytest

from paddock.registry.errors import BadValue, CorruptFile, NotFound
from paddock.registry.settings import read_settings
from paddock.server.access.keys import FILE, KeyStore, Principal, digest, first_key, is_loopback
from tests.server.asgi import bearer, call, gateway, head, send


@pytest.fixture
def store(home: Path) -> KeyStore:
    """An empty store."""
    return KeyStore(home)


def test_key_is_kept_as_a_hash_that_only_its_owner_reads(store: KeyStore, home: Path) -> None:
    """The file has the key's hash and not the key, and nobody else may read it."""
    made = store.create("laptop")
    text = (home / FILE).read_text()
    assert made.secret not in text
    assert made.secret.removeprefix("pk-")[:8] not in text
    assert digest(made.secret) in text
    assert stat.S_IMODE((home / FILE).stat().st_mode) == 0o600
    assert made.secret not in repr(made)
    assert len(made.secret) == len("pk-") + 43


def test_keys_are_found_by_their_hash_and_read_back(store: KeyStore, home: Path) -> None:
    """Another process finds a key with its scope and models, and none after it is revoked."""
    assert not store.is_keyed()
    made = store.create("app", "inference", ["a", "b/c", "a"])
    other = KeyStore(home)
    assert other.table()[digest(made.secret)] == Principal(
        made.key.id, "app", "inference", ("a", "b/c")
    )
    assert digest("pk-other") not in other.table()
    assert other.listing() == store.listing() == (made.key,)
    assert store.revoke(made.key.id) == made.key
    assert other.table() == {}
    assert other.is_keyed()
    assert KeyStore(home).is_keyed()
    with pytest.raises(NotFound, match=made.key.id):
        other.revoke(made.key.id)


def test_principal_may_use_what_its_key_says() -> None:
    """No list means every model; a caller without a key may use none."""
    assert Principal("", "", "inference").may_use("a")
    assert Principal("", "", "inference", ("a",)).may_use("a")
    assert not Principal("", "", "inference", ("a",)).may_use("ab")
    assert not Principal("", "", "none").may_use("a")
    assert not Principal("", "", "monitor").may_use("a")
    assert Principal("", "", "admin").is_admin
    assert not Principal("", "", "inference").is_admin


@pytest.mark.parametrize(
    ("name", "scope", "models", "says"),
    [
        ("a\nb", "admin", [], "name"),
        ("a" * 65, "admin", [], "name"),
        ("a", "root", [], "admin, inference, monitor"),
        ("a", "inference", [""], "model"),
        ("a", "inference", ["a b"], "model"),
        ("a", "admin", ["b"], "every model; .* scope inference"),
        ("a", "monitor", ["b"], "no model; .* scope inference"),
    ],
)
def test_wrong_key_is_refused(
    store: KeyStore, home: Path, name: str, scope: str, models: list[str], says: str
) -> None:
    """What is outside its grammar is named, and nothing is written."""
    with pytest.raises(BadValue, match=says):
        store.create(name, scope, models)
    assert not (home / FILE).exists()


def test_writers_at_once_lose_no_key(home: Path) -> None:
    """Keys that several make and revoke at the same time are all there in the end."""
    doomed = [KeyStore(home).create(f"doomed {n}").key.id for n in range(4)]
    barrier = threading.Barrier(8)

    def create(number: int) -> None:
        barrier.wait()
        for turn in range(5):
            KeyStore(home).create(f"{number} {turn}")

    def revoke(key_id: str) -> None:
        barrier.wait()
        KeyStore(home).revoke(key_id)

    threads = [threading.Thread(target=create, args=(n,)) for n in range(4)]
    threads += [threading.Thread(target=revoke, args=(key_id,)) for key_id in doomed]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    names = {key.name for key in KeyStore(home).listing()}
    assert names == {f"{number} {turn}" for number in range(4) for turn in range(5)}
    assert sorted(path.name for path in home.iterdir()) == ["keys.json", "keys.lock"]


def test_only_one_first_key_is_made(home: Path) -> None:
    """Of several gateways and commands that start at once, one makes the key."""
    settings = read_settings(environ={"PADDOCK_HOME": str(home), "PADDOCK_HOST": "0.0.0.0"})
    barrier = threading.Barrier(6)
    made = []

    def start() -> None:
        barrier.wait()
        made.append(first_key(settings))

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (first,) = (one for one in made if one is not None)
    assert KeyStore(home).table()[digest(first.secret)].is_admin


def test_no_first_key_where_none_is_needed(home: Path) -> None:
    """On loopback, and with a key of the environment, none is made."""
    base = {"PADDOCK_HOME": str(home)}
    assert first_key(read_settings(environ=base)) is None
    keyed = {**base, "PADDOCK_HOST": "0.0.0.0", "PADDOCK_API_KEY": "k"}
    assert first_key(read_settings(environ=keyed)) is None
    assert not (home / FILE).exists()


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "{}", "null", '{"version": 2, "keys": []}', '{"version": 1}',
        '{"version": 1, "keys": [{}]}', '{"version": 1, "keys": [1]}', "[" * 100_000,
        '{"version": 1, "keys": [{"id": "a", "name": "", "scope": "root", "models": [],'
        ' "created": 0, "hash": ""}]}',
    ],
)  # fmt: skip
def test_file_that_is_not_understood_is_an_error(store: KeyStore, home: Path, text: str) -> None:
    """Never an empty table, which would open the gateway; and nothing is written over it."""
    home.mkdir()
    (home / FILE).write_text(text)
    for _ in range(2):
        with pytest.raises(CorruptFile, match=r"keys\.json"):
            store.table()
    with pytest.raises(CorruptFile):
        store.create()
    assert (home / FILE).read_text() == text


def test_file_that_was_read_is_not_read_again(store: KeyStore, home: Path) -> None:
    """As long as the file is the same, its table is the same object."""
    store.create()
    assert store.table() is store.table()
    before = store.table()
    os.utime(home / FILE, ns=(0, 0))
    assert store.table() is not before


def test_loopback_is_told_from_what_others_reach() -> None:
    """Only addresses and the name of this machine itself are loopback."""
    assert all(map(is_loopback, ("127.0.0.1", "127.8.8.8", "::1", "localhost", "LOCALHOST")))
    others = ("0.0.0.0", "::", "10.0.0.1", "", "localhost.example", "::ffff:10.0.0.1")
    assert not any(map(is_loopback, others))


async def test_routes_make_list_and_revoke(home: Path) -> None:
    """A key is shown in the answer that makes it, and in no other."""
    with gateway(home) as app:
        wanted = {"name": "app", "scope": "inference", "models": ["a"]}
        answer = await call(app, "POST", "/v1/keys", body=wanted)
        assert answer.status == 201
        assert answer.headers["cache-control"] == "no-store"
        made = answer.json
        assert made["key"].startswith("pk-")
        assert {key: made[key] for key in wanted} == wanted
        assert (await call(app, "GET", "/v1/keys")).status == 401
        admin = bearer(KeyStore(home).create().secret)
        listed = await call(app, "GET", "/v1/keys", admin)
        assert made["id"] in {row["id"] for row in listed.json["data"]}
        assert made["key"] not in listed.body.decode()
        assert "hash" not in json.dumps(listed.json)
        path = f"/v1/keys/{made['id']}"
        assert (await call(app, "DELETE", path, bearer(made["key"]))).status == 403
        assert (await call(app, "DELETE", path, admin)).status == 200
        assert (await call(app, "DELETE", path, admin)).status == 404
        assert (await call(app, "GET", "/v1/models", bearer(made["key"]))).status == 401


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"scope": "root"}, "admin, inference, monitor"),
        ({"scope": 1}, "scope"),
        ({"name": None}, "name"),
        ({"models": "a"}, "models"),
        ({"models": [1]}, "models"),
        ({"model": ["a"]}, "did you mean models"),
        ([], "JSON object"),
    ],
)
async def test_wrong_request_is_refused_by_its_field(home: Path, body: object, says: str) -> None:
    """A misspelt field must not make a key that may do more than was meant."""
    with gateway(home) as app:
        answer = await call(app, "POST", "/v1/keys", body=body)
        assert answer.status == 400
        assert says in answer.json["detail"]
        assert KeyStore(home).listing() == ()


async def test_callers_are_told_who_they_are(home: Path) -> None:
    """An open gateway's caller may do all; a key's caller sees its scope and models."""
    with gateway(home) as app:
        anyone = (await call(app, "GET", "/v1/whoami")).json
        assert anyone == {
            "id": None,
            "name": "anyone",
            "scope": "admin",
            "models": [],
            "auth": False,
            "local": True,
        }
        made = KeyStore(home).create("app", "inference", ["a"])
        known = (await call(app, "GET", "/v1/whoami", bearer(made.secret))).json
        assert known == {
            "id": made.key.id,
            "name": "app",
            "scope": "inference",
            "models": ["a"],
            "auth": True,
            "local": True,
        }
        assert (await call(app, "GET", "/v1/whoami")).status == 401
        assert (await call(app, "GET", "/v1/whoami", bearer("pk-wrong"))).status == 401


async def test_a_caller_from_elsewhere_is_not_local(home: Path) -> None:
    """What counts is where the connection comes from."""
    with gateway(home) as app:
        scope = head("GET", "/v1/whoami", {}) | {"client": ("192.0.2.7", 50000)}
        assert (await send(app, scope)).json["local"] is False
