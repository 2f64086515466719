"""Models that no spec names: their specs are derived in a separate process, and cached.

What is kept lies in PADDOCK_HOME: a YAML file for each reference in `derived/`, and in
`consents.json` whose code may run here, at which commit.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

import paddock
from paddock.launcher.cluster.processes import JOB, environment, instance_id
from paddock.launcher.planning.plan import DerivedFrom, LaunchPlan, LaunchRequest, PlannedWeights
from paddock.registry import errors
from paddock.registry.catalog import Catalog
from paddock.registry.custom import find, to_yaml
from paddock.registry.derive import Derived
from paddock.registry.errors import (
    BadValue,
    HubFailure,
    InvalidSpec,
    NeedsConsent,
    PaddockError,
    UnknownName,
)
from paddock.registry.files import write_atomically
from paddock.registry.hubs import COMMIT
from paddock.registry.reference import (
    Reference,
    hosts,
    is_reference,
    parse_reference,
)
from paddock.registry.settings import Settings
from paddock.registry.spec import ModelSpec

log = logging.getLogger(__name__)

DERIVE_SECONDS = 180.0
"""How long all of it may take before the process is ended."""
AT_ONCE = 4
PLAN_AGE = 60.0
"""How old a derivation may be for a plan that changes nothing, in seconds. A page that shows one
asks every 15 seconds, and each time a process would start and a hub be asked."""
LINE_BYTES = 1 << 22
UNANSWERED = {"hub_unreachable", "stalled", "rate_limited"}
"""Causes for which what was derived before is taken."""


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
            self.derived.reference, _with_fields(spec, weights=[_dump(one) for one in weights])
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


class References:
    """Derives, keeps and permits, for one PADDOCK_HOME."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._folder = settings.home / "derived"
        self._consents = settings.home / "consents.json"
        self._turn = asyncio.Semaphore(AT_ONCE)
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
        consented = request.trust is not None or self._consented(derived)
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
        cached, stale = self._read_cached(reference)
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
            derived = await self._ask(reference, known)
        except HubFailure as failure:
            if cached is None or failure.cause not in UNANSWERED:
                raise
            return replace(
                cached, notes=(*cached.notes, f"as it was when the hub answered: {failure}")
            )
        if derived is None:
            assert cached is not None
            return cached
        self._keep(reference, derived)
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
        derived = target.derived
        if derived is None or target.request.trust is None or self._consented(derived):
            return
        consents = [*self._all_consents(), _consent(derived)]
        write_atomically(self._consents, json.dumps({"consents": consents}, indent=2))

    def _consented(self, derived: Derived) -> bool:
        return _consent(derived) in self._all_consents()

    def _all_consents(self) -> list[Any]:
        try:
            document = json.loads(self._consents.read_text("utf-8"))
            consents = document["consents"]
        except (OSError, ValueError, KeyError, TypeError):
            return []
        return consents if isinstance(consents, list) else []

    def cached(self) -> Iterator[Derived]:
        """The specs in the cache, ordered by file name."""
        for path in sorted(self._folder.glob("*.yaml")):
            derived, _ = _read(path)
            if derived is not None:
                yield derived

    def _read_cached(self, reference: Reference) -> tuple[Derived | None, bool]:
        """The cached spec of the reference, and whether another version of Paddock wrote it."""
        derived, stale = _read(self._path(reference))
        return (
            (derived, stale) if derived and derived.reference == reference.text else (None, False)
        )

    def _keep(self, reference: Reference, derived: Derived) -> None:
        import yaml  # here and below: the gateway's start need not wait for it

        data = {"paddock": paddock.__version__, **derived.to_json()}
        text = yaml.safe_dump(data, sort_keys=False, allow_unicode=False, width=100)
        write_atomically(self._path(reference), text)

    def _path(self, reference: Reference) -> Path:
        plain = re.sub(r"[^A-Za-z0-9.]+", "-", reference.text).strip("-.")[-80:]
        digest = hashlib.sha256(reference.text.encode()).hexdigest()[:12]
        return self._folder / f"{plain}-{digest}.yaml"

    async def _ask(self, reference: Reference, known: str) -> Derived | None:
        """Runs the process. None if the files are still those of `known`."""
        home = self._settings.home
        request = {
            "reference": asdict(reference),
            "home": str(home),
            "timeout": self._settings.hub_timeout,
            "known": known,
        }
        async with self._turn:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "paddock.launcher.weights.run_derive"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=environment(instance_id(home), JOB),
                limit=LINE_BYTES,
            )
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            talk = asyncio.create_task(process.stderr.read())
            try:
                async with asyncio.timeout(DERIVE_SECONDS):
                    process.stdin.write(json.dumps(request).encode() + b"\n")
                    line = await process.stdout.readline()
            except TimeoutError:
                reason = f"{reference.text}: its files could not be read in {DERIVE_SECONDS:g} s"
                raise HubFailure("stalled", reason) from None
            finally:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
                output = await talk
        if not line:  # a bug, or somebody has ended it
            log.error("%s: %s", reference.text, output.decode("utf-8", "replace"))
            raise RuntimeError(f"the process that reads {reference.text} ended and said nothing")
        return _parse_answer(json.loads(line))


def _parse_answer(answer: dict[str, Any]) -> Derived | None:
    if "error" in answer:
        kind: type[PaddockError] = getattr(errors, answer["error"])
        raise kind(
            **{k: tuple(v) if isinstance(v, list) else v for k, v in answer["fields"].items()}
        )
    return Derived.from_json(answer["derived"]) if answer["derived"] else None


def _fields_of(request: LaunchRequest) -> dict[str, Any]:
    return {name: getattr(request, name) for name in type(request).model_fields}


def _check_trust(trust: str, derived: Derived) -> None:
    if not COMMIT.fullmatch(trust):
        raise BadValue("trust", trust, "is no commit: 40 digits, as `paddock show` prints them")
    if trust != derived.commit:
        reason = f"is not what {derived.reference} is now, which is {derived.commit}"
        raise BadValue("trust", trust, f"{reason}; look at it: paddock show {derived.reference}")


def _consent(derived: Derived) -> dict[str, str]:
    source = derived.spec.variants[0].sources[0]
    return {"hub": source.hub, "id": source.id, "commit": derived.commit}


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
    return replace(derived, spec=_with_fields(derived.spec, name=name))


def _with_fields(spec: ModelSpec, **changes: Any) -> ModelSpec:
    """The spec with other fields. It is validated anew: a copy would keep the old variants."""
    return ModelSpec.model_validate({**_dump(spec), **changes})


def _dump(part: BaseModel) -> dict[str, Any]:
    return part.model_dump(mode="json", exclude_defaults=True)


def _read(path: Path) -> tuple[Derived | None, bool]:
    from paddock.registry.document import parse
    from paddock.registry.reader import read_bytes

    try:
        document = parse(read_bytes(path), str(path)).value
        return Derived.from_json(document), document.get("paddock") != paddock.__version__
    except (InvalidSpec, ValidationError, KeyError, TypeError):
        return None, False  # not there, or written by somebody else
