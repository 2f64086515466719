"""API keys: what a key may do, and the file that keeps them.

`keys.json` in PADDOCK_HOME, readable by its owner only, written whole under a lock and replaced in
one step. The gateway and `paddock keys` on the same machine both write it, so that a lost key can
be replaced without one; the gateway looks at the file's stamp with each request, and so notices at
once that a key was made or revoked.

The file is also what says that a key is asked for. It stays when the last key is revoked: whoever
had that key, leaked maybe, would else come in without it. A gateway on loopback is opened again by
removing the file.

Keys are kept as SHA-256 of the key. Slow password hashes protect secrets that people choose; a key
is 256 random bits, which nobody can guess from its hash however fast the hash is. The file is of no
use to somebody who reads it, and a key costs a request microseconds to check.
"""

from __future__ import annotations

import fcntl
import hashlib
import ipaddress
import json
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from paddock.registry.errors import BadValue, CorruptFile, NotFound
from paddock.registry.files import make_home, write_atomically, writing
from paddock.registry.settings import Settings

FILE = "keys.json"
VERSION = 1
PREFIX = "pk-"
MAX_KEYS = 10_000
KeyScope = Literal["admin", "inference", "monitor"]
SCOPES: tuple[str, ...] = get_args(KeyScope)
ASKING: tuple[str, ...] = ("admin", "inference")
"""The scopes that may send requests to models."""
_NAME = re.compile(r"[\w .@/-]{0,64}")
_UID = re.compile(r"[\w./@:+-]{1,128}", re.ASCII)


@dataclass(frozen=True)
class Principal:
    """Who sent a request. An empty `models` means all of them.

    `scope` is one of `SCOPES`, or `none` for a caller without a key on a path that is open.
    `revocable`: its key is in the file of keys, and may be revoked while a request is in progress.
    """

    id: str
    name: str
    scope: str
    models: tuple[str, ...] = ()
    revocable: bool = field(default=False, compare=False)

    @property
    def is_admin(self) -> bool:
        """Whether every route is open to it."""
        return self.scope == "admin"

    def may_use(self, uid: str) -> bool:
        """Whether it may send requests to the model `uid`."""
        return self.scope in ASKING and (not self.models or uid in self.models)


ANYONE = Principal("", "anyone", "admin")
"""Who calls a gateway that asks for no key."""
NOBODY = Principal("", "nobody", "none")
"""Who calls an open path of a gateway that asks for a key, without one."""


def principal(scope: Mapping[str, Any]) -> Principal:
    """Who sent a request, as `Security` found; nobody where it was not asked."""
    caller: Principal = scope.get("paddock.principal", NOBODY)
    return caller


@dataclass(frozen=True)
class Key:
    """One key, without the key itself. `created` is in seconds since 1970."""

    id: str
    name: str
    scope: str
    models: tuple[str, ...]
    created: float
    hash: str

    @property
    def principal(self) -> Principal:
        """Who sends it."""
        return Principal(self.id, self.name, self.scope, self.models, revocable=True)

    def to_json(self) -> dict[str, Any]:
        """The key as JSON, without its secret."""
        return {
            "id": self.id,
            "name": self.name,
            "scope": self.scope,
            "models": list(self.models),
            "created": self.created,
        }


