"""Hugging Face, through huggingface_hub, into its own cache."""

from __future__ import annotations

import threading
from errno import ENOSPC
from pathlib import Path
from typing import Any

from httpx2 import HTTPError  # what huggingface_hub speaks HTTP with, and lets escape
from huggingface_hub import constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from tqdm.auto import tqdm

from paddock.launcher.hubs import Report, is_whole, one_line
from paddock.launcher.hubs.reach import unreachable
from paddock.launcher.plan import PlannedWeights
from paddock.registry.errors import HubFailure

# Weights as pickle, and doubles of the safetensors in another layout, are never fetched.
IGNORED = ["*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack", "*.onnx", "original/*",
           "consolidated*", "*.gguf"]  # fmt: skip


def fetch(
    weights: PlannedWeights, timeout: float, report: Report, cancelled: threading.Event
) -> Path:
    """Fetches the planned files, or the whole repository without doubles. See `hubs.Hub`."""
    try:
        cached = _get(weights, timeout, report, cancelled, local_only=True)
        # Of a repository, the client takes whatever an earlier, broken download has left.
        if weights.files or is_whole(cached):
            return cached
    except LocalEntryNotFoundError:
        pass
    if constants.HF_HUB_OFFLINE:
        raise HubFailure(
            "hub_unreachable", f"{weights.id} is not cached, and HF_HUB_OFFLINE is set"
        )
    reason = unreachable(constants.ENDPOINT, timeout)
    if reason is not None:
        tried = (f"Hugging Face, {constants.ENDPOINT}: {reason}",)
        raise HubFailure("hub_unreachable", f"cannot reach Hugging Face ({reason})", tried)
    try:
        return _get(weights, timeout, report, cancelled, local_only=False)
    except GatedRepoError as error:
        page = f"{constants.ENDPOINT}/{weights.id}"
        why = f"{weights.id} is gated: ask for access at {page}, then set HF_TOKEN"
        raise HubFailure("gated_repo", why) from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        why = f"Hugging Face has no {weights.id} at {weights.revision or 'its main revision'}"
        raise HubFailure("not_found", why) from error
    except EntryNotFoundError as error:
        if isinstance(error, LocalEntryNotFoundError):
            tried = (f"Hugging Face, {constants.ENDPOINT}: {error}",)
            raise HubFailure("hub_unreachable", "Hugging Face stopped answering", tried) from error
        names = ", ".join(file.name for file in weights.files)
        raise HubFailure("not_found", f"{weights.id} has no file {names}") from error
    except HfHubHTTPError as error:
        said = one_line(error)
        tried = (f"Hugging Face, {constants.ENDPOINT}: {said}",)
        raise HubFailure("hub_unreachable", f"Hugging Face answered: {said}", tried) from error
    except (OSError, HTTPError) as error:
        # The client's HTTP errors are no OSErrors.
        cause = "disk_full" if getattr(error, "errno", None) == ENOSPC else "hub_unreachable"
        tried = (f"Hugging Face, {constants.ENDPOINT}: {one_line(error)}",)
        raise HubFailure(cause, f"{weights.id}: {one_line(error)}", tried) from error


def _get(
    weights: PlannedWeights,
    timeout: float,
    report: Report,
    cancelled: threading.Event,
    local_only: bool,
) -> Path:
    common: dict[str, Any] = {
        "revision": weights.revision,
        "etag_timeout": timeout,
        "local_files_only": local_only,
        "tqdm_class": _meter(weights, report, cancelled),
        "library_name": "paddock",
    }
    if not weights.files:
        found = snapshot_download(weights.id, ignore_patterns=IGNORED, **common)
        return Path(str(found))
    paths = [Path(str(hf_hub_download(weights.id, file.name, **common))) for file in weights.files]
    return paths[0] if len(paths) == 1 else paths[0].parent


def _meter(weights: PlannedWeights, report: Report, cancelled: threading.Event) -> type[Any]:
    """A progress bar that draws nothing and reports; the hub's client calls it as bytes come.

    For a repository the client moves two bars by the same bytes, and a third by files.
    """
    total = sum(file.size_bytes or 0 for file in weights.files) or weights.size_bytes
    most = 0

    class Meter(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._came = int(kwargs.get("initial") or 0)
            self._bytes = kwargs.get("unit") == "B"
            super().__init__(*args, **{**kwargs, "disable": True})

        def update(self, n: float | None = 1) -> bool | None:
            nonlocal most
            if cancelled.is_set():
                raise HubFailure("cancelled", f"the download of {weights.id} was called off")
            self._came += int(n or 0)
            if self._bytes and self._came > most:
                most = self._came
                report(most, total)
            return None

    return Meter
