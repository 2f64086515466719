"""What lies in the hubs' caches on this node: by variant, and by repository whoever brought it."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from paddock.launcher.weights import HUBS, Terms, load_hub
from paddock.launcher.weights.base import Hub
from paddock.launcher.weights.job import Job, cached_files
from paddock.launcher.weights.verified import Records, digest_file
from paddock.registry.spec import Source, Variant

if TYPE_CHECKING:
    from huggingface_hub import DeleteCacheStrategy, HFCacheInfo


@dataclass(frozen=True)
class Cached:
    """A variant all of whose files are here: at `path`, which leads to `real_path`.

    `checked` says that all of them were read and found whole, and not changed since.
    """

    variant: Variant
    source: Source
    path: Path
    real_path: Path
    files: tuple[Path, ...]
    size_bytes: int
    checked: bool


@dataclass(frozen=True)
class Repository:
    """A repository in a hub's cache. `part_bytes` are of downloads that were interrupted."""

    hub: str
    id: str
    path: Path
    size_bytes: int
    part_bytes: int


@dataclass(frozen=True)
class Verdict:
    """What a file was found to be: `whole` is None if nobody tells what it ought to be."""

    path: Path
    size_bytes: int
    digest: str
    whole: bool | None


class Cache:
    """The caches as they are now, for one PADDOCK_HOME. Reads the disk: call it in a thread."""

    def __init__(self, home: Path) -> None:
        self._terms = Terms(home)
        self._records = Records(home)

    @cached_property
    def _hubs(self) -> dict[str, Hub]:
        return {name: load_hub(name) for name in HUBS}

    def cached(self, variants: Iterable[Variant]) -> list[Cached]:
        """The variants that are in a cache."""
        return [
            Cached(
                variant,
                job.source,
                path,
                path.resolve(),
                tuple(files),
                sum(file.stat().st_size for file in files),
                all(self._records.is_whole(file) for file in files),
            )
            for variant in variants
            for job, files in self._kept(variant)
            for path in [self._path(job, files)]
        ]

    def verify(self, variant: Variant) -> list[Verdict]:
        """Reads every file of the variant anew, and notes what was found."""
        found = []
        for _, files in self._kept(variant):
            for path, expected in files.items():
                digest = digest_file(path, expected, lambda _: None)
                if digest.fits:
                    self._records.note(path, digest.text)
                else:
                    self._records.forget(path)
                whole = digest.fits if expected else None
                found.append(Verdict(path, path.stat().st_size, digest.text, whole))
        return found

    def repositories(self) -> list[Repository]:
        """Every repository with a file in it, by hub and id."""
        scan = _scan()
        found = [
            Repository(
                "huggingface",
                repo.repo_id,
                repo.repo_path,
                repo.size_on_disk,
                _part_bytes(repo.repo_path),
            )
            for repo in (scan.repos if scan else ())
            if repo.repo_type == "model"
        ]
        found += self._modelscope()
        return sorted(found, key=lambda one: (one.hub, one.id))

    def removable(self, variant: Variant) -> tuple[Path, ...]:
        """What `remove` would delete: files, links to them, or whole folders."""
        paths: set[Path] = set()
        strategy = self._strategy(variant)
        if strategy is not None:
            for part in (
                *(strategy.files, strategy.blobs, strategy.snapshots),
                *(strategy.refs, strategy.repos),
            ):
                paths |= part
        for job, files in self._kept(variant):
            if job.source.hub != "huggingface":
                paths |= set(files)
        return tuple(sorted(paths))

    def remove(self, variant: Variant) -> bool:
        """Deletes a variant, from Hugging Face's cache by the client's own means.

        Of a repository with several files, the variant's own go and the others stay. Returns
        whether there was something, and nothing of it is left.
        """
        kept = list(self._kept(variant))
        if not kept:
            return False
        strategy = self._strategy(variant)
        if strategy is not None:
            strategy.execute()
        for job, files in kept:
            for path in files:
                self._records.forget(path)
                if job.source.hub != "huggingface":
                    path.unlink(missing_ok=True)
        return not any(self._kept(variant))  # the client only logs what it was not let delete

    def _kept(self, variant: Variant) -> Iterator[tuple[Job, dict[Path, str]]]:
        """The sources of the variant that are cached, with their files and digests."""
        for source in variant.sources:
            if source.hub in HUBS:
                job = Job(
                    self._hubs[source.hub], source, self._terms, lambda _: None, threading.Event()
                )
                files = cached_files(job)
                if files:
                    yield job, files

    def _path(self, job: Job, files: dict[Path, str]) -> Path:
        first = next(iter(files))
        if job.source.file:
            return first
        listing = self._records.listing(
            job.source.hub, job.source.id, job.source.revision or job.hub.default_revision
        )
        return job.hub.folder(job.source, listing) or first.parent

    def _strategy(self, variant: Variant) -> DeleteCacheStrategy | None:
        scan = _scan()
        wanted = {
            path
            for job, files in self._kept(variant)
            if job.source.hub == "huggingface"
            for path in files
        }
        if scan is None or not wanted:
            return None
        revisions = [revision for repo in scan.repos for revision in repo.revisions]
        if any(source.file for source in variant.sources if source.hub == "huggingface"):
            files = [f for revision in revisions for f in revision.files if f.file_path in wanted]
            return scan.delete_files(*files)
        holding = [r for r in revisions if {f.file_path for f in r.files} & wanted]
        return scan.delete_revisions(*(revision.commit_hash for revision in holding))

    def _modelscope(self) -> Iterator[Repository]:
        from modelscope_hub import HubApi
        from modelscope_hub.config import HubConfig

        for repo in HubApi(HubConfig()).scan_cache().repos:
            if str(repo.repo_type) == "model" and repo.size_on_disk:
                path = Path(str(repo.local_path))
                parts = _part_bytes(path)
                yield Repository("modelscope", repo.repo_id, path, repo.size_on_disk - parts, parts)


def _part_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.incomplete"))


def _scan() -> HFCacheInfo | None:
    from huggingface_hub import constants, scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        return scan_cache_dir(constants.HF_HUB_CACHE)
    except CacheNotFound:
        return None
