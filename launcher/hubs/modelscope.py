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

STATUSES = {401: "gated_repo", 403: "gated_repo", 404: "not_found"}
IGNORED = ["*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.gguf", "original/*", "consolidated*"]


def fetch(
    weights: PlannedWeights, timeout: float, report: Report, cancelled: threading.Event
) -> Path:
    """Fetches the planned files, or the whole repository without doubles. See `hubs.Hub`.

    The client offers no way to stop a running download; ending its process does.
    """
    # Imported here and not above: it reads its cache folder and endpoint when it is imported.
    from modelscope.hub.errors import HubError, NotExistError
    from modelscope.hub.snapshot_download import snapshot_download
    from requests.exceptions import HTTPError

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
    except ValueError:
        pass  # not cached; the client has no class of its own for it
    reason = unreachable(endpoint, timeout)
    if reason is not None:
        tried = (f"ModelScope, {endpoint}: {reason}",)
        raise HubFailure("hub_unreachable", f"cannot reach ModelScope ({reason})", tried)
    report(0, weights.size_bytes)
    try:
        found = Path(snapshot_download(weights.id, weights.revision, **patterns))
    except NotExistError as error:
        why = f"ModelScope has no {weights.id}: {one_line(error)}"
        raise HubFailure("not_found", why) from error
    except HTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        cause = STATUSES.get(status, "hub_unreachable")
        tried = (f"ModelScope, {endpoint}: {one_line(error)}",)
        raise HubFailure(cause, f"ModelScope answered: {one_line(error)}", tried) from error
    except (HubError, OSError) as error:
        cause = "disk_full" if getattr(error, "errno", None) == ENOSPC else "hub_unreachable"
        tried = (f"ModelScope, {endpoint}: {one_line(error)}",)
        raise HubFailure(cause, f"{weights.id}: {one_line(error)}", tried) from error
    if not all_here(found):
        names = ", ".join(wanted) or "whole set of weights"
        raise HubFailure("not_found", f"{weights.id} on ModelScope has no {names}")
    return found / wanted[0] if len(wanted) == 1 else found
