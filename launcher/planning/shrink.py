"""What to give up where a launch does not fit the free memory: what loses least first. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from paddock.launcher.planning.capacity import CONTEXTS, Fit
from paddock.launcher.planning.choice import Judge
from paddock.launcher.planning.memory import weight_bits
from paddock.launcher.planning.pairs import Candidate
from paddock.launcher.planning.plan import LaunchRequest

LEAST_CONTEXT = 2048
"""No shorter context is offered."""
LEAST_BITS = 3.0
"""What has fewer bits answers worse than a smaller model."""
MOST_VARIANTS = 6
"""Variants that are tried of each kind: the largest that can fit."""


@dataclass(frozen=True)
class Change:
    """A request that takes less, and in words what is given up."""

    request: LaunchRequest
    words: str


def changes(
    fit: Fit, context: int, slots: int, candidates: list[Candidate]
) -> Iterator[tuple[str, list[Change]]]:
    """The kinds of what can be given up, each with its changes, the least loss first.

    `candidates` are all that could serve the model, in the order in which they are chosen.
    """
    steps = _Steps(fit, context, slots)
    yield "slots", steps.fewer_slots()
    yield "context", steps.shorter_contexts()
    yield "cache", steps.smaller_caches()
    if fit.request.lock is None and fit.request.model_path is None:
        yield "quantization", steps.variants(candidates, same_size=True)
    if fit.request.node is not None:
        other = steps.base.model_copy(update={"node": None})
        yield "node", [Change(other, f"any node in place of {fit.request.node}")]
    if fit.request.replicas > 1:
        fewer = steps.less(1)
        one = fewer.model_copy(update={"replicas": 1})
        yield "replicas", [Change(one, f"1 replica in place of {fit.request.replicas}")]
    if fit.request.lock is None and fit.request.model_path is None:
        yield "size", steps.variants(candidates, same_size=False)


class _Steps:
    """Requests that take less than a plan, made from that plan."""

    def __init__(self, fit: Fit, context: int, slots: int) -> None:
        self._fit, self._context, self._slots = fit, context, slots
        variant = fit.best.variant
        self.base = fit.request.model_copy(
            update={
                "size": variant.size,
                "format": variant.format,
                "quantization": variant.quantization,
                "automatic": (),
                "fit": False,
            }
        )
        self._has_slots = "n_parallel" in fit.best.engine.options.model_fields

    def less(self, slots: int, context: int | None = None, **options: Any) -> LaunchRequest:
        """The planned variant with so many slots, such a context and further options."""
        names = self._fit.best.engine.options.synonyms
        engine_options = {
            name: value
            for name, value in self._fit.request.engine_options.items()
            if names.get(name.replace("-", "_"), name.replace("-", "_"))
            not in {"n_ctx", "n_parallel", *options}
        }
        if self._has_slots:
            engine_options["n_parallel"] = slots
        return self.base.model_copy(
            update={
                "context_length": context or self._context or None,
                "engine_options": {**engine_options, **options},
            }
        )

    def fewer_slots(self) -> list[Change]:
        if not self._has_slots:
            return []
        counts, left = [], self._slots // 2
        while left:
            counts.append(left)
            left //= 2
        return [Change(self.less(n), f"slots {n} in place of {self._slots}") for n in counts]

    def shorter_contexts(self) -> list[Change]:
        return [Change(self.less(1, c), self._words(c)) for c in self._shorter()]

    def smaller_caches(self) -> list[Change]:
        smaller = self._fit.best.engine.smaller_cache
        if not smaller:
            return []
        added = " and ".join(f"{name} {value}" for name, value in smaller.items())
        return [
            Change(
                self.less(1, context, **smaller),
                f"{self._words(context)}, {added}" if context != self._context else added,
            )
            for context in (self._context, *self._shorter())
        ]

    def variants(self, candidates: list[Candidate], same_size: bool) -> list[Change]:
        """Variants that take less: the largest first; of another size as they are chosen."""
        best, request = self._fit.best, self._fit.request
        least = self.less(1, min(self._context, CONTEXTS[-1]))
        judge = Judge(least.model_copy(update={"size": None}), self._fit.spec)
        fitting: dict[str, Candidate] = {}
        for one in candidates:
            same = one.variant.size == best.variant.size
            lighter = one.loaded_bytes < best.loaded_bytes
            if not lighter or same is not same_size or not judge.fits_now(one):
                continue
            if same and weight_bits(one.variant.quantization) >= LEAST_BITS:
                fitting.setdefault(one.variant.label, one)
            elif not same and judge.tier(one) == 0:
                fitting.setdefault(one.variant.size, one)
        spec = self._fit.spec
        ordered = sorted(
            fitting.values(),
            key=lambda one: (-spec.shape(one.variant.size).parameters, -one.loaded_bytes),
        )
        return [
            self._other(one, context)
            for one in ordered[:MOST_VARIANTS]
            for context in dict.fromkeys((self._context, min(self._context, CONTEXTS[-1])))
            if request.model_engine or one.engine.automatic
        ]

    def _other(self, candidate: Candidate, context: int) -> Change:
        variant, best = candidate.variant, self._fit.best.variant
        chosen = {
            "size": variant.size,
            "format": variant.format,
            "quantization": variant.quantization,
        }
        words = [
            f"{name} {value} in place of {getattr(best, name)}"
            for name, value in chosen.items()
            if value != getattr(best, name)
        ]
        if context != self._context:
            words.append(f"context {context} in place of {self._context}")
        request = self.less(1, context)
        if candidate.engine.name != self._fit.best.engine.name:  # its options are its own
            request = request.model_copy(update={"engine_options": {}})
        return Change(request.model_copy(update=chosen), ", ".join(words))

    def _shorter(self) -> list[int]:
        shorter, left = [], self._context // 2
        least = max(LEAST_CONTEXT, self._fit.best.engine.context_step)
        while left >= least:
            shorter.append(left)
            left //= 2
        return shorter

    def _words(self, context: int) -> str:
        words = f"context {context} in place of {self._context}"
        return f"{words}, one slot in place of {self._slots}" if self._slots > 1 else words
