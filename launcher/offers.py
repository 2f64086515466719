"""Which variants of the catalogue the engines of this machine can serve, and how large they are.

Asking the engines means to import their adapters and every spec's types, a quarter of a second. So
the answer is kept in a file, with what it depends on as the disk had it: it is made anew when an
engine was installed, a spec was added or weights have come.
"""

from __future__ import annotations

import json
import os
import sys
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import paddock
from paddock.registry.catalog import Catalog, specs_root
from paddock.registry.settings import Settings

# Share of the free memory up to which weights count as fitting; the rest is for the cache.
WEIGHTS_SHARE = 0.9


@dataclass(frozen=True)
class Offer:
    """One variant; `engine` is the one that a launch here would take, or empty if none can."""

    format: str
    size: str
    quantization: str
    engine: str
    size_bytes: int

    def fits(self, free_bytes: int) -> bool:
        """Whether it can be served here, and its weights leave room in what is free."""
        return bool(self.engine) and self.size_bytes <= WEIGHTS_SHARE * free_bytes


def chosen(offers: Sequence[Offer], recommended: Sequence[str]) -> Offer:
    """Of those that fit, the one that a launch would take: recommended, else the largest."""
    order = {name: place for place, name in enumerate(recommended)}
    return min(offers, key=lambda o: (order.get(o.quantization, len(order)), -o.size_bytes))


def read_offers(
    catalog: Catalog, specs: Sequence[dict[str, Any]], settings: Settings
) -> dict[str, list[Offer]]:
    """Every model's offers by its name; `specs` are the catalogue's, as `raw` gives them."""
    path = settings.home / "cache" / "offers.json"
    seen = _seen(specs, settings)
    with suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads(path.read_bytes())
        if found["seen"] == seen:
            return {name: [Offer(*row) for row in rows] for name, rows in found["offers"].items()}
    made = _make(catalog, settings)
    if (now := _seen(specs, settings)) != seen:
        # An engine has come meanwhile; or Python has kept what it compiled beside the adapters.
        seen, made = now, _make(catalog, settings)
    rows = {
        name: [[o.format, o.size, o.quantization, o.engine, o.size_bytes] for o in offers]
        for name, offers in made.items()
    }
    with suppress(OSError):  # a folder that cannot be written: the next one is as slow
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
        new.write_text(json.dumps({"seen": seen, "offers": rows}), "utf-8")
        new.replace(path)
    return made


def _make(catalog: Catalog, settings: Settings) -> dict[str, list[Offer]]:
    from paddock.launcher.host import probe_host
    from paddock.launcher.resolve import offers

    specs = list(catalog)
    host = probe_host(settings.home, [path for spec in specs for path in spec.local_paths])
    return {
        spec.name: [
            Offer(variant.format, variant.size, variant.quantization, engine, size)
            for variant, engine, size in offers(spec, host)
        ]
        for spec in specs
    }


def _seen(specs: Iterable[dict[str, Any]], settings: Settings) -> list[Any]:
    """What the offers depend on: this Paddock, its specs, the folders of engines and weights."""
    states = []
    for folder in sorted(set(_folders(specs, settings))):
        with suppress(OSError):
            state = os.stat(folder)
            states.append([folder, state.st_mtime_ns, state.st_size])
    return [paddock.__version__, settings.llama_server, states]


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
                if source["hub"] in {"local", "path"}:
                    place = specs_root() / source["id"]  # an absolute path stays one
                    yield from (str(place), str(place.parent))
