"""Finds a model's spec by name among the folders of YAML files.

A compiled index keeps a thousand specs within a few milliseconds: it holds every spec as JSON
behind a table of names and offsets, and one spec is parsed when it is looked up. Importing this
module and loading a fresh index imports neither pydantic nor PyYAML.
"""

from __future__ import annotations

import copy
import heapq
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import paddock
import paddock.specs
from paddock.registry.abilities import added_abilities
from paddock.registry.errors import InvalidSpec, NotWritten, UnknownName
from paddock.registry.files import write_atomically
from paddock.registry.hubs import added_hubs
from paddock.registry.json_codec import decode, encode

if TYPE_CHECKING:
    from paddock.registry.document import Document, Steps
    from paddock.registry.spec import ModelSpec

_MAGIC = b"paddock-index"
_SUFFIXES = (".yaml", ".yml")
# The number of names that are compared letter by letter with an unknown one. It is more than
# `UnknownName.among` lists in full, so that a part is never listed as if it were all.
_CANDIDATES = 24

# A file on disk: folder, name, mtime_ns, ctime_ns, bytes. The change time is included because
# copies and archives restore the modification time.
_Seen = tuple[str, str, int, int, int]


@dataclass(frozen=True, slots=True)
class _Entry:
    """One spec: its names, its file, and the place of its JSON among the blobs."""

    name: str
    aliases: tuple[str, ...]
    path: str
    start: int
    length: int


@dataclass(frozen=True, slots=True)
class _Compiled:
    """The contents of an index file."""

    seen: tuple[_Seen, ...]
    entries: tuple[_Entry, ...]
    problems: tuple[InvalidSpec, ...]
    blobs: bytes


@dataclass
class _Building:
    """An index in the making."""

    entries: list[_Entry] = field(default_factory=list)
    problems: list[InvalidSpec] = field(default_factory=list)
    blobs: list[bytes] = field(default_factory=list)
    size: int = 0
    claims: dict[str, str] = field(default_factory=dict)  # folded name or alias -> path

    def add(self, spec: ModelSpec, document: Document, path: str) -> None:
        from paddock.registry.document import field_name

        places: dict[str, Steps] = {spec.name: ("name",)}
        places.update((alias, ("aliases", number)) for number, alias in enumerate(spec.aliases))
        taken = [name for name in places if name.casefold() in self.claims]
        for name in taken:
            line, field_path = document.line(places[name]), field_name(places[name])
            reason = f"'{name}' already names the model in {self.claims[name.casefold()]}"
            self.problems.append(InvalidSpec(path, line, field_path, reason))
        if taken:
            return
        self.claims.update((name.casefold(), path) for name in places)
        self._append(spec.name, spec.aliases, path, spec.model_dump_json().encode())

    def keep(self, entry: _Entry, blob: bytes) -> bool:
        """Takes over a compiled spec; False if another spec has one of its names now."""
        names = [name.casefold() for name in (entry.name, *entry.aliases)]
        if any(name in self.claims for name in names):
            return False
        self.claims.update(dict.fromkeys(names, entry.path))
        self._append(entry.name, entry.aliases, entry.path, blob)
        return True

    def _append(self, name: str, aliases: tuple[str, ...], path: str, blob: bytes) -> None:
        self.entries.append(_Entry(name, aliases, path, self.size, len(blob)))
        self.blobs.append(blob)
        self.size += len(blob)


def specs_root() -> Path:
    """The folder of the built-in specs; ids of local sources are relative to it."""
    return Path(paddock.specs.__path__[0])


def default_folders() -> tuple[Path, ...]:
    """The folders of the built-in specs. Earlier ones claim names first."""
    return tuple(specs_root() / name for name in ("llm", "embedding", "rerank"))


