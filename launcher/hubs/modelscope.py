"""ModelScope, through its own client, into its own cache."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from paddock.launcher.hubs import Report
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
    from modelscope.hub.errors import HubError, NotExistError
    from modelscope.hub.snapshot_download import snapshot_download

    wanted = [file.name for file in weights.files]
    patterns = {"allow_patterns": wanted} if wanted else {"ignore_patterns": IGNORED}
    endpoint = os.environ.get("MODELSCOPE_ENDPOINT", "https://www.modelscope.cn")
    try:
        found = Path(
            snapshot_download(weights.id, weights.revision, local_files_only=True, **patterns)
        )
        if all((found / name).exists() for name in wanted):
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
        raise HubFailure("not_found", f"ModelScope has no {weights.id}: {error}") from error
    except HubError as error:
        raise HubFailure("hub_unreachable", f"ModelScope answered: {error}") from error
    except OSError as error:
        cause = "disk_full" if error.errno == 28 else "hub_unreachable"
        raise HubFailure(cause, f"{weights.id}: {error}") from error
    return found / wanted[0] if len(wanted) == 1 else found
