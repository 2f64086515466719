"""A user's own specs beside the built-in ones: YAML files in one folder, and what registers them.

A spec comes as Paddock's YAML and is kept as it was written, or as the JSON that Xinference's
clients register, which is translated once and kept as YAML from then on.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from datetime import date
from pathlib import Path
from typing import Any

from paddock.registry.catalog import Catalog
from paddock.registry.errors import BadValue, NotFound, UnknownName
from paddock.registry.files import write_atomically, writing
from paddock.registry.spec import ModelSpec

log = logging.getLogger(__name__)

QUICK_FILES = 1000
"""Up to this number, files are checked at each use, within 5 ms; more once in LOOK_SECONDS."""
QUICK_CHANGES = 10
"""The number of specs that are read within 50 ms, the time of a few tokens."""
LOOK_SECONDS = 1.0
UPLOAD = "model"
"""The name of an uploaded spec in errors, in place of a path."""


class Library:
    """The built-in specs and those in `folder`, as one catalogue.

    `catalog` may be called from any thread; changes only from one thread at a time.
    """

    def __init__(self, folder: Path, index: Path) -> None:
        self._folder = folder
        self._index = index
        self._catalog: Catalog | None = None
        self._reading = threading.Lock()
        self._looked = 0.0

    def catalog(self) -> Catalog:
        """The catalogue as the files are now; files that have not changed are not read again."""
        with self._reading:
            last = self._catalog
            if last is None or not last.is_current():
                self._catalog = Catalog.load(index=self._index, custom=self._folder, before=last)
                problems = self._catalog.problems
                for problem in problems if last is None or problems != last.problems else ():
                    log.warning("spec left out: %s", problem)
            assert self._catalog is not None
            return self._catalog

    def present(self) -> Catalog:
        """The catalogue, for an event loop: the same as `catalog` if that is quick.

        If many files must be checked or read, a thread does that, and the last catalogue serves
        meanwhile. Changes by `register` and `unregister` are in it when those return.
        """
        last = self._catalog
        if last is None or (last.files <= QUICK_FILES and last.changed() <= QUICK_CHANGES):
            return self.catalog()
        now = time.monotonic()
        if now - self._looked >= LOOK_SECONDS and not self._reading.locked():
            self._looked = now
            threading.Thread(target=self.catalog, name="catalogue", daemon=True).start()
        return last

    def register(self, kind: str, text: str) -> ModelSpec:
        """Adds a spec of the type `kind` and writes it down; it is in the catalogue at once.

        Raises:
            InvalidSpec: YAML that does not follow the schema.
            BadValue: JSON with a wrong field, a spec of another type, or a name that is taken.
            NotWritten: the file cannot be written.
        """
        catalog = self.catalog()
        spec, yaml_text = read_upload(kind, text, catalog)
        for name in (spec.name, *spec.aliases):
            self._refuse_taken(catalog, name)
        # A name has no slash and no leading dot, so this path is in the folder.
        write_atomically(self._folder / f"{spec.name}.yaml", yaml_text)
        self.catalog()
        return spec

    def _refuse_taken(self, catalog: Catalog, name: str) -> None:
        try:
            taken = catalog.lookup(name)
        except UnknownName:
            if (self._folder / f"{name}.yaml").exists():
                reason = f"{self._folder / name}.yaml is there already, and is no valid spec"
                raise BadValue("model_name", name, reason) from None
            return
        if not catalog.is_custom(name):
            raise BadValue("model_name", name, f"is the built-in {taken.name}; choose another name")
        raise BadValue(
            "model_name",
            name,
            f"is registered; first: paddock unregister --model-name {taken.name}",
        )

    def unregister(self, kind: str, name: str) -> None:
        """Removes a spec; models that were launched by it are not touched.

        Raises:
            NotFound: no model has this name and type.
            BadValue: it came with Paddock.
            NotWritten: the file cannot be removed.
        """
        catalog = self.catalog()
        spec = find(catalog, kind, name)
        if not catalog.is_custom(spec.name):
            raise BadValue("model_name", spec.name, "is built in, and stays")
        path = catalog.path(spec.name)
        with writing(path):
            path.unlink(missing_ok=True)
        self.catalog()


def find(catalog: Catalog, kind: str | None, name: str) -> ModelSpec:
    """The spec with this name or alias, and with this type unless None. Raises `NotFound`."""
    try:
        spec = catalog.lookup(name)
    except UnknownName as error:
        raise NotFound(error.kind, error.value, error.close, error.known) from None
    if kind is not None and spec.type != kind:
        raise NotFound("model", name, of=f"type {kind} ({spec.name} is of type {spec.type})")
    return spec


def read_upload(kind: str, text: str, catalog: Catalog) -> tuple[ModelSpec, str]:
    """The spec in an upload, and the YAML to keep. Raises as `Library.register`."""
    from paddock.registry.reader import parse_spec
    from paddock.registry.xinference import translate

    text = text.removeprefix("\ufeff")  # a byte order mark, which editors of Windows write
    try:
        data: Any = json.loads(text)
    except (ValueError, RecursionError):
        data = None
    if isinstance(data, list) and data and all(isinstance(one, dict) for one in data):
        if len(data) > 1:
            reason = "is a list: register each model by itself, in a file of its own"
            raise BadValue("model", f"{len(data)} models", reason)
        data = data[0]
    if isinstance(data, dict) and "model_name" in data:
        spec = translate(kind, data, catalog, date.today())
        yaml_text = to_yaml(spec)
        # The stored text will be read later, so it must give the same spec.
        assert parse_spec(yaml_text.encode(), UPLOAD) == spec
    else:
        spec, yaml_text = parse_spec(text.encode("utf-8", "surrogatepass"), UPLOAD), text
    if spec.type != kind:
        raise BadValue("type", spec.type, f"was sent to be registered as {kind}")
    return spec, yaml_text


def to_yaml(spec: ModelSpec) -> str:
    """The spec as a YAML file, without fields that have their default."""
    import yaml

    data = spec.model_dump(mode="json", exclude_defaults=True)
    # PyYAML does not escape these three line breaks, and folds them.
    folded = any(char in json.dumps(data, ensure_ascii=False) for char in "\x85\u2028\u2029")
    text: str = yaml.safe_dump(data, sort_keys=False, allow_unicode=not folded, width=100)
    return text
