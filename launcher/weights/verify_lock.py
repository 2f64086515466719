"""Holds what a hub lists, and what lies here, against a lock."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from paddock.launcher.weights.base import Listing, RemoteFile
from paddock.launcher.weights.select_files import is_needed
from paddock.launcher.weights.verified import Records, digest_file
from paddock.registry.errors import HubFailure
from paddock.registry.formats import weight_format
from paddock.registry.lockfile import LockedFile, LockedModel

_WAY = "lock it anew if that is wanted: paddock lock"


def locked_paths(lock: LockedModel, folder: Path | None) -> dict[Path, str] | None:
    """Where the locked files are and what digests they must have; None if one is not there."""
    if folder is None:
        return None
    files = sorted(lock.files, key=lambda file: file.name)
    digests = {folder / file.name: file.digest for file in files}
    return digests if all(path.is_file() for path in digests) else None


def check_listing(
    lock: LockedModel, listing: Listing, chosen: Iterable[RemoteFile]
) -> tuple[RemoteFile, ...]:
    """The chosen files, with the locked digest where the hub tells none.

    Raises:
        HubFailure: `checksum_mismatch`, if they are not the very files of the lock.
    """
    locked = {file.name: file for file in lock.files}
    checked = []
    for file in chosen:
        expected = locked.pop(file.name, None)
        label = f"{file.name} of {listing.id}"
        if expected is None:
            raise _mismatch(f"{label} is needed, and the lock does not name it")
        if file.digest and file.digest not in {expected.digest, f"sha256:{expected.sha256}"}:
            listed = f"{listing.hub} lists it with {file.digest}"
            raise _mismatch(f"{label} is locked to {expected.digest}, and {listed}")
        if file.size_bytes != expected.size_bytes:
            listed = f"{listing.hub} lists it with {file.size_bytes}"
            raise _mismatch(f"{label} is locked to {expected.size_bytes} bytes, and {listed}")
        checked.append(RemoteFile(file.name, file.size_bytes, file.digest or expected.digest))
    if locked:
        raise _mismatch(
            f"{next(iter(locked))} is locked, and {listing.id} does not need or have it"
        )
    return tuple(checked)


def check_folder(lock: LockedModel, folder: Path) -> None:
    """Refuses what an engine could read in the folder beside the locked files.

    The small files are read once more: what git names them by is weaker than SHA-256.

    Raises:
        HubFailure: `checksum_mismatch`, with the file.
    """
    for file in lock.files:
        if file.git is not None:
            _check(file, folder, lambda _: None)
    if weight_format(lock.format).is_single_file:
        return  # the engine gets the one file
    names = {file.name for file in lock.files}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name not in names and path.is_file() and is_needed(name):
            raise _mismatch(f"{path} is there, and the lock does not name it; remove it")


def check_here(
    lock: LockedModel, folder: Path, records: Records, pulse: Callable[[str, int], None]
) -> None:
    """Reads the files of a folder that is on no hub, each once; `pulse` gets name and bytes.

    Raises:
        HubFailure: `checksum_mismatch`, with the file.
    """
    for file in lock.files:
        path = folder / file.name
        if not records.is_whole(path, file.digest):
            _check(file, folder, partial(pulse, file.name))
            records.note(path, file.digest)


def _check(file: LockedFile, folder: Path, pulse: Callable[[int], None]) -> None:
    path = folder / file.name
    digest = digest_file(path, f"sha256:{file.sha256}", pulse)
    if not digest.fits:
        raise _mismatch(f"{path} is locked to {digest.expected}, and has {digest.text}")


def _mismatch(reason: str) -> HubFailure:
    return HubFailure("checksum_mismatch", f"{reason}; {_WAY}")
