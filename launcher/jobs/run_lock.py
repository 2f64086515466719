"""`python -m paddock.launcher.jobs.run_lock`: work on locks, in a job as `run_pull.py`.

It reads one task as a line of JSON (`make`, `verify` or `compare`), writes a line for each step and
each `row` that it finds, and `done` or the `failure` at the end.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from paddock.launcher.jobs.child_io import say, set_when_called_off, take_stdout
from paddock.launcher.planning.plan import PlannedWeights
from paddock.launcher.weights import Progress, Report, Terms, ask, load_hub
from paddock.launcher.weights.base import Cancelled, Listing, RemoteFile, cancelled_failure
from paddock.launcher.weights.job import (
    Job,
    bring_files,
    cached,
    cached_files,
    folder_of,
    resolved,
)
from paddock.launcher.weights.local import folder_of as local_folder
from paddock.launcher.weights.progress import Meter
from paddock.launcher.weights.reachability import Reach
from paddock.launcher.weights.select_files import choose
from paddock.launcher.weights.verified import Digest, Records, digest_file
from paddock.registry.errors import HubFailure
from paddock.registry.hubs import COMMIT, LOCAL
from paddock.registry.lockfile import LockedFile, LockedModel
from paddock.registry.spec import Source

WORKERS = 4
"""Models whose hubs are asked side by side."""


@dataclass(frozen=True)
class Bench:
    """How the work is done, and where its progress is reported."""

    terms: Terms
    report: Report
    cancelled: Cancelled

    def job(self, source: Source) -> Job:
        """A wish for the source's files."""
        return Job(load_hub(source.hub), source, self.terms, self.report, self.cancelled)

    def read(self, path: Path, expected: str, meter: Meter, name: str) -> Digest:
        """The digest of a file. Raises `HubFailure` if the work is called off."""

        def pulse(read: int) -> None:
            if self.cancelled.is_set():
                raise cancelled_failure(path.name)
            meter.note_present(name, read)

        return digest_file(path, expected, pulse)


def make(weights: PlannedWeights, newest: bool, bench: Bench) -> dict[str, Any]:
    """The weights of a `LockedModel` as JSON: those that are cached, or else the hub's newest.

    Each file gets its SHA-256; where a hub tells none, the file is fetched and read.

    Args:
        newest: what is cached does not count.

    Raises:
        HubFailure: no hub answers, or has them.
    """
    if weights.hub in LOCAL:
        folder = local_folder(weights.hub, weights.id)
        digests = {folder / file.name: "" for file in weights.files}
        files = _read(folder, digests, bench)
        return _entry(weights.hub, weights.id, files)
    jobs = [bench.job(source) for source in weights.sources]
    for job in () if newest else jobs:
        if cached(job) is not None:
            listing, folder = _in_cache(job)
            digests = {folder / file.name: file.digest for file in listing.files}
            return _on_hub(job.source, listing.commit or None, _read(folder, digests, bench))
    if weights.offline:
        reason = f"{weights.id} is not cached, and --offline was asked for"
        raise HubFailure("hub_unreachable", reason)
    return ask(jobs, partial(_from_hub, bench=bench))


def _in_cache(job: Job) -> tuple[Listing, Path]:
    """What the model needs of what is cached, as a listing, and its folder. Reads no file.

    Raises:
        HubFailure: `not_found`, if it is not all here.
    """
    digests = cached_files(job)
    folder = folder_of(job, digests) if digests else None
    if folder is None:
        raise HubFailure("not_found", f"{job.source.id} is not cached any more")
    files = tuple(
        RemoteFile(path.relative_to(folder).as_posix(), path.stat().st_size, digest)
        for path, digest in digests.items()
    )
    commit = folder.name if COMMIT.fullmatch(folder.name) else ""
    source = job.source
    listing = Listing(source.hub, source.id, source.revision or "", commit, files)
    # Another tool may have brought more than the model needs.
    return replace(listing, files=choose(listing, job.wanted)), folder


def _from_hub(job: Job, bench: Bench) -> dict[str, Any]:
    listing = resolved(job)
    chosen = choose(listing, job.wanted)
    small = [file for file in chosen if not file.digest.startswith("sha256:")]
    files = [
        LockedFile(name=f.name, size_bytes=f.size_bytes, sha256=f.digest.partition(":")[2])
        for f in chosen
        if f not in small
    ]
    if small:
        # At the commit: that the branch has it now is not noted before all of it is here.
        pinned = replace(listing, revision=listing.commit or listing.revision)
        paths = bring_files(job, pinned, small, keep=False)
        folder = paths[0].parents[len(Path(small[0].name).parts) - 1]
        digests = {path: file.digest for path, file in zip(paths, small, strict=True)}
        files += _read(folder, digests, bench)
    return _on_hub(job.source, listing.commit or None, files)


