"""Weights on this node: at a path that the user named, or shipped with the specs."""

from __future__ import annotations

from pathlib import Path

from paddock.launcher.plan import PlannedWeights
from paddock.registry.catalog import specs_root
from paddock.registry.errors import HubFailure


def find(weights: PlannedWeights) -> Path:
    """The file, if the plan names just one, or the folder.

    Raises:
        HubFailure: `not_found`, with the path.
    """
    folder = Path(weights.id) if weights.hub == "path" else specs_root() / weights.id
    path = folder / weights.files[0].name if len(weights.files) == 1 else folder
    if not path.exists():
        raise HubFailure("not_found", f"{path} is not on this node")
    return path
