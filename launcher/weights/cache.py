"""The hubs' caches on this node: by variant, and by repository, whoever downloaded it."""

from __future__ import annotations

import threading
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from paddock.launcher.weights import load_hub
from paddock.launcher.weights.base import Hub, Repository, Terms
from paddock.launcher.weights.job import Job, cached_files
from paddock.launcher.weights.verified import Records, digest_file
from paddock.registry.errors import HubFailure
from paddock.registry.hubs import hub_names
from paddock.registry.spec import Source, Variant


@dataclass(frozen=True)
class Cached:
    """A variant whose files are all in a cache: at `path`, which leads to `real_path`.

    `checked`: every file was read and is intact, and has not changed since.
    """

    variant: Variant
    source: Source
    path: Path
    real_path: Path
    files: tuple[Path, ...]
    size_bytes: int
    checked: bool


@dataclass(frozen=True)
class Verdict:
    """The check of one file. `is_intact` is None if its digest is not known."""

    path: Path
    size_bytes: int
    digest: str
    is_intact: bool | None


class Cache:
    """The caches as they are now, for one PADDOCK_HOME. Reads the disk: call it in a thread."""

    def __init__(self, home: Path) -> None:
        self._terms = Terms(home)
        self._records = Records(home)
        self._hubs: dict[str, Hub] = {}

    def unusable_hubs(self) -> dict[str, str]:
        """Hub → why it cannot be used. What its cache holds is in no list."""
        reasons = {}
        for name in hub_names():
            try:
                self._hub(name)
            except HubFailure as failure:
                reasons[name] = failure.reason
        return reasons

    def cached(self, variants: Iterable[Variant]) -> list[Cached]:
        """The variants that are in a cache; those of `unusable_hubs` are left out."""
        unusable = self.unusable_hubs()
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
            for job, files in self._cached_jobs(variant, unusable)
            for path in [self._path(job, files)]
        ]

    def verify(self, variant: Variant) -> list[Verdict]:
        """Reads every file of the variant anew, and records its digest. Returns one for each file.

        Raises:
            HubFailure: a hub of the variant cannot be used.
        """
        verdicts = []
        for _, files in self._cached_jobs(variant):
            for path, expected in files.items():
                digest = digest_file(path, expected, lambda _: None)
                if digest.fits:
                    self._records.note(path, digest.text)
                else:
                    self._records.forget(path)
                fits = digest.fits if expected else None
                verdicts.append(Verdict(path, path.stat().st_size, digest.text, fits))
        return verdicts

    def repositories(self) -> list[Repository]:
        """Every repository with a file in it, by hub and id; `unusable_hubs` are left out."""
        usable = [name for name in hub_names() if name not in self.unusable_hubs()]
        every_repository = [
            repository for name in usable for repository in self._hub(name).repositories()
        ]
        return sorted(every_repository, key=lambda one: (one.hub, one.id))

    def removable(self, variant: Variant) -> tuple[Path, ...]:
        """What `remove` would delete: files, links to them, or whole folders.

        Raises:
            HubFailure: a hub of the variant cannot be used.
        """
        paths: set[Path] = set()
        for job, files in self._cached_jobs(variant):
            paths.update(job.hub.removable(job.source, files))
        return tuple(sorted(paths))

    def remove(self, variant: Variant) -> bool:
        """Deletes a variant by its hubs' own means.

        Other files of its repository stay. Returns whether the variant was cached, and no file of
        it remains.

        Raises:
            HubFailure: a hub of the variant cannot be used; nothing was deleted.
        """
        cached = list(self._cached_jobs(variant))
        if not cached:
            return False
        for job, files in cached:
            for path in files:  # while links still lead to what was checked
                self._records.forget(path)
            job.hub.remove(job.source, files)
        # A client may only log what it was not allowed to delete.
        return not any(self._cached_jobs(variant))

    def _hub(self, name: str) -> Hub:
        if name not in self._hubs:
            self._hubs[name] = load_hub(name)
        return self._hubs[name]

    def _cached_jobs(
        self, variant: Variant, unusable: Container[str] = ()
    ) -> Iterator[tuple[Job, dict[Path, str]]]:
        """The sources of the variant that are cached, with their files and digests."""
        for source in variant.sources:
            if source.hub in hub_names() and source.hub not in unusable:
                hub = self._hub(source.hub)
                job = Job(hub, source, self._terms, lambda _: None, threading.Event())
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
