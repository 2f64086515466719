"""Keys of attached endpoints: a file for each, that only its user can read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from paddock.registry.files import make_private, write_atomically, writing


class Keys:
    """The endpoints' keys: a file for each model below `PADDOCK_HOME`, for its owner alone."""

    def __init__(self, home: Path) -> None:
        self._folder = home / "attached"

    def _file(self, uid: str) -> Path:
        return self._folder / f"{uid.replace('/', '%2F')}.key"

    def write(self, uid: str, key: str) -> None:
        """Keeps a model's key, completely or not at all. Raises `NotWritten`."""
        with writing(self._folder):
            make_private(self._folder)
        write_atomically(self._file(uid), key)

    def read(self, uid: str) -> str:
        """A model's key, empty where it needs none. Raises `OSError` if it is not there."""
        return self._file(uid).read_text("utf-8")

    def remove(self, uid: str) -> None:
        """Forgets a model's key."""
        self._file(uid).unlink(missing_ok=True)

    def sweep(self, uids: Iterable[str]) -> None:
        """Forgets all keys but those of these models: what a crash has left."""
        wanted = {self._file(uid) for uid in uids}
        for file in self._folder.glob("*") if self._folder.exists() else ():
            if file not in wanted:
                file.unlink(missing_ok=True)
