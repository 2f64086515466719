"""A hub of another package, in one file. Its server answers

    GET SHELF_ENDPOINT/api/models/OWNER/NAME/revision/REVISION     the files, as JSON
    GET SHELF_ENDPOINT/OWNER/NAME/resolve/REVISION/FILE            a file, also in ranges

and its cache is SHELF_CACHE/OWNER/NAME/REVISION/FILE.

Commands that meet a name or prefix that is not built in import this module, so it imports at its
top nothing that is slow.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import urlopen

from paddock.registry.errors import HubFailure
from paddock.registry.hubs import HubSite

if TYPE_CHECKING:
    from paddock.launcher.weights.base import (
        CachePaths,
        Listing,
        RemoteFile,
        Repository,
        Request,
        Terms,
    )
    from paddock.registry.spec import Source

SITE = HubSite(
    name="shelf",
    title="Shelf",
    prefix="shelf",
    adapter="paddock_shelf:Shelf",
    hosts=("shelf.example",),
    endpoint_variable="SHELF_ENDPOINT",
    addresses=("{id}", "{id}/at/{revision}", "{id}/at/{revision}/{file}"),
)


class Shelf:
    """See `paddock.launcher.weights.base.Hub`."""

    name = SITE.name
    title = SITE.title
    default_revision = "main"

    @property
    def endpoint(self) -> str:
        """SHELF_ENDPOINT, or the public hub."""
        return os.environ.get("SHELF_ENDPOINT", "https://shelf.example").rstrip("/")

    @property
    def offline(self) -> str:
        """Empty: the hub has no such setting."""
        return ""

    def resolve(self, source: Source, terms: Terms) -> Listing:
        """The files with their sizes and digests, by one request."""
        from paddock.launcher.weights.base import Listing, RemoteFile, check_name

        revision = source.revision or self.default_revision
        rows = self._ask(source.id, quote(revision, safe=""), terms.timeout)["siblings"]
        files = tuple(
            RemoteFile(
                check_name(self.title, row["rfilename"]),
                int(row["size"]),
                f"sha256:{row['lfs']['sha256']}" if "lfs" in row else f"git:{row['blobId']}",
            )
            for row in rows
        )
        return Listing(self.name, source.id, revision, "", files)

    def folder(self, source: Source, listing: Listing | None) -> Path | None:
        """The revision's folder."""
        folder = self._folder(source.id, source.revision or self.default_revision)
        return folder if folder.is_dir() else None

    def cache_paths(self, listing: Listing, file: RemoteFile) -> CachePaths:
        """Under its own name; the lock lies outside of the repository."""
        from paddock.launcher.weights.base import CachePaths

        path = self._folder(listing.id, listing.revision) / file.name
        lock = self._cache / ".locks" / path.relative_to(self._cache)
        incomplete = path.with_name(f"{path.name}.incomplete")
        return CachePaths(path, path, incomplete, lock.with_name(f"{path.name}.lock"))

    def digest_of(self, path: Path) -> str:
        """Empty: the cache does not say."""
        return ""

    def request(self, listing: Listing, file: RemoteFile) -> Request:
        """The file at the revision."""
        from paddock.launcher.weights.base import Request

        name, revision = quote(file.name), quote(listing.revision, safe="")
        return Request(f"{self.endpoint}/{listing.id}/resolve/{revision}/{name}", {})

    def bring(self, listing: Listing, file: RemoteFile, pulse: Callable[[int], None]) -> bool:
        """False: all files come over HTTP."""
        return False

    def publish(self, listing: Listing, paths: CachePaths) -> None:
        """Nothing: the file stands under its name."""

    def refused(self, listing: Listing, name: str, status: int, code: str) -> HubFailure:
        """From the status."""
        return self._failure(f"{name} of {listing.id}", status)

    def repositories(self) -> Iterator[Repository]:
        """Every OWNER/NAME with a file in it."""
        from paddock.launcher.weights.base import Repository, part_bytes

        for folder in sorted(self._cache.glob("[!.]*/*/")):
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            if size:
                id, parts = folder.relative_to(self._cache).as_posix(), part_bytes(folder)
                yield Repository(self.name, id, folder, size - parts, parts)

    def removable(self, source: Source, files: Collection[Path]) -> Collection[Path]:
        """The files: nothing links to them."""
        return files

    def remove(self, source: Source, files: Collection[Path]) -> None:
        """File by file."""
        for path in files:
            path.unlink(missing_ok=True)

    @property
    def _cache(self) -> Path:
        return Path(os.environ.get("SHELF_CACHE", "~/.cache/shelf")).expanduser()

    def _folder(self, id: str, revision: str) -> Path:
        return self._cache / id / revision

    def _ask(self, id: str, revision: str, seconds: float) -> dict[str, Any]:
        from paddock.launcher.weights.transfer import PASSING, Trouble

        url = f"{self.endpoint}/api/models/{id}/revision/{revision}"
        try:
            with urlopen(url, timeout=seconds) as answer:  # noqa: S310
                return dict(json.load(answer))
        except HTTPError as error:
            error.close()
            if error.code in PASSING:
                raise Trouble("hub_unreachable", f"HTTP {error.code}") from error
            raise self._failure(id, error.code) from error
        except (URLError, TimeoutError, ValueError) as error:
            raise Trouble("hub_unreachable", str(error)) from error

    def _failure(self, what: str, status: int) -> HubFailure:
        cause = "not_found" if status == 404 else "hub_unreachable"
        return HubFailure(cause, f"{self.title} answered {status} for {what}")
