"""Weights from where they live to a path on this node. A row imports nothing until it is used."""

from __future__ import annotations

import json
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
    """A module that fetches from one hub, through its own client, into that client's cache."""

    def fetch(
        self, weights: PlannedWeights, timeout: float, report: Report, cancelled: threading.Event
    ) -> Path:
        """The folder, or the one file, once all of it is here.

        Raises:
            HubFailure: with the cause, and what was tried.
        """
        ...


def is_whole(folder: Path) -> bool:
    """Whether a folder of safetensors holds all that a model needs, as far as files can tell."""
    if not (folder / "config.json").exists():
        return False
    if not any(folder.glob("tokenizer*")) and not any(folder.glob("vocab*")):
        return False
    try:
        index = json.loads((folder / "model.safetensors.index.json").read_text("utf-8"))
        shards = set(index["weight_map"].values())
    except FileNotFoundError:
        return any(folder.glob("*.safetensors"))
    except (ValueError, KeyError, AttributeError):
        return False
    return all((folder / shard).exists() for shard in shards)


def one_line(error: BaseException) -> str:
    """What an error of a hub's client says, without its line breaks and at a readable length."""
    return " ".join(str(error).split())[:300]


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
    hub: Hub = import_module(HUBS[weights.hub])
    return hub.fetch(weights, timeout, report, cancelled)
