"""Weights on this node: at a path that the user named, or shipped with the specs."""

from __future__ import annotations

from pathlib import Path

from paddock.launcher.planning.plan import PlannedWeights
from paddock.launcher.weights.base import Cancelled, RemoteFile, Terms, cancelled_failure
from paddock.launcher.weights.progress import Meter, Report
from paddock.launcher.weights.verified import Records
from paddock.launcher.weights.verify_lock import check_here
from paddock.registry.catalog import specs_root
from paddock.registry.errors import HubFailure
from paddock.registry.shards import shard_names


def find(weights: PlannedWeights, terms: Terms, report: Report, cancelled: Cancelled) -> Path:
    """The file, if the plan names just one or parts of one, or the folder; read if it is locked.

    Raises:
        HubFailure: `not_found`, with the path; `checksum_mismatch`, if it is not what is locked.
    """
    folder = folder_of(weights.hub, weights.id)
    names = [file.name for file in weights.files]
    single = len(names) == 1 or tuple(names) == shard_names(names[0])
    for path in [folder / name for name in names] if single else [folder]:
        if not path.exists():
            raise HubFailure("not_found", f"{path} is not on this node")
    lock = weights.lock
    if lock is not None:
        files = [RemoteFile(file.name, file.size_bytes) for file in lock.files]
        meter = Meter(f"checking {weights.id}", files, report)

        def pulse(name: str, read: int) -> None:
            if cancelled.is_set():
                raise cancelled_failure(weights.id)
            meter.note_present(name, read)

        check_here(lock, folder, Records(terms.home), pulse)
    return folder / names[0] if single else folder


def folder_of(hub: str, identity: str) -> Path:
    """The folder of local weights, by the id of their source."""
    return Path(identity) if hub == "path" else specs_root() / identity
