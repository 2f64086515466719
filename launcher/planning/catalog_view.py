"""The catalogue as people look through it: what there is, and what of it this machine can serve.

For `paddock search`, which asks no gateway, and `/v1/zoo`. Light to import.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from paddock.launcher.planning.servable import Free, Offer, chosen, read_offers, seen_now
from paddock.registry.catalog import Catalog
from paddock.registry.search import Filters, Hit, search
from paddock.registry.settings import Settings

STATED = ("name", "type", "description", "license", "released", "aliases", "languages", "abilities")


@dataclass(frozen=True)
class ModelRow:
    """A model that matches. Only weights that the filters allow count.

    Attributes:
        builtin: it comes with Paddock, and is not the user's own.
        cached: the weights of some variant are wholly on this machine.
        here: the smallest variant that an engine of this machine can serve.
        fits: the one that a launch here would choose, within the memory that is free.
    """

    hit: Hit
    builtin: bool
    cached: bool
    here: Offer | None
    fits: Offer | None

    @classmethod
    def of(cls, hit: Hit, offers: Sequence[Offer], builtin: bool, free: Free) -> ModelRow:
        """The model with what its offers come to, where so much is free."""
        labels = {
            (weights["format"], weights["size"], quantization)
            for weights in hit.weights
            for quantization in weights["quantizations"]
        }
        matches = [o for o in offers if (o.format, o.size, o.quantization) in labels]
        served = [offer for offer in matches if offer.engine]
        fitting = [offer for offer in served if offer.fits(free)]
        return cls(
            hit,
            builtin,
            any(offer.here for offer in matches),
            min(served, key=lambda offer: offer.size_bytes, default=None),
            chosen(fitting) if fitting else None,
        )

    def distinct(self, field: str) -> list[str]:
        """The values of a field of its weights, such as `format`, each once."""
        return list(dict.fromkeys(weights[field] for weights in self.hit.weights))

    def to_json(self) -> dict[str, Any]:
        """A row of the list of models, as JSON."""
        spec, weights = self.hit.spec, self.hit.weights
        return {
            **{name: spec[name] for name in STATED},
            "context_length": spec["context_length"],
            "sizes": self.distinct("size"),
            "formats": self.distinct("format"),
            "engines": list(dict.fromkeys(e for one in weights for e in one["engines"])),
            "builtin": self.builtin,
            "cached": self.cached,
            "here": _launch_words(self.here),
            "fits": _launch_words(self.fits),
        }


def _launch_words(offer: Offer | None) -> dict[str, Any] | None:
    """A variant by the words of a launch."""
    if offer is None:
        return None
    return {
        "model_format": offer.format,
        "model_size_in_billions": offer.size,
        "quantization": offer.quantization,
        "model_engine": offer.engine,
        "size_bytes": offer.size_bytes,
    }


class Zoo:
    """The models of a catalogue, and which of them this machine can serve, as both were then."""

    def __init__(self, catalog: Catalog, settings: Settings) -> None:
        self._catalog = catalog
        self._settings = settings
        self.specs = list(catalog.raw())
        self._fingerprint = seen_now(self.specs, settings)
        self._offers = read_offers(catalog, self.specs, settings)

    def is_current(self, catalog: Catalog) -> bool:
        """Whether another look, with this catalogue, would show the same."""
        return (
            catalog is self._catalog and seen_now(self.specs, self._settings) == self._fingerprint
        )

    def find(self, words: Sequence[str], filters: Filters, free: Free) -> list[ModelRow]:
        """The models that have all words and fit the filters, as `search` orders them."""
        return [
            ModelRow.of(
                hit,
                self._offers[hit.spec["name"]],
                not self._catalog.is_custom(hit.spec["name"]),
                free,
            )
            for hit in search(self.specs, words, filters)
        ]
