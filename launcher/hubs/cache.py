"""Which variants lie in Hugging Face's cache on this node, as the hub's own client sees it.

ModelScope's client has no such view of its cache, so what came from there is not listed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from paddock.launcher.hubs import is_whole
from paddock.registry.spec import Source, Variant

if TYPE_CHECKING:
    from huggingface_hub import CachedRevisionInfo, DeleteCacheStrategy, HFCacheInfo


@dataclass(frozen=True)
class Cached:
    """A variant all of whose files are here: at `path`, which leads to `real_path`."""

    variant: Variant
    path: Path
    real_path: Path


def cached(variants: Iterable[Variant]) -> list[Cached]:
    """The variants that are in the cache. Reads the disk: call it in a thread."""
    scan = _scan()
    if scan is None:
        return []
    return [
        Cached(variant, path, path.resolve())
        for variant in variants
        for revision, source in _kept(variant, scan)
        for path in [revision.snapshot_path / (source.file or "")]
    ]


def removable(variant: Variant) -> tuple[Path, ...]:
    """What `remove` would delete: files, links to them, or whole folders."""
    strategy = _strategy(variant)
    if strategy is None:
        return ()
    parts = (strategy.files, strategy.blobs, strategy.snapshots, strategy.refs, strategy.repos)
    return tuple(sorted(path for part in parts for path in part))


def remove(variant: Variant) -> bool:
    """Deletes a variant from the cache by the client's own means; whether that has succeeded.

    Of a repository with several files, the variant's own file goes and the others stay.
    """
    strategy = _strategy(variant)
    if strategy is None:
        return False
    strategy.execute()
    return _strategy(variant) is None  # the client only logs what it was not let delete


def _scan() -> HFCacheInfo | None:
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        return scan_cache_dir()
    except CacheNotFound:
        return None


def _kept(variant: Variant, scan: HFCacheInfo) -> Iterator[tuple[CachedRevisionInfo, Source]]:
    """The cached revisions that hold all of the variant, with the source that names them."""
    for source in variant.sources:
        for repo in scan.repos:
            if (source.hub, source.id) != ("huggingface", repo.repo_id):
                continue
            for revision in repo.revisions:
                if (source.revision or "main") not in {revision.commit_hash, *revision.refs}:
                    continue
                if source.file:
                    path = revision.snapshot_path / source.file
                    whole = any(file.file_path == path for file in revision.files)
                else:
                    whole = is_whole(revision.snapshot_path)
                if whole:
                    yield revision, source


def _strategy(variant: Variant) -> DeleteCacheStrategy | None:
    scan = _scan()
    kept = [] if scan is None else list(_kept(variant, scan))
    if scan is None or not kept:
        return None
    wanted = {revision.snapshot_path / source.file for revision, source in kept if source.file}
    if wanted:
        files = [f for revision, _ in kept for f in revision.files if f.file_path in wanted]
        return scan.delete_files(*files)
    return scan.delete_revisions(*(revision.commit_hash for revision, _ in kept))
