"""Models that no spec names: a reference becomes a derived spec beside the catalogue."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from paddock.launcher.jobs.derivation import Derivations
from paddock.launcher.planning.consent import ResolvedReference, with_fields
from paddock.launcher.planning.derived_store import DerivedStore
from paddock.launcher.planning.plan import LaunchRequest
from paddock.registry.catalog import Catalog
from paddock.registry.custom import find, to_yaml
from paddock.registry.derive import Derived
from paddock.registry.errors import (
    BadValue,
    HubFailure,
    UnknownName,
)
from paddock.registry.hubs import COMMIT
from paddock.registry.reference import (
    Reference,
    hosts,
    is_reference,
    parse_reference,
)
from paddock.registry.settings import Settings

PLAN_AGE = 60.0
"""How old a derivation may be for a plan that changes nothing, in seconds. A page that shows one
asks every 15 seconds, and each time a process would start and a hub be asked."""
UNANSWERED = {"hub_unreachable", "stalled", "rate_limited"}
"""Causes for which what was derived before is taken."""


class References:
    """References of one PADDOCK_HOME: their specs and consents."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._store = DerivedStore(settings.home)
        self._derivations = Derivations(settings)
        self._derived_at: dict[str, tuple[float, Derived]] = {}

    async def resolve_reference(
        self, request: LaunchRequest, catalog: Catalog, max_age: float = 0.0
    ) -> ResolvedReference:
        """The request, with a catalogue that includes the reference's spec.

        What was derived within the last `max_age` seconds is taken as it was.

        Raises:
            BadValue: a reference that is none, or a consent that does not fit.
            NoSpec, HubFailure: as `derive`.
        """
        request = request.model_copy(update={"first_hub": self._settings.hub})
        if not is_reference(request.model_name):
            if request.trust is not None:
                reason = (
                    "is for models by reference, such as hf:owner/name; specs name what they need"
                )
                raise BadValue("trust", request.trust, reason)
            return ResolvedReference(request, catalog)
        derived = self._recent(request.model_name, max_age)
        if derived is None:
            derived = await self.derive(request.model_name, catalog, offline=request.offline)
            self._derived_at[request.model_name] = time.monotonic(), derived
        if request.trust is not None:
            _check_trust(request.trust, derived)
        name = derived.reference
        wish = {"model_name": name, "model_uid": request.model_uid or derived.spec.name}
        consented = request.trust is not None or self._store.has_consent(derived)
        return ResolvedReference(
            LaunchRequest.parse(**{**_fields_of(request), **wish}),
            catalog.including(name, derived.spec),
            derived,
            consented,
        )

    def _recent(self, name: str, max_age: float) -> Derived | None:
        """What a repository's reference was a moment ago; paths are looked at each time."""
        now = time.monotonic()
        self._derived_at = {
            key: (at, one) for key, (at, one) in self._derived_at.items() if now - at < PLAN_AGE
        }
        at, derived = self._derived_at.get(name, (0.0, None))
        is_path = derived is None or parse_reference(name, hosts(os.environ)).hub == "path"
        return None if is_path or now - at >= max_age else derived

    async def derive(self, name: str, catalog: Catalog, *, offline: bool = False) -> Derived:
        """What the reference stands for now.

        Its hub is asked for the list of files; more is read only if that has changed since the
        last time, and nothing is asked about a commit that is known. If the hub does not answer,
        or `offline`, what was derived before is taken.

        Raises:
            BadValue: no reference, or a path where nothing is.
            NoSpec: what is there tells too little.
            HubFailure: the hub does not answer or does not give it, and it is not known.
        """
        reference = parse_reference(name, hosts(os.environ))
        cached, stale = self._store.read(reference)
        if cached is None or not (reference.pinned and not stale):
            cached = await self._derive_anew(reference, cached, offline, "" if stale else None)
        return _named_apart(cached, reference, catalog)

    async def _derive_anew(
        self, reference: Reference, cached: Derived | None, offline: bool, known: str | None
    ) -> Derived:
        if offline and reference.hub != "path":
            if cached is None:
                reason = f"{reference.text} was not looked at before, and --offline was asked for"
                raise HubFailure("hub_unreachable", reason)
            return cached
        if known is None:
            known = cached.commit if cached else ""
        try:
            derived = await self._derivations.derive(reference, known)
        except HubFailure as failure:
            if cached is None or failure.cause not in UNANSWERED:
                raise
            return replace(
                cached, notes=(*cached.notes, f"as it was when the hub answered: {failure}")
            )
        if derived is None:
            assert cached is not None
            return cached
        self._store.write(reference, derived)
        return derived

    async def show(self, name: str, catalog: Catalog, *, offline: bool = False) -> dict[str, Any]:
        """A spec as YAML and as values, and of a derived one what there is to say.

        Raises:
            NotFound: no model has this name.
            BadValue, NoSpec, HubFailure: as `derive`.
        """
        derived = None
        if is_reference(name):
            derived = await self.derive(name, catalog, offline=offline)
            spec, text = derived.spec, to_yaml(derived.spec)
        else:
            spec = find(catalog, None, name)
            from paddock.registry.reader import read_bytes

            # As it was written, with its comments.
            text = read_bytes(catalog.path(name)).decode("utf-8")
        formats = dict.fromkeys(weights.format for weights in spec.weights)
        risks = {format: derived.risk(format) for format in formats} if derived else {}
        return {
            "model_name": spec.name,
            "model_type": spec.type,
            "yaml": text,
            "spec": spec.model_dump(mode="json", exclude_defaults=True),
            "reference": derived.reference if derived else None,
            "commit": derived.commit if derived else None,
            "notes": list(derived.notes) if derived else [],
            "consent": {format: risk for format, risk in risks.items() if risk},
        }

    def consent(self, target: ResolvedReference) -> None:
        """Records that the target's code may run, if the request says so."""
        if target.derived is not None and target.request.trust is not None:
            self._store.add_consent(target.derived)

    def cached(self) -> Iterator[Derived]:
        """The specs in the cache, ordered by file name."""
        return self._store.all()


def _fields_of(request: LaunchRequest) -> dict[str, Any]:
    return {name: getattr(request, name) for name in type(request).model_fields}


def _check_trust(trust: str, derived: Derived) -> None:
    if not COMMIT.fullmatch(trust):
        raise BadValue("trust", trust, "is no commit: 40 digits, as `paddock show` prints them")
    if trust != derived.commit:
        reason = f"is not what {derived.reference} is now, which is {derived.commit}"
        raise BadValue("trust", trust, f"{reason}; look at it: paddock show {derived.reference}")


def _named_apart(derived: Derived, reference: Reference, catalog: Catalog) -> Derived:
    """The same under a longer name, where a built-in model has its name."""
    try:
        is_built_in = not catalog.is_custom(derived.spec.name)
    except UnknownName:
        return derived
    if not is_built_in:
        return derived
    parts = (reference.text if reference.hub == "path" else reference.id).split("/")
    owner = parts[-2].lstrip("._-") or "my"
    name = f"{owner}-{derived.spec.name}"[:96]
    return replace(derived, spec=with_fields(derived.spec, name=name))
