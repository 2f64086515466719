"""Which variants of the catalogue the engines of this machine can serve, and how large they are.

Asking the engines means to import their adapters and every spec's types, a quarter of a second. So
the answer is kept in a file, with what it depends on as the disk had it: it is made anew when an
engine was installed, a spec was added or weights have come.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass
from glob import glob
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import paddock
from paddock.registry.catalog import Catalog, specs_root
from paddock.registry.files import replace_file
from paddock.registry.hubs import LOCAL
from paddock.registry.settings import Settings

if TYPE_CHECKING:
    from paddock.engines.base import Gpu, Host
    from paddock.registry.spec import ModelSpec, Variant
CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Free:
    """Free bytes of this machine's memory and of its most free GPU."""

    host: int
    gpu: int = 0

    @classmethod
    def now(cls) -> Free:
        """As they are at this moment."""
        from paddock.launcher.hosts.machine import memory

        gpus: tuple[Gpu, ...] = ()
        if _drivers():  # what asks them takes 0.1 s to import
            from paddock.launcher.hosts.gpus import probe_gpus

            gpus = probe_gpus()
        return cls(memory()[1], max((gpu.free_bytes for gpu in gpus), default=0))

    @classmethod
    def on(cls, host: Host) -> Free:
        """As they were when the host was looked at."""
        gpus = (gpu.free_bytes for gpu in host.gpus)
        return cls(host.memory_free_bytes, max(gpus, default=0))


@dataclass(frozen=True, slots=True)
class Offer:
    """One variant; `engine` is the one that a launch here would take, or empty if none can.

    `size_bytes` is what its weights take in memory, which is a GPU's if `on_gpu`, and
    `needed_bytes` all of it with the shortest context that a launch chooses. `here`: the weights
    are wholly on this machine. `place` is its place among those that a launch chooses from.
    """

    format: str
    size: str
    quantization: str
    engine: str
    size_bytes: int
    here: bool
    on_gpu: bool = False
    needed_bytes: int = 0
    place: int = 0

    def fits(self, free: Free) -> bool:
        """Whether it can be served here, in what is free."""
        room = free.gpu if self.on_gpu else free.host
        return bool(self.engine) and self.needed_bytes <= room


def chosen(offers: Sequence[Offer]) -> Offer:
    """The one that a launch would take first."""
    return min(offers, key=lambda offer: offer.place)


def read_offers(
    catalog: Catalog, specs: Sequence[dict[str, Any]], settings: Settings
) -> dict[str, list[Offer]]:
    """Every model's offers by its name; `specs` are the catalogue's, as `raw` gives them."""
    path = settings.home / "cache" / "offers.json"
    fingerprint = seen_now(specs, settings)
    with suppress(OSError, ValueError, KeyError, TypeError):
        cached = json.loads(path.read_bytes())
        if cached["seen"] == fingerprint:
            return {name: [Offer(*row) for row in rows] for name, rows in cached["offers"].items()}
    offers_by_model = _make(catalog, settings)
    if (now := seen_now(specs, settings)) != fingerprint:
        # An engine has come meanwhile; or Python has kept what it compiled beside the adapters.
        fingerprint, offers_by_model = now, _make(catalog, settings)
    rows = {name: [astuple(offer) for offer in offers] for name, offers in offers_by_model.items()}
    with suppress(OSError):  # a folder that cannot be written: the next one is as slow
        replace_file(path, json.dumps({"seen": fingerprint, "offers": rows}))
    return offers_by_model


def _make(catalog: Catalog, settings: Settings) -> dict[str, list[Offer]]:
    from paddock.launcher.hosts.host import probe_host

    specs = list(catalog)
    host = probe_host(settings.home, [path for spec in specs for path in spec.local_paths])
    return {spec.name: offers_of(spec, host) for spec in specs}


def offers_of(spec: ModelSpec, host: Host) -> list[Offer]:
    """One model's offers on a host."""
    from paddock.launcher.planning.resolve import list_offers

    return [
        Offer(
            variant.format,
            variant.size,
            variant.quantization,
            choice.engine.name if choice else "",
            choice.loaded_bytes if choice else 0,
            is_here(variant, host),
            bool(choice and choice.gpus),
            needed_bytes,
            place,
        )
        for place, (variant, choice, needed_bytes) in enumerate(list_offers(spec, host))
    ]


def is_here(variant: Variant, host: Host) -> bool:
    """Whether the weights are wholly on the host, from whichever of their sources."""
    from paddock.launcher.planning.weight_sources import local_files
    from paddock.registry.spec import source_key

    return any(
        bool(local_files(source, host)) if source.hub in LOCAL else source_key(source) in host.files
        for source in variant.sources
    )


def seen_now(specs: Iterable[dict[str, Any]], settings: Settings) -> list[Any]:
    """A fingerprint of what offers depend on, as JSON: Paddock, specs, engines, weights, GPUs."""
    states = []
    for folder in sorted({*_folders(specs, settings), *_weights(settings)}):
        with suppress(OSError):
            state = os.stat(folder)
            states.append([folder, state.st_mtime_ns, state.st_size])
    gpus = [os.environ.get("CUDA_VISIBLE_DEVICES"), *_drivers()]
    return [paddock.__version__, settings.llama_server, gpus, _machine(), states]


def _machine() -> list[Any]:
    """The memory and the processors that choices depend on, without what takes long to import."""
    limits = []
    for name in ("memory.max", "cpu.max"):
        with suppress(OSError):
            limits.append((CGROUP / name).read_text().strip())
    pages = os.sysconf("SC_PHYS_PAGES") if "SC_PHYS_PAGES" in os.sysconf_names else 0
    return [pages, os.cpu_count(), *limits]


def _drivers() -> list[str]:
    """The device files of GPUs."""
    return sorted([*glob("/dev/nvidia[0-9]*"), *glob("/dev/dxg")])


def _folders(specs: Iterable[dict[str, Any]], settings: Settings) -> Iterator[str]:
    # A package that is installed or removed changes one of these.
    yield from (path for path in sys.path if path.endswith(("site-packages", "dist-packages")))
    yield from filter(None, os.environ.get("PATH", "").split(os.pathsep))
    adapters = find_spec("paddock.engines")  # to import them takes 25 ms
    yield from (adapters.submodule_search_locations or ()) if adapters else ()
    yield str(settings.index)
    yield str(settings.home / "cache" / "here")
    yield str(settings.home / "engines")
    yield from map(str, (settings.home / "engines").glob("*/"))  # an install renews a file in one
    for spec in specs:
        for weights in spec["weights"]:
            for source in weights["sources"]:
                if source["hub"] in LOCAL:
                    place = specs_root() / source["id"]  # an absolute path stays one
                    yield from (str(place), str(place.parent))


def _weights(settings: Settings) -> Iterator[str]:
    """The files that were brought from hubs: another tool may remove or change them."""
    for record in (settings.home / "cache" / "here").glob("*.json"):
        with suppress(OSError, ValueError, KeyError, TypeError):
            yield from map(str, json.loads(record.read_bytes())["paths"])
