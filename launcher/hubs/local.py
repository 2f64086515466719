"""Weights on this node: at a path that the user named, or shipped with the specs."""

from __future__ import annotations

from pathlib import Path

from paddock.launcher.plan import PlannedWeights
from paddock.registry.catalog import specs_root
from paddock.registry.errors import HubFailure
from paddock.registry.split import parts


def find(weights: PlannedWeights) -> Path:
    """The file, if the plan names just one or parts of one, or the folder.

    Raises:
        HubFailure: `not_found`, with the path.
    """
    folder = Path(weights.id) if weights.hub == "path" else specs_root() / weights.id
    names = [file.name for file in weights.files]
    single = len(names) == 1 or tuple(names) == parts(names[0])
    for path in [folder / name for name in names] if single else [folder]:
        if not path.exists():
            raise HubFailure("not_found", f"{path} is not on this node")
    return folder / names[0] if single else folder
