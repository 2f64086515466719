"""`python -m paddock.launcher.jobs.run_derive`: makes a spec of what a reference names.

A process of its own, like `run_pull.py`: no hub's client comes into the gateway. It reads the
reference as one line of JSON and answers with one: the derived spec, that nothing has changed, or
why not. When its stdin closes it ends.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

from paddock.launcher.jobs.child_io import take_stdout
from paddock.launcher.weights import load_hub
from paddock.launcher.weights.base import Hub, Listing, RemoteFile, Terms
from paddock.launcher.weights.ranges import RangedBytes, Reading
from paddock.launcher.weights.reachability import Reach
from paddock.launcher.weights.select_files import choose
from paddock.launcher.weights.transfer import retry
from paddock.registry.derive import CARD, SMALL_BYTES, Derived, RepositoryContents, derive, to_read
from paddock.registry.errors import BadValue, CorruptFile, HubFailure, NoSpec, PaddockError
from paddock.registry.gguf import (
    HEAD_BYTES,
    MAGIC,
    SAFETENSORS,
    ByteSource,
    FileBytes,
    GgufHeader,
    GgufKind,
    foreign_kind,
    read_header,
    read_kind,
)
from paddock.registry.reference import Reference
from paddock.registry.spec import Source

MOST_FILES = 10_000


def look(reference: Reference, terms: Terms, known: str, today: date) -> Derived | None:
    """What can be derived of the reference; None if its files are still those of `known`.

    Raises:
        HubFailure: the hub does not answer, or does not give the repository.
        NoSpec: what is there tells too little.
        BadValue: a path where nothing is.
    """
    if reference.hub == "path":
        listing = _list_folder(reference)
        return None if listing.pin == known else _on_disk(reference, listing, today)
    hub = load_hub(reference.hub)
    listing = _list_repository(hub, reference, terms)
    if listing.pin == known:
        return None
    reading = Reading(hub, listing, terms)
    try:
        return _on_hub(reference, reading, today)
    finally:
        reading.close()


def _list_repository(hub: Hub, reference: Reference, terms: Terms) -> Listing:
    if hub.offline:
        offline_reason = f"{reference.text} was not looked at before, and {hub.offline} is set"
        raise HubFailure("hub_unreachable", offline_reason)
    reason = Reach(terms.home, terms.timeout).unreachable(hub.endpoint)
    if reason is not None:
        attempts = (f"{hub.title}, {hub.endpoint}: {reason}",)
        raise HubFailure("hub_unreachable", f"cannot reach {hub.title} ({reason})", attempts)
    source = Source(hub=reference.hub, id=reference.id, revision=reference.revision)
    listings: list[Listing] = []

    def attempt() -> bool:
        listings.append(hub.resolve(source, terms))
        return True

    retry(attempt, reference.id, hub, terms, threading.Event())
    return listings[0]


def _on_hub(reference: Reference, reading: Reading, today: date) -> Derived:
    by_name = {file.name: file for file in reading.listing.files}

    @cache
    def open_(name: str) -> ByteSource:
        return RangedBytes(reading, by_name[name])

    def small(name: str) -> bytes:
        return reading.read_checked(by_name[name])

    return _derive_from(reference, reading.listing, open_, small, today)


def _list_folder(reference: Reference) -> Listing:
    """The files of a folder, by the names that lead to them; not those of folders in it."""
    path = Path(reference.id)
    if path.is_file():
        raise BadValue("model", reference.text, _file_reason(path))
    try:
        with os.scandir(path) as entries:
            files = []
            for number, entry in enumerate(entries):
                if number == MOST_FILES:
                    raise BadValue("model", reference.text, f"has over {MOST_FILES} files")
                if entry.is_file():
                    status = entry.stat()
                    files.append(RemoteFile(entry.name, status.st_size, str(status.st_mtime_ns)))
    except OSError as error:
        reason = f"cannot be read here: {error.strerror}"
        raise BadValue("model", reference.text, reason) from None
    files.sort(key=lambda file: file.name)
    return Listing("path", reference.id, "", "", tuple(files))


def _file_reason(path: Path) -> str:
    """Why a file without .gguf at its end is no model, or what makes one of it."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as error:
        return f"cannot be read here: {error.strerror}"
    if head.startswith(MAGIC):
        link = shlex.join(["ln", "-s", str(path), f"{path.name.partition(':')[0]}.gguf"])
        return f"is a GGUF without .gguf at its end; link it by such a name and launch that: {link}"
    kind = foreign_kind(head)
    what = f"is {kind}" if kind else "is a file"
    return f"{what}; a model is a .gguf file, or a folder with safetensors and a config.json"


