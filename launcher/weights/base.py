"""What a hub's adapter gives, and the frozen types that pass between it and the download."""

from __future__ import annotations

import hashlib
import re
import shutil
import threading
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from paddock.registry.errors import HubFailure
from paddock.registry.spec import Source

_NAME = re.compile(r"[^\x00-\x1f\\]+")


@dataclass(frozen=True)
class RemoteFile:
    """One file of a repository. `digest` is `sha256:…`, `git:…` (a blob's SHA-1), or empty."""

    name: str
    size_bytes: int
    digest: str = ""


@dataclass(frozen=True)
class Listing:
    """All files of a repository at one commit. `revision` is what was asked for.

    A hub that names no commit leaves it empty: then the digests alone pin the files.
    """

    hub: str
    id: str
    revision: str
    commit: str
    files: tuple[RemoteFile, ...]

    @property
    def pin(self) -> str:
        """Names these very files: the commit, or a digest of all names, sizes and digests."""
        if self.commit:
            return self.commit
        lines = sorted(f"{file.name}\0{file.size_bytes}\0{file.digest}" for file in self.files)
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:40]


@dataclass(frozen=True)
class CachePaths:
    """Where a file stands in its hub's cache.

    `path` is what other tools open. The bytes are in `blob`, which `path` may be a link to. Until
    all have come they are in `incomplete`, and whoever writes there holds `lock`.
    """

    path: Path
    blob: Path
    incomplete: Path
    lock: Path


@dataclass(frozen=True)
class Request:
    """Where a file's bytes come from; the headers may hold a token."""

    url: str
    headers: dict[str, str] = field(repr=False)


@dataclass(frozen=True)
class Repository:
    """A repository in a hub's cache. `part_bytes` are of downloads that were interrupted."""

    hub: str
    id: str
    path: Path
    size_bytes: int
    part_bytes: int


def part_bytes(folder: Path) -> int:
    """The bytes of downloads below the folder that were interrupted."""
    return sum(path.stat().st_size for path in folder.rglob("*.incomplete"))


def _free_bytes(folder: Path) -> int:
    existing = next(one for one in (folder, *folder.parents) if one.exists())
    return shutil.disk_usage(existing).free


@dataclass(frozen=True)
class Terms:
    """How downloads are done here. Durations are seconds.

    Attributes:
        home: PADDOCK_HOME, where is kept what was found whole.
        timeout: for a hub to take a connection and to answer a question.
        silence: without a byte for so long, a download is taken up anew.
        tries: how often in a row without one more byte.
        pause: before the second try, doubled for each further one.
        longest_pause: what a hub may ask for at most before the download is given up.
        workers: files that come side by side.
        free_bytes: of the disk that a folder is on, or will be.
    """

    home: Path
    timeout: float = 5.0
    silence: float = 30.0
    tries: int = 5
    pause: float = 1.0
    longest_pause: float = 300.0
    workers: int = 4
    free_bytes: Callable[[Path], int] = _free_bytes


class Hub(Protocol):
    """One hub, through its own client, in the layout of that client's cache.

    `name` and `title` are those of its `HubSite`.
    """

    name: str
    title: str
    default_revision: str

    @property
    def endpoint(self) -> str:
        """The address that is asked."""
        ...

    @property
    def offline(self) -> str:
        """The setting that forbids all requests, or empty."""
        ...

    def resolve(self, source: Source, terms: Terms) -> Listing:
        """The files at the source's revision, with sizes and digests. Asks the hub, once.

        Raises:
            HubFailure: with the cause.
        """
        ...

    def folder(self, source: Source, listing: Listing | None) -> Path | None:
        """The cached files' folder: of the listing, or as other tools left it; None if none."""
        ...

    def cache_paths(self, listing: Listing, file: RemoteFile) -> CachePaths:
        """Where a file belongs."""
        ...

    def digest_of(self, path: Path) -> str:
        """The digest that the cache itself tells of a file, or empty."""
        ...

    def request(self, listing: Listing, file: RemoteFile) -> Request:
        """What to ask for a file's bytes."""
        ...

    def bring(self, listing: Listing, file: RemoteFile, pulse: Callable[[int], None]) -> bool:
        """Lets the client bring a file by a way that only it knows; False if there is none.

        `pulse` is called with the bytes that have come, and may raise to end it.
        """
        ...

    def publish(self, listing: Listing, paths: CachePaths) -> None:
        """Makes a whole blob visible at its path, as the client would."""
        ...

    def refused(self, listing: Listing, name: str, status: int, code: str) -> HubFailure:
        """What a hub's answer to a request for a file means, from its status and error code."""
        ...

    def repositories(self) -> Iterable[Repository]:
        """Every model's repository with a file in the cache, whichever tool has brought it."""
        ...

    def removable(self, source: Source, files: Collection[Path]) -> Collection[Path]:
        """What `remove` would delete: files, links to them, or whole folders.

        `files` are the cached ones of the source, by the paths that other tools open.
        """
        ...

    def remove(self, source: Source, files: Collection[Path]) -> None:
        """Deletes these files of the source; others of the repository stay, if it names one."""
        ...


def cancelled_failure(label: str) -> HubFailure:
    """The failure of a download whose user does not want it any more."""
    return HubFailure("cancelled", f"the download of {label} was called off")


def check_name(hub: str, name: str) -> str:
    """Returns the file name, unless it would lead out of the repository's folder.

    Raises:
        HubFailure: such a name.
    """
    parts = name.split("/")
    if not _NAME.fullmatch(name) or any(part in {"", ".", ".."} for part in parts):
        raise HubFailure("not_found", f"{hub} lists a file by the unsafe name {name!r}")
    return name


def one_line(error: BaseException) -> str:
    """What an error of a hub's client says, without its line breaks and at a readable length."""
    return " ".join(str(error).split())[:300] or type(error).__name__


Cancelled = threading.Event
