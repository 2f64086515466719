"""Whose code may run: a request for a reference, and what of it nobody has agreed to. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from paddock.launcher.planning.plan import DerivedFrom, LaunchPlan, LaunchRequest, PlannedWeights
from paddock.registry.catalog import Catalog
from paddock.registry.derive import Derived
from paddock.registry.errors import NeedsConsent
from paddock.registry.spec import ModelSpec


@dataclass(frozen=True)
class ResolvedReference:
    """A request, with the catalogue that has its model's spec.

    `derived` is None unless the request names a reference.
    """

    request: LaunchRequest
    full_catalog: Catalog
    derived: Derived | None = None
    consented: bool = False

    @property
    def _left_out(self) -> dict[str, str]:
        """Formats that are not chosen among, because they would run code that nobody agreed to.

        None where the request names a format, or where there is no other.
        """
        if self.derived is None or self.consented or self.request.format is not None:
            return {}
        formats = {str(weights.format) for weights in self.derived.spec.weights}
        risks = {name: risk for name in sorted(formats) if (risk := self.derived.risk(name))}
        return risks if len(risks) < len(formats) else {}

    @property
    def catalog(self) -> Catalog:
        """The catalogue to resolve the request against."""
        left_out = self._left_out
        if self.derived is None or not left_out:
            return self.full_catalog
        spec = self.derived.spec
        weights = [one for one in spec.weights if one.format not in left_out]
        return self.full_catalog.including(
            self.derived.reference, with_fields(spec, weights=[_dump(one) for one in weights])
        )

    @property
    def paths(self) -> tuple[str, ...]:
        """Where on disk its weights may lie."""
        known = self.full_catalog.lookup(self.request.model_name).local_paths
        return (*known, *self.request.paths)

    def check(self) -> None:
        """Refuses if every requested variant would run code without consent.

        Raises:
            NeedsConsent: with what would run.
            UnknownName, BadValue: as `ModelSpec.select`.
        """
        if self.derived is None:
            return
        wish = self.request
        variants = self.derived.spec.select(
            format=wish.format, size=wish.size, quantization=wish.quantization
        )
        if all(self.derived.risk(variant.format) for variant in variants):
            self.permitted(variants[0].format)

    def permitted(self, format: str) -> str | None:
        """The commit whose code may run with a variant of this format; None if it runs none.

        Raises:
            NeedsConsent: it would, and nobody agreed.
        """
        risk = self.derived.risk(format) if self.derived else ""
        if self.derived is None or not risk:
            return None
        if not self.consented:
            raise NeedsConsent(self.derived.reference, self.derived.commit, risk)
        return self.derived.commit

    def finish(self, plan: LaunchPlan) -> LaunchPlan:
        """The plan with what was derived, and what its weights may run. Raises `NeedsConsent`."""
        if self.derived is None:
            return plan
        derived = self.derived
        left_out = (
            f"{format} is left out: it needs --trust {derived.commit} ({risk})"
            for format, risk in self._left_out.items()
        )
        origin = DerivedFrom(
            reference=derived.reference,
            commit=derived.commit,
            context_length=derived.spec.context_length,
            notes=(*derived.notes, *left_out),
        )
        weights = self.allow(plan.weights, plan.format)
        return plan.model_copy(update={"derived": origin, "weights": weights})

    def allow(self, weights: PlannedWeights, format: str) -> PlannedWeights:
        """The weights with the commit whose code may come. Raises `NeedsConsent`."""
        return weights.model_copy(update={"trusted": self.permitted(format)})


def with_fields(spec: ModelSpec, **changes: Any) -> ModelSpec:
    """The spec with other fields. It is validated anew: a copy would keep the old variants."""
    return ModelSpec.model_validate({**_dump(spec), **changes})


def _dump(part: BaseModel) -> dict[str, Any]:
    return part.model_dump(mode="json", exclude_defaults=True)
