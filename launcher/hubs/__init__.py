"""Weights from where they live to a path on this node. A row imports nothing until it is used."""

from __future__ import annotations

import threading
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Protocol

from paddock.launcher.plan import PlannedWeights
from paddock.registry.catalog import specs_root
from paddock.registry.errors import HubFailure

HUBS = {
    "huggingface": "paddock.launcher.hubs.huggingface",
    "modelscope": "paddock.launcher.hubs.modelscope",
}

Report = Callable[[int, int | None], None]
"""Called with the bytes that have come and the bytes in total, where that is known."""


class Hub(Protocol):
    """A module that fetches from one hub, through the hub's own client, into the hub's own cache."""

    def fetch(
        self, weights: PlannedWeights, timeout: float, report: Report, cancelled: threading.Event
    ) -> Path:
        """The folder, or the one file, once all of it is here.

        Raises:
            HubFailure: with the cause, and what was tried.
        """
        ...


def fetch(
    weights: PlannedWeights, timeout: float, report: Report, cancelled: threading.Event
) -> Path | None:
    """Brings the weights to this node. None if the plan needs no weights.

    Raises:
        HubFailure: the hub does not answer, does not have them, or will not give them.
    """
    if weights.hub == "none":
        return None
    if weights.hub in {"local", "path"}:
        folder = Path(weights.id) if weights.hub == "path" else specs_root() / weights.id
        path = folder / weights.files[0].name if len(weights.files) == 1 else folder
        if not path.exists():
            raise HubFailure("not_found", f"{path} is not on this node")
        return path
    hub: Hub = import_module(HUBS[weights.hub])  # type: ignore[assignment]
    return hub.fetch(weights, timeout, report, cancelled)