class Catalog:
    """All models that can be launched by name. `load` makes it, and it never changes."""

    def __init__(
        self, compiled: _Compiled, places: Sequence[Path], custom: Path | None = None
    ) -> None:
        self._compiled = compiled
        self._places = places
        self._custom = custom
        self._entries = compiled.entries
        self._blobs = compiled.blobs
        self._parsed: dict[int, ModelSpec] = {}
        self._pairs: dict[str, int] = {}  # filled by the first unknown name
        self._unlisted: dict[str, ModelSpec] = {}
        self._by_folded = {
            name.casefold(): number
            for number, entry in enumerate(compiled.entries)
            for name in (entry.name, *entry.aliases)
        }
        #: The faults of the files that were left out, in order of file and line.
        self.problems: tuple[InvalidSpec, ...] = compiled.problems

    @classmethod
    def load(
        cls,
        folders: Sequence[Path] | None = None,
        index: Path | None = None,
        custom: Path | None = None,
        before: Catalog | None = None,
    ) -> Catalog:
        """The specs in `folders` (default: the built-in ones), and then those in `custom`, the
        folder of the user's own; a missing folder holds none.

        A wrong file is left out and listed in `problems`. Of two files that claim one name, the
        first in the order of folders and file names stays. With `index`, the file of the compiled
        index is used if it fits the folders as they are now, and is written again if not; an
        index that cannot be read or written is no error, only slower. Of a catalogue of `before`,
        what has not changed since is not read again.
        """
        paths = [Path(folder) for folder in (default_folders() if folders is None else folders)]
        if custom is not None:
            paths.append(custom)
        # Taken before any file is read: a change in between makes the index stale, not wrong.
        seen = tuple(_look(paths))
        compiled = None
        if before is not None:
            compiled = before._compiled
        elif index is not None:
            compiled = _read_index(index)
        if compiled is None or compiled.seen != seen:
            compiled = _compile(seen, compiled)
            if index is not None:
                _write_index(index, compiled)
        return cls(compiled, paths, custom)

    def is_current(self) -> bool:
        """Whether the folders hold the same files as when they were read."""
        return tuple(_look(self._places)) == self._compiled.seen

    @property
    def files(self) -> int:
        """How many files were read, wrong ones included."""
        return len(self._compiled.seen)

    def changed(self) -> int:
        """How many files have come, gone or changed since they were read; a rename counts twice."""
        return len(set(_look(self._places)) ^ set(self._compiled.seen))

    def lookup(self, name: str) -> ModelSpec:
        """The spec with this name or alias, compared without case.

        Raises `UnknownName` with the nearest names.
        """
        unlisted = self._unlisted.get(name)
        return unlisted if unlisted is not None else self._spec(self._number(name))

    def including(self, name: str, spec: ModelSpec) -> Catalog:
        """This catalogue, but `lookup` of `name` gives `spec`, which no list includes."""
        other = copy.copy(self)
        other._unlisted = {**self._unlisted, name: spec}
        return other

    def path(self, name: str) -> Path:
        """The file that the spec with this name or alias came from. Raises `UnknownName`."""
        return Path(self._entries[self._number(name)].path)

    def is_custom(self, name: str) -> bool:
        """Whether a model is the user's own. Raises `UnknownName`."""
        return self.path(name).parent == self._custom

    def names(self) -> tuple[str, ...]:
        """The name of every model, without aliases, in the order of the files."""
        return tuple(entry.name for entry in self._entries)

    def raw(self) -> Iterator[dict[str, Any]]:
        """Every spec as plain values.

        For listing: making the types costs an import of 0.1 s and 0.2 ms a spec.
        """
        for entry in self._entries:
            yield decode(self._blobs[entry.start : entry.start + entry.length])

    def __iter__(self) -> Iterator[ModelSpec]:
        return map(self._spec, range(len(self._entries)))

    def __len__(self) -> int:
        return len(self._entries)

    def _number(self, name: str) -> int:
        number = self._by_folded.get(name.strip().casefold())
        if number is None:
            raise UnknownName.among("model", name, self._candidates(name))
        return number

    def _candidates(self, name: str) -> list[str]:
        """The names that share the most letter pairs with `name`, or all names if they are few.

        Comparing letter by letter costs 10 us a name, so 20 ms among a thousand models and their
        aliases; this costs 0.2 us.
        """
        if not self._pairs:
            for entry in self._entries:
                self._pairs.update((n, _letter_pairs(n)) for n in (entry.name, *entry.aliases))
        wanted_pairs = _letter_pairs(name)

        def likeness(candidate: str) -> float:
            pairs = self._pairs[candidate]
            return (pairs & wanted_pairs).bit_count() / (
                pairs.bit_count() + wanted_pairs.bit_count() + 1
            )

        return heapq.nlargest(_CANDIDATES, self._pairs, key=likeness)

    def _spec(self, number: int) -> ModelSpec:
        spec = self._parsed.get(number)
        if spec is None:
            from paddock.registry.spec import ModelSpec

            entry = self._entries[number]
            blob = self._blobs[entry.start : entry.start + entry.length]
            spec = self._parsed[number] = ModelSpec.model_validate_json(blob)
        return spec


def _letter_pairs(name: str) -> int:
    """The pairs of neighbouring letters in a name, as a set of bits."""
    folded = name.casefold()
    bits = 0
    for first, second in pairwise(folded):
        bits |= 1 << (ord(first) * 31 + ord(second)) % 1021
    return bits


