"""Derived specs and consents on disk, below PADDOCK_HOME.

A YAML file for each reference in `derived/`, and in `consents.json` whose code may run here, at
which commit.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

import paddock
from paddock.registry.derive import Derived
from paddock.registry.errors import InvalidSpec
from paddock.registry.files import write_atomically
from paddock.registry.reference import Reference


class DerivedStore:
    """The derived specs and the consents of one PADDOCK_HOME."""

    def __init__(self, home: Path) -> None:
        self._folder = home / "derived"
        self._consents = home / "consents.json"

    def read(self, reference: Reference) -> tuple[Derived | None, bool]:
        """The spec of the reference, and whether another version of Paddock wrote it."""
        derived, stale = _read(self._path(reference))
        return (
            (derived, stale) if derived and derived.reference == reference.text else (None, False)
        )

    def write(self, reference: Reference, derived: Derived) -> None:
        """Takes in a spec. Raises `NotWritten`, `DiskFull` as `write_atomically`."""
        import yaml  # here and below: the gateway's start need not wait for it

        data = {"paddock": paddock.__version__, **derived.to_json()}
        text = yaml.safe_dump(data, sort_keys=False, allow_unicode=False, width=100)
        write_atomically(self._path(reference), text)

    def all(self) -> Iterator[Derived]:
        """Every spec, ordered by file name."""
        for path in sorted(self._folder.glob("*.yaml")):
            derived, _ = _read(path)
            if derived is not None:
                yield derived

    def add_consent(self, derived: Derived) -> None:
        """Records that the code of this commit may run."""
        if not self.has_consent(derived):
            consents = [*self._all_consents(), _consent(derived)]
            write_atomically(self._consents, json.dumps({"consents": consents}, indent=2))

    def has_consent(self, derived: Derived) -> bool:
        """Whether the code of this commit may run."""
        return _consent(derived) in self._all_consents()

    def _all_consents(self) -> list[Any]:
        try:
            document = json.loads(self._consents.read_text("utf-8"))
            consents = document["consents"]
        except (OSError, ValueError, KeyError, TypeError):
            return []
        return consents if isinstance(consents, list) else []

    def _path(self, reference: Reference) -> Path:
        plain = re.sub(r"[^A-Za-z0-9.]+", "-", reference.text).strip("-.")[-80:]
        digest = hashlib.sha256(reference.text.encode()).hexdigest()[:12]
        return self._folder / f"{plain}-{digest}.yaml"


def _consent(derived: Derived) -> dict[str, str]:
    source = derived.spec.variants[0].sources[0]
    return {"hub": source.hub, "id": source.id, "commit": derived.commit}


def _read(path: Path) -> tuple[Derived | None, bool]:
    from paddock.registry.document import parse
    from paddock.registry.reader import read_bytes

    try:
        document = parse(read_bytes(path), str(path)).value
        return Derived.from_json(document), document.get("paddock") != paddock.__version__
    except (InvalidSpec, ValidationError, KeyError, TypeError):
        return None, False  # not there, or written by somebody else
