"""From a source to its files on this node: cached, or downloaded whole, or why not."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from paddock.launcher.weights.base import (
    CachePaths,
    Cancelled,
    Hub,
    Listing,
    RemoteFile,
    Terms,
    cancelled_failure,
)
from paddock.launcher.weights.filelock import locked
from paddock.launcher.weights.progress import Meter, Progress, Report
from paddock.launcher.weights.select_files import choose
from paddock.launcher.weights.transfer import Pulse, Transfer, retry
from paddock.launcher.weights.verified import Records, digest_file
from paddock.launcher.weights.verify_lock import check_folder, check_listing, locked_paths
from paddock.registry.errors import HubFailure
from paddock.registry.hubs import COMMIT
from paddock.registry.lockfile import LockedModel
from paddock.registry.shards import shard_names, unsharded_name
from paddock.registry.spec import Source


@dataclass(frozen=True)
class Job:
    """One wish for a source's files, which must be those of the lock, where there is one."""

    hub: Hub
    source: Source
    terms: Terms
    report: Report
    cancelled: Cancelled
    lock: LockedModel | None = None
    trusted: str | None = None
    """What the repository must be, for its code and pickled weights to come too."""

    @property
    def wanted(self) -> tuple[str, ...]:
        """The files that the source names; none means all that a model needs."""
        if self.lock is not None and self.source.file:
            return (self.lock.first,)
        return (self.source.file,) if self.source.file else ()

    @property
    def records(self) -> Records:
        """The records of verified files."""
        return Records(self.terms.home)

    @property
    def label(self) -> str:
        """What is brought, and from where."""
        return f"{self.source.id} from {self.hub.title}"


def is_whole(folder: Path) -> bool:
    """Whether a folder of safetensors holds all that a model needs, as far as files can tell."""
    if not (folder / "config.json").exists():
        return False
    if not any(folder.glob("tokenizer*")) and not any(folder.glob("vocab*")):
        return False
    try:
        index = json.loads((folder / "model.safetensors.index.json").read_text("utf-8"))
        shards = set(index["weight_map"].values())
    except FileNotFoundError:
        shards = {path.name for path in folder.glob("*.safetensors")}
        return bool(shards) and all(
            name in shards for shard in shards for name in shard_names(shard)
        )
    except (ValueError, KeyError, AttributeError):
        return False
    return all((folder / shard).exists() for shard in shards)


def cached(job: Job) -> Path | None:
    """The folder, or the one file; None if a file is missing or incomplete. Asks no hub.

    What another tool has brought is read once to see that it is whole, where its digest is known.

    Raises:
        HubFailure: `cancelled`, while it was read; `checksum_mismatch`, if the folder holds more
            than the lock allows.
    """
    files = _cached_files(job)
    if files is None:
        return None
    for path, digest in files.items():
        if not _is_whole(job, path, digest):
            return None
    folder = folder_of(job, files) if files else None
    _settle(job, folder, list(files))
    return next(iter(files)) if job.wanted else folder


def cached_files(job: Job) -> dict[Path, str]:
    """The files of the source that are all here, with the digests that they ought to have.

    Empty if one is missing. Reads no file.
    """
    return _cached_files(job) or {}


def folder_of(job: Job, files: Iterable[Path]) -> Path | None:
    """The folder that cached files are relative to; None if they have none in common."""
    folders = (job.hub.folder(job.source, listing) for listing in (_listing(job), None))
    return next((f for f in folders if f and all(p.is_relative_to(f) for p in files)), None)


def _settle(job: Job, folder: Path | None, paths: Sequence[Path]) -> None:
    """Notes what is whole, under the commit that it is of too: that is how a lock names it."""
    if job.lock is not None and folder is not None:
        check_folder(job.lock, folder)
    job.records.mark_complete(job.source, paths)
    if folder is not None and COMMIT.fullmatch(folder.name):
        job.records.mark_complete(job.source.model_copy(update={"revision": folder.name}), paths)


def _listing(job: Job) -> Listing | None:
    source = job.source
    revision = source.revision or job.hub.default_revision
    return job.records.listing(source.hub, source.id, revision)