def _look(folders: Iterable[Path]) -> Iterator[_Seen]:
    for folder in folders:
        try:
            with os.scandir(folder) as entries:
                files = sorted(
                    (entry for entry in entries if entry.name.endswith(_SUFFIXES)),
                    key=lambda entry: entry.name,
                )
        except (FileNotFoundError, NotADirectoryError):
            continue
        for entry in files:
            if entry.name.startswith("."):  # an editor's lock or swap file
                continue
            try:
                state = entry.stat()
                yield str(folder), entry.name, state.st_mtime_ns, state.st_ctime_ns, state.st_size
            except OSError:  # a broken link: reading it will say so
                yield str(folder), entry.name, 0, 0, 0


def _compile(seen: tuple[_Seen, ...], before: _Compiled | None = None) -> _Compiled:
    """Reads the files, except those that are unchanged since `before` and had no problem.

    Files with a problem are read again, because another file may cause it by claiming a name.
    """
    from paddock.registry.reader import examine, read_bytes

    building = _Building()
    unchanged = _unchanged(before) if before is not None else {}
    for row in seen:
        path = os.path.join(*row[:2])
        if row in unchanged and building.keep(*unchanged[row]):
            continue
        try:
            data = read_bytes(Path(path))
        except InvalidSpec as error:
            building.problems.append(error)
            continue
        spec, document, problems = examine(data, path)
        building.problems.extend(problems)
        if spec is not None and document is not None:
            building.add(spec, document, path)
    return _Compiled(
        seen, tuple(building.entries), tuple(building.problems), b"".join(building.blobs)
    )


def _unchanged(before: _Compiled) -> dict[_Seen, tuple[_Entry, bytes]]:
    """File → its compiled spec, for the files without a problem."""
    entries = {entry.path: entry for entry in before.entries}
    for problem in before.problems:
        entries.pop(problem.path, None)
    compiled = {}
    for row in before.seen:
        entry = entries.get(os.path.join(*row[:2]))
        if entry is not None:
            compiled[row] = (entry, before.blobs[entry.start : entry.start + entry.length])
    return compiled


def _stamp() -> str:
    """A checksum that changes with Paddock's version and with the code of the spec's schema.

    The schema itself would need pydantic to compute, so the source is read instead. It guards
    against another version, not against an attacker, so a checksum will do. Without hashlib, the
    import takes 4 ms less.
    """
    checksum = 0
    for module in _STAMPED:
        with suppress(OSError):  # installed without sources: only the version counts
            checksum = zlib.crc32(Path(__file__).with_name(module).read_bytes(), checksum)
    return f"{paddock.__version__}-{checksum:08x}"


_STAMPED = (
    *("spec.py", "spec_fields.py", "hubs.py", "abilities.py", "added.py", "formats.py"),
    *("document.py", "reader.py", "catalog.py"),
)


def _write_index(index: Path, compiled: _Compiled) -> None:
    """Writes one line (magic, stamp, checksum, length of the table), the table, the blobs."""
    table = encode(
        {
            "seen": compiled.seen,
            "entries": [[e.name, e.aliases, e.path, e.start, e.length] for e in compiled.entries],
            "problems": [[p.path, p.line, p.name_of_field, p.reason] for p in compiled.problems],
            "added": [*added_hubs(), *added_abilities()],
        }
    )
    body = table + compiled.blobs
    head = b"%s %s %d %d\n" % (_MAGIC, _stamp().encode(), zlib.crc32(body), len(table))
    # A folder that cannot be written, or a full disk: the next load compiles again.
    with suppress(NotWritten):
        write_atomically(index, head + body)


def _read_index(index: Path) -> _Compiled | None:
    """The index in the file, or None if this Paddock wrote none there."""
    try:
        data = index.read_bytes()
    except OSError:
        return None
    head, _, body = data.partition(b"\n")
    try:
        magic, stamp, checksum, length = head.split(b" ")
        if magic != _MAGIC or stamp != _stamp().encode() or int(checksum) != zlib.crc32(body):
            return None
        table: dict[str, Any] = decode(body[: int(length)])
        # Installing or removing a package with a hub or an ability changes which specs are valid.
        # Without such a package and without an invalid spec nothing can change, and the look-up
        # is saved.
        added = table["added"]
        if (added or table["problems"]) and added != [*added_hubs(), *added_abilities()]:
            return None
        seen = tuple(
            (str(folder), str(name), int(modified), int(changed), int(size))
            for folder, name, modified, changed, size in table["seen"]
        )
        return _Compiled(
            seen,
            tuple(
                _Entry(name, tuple(aliases), path, start, size)
                for name, aliases, path, start, size in table["entries"]
            ),
            tuple(InvalidSpec(*problem) for problem in table["problems"]),
            body[int(length) :],
        )
    except (ValueError, TypeError, KeyError):  # written by another program
        return None