def _read(folder: Path, digests: dict[Path, str], bench: Bench) -> list[LockedFile]:
    """The files with their SHA-256; only those whose digest is none are read."""
    names = {path: path.relative_to(folder).as_posix() for path in digests}
    sizes = {path: path.stat().st_size for path in digests}
    unknown = {path for path, digest in digests.items() if not digest.startswith("sha256:")}
    meter = Meter("reading", [RemoteFile(names[p], sizes[p]) for p in unknown], bench.report)
    files = []
    for path, digest in digests.items():
        kind, _, text = digest.partition(":")
        if path in unknown:
            sha256 = bench.read(path, "", meter, names[path]).text.partition(":")[2]
        else:
            sha256 = text
        git = text if kind == "git" else None
        files.append(LockedFile(name=names[path], size_bytes=sizes[path], sha256=sha256, git=git))
    return files


def _on_hub(source: Source, commit: str | None, files: Iterable[LockedFile]) -> dict[str, Any]:
    entry = _entry(source.hub, source.id, files)
    return entry | {"revision": source.revision, "commit": commit}


def _entry(hub: str, identity: str, files: Iterable[LockedFile]) -> dict[str, Any]:
    ordered = sorted(files, key=lambda file: file.name)
    return {"hub": hub, "id": identity, "files": [file.model_dump() for file in ordered]}


def verify(models: Sequence[LockedModel], bench: Bench, say: Callable[[Any], None]) -> None:
    """Reads the locked files anew, and says of each whether it is as locked.

    Raises:
        HubFailure: `cancelled`.
    """
    folders = {entry.model: _folder(entry, bench) for entry in models}
    sizes = [
        RemoteFile(f"{entry.model}/{file.name}", file.size_bytes)
        for entry in models
        for file in entry.files
    ]
    meter = Meter("reading", sizes, bench.report)
    records = Records(bench.terms.home)
    for entry in models:
        for file in entry.files:
            folder = folders[entry.model]
            path = folder / file.name if folder is not None else None
            row: dict[str, Any] = {
                "model": entry.model,
                "name": file.name,
                "size_bytes": file.size_bytes,
                "sha256": file.sha256,
                "found": None,
                "path": str(path) if path else None,
                "state": "missing",
            }
            if path is not None and path.is_file():
                read = bench.read(
                    path, f"sha256:{file.sha256}", meter, f"{entry.model}/{file.name}"
                )
                row["found"] = read.text.partition(":")[2]
                row["state"] = "as_locked" if read.fits else "differs"
                if read.fits:
                    records.note(path, file.digest)
                else:
                    records.forget(path)
            say(row)


def _folder(entry: LockedModel, bench: Bench) -> Path | None:
    if entry.hub in LOCAL:
        return local_folder(entry.hub, entry.id)
    job = bench.job(entry.source)
    return job.hub.folder(job.source, None)


@dataclass(frozen=True)
class _Pinned:
    """What is locked or cached of a model: `files` are by name."""

    model: str
    hub: str
    id: str
    revision: str | None
    commit: str | None
    wanted: str | None
    files: dict[str, RemoteFile]


def compare(
    models: Sequence[LockedModel],
    caches: Sequence[tuple[str, Source]],
    bench: Bench,
    say: Callable[[Any], None],
) -> None:
    """Says of each locked or cached model what its branch has that is another; in order.

    What goes wrong with one is in its row.
    """
    reasons: dict[str, str | None] = {}
    lock = threading.Lock()

    def unreachable(endpoint: str) -> str | None:
        with lock:  # many models on a hub that does not answer wait for it once
            if endpoint not in reasons:
                reasons[endpoint] = Reach(bench.terms.home, bench.terms.timeout).unreachable(
                    endpoint
                )
            return reasons[endpoint]

    def row(item: LockedModel | tuple[str, Source]) -> dict[str, Any]:
        if isinstance(item, LockedModel):
            identity = (item.model, item.hub, item.id)
        else:
            identity = (item[0], item[1].hub, item[1].id)
        if identity[1] in LOCAL:
            return _row(*identity, "local")
        try:
            pinned = (
                _pin_locked(item) if isinstance(item, LockedModel) else _pin_cached(item, bench)
            )
            return _compare_pinned(pinned, bench, unreachable)
        except HubFailure as failure:
            error = {"cause": failure.cause, "reason": str(failure)}
            return _row(*identity, "unknown") | {"error": error}

    with ThreadPoolExecutor(WORKERS) as pool:
        for comparison in pool.map(row, [*models, *caches]):
            say(comparison)