def digest(key: str | bytes) -> str:
    """The hash by which a key is kept and found."""
    return hashlib.sha256(key.encode() if isinstance(key, str) else key).hexdigest()


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens on `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def always_keyed(settings: Settings) -> bool:
    """Whether the gateway asks for a key even when none was made."""
    return bool(settings.api_key) or not is_loopback(settings.host)


class KeyStore:
    """The keys of one PADDOCK_HOME. Safe to use from several threads and processes."""

    def __init__(self, home: Path) -> None:
        self._path = home / FILE
        self._stamp: tuple[int, ...] | None = None
        self._keys: tuple[Key, ...] = ()
        self._callers: Mapping[str, Principal] = {}
        self._ids: frozenset[str] = frozenset()
        self._reading = threading.Lock()

    def table(self) -> Mapping[str, Principal]:
        """Whose key it is, by the key's hash. Raises `CorruptFile`."""
        self._refresh()
        return self._callers

    def is_keyed(self) -> bool:
        """Whether a key was ever made, be it revoked since. Raises `CorruptFile`."""
        self._refresh()
        return self._stamp != ()

    def listing(self) -> tuple[Key, ...]:
        """All keys, oldest first. Raises `CorruptFile`."""
        self._refresh()
        return self._keys

    def ids(self) -> frozenset[str]:
        """The ids of all keys. Raises `CorruptFile`."""
        self._refresh()
        return self._ids

    def create(self, name: str = "", scope: str = "", models: Iterable[str] = ()) -> NewKey:
        """Makes a key; without a scope it is an admin's, or with models one for inference.

        Raises:
            BadValue: a name, scope or model id outside its grammar.
            CorruptFile: the file is there and cannot be read.
            NotWritten: it cannot be written; nothing was made.
        """
        new = _make(name, scope, tuple(models))
        self._change(lambda keys: (*keys, new.key))
        return new

    def create_first(self, name: str) -> NewKey | None:
        """Makes an admin key; None if there is a key. Of several calls at once, one makes it.

        Raises:
            CorruptFile: the file is there and cannot be read.
        """
        made = _make(name, "admin", ())
        after = self._change(lambda keys: keys or (made.key,))
        return made if made.key in after else None

    def revoke(self, key_id: str) -> Key:
        """Forgets a key, which is refused from now on. Raises `NotFound`."""
        gone: list[Key] = []

        def without(keys: tuple[Key, ...]) -> tuple[Key, ...]:
            gone.extend(key for key in keys if key.id == key_id)
            if not gone:
                raise NotFound.among("key", key_id, [key.id for key in keys])
            return tuple(key for key in keys if key.id != key_id)

        self._change(without)
        return gone[0]

    def _change(self, how: Callable[[tuple[Key, ...]], tuple[Key, ...]]) -> tuple[Key, ...]:
        make_home(self._path.parent)
        with self._locked():
            before = self.listing()
            after = how(before)
            if len(after) > MAX_KEYS:
                raise BadValue("keys", len(after), f"are too many; at most {MAX_KEYS} are kept")
            if after != before:
                self._write(after)
        self._refresh()
        return after

    @contextmanager
    def _locked(self) -> Iterator[None]:
        lock = self._path.with_suffix(".lock")
        with writing(lock):
            opened = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(opened, fcntl.LOCK_EX)
            yield
        finally:
            os.close(opened)

    def _write(self, keys: tuple[Key, ...]) -> None:
        rows = [{**key.to_json(), "hash": key.hash} for key in keys]
        text = json.dumps({"version": VERSION, "keys": rows}, indent=1)
        # A key that was revoked must not come back with the machine.
        write_atomically(self._path, text, durable=True)

    def _refresh(self) -> None:
        """Reads the file if it is another one than last time: one `stat` where it is not."""
        try:
            stamp = _stamp(os.stat(self._path))
        except FileNotFoundError:
            stamp = ()
        except OSError as error:
            raise CorruptFile(str(self._path), error.strerror or str(error)) from error
        if stamp != self._stamp:
            with self._reading:
                self._read()

    def _read(self) -> None:
        try:
            with self._path.open("rb") as file:
                stamp, raw = _stamp(os.fstat(file.fileno())), file.read()
        except FileNotFoundError:
            self._take((), ())
            return
        except OSError as error:
            raise CorruptFile(str(self._path), error.strerror or str(error)) from error
        self._take(_parse(raw, str(self._path)), stamp)

    def _take(self, keys: tuple[Key, ...], stamp: tuple[int, ...]) -> None:
        self._keys = tuple(sorted(keys, key=lambda key: key.created))
        self._callers = {key.hash: key.principal for key in keys}
        self._ids = frozenset(key.id for key in keys)
        self._stamp = stamp


def first_key(settings: Settings) -> NewKey | None:
    """Makes the first key of a gateway that others can reach, where there is none; else None."""
    if settings.api_key or is_loopback(settings.host):
        return None
    return KeyStore(settings.home).create_first("first")


@dataclass(frozen=True)
class NewKey:
    """A key that was just made: the only moment in which `secret` is known."""

    secret: str
    key: Key

    def __repr__(self) -> str:
        return f"NewKey(key={self.key!r})"

    def to_json(self) -> dict[str, Any]:
        """The key as JSON, with its secret in `key`: to be shown once."""
        return {**self.key.to_json(), "key": self.secret}


def _make(name: str, scope: str, models: tuple[str, ...]) -> NewKey:
    scope = scope or ("inference" if models else "admin")
    if not _NAME.fullmatch(name):
        raise BadValue("name", name, "must be at most 64 letters, digits, spaces or . _ @ / -")
    if scope not in SCOPES:
        raise BadValue("scope", scope, f"must be one of {', '.join(SCOPES)}")
    for uid in models:
        if not _UID.fullmatch(uid):
            raise BadValue("model", uid, "is not a model id")
    if models and scope != "inference":
        reaches = "every model" if scope == "admin" else "no model"
        why = f"reaches {reaches}; for some models only, take scope inference"
        raise BadValue("scope", scope, why)
    secret = PREFIX + secrets.token_urlsafe(32)
    models = tuple(dict.fromkeys(models))
    key = Key(secrets.token_hex(4), name, scope, models, round(time.time(), 3), digest(secret))
    return NewKey(secret, key)


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    return status.st_ino, status.st_mtime_ns, status.st_size


def _parse(raw: bytes, path: str) -> tuple[Key, ...]:
    """The keys of a file. A file that is not understood lets nobody in, rather than everybody."""
    try:
        document = json.loads(raw)
        if document["version"] != VERSION:
            raise CorruptFile(
                path, f"has version {document['version']}, this Paddock knows {VERSION}"
            )
        keys = tuple(
            Key(
                str(row["id"]),
                str(row["name"]),
                str(row["scope"]),
                tuple(map(str, row["models"])),
                float(row["created"]),
                str(row["hash"]),
            )
            for row in document["keys"]
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        reason = "is not a file of keys; put it aside, and make keys anew with: paddock keys create"
        raise CorruptFile(path, reason) from error
    if any(key.scope not in SCOPES for key in keys):
        raise CorruptFile(path, "has a key of an unknown scope")
    return keys