def _cached_files(job: Job) -> dict[Path, str] | None:
    if job.lock is not None:
        return locked_paths(job.lock, job.hub.folder(job.source, None))
    listing = _listing(job)
    if listing is not None:
        try:
            chosen = choose(listing, job.wanted, code=job.trusted is not None)
        except HubFailure:
            return None
        files = {job.hub.cache_paths(listing, file).path: file.digest for file in chosen}
        if all(path.exists() for path in files):
            return files
    folder = job.hub.folder(job.source, None)
    if folder is None or (listing and folder == job.hub.folder(job.source, listing)):
        return None
    return _left_by_others(job, folder)


def _left_by_others(job: Job, folder: Path) -> dict[Path, str] | None:
    """What lies in a snapshot of which we have no listing."""
    if not job.wanted:
        if not is_whole(folder):
            return None
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    else:
        (name,) = job.wanted
        beside = (folder / name).parent
        if not shard_names(name) and not (folder / name).exists() and beside.is_dir():
            names = (path.relative_to(folder).as_posix() for path in beside.iterdir())
            name = next((one for one in names if unsharded_name(one) == name), name)
        files = [folder / one for one in shard_names(name) or (name,)]
        if not all(path.is_file() for path in files):
            return None
    return {path: job.hub.digest_of(path) for path in files}


def _is_whole(job: Job, path: Path, digest: str) -> bool:
    records = job.records
    if records.is_whole(path, digest):
        return True
    if not digest:
        return True  # nobody tells what it ought to be; it stands under its name
    note = f"checking {path.name} of {job.source.id}"
    size = path.stat().st_size
    meter = Meter(note, [RemoteFile(path.name, size)], job.report)

    def pulse(read: int) -> None:
        if job.cancelled.is_set():
            raise cancelled_failure(job.source.id)
        meter.note_present(path.name, read)

    result = digest_file(path, digest, pulse)
    if result.fits:
        records.note(path, result.text)
    return result.fits


def bring(job: Job) -> Path:
    """Downloads what is missing, and returns the folder, or the one file.

    Raises:
        HubFailure: with the cause; what has come is kept.
    """
    listing = resolved(job)
    if job.trusted not in {None, listing.pin}:
        reason = f"{job.source.id} is at {listing.pin} now, and {job.trusted} is what was trusted"
        raise HubFailure("checksum_mismatch", reason)
    chosen = choose(listing, job.wanted, code=job.trusted is not None)
    if job.lock is not None:
        chosen = check_listing(job.lock, listing, chosen)
        listing = _as_branch(job, job.lock, listing)
    paths = bring_files(job, listing, chosen, keep=True)
    folder = job.hub.folder(job.source, listing)
    assert folder is not None  # its files were just settled
    _settle(job, folder, paths)
    return paths[0] if job.wanted else folder


def _as_branch(job: Job, lock: LockedModel, listing: Listing) -> Listing:
    """The listing of a locked commit, as that of its branch if nothing of that is cached.

    So what a lock has brought is listed, removed and launched like any other.
    """
    branch = lock.revision or job.hub.default_revision
    known = job.hub.folder(job.source.model_copy(update={"revision": branch}), None)
    return listing if known else replace(listing, revision=branch)


def bring_files(
    job: Job, listing: Listing, files: Sequence[RemoteFile], *, keep: bool
) -> list[Path]:
    """Downloads what is missing of these files of a listing, and returns their paths.

    `keep`: from now on the listing says what the folder must hold to be whole. Raises as `bring`.
    """
    cache_paths = {file: job.hub.cache_paths(listing, file) for file in files}
    meter = Meter(job.label, files, job.report)
    _check_disk(job, cache_paths)
    if keep:
        job.records.keep(listing)
    meter.tell()
    _all(job, listing, cache_paths, meter)
    return [paths.path for paths in cache_paths.values()]


def resolved(job: Job) -> Listing:
    """What the hub has of the source now. Raises `HubFailure`."""
    listings: list[Listing] = []

    def attempt() -> bool:
        listings.append(job.hub.resolve(job.source, job.terms))
        return True

    job.report(Progress(f"{job.label}: asking for its files", 0, 0))
    retry(attempt, job.source.id, job.hub, job.terms, job.cancelled)
    return listings[0]


def _check_disk(job: Job, cache_paths: dict[RemoteFile, CachePaths]) -> None:
    """Refuses before the first byte what the disk cannot take; parts that are here count."""
    needed = sum(file.size_bytes - _here(file, paths) for file, paths in cache_paths.items())
    where = next(iter(cache_paths.values())).incomplete.parent
    free = job.terms.free_bytes(where)
    if needed > free:
        raise HubFailure(
            "disk_full",
            f"{job.source.id} needs {needed / 1e9:.2f} GB more, and the disk of {where} has "
            f"{free / 1e9:.2f} GB free; free some, or choose a smaller --quantization",
        )