def _pin_locked(entry: LockedModel) -> _Pinned:
    files = {f.name: RemoteFile(f.name, f.size_bytes, f.digest) for f in entry.files}
    wanted = entry.source.file
    return _Pinned(entry.model, entry.hub, entry.id, entry.revision, entry.commit, wanted, files)


def _pin_cached(item: tuple[str, Source], bench: Bench) -> _Pinned:
    name, source = item
    listing, _ = _in_cache(bench.job(source))
    files = {file.name: file for file in listing.files}
    commit = listing.commit or None
    return _Pinned(name, source.hub, source.id, source.revision, commit, source.file, files)


def _compare_pinned(
    pinned: _Pinned, bench: Bench, unreachable: Callable[[str], str | None]
) -> dict[str, Any]:
    source = Source.model_validate(
        {
            "hub": pinned.hub,
            "id": pinned.id,
            "revision": pinned.revision,
            "file_template": pinned.wanted,
        }
    )
    job = bench.job(source)
    if job.hub.offline:
        raise HubFailure("hub_unreachable", f"{job.hub.offline} is set")
    reason = unreachable(job.hub.endpoint)
    if reason is not None:
        raise HubFailure("hub_unreachable", f"cannot reach {job.hub.title} ({reason})")
    listing = resolved(job)
    try:
        new = {file.name: file for file in choose(listing, job.wanted)}
    except HubFailure:  # the hub has it no more: every file counts as removed
        new = {}
    old = pinned.files
    changed = [name for name in new if name in old and _differ(old[name], new[name])]
    added, removed = [n for n in new if n not in old], [n for n in old if n not in new]
    moved = bool(listing.commit) and listing.commit != pinned.commit
    state = "outdated" if changed or added or removed else "moved" if moved else "current"
    return _row(pinned.model, pinned.hub, pinned.id, state) | {
        "revision": pinned.revision or job.hub.default_revision,
        "commit": pinned.commit,
        "newest_commit": listing.commit or None,
        "added": [_size(new[name]) for name in sorted(added)],
        "removed": [_size(old[name]) for name in sorted(removed)],
        "changed": [
            _size(new[name]) | {"was_bytes": old[name].size_bytes} for name in sorted(changed)
        ],
    }


def _differ(old: RemoteFile, new: RemoteFile) -> bool:
    same_kind = old.digest.partition(":")[0] == new.digest.partition(":")[0] != ""
    return old.size_bytes != new.size_bytes or (same_kind and old.digest != new.digest)


def _size(file: RemoteFile) -> dict[str, Any]:
    return {"name": file.name, "size_bytes": file.size_bytes}


def _row(model: str, hub: str, identity: str, state: str) -> dict[str, Any]:
    return {
        "model": model,
        "hub": hub,
        "id": identity,
        "state": state,
        "revision": None,
        "commit": None,
        "newest_commit": None,
        "added": [],
        "removed": [],
        "changed": [],
        "error": None,
    }


def main() -> None:
    """Carries out the task that stdin names."""
    take_stdout()
    request = json.loads(sys.stdin.readline())
    cancelled = threading.Event()
    threading.Thread(target=set_when_called_off, args=(cancelled,), daemon=True).start()
    terms = Terms(Path(request["home"]), request["timeout"])
    bench = Bench(terms, _report, cancelled)
    models = [LockedModel.model_validate(one) for one in request.get("models", ())]
    try:
        if request["task"] == "make":
            weights = PlannedWeights.model_validate(request["weights"])
            say({"row": make(weights, request["newest"], bench)})
        elif request["task"] == "verify":
            verify(models, bench, lambda row: say({"row": row}))
        else:
            caches = [(name, Source.model_validate(source)) for name, source in request["caches"]]
            compare(models, caches, bench, lambda row: say({"row": row}))
        say({"done": True})
    except HubFailure as failure:
        say({"failure": failure.fields()})
    except OSError as error:
        say({"failure": {"cause": "load_failed", "reason": str(error), "tried": ()}})


def _report(progress: Progress) -> None:
    say({"progress": progress.to_json()})


if __name__ == "__main__":
    main()