def _on_disk(reference: Reference, listing: Listing, today: date) -> Derived:
    folder = Path(reference.id)
    with ExitStack() as stack:

        @cache
        def open_(name: str) -> ByteSource:
            return FileBytes(stack.enter_context((folder / name).open("rb")), folder / name)

        def small(name: str) -> bytes:
            return (folder / name).read_bytes()

        try:
            return _derive_from(reference, listing, open_, small, today)
        except OSError as error:
            reason = f"cannot be read here: {error.strerror}"
            raise BadValue("model", reference.text, reason) from None


def _header(reference: Reference, sources: Iterable[ByteSource]) -> GgufHeader | None:
    """The header of the first, with the tensors of all."""
    header = None
    for source in sources:
        try:
            part = read_header(source)
        except CorruptFile as error:
            name = os.path.basename(error.path)
            raise NoSpec(reference.text, name, f"is no whole GGUF: {error.reason}") from None
        if part.needed_bytes > source.length:
            lacking = f"has {source.length} bytes of {part.needed_bytes} that its header declares"
            raise NoSpec(reference.text, os.path.basename(source.name), lacking)
        header = part if header is None else _add_headers(header, part)
    return header


def _add_headers(one: GgufHeader, other: GgufHeader) -> GgufHeader:
    return dataclasses.replace(
        one,
        parameters=one.parameters + other.parameters,
        expert_parameters=one.expert_parameters + other.expert_parameters,
        has_output=one.has_output or other.has_output,
    )


def _derive_from(
    reference: Reference,
    listing: Listing,
    open_: Callable[[str], ByteSource],
    small: Callable[[str], bytes],
    today: date,
) -> Derived:
    """Reads what `to_read` names: `open_` gives a file by its name, `small` all of a small one."""
    sizes = {file.name: file.size_bytes for file in listing.files}
    kinds: dict[str, GgufKind | str] = {}
    reads = to_read(reference, sizes)
    texts = {name: small(name) if sizes[name] <= SMALL_BYTES else None for name in reads.small}
    while reads.kinds:
        kinds |= {name: _kind(open_(name)) for name in reads.kinds}
        reads = to_read(reference, sizes, kinds)
    header = _header(reference, map(open_, reads.gguf))
    try:
        chosen = tuple(file.name for file in choose(listing, ()))
    except HubFailure:
        chosen = ()  # no safetensors
    foreign = {name: _foreign(open_(name)) for name in reads.heads if name in chosen}
    facts = RepositoryContents(
        reference,
        listing.pin,
        sizes,
        chosen,
        {name: _parse(name, data) for name, data in texts.items()},
        header,
        reads.gguf[0] if reads.gguf else "",
        kinds,
        {name: kind for name, kind in foreign.items() if kind},
    )
    return derive(facts, today)


def _kind(source: ByteSource) -> GgufKind | str:
    try:
        return read_kind(source)
    except CorruptFile as error:
        return error.reason


def _foreign(source: ByteSource) -> str:
    kind = foreign_kind(source.read(0, min(HEAD_BYTES, source.length)))
    return "" if kind == SAFETENSORS else kind


def _parse(name: str, data: bytes | None) -> Any:
    if data is None:
        return None
    text = data.decode("utf-8", "replace")
    if name == CARD or name.endswith(".jinja"):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def main() -> None:
    """Answers for the reference that stdin names."""
    out = take_stdout()
    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_watch, daemon=True).start()
    terms = Terms(Path(request["home"]), request["timeout"], silence=10.0, tries=3)
    reference = Reference(**request["reference"])
    try:
        derived = look(reference, terms, request["known"], date.today())
        answer: dict[str, Any] = {"derived": derived.to_json() if derived else None}
    except PaddockError as error:
        answer = {"error": type(error).__name__, "fields": error.fields()}
    out.write(json.dumps(answer) + "\n")
    out.flush()


def _watch() -> None:
    sys.stdin.read()
    os._exit(1)  # the parent is gone, and nothing is half written


if __name__ == "__main__":
    main()