def _here(file: RemoteFile, paths: CachePaths) -> int:
    for path in (paths.blob, paths.incomplete):
        if path.exists():
            return min(file.size_bytes, path.stat().st_size)
    return 0


def _all(
    job: Job, listing: Listing, cache_paths: dict[RemoteFile, CachePaths], meter: Meter
) -> None:
    """Brings the files side by side; the first failure ends the others."""
    ended = _Either(job.cancelled)
    transfer = Transfer(job.hub, listing, job.terms, ended)
    one = _One(job, listing, transfer, meter, ended)
    with (
        meter.ticking(),
        ThreadPoolExecutor(job.terms.workers, thread_name_prefix="download") as pool,
    ):
        running = [pool.submit(one.bring, file, paths) for file, paths in cache_paths.items()]
        done, _ = wait(running, return_when=FIRST_EXCEPTION)
        failure = next((f.exception() for f in done if f.exception() is not None), None)
        if failure is not None:
            ended.set()
            for future in running:
                future.cancel()
    transfer.close()
    if failure is not None:
        raise failure
    meter.tell()


class _Either(threading.Event):
    """Set by itself, or with another event."""

    def __init__(self, other: threading.Event) -> None:
        super().__init__()
        self._other = other

    def is_set(self) -> bool:
        return super().is_set() or self._other.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """Waits for either, looking at the other one ten times a second."""
        left = 1e9 if timeout is None else timeout
        while not self.is_set() and left > 0:
            super().wait(min(left, 0.1))
            left -= 0.1
        return self.is_set()


@dataclass(frozen=True)
class _One:
    job: Job
    listing: Listing
    transfer: Transfer
    meter: Meter
    ended: Cancelled

    def bring(self, file: RemoteFile, paths: CachePaths) -> None:
        """Brings one file, unless it is here, whole; others that want it too wait."""
        label = f"{self.job.source.id}, {file.name}"

        def watch() -> None:  # another process downloads it: its part is our progress
            if paths.incomplete.exists():
                self.meter.note_present(file.name, paths.incomplete.stat().st_size)

        if not paths.blob.exists():
            # Before our lock, which is the client's own: it would wait for us, and we for it.
            self._by_client(file, paths, label)
        with locked(paths.lock, label, self.ended, watch):
            if not self._is_here(file, paths):
                self._fetch(file, paths)
            self.job.hub.publish(self.listing, paths)
        self.meter.note_present(file.name, file.size_bytes)

    def _is_here(self, file: RemoteFile, paths: CachePaths) -> bool:
        if not paths.blob.exists():
            return False
        if paths.blob.stat().st_size == file.size_bytes:
            if self.job.records.is_whole(paths.blob, file.digest):
                return True
            if _is_whole(self.job, paths.blob, file.digest):
                return True
        paths.blob.unlink()
        return False

    def _by_client(self, file: RemoteFile, paths: CachePaths, label: str) -> None:
        """Lets the hub's client bring the file, where it has to be the one."""

        def pulse(received: int) -> None:
            if self.ended.is_set():
                raise cancelled_failure(self.job.source.id)
            self.meter.note_received(file.name, received)

        brought = False

        def attempt() -> bool:
            nonlocal brought
            brought = self.job.hub.bring(self.listing, file, pulse)
            return True

        retry(attempt, label, self.job.hub, self.job.terms, self.ended)
        if brought:
            size = paths.blob.stat().st_size
            if size != file.size_bytes:
                reason = f"{label} came with {size} bytes and is listed with {file.size_bytes}"
                raise HubFailure("checksum_mismatch", reason)
            # Content-addressed storage: the client has checked each chunk by its hash.
            self.job.records.note(paths.blob, file.digest)

    def _fetch(self, file: RemoteFile, paths: CachePaths) -> None:
        counted = Pulse(
            partial(self.meter.note_present, file.name),
            partial(self.meter.note_received, file.name),
        )
        digest = self.transfer.bring(file, paths.incomplete, counted)
        paths.incomplete.replace(paths.blob)
        self.job.records.note(paths.blob, digest)
