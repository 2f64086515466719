"""ModelScope, through its own client, into its own cache."""

from __future__ import annotations

import os
import threading
from errno import ENOSPC
from pathlib import Path

from paddock.launcher.hubs import Report, is_whole, one_line
from paddock.launcher.hubs.reach import unreachable
from paddock.launcher.plan import PlannedWeights
from paddock.registry.errors import HubFailure

IGNORED = ["*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.gguf", "original/*", "consolidated*"]


def fetch(
    weights: PlannedWeights, timeout: float, report: Report, cancelled: threading.Event
) -> Path:
    """Fetches the planned files, or the whole repository without doubles. See `hubs.Hub`.

    The client offers no way to stop a running download; ending its process does.
    """
    # Imported here and not above: it reads its cache folder and endpoint when it is imported.
    from modelscope.hub.errors import (
        AuthenticationError,
        CacheNotFound,
        HubError,
        NotExistError,
        PermissionDeniedError,
    )
    from modelscope.hub.snapshot_download import snapshot_download

    def all_here(folder: Path) -> bool:
        return all((folder / name).exists() for name in wanted) if wanted else is_whole(folder)

    wanted = [file.name for file in weights.files]
    patterns = {"allow_patterns": wanted} if wanted else {"ignore_patterns": IGNORED}
    endpoint = os.environ.get("MODELSCOPE_ENDPOINT", "https://www.modelscope.cn")
    try:
        found = Path(
            snapshot_download(weights.id, weights.revision, local_files_only=True, **patterns)
        )
        if all_here(found):
            return found / wanted[0] if len(wanted) == 1 else found
    except (CacheNotFound, ValueError):
        pass  # not cached; the client has said so in either way
    reason = unreachable(endpoint, timeout)
    if reason is not None:
        tried = (f"ModelScope, {endpoint}: {reason}",)
        raise HubFailure("hub_unreachable", f"cannot reach ModelScope ({reason})", tried)
    report(0, weights.size_bytes)
    try:
        found = Path(snapshot_download(weights.id, weights.revision, **patterns))
    except (HubError, OSError) as error:
        said = one_line(error)
        tried = (f"ModelScope, {endpoint}: {said}",)
        status = _status(error)
        if isinstance(error, NotExistError) or status == 404:
            raise HubFailure("not_found", f"ModelScope has no {weights.id}: {said}") from error
        if isinstance(error, AuthenticationError | PermissionDeniedError) or status in {401, 403}:
            why = f"ModelScope wants a login for {weights.id}: {said}"
            raise HubFailure("gated_repo", why) from error
        cause = "disk_full" if getattr(error, "errno", None) == ENOSPC else "hub_unreachable"
        raise HubFailure(cause, f"{weights.id}: {said}", tried) from error
    if not all_here(found):
        names = ", ".join(wanted) or "whole set of weights"
        raise HubFailure("not_found", f"{weights.id} on ModelScope has no {names}")
    return found / wanted[0] if len(wanted) == 1 else found


def _status(error: BaseException | None) -> int | None:
    """The HTTP status behind an error: its own, its answer's, or of the error that it wraps."""
    while error is not None:
        for holder in (error, getattr(error, "response", None)):
            status = getattr(holder, "status_code", None)
            if isinstance(status, int):
                return status
        error = error.__cause__ or error.__context__
    return None
