"""`python -m paddock.launcher.jobs.run_derive`: makes a spec of what a reference names.

A process of its own, like `run_pull.py`: no hub's client comes into the gateway. It reads the
reference as one line of JSON and answers with one: the derived spec, that nothing has changed, or
why not. When its stdin closes it ends.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import threading
from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

from paddock.launcher.weights import load_hub
from paddock.launcher.weights.base import Hub, Listing, RemoteFile, Terms
from paddock.launcher.weights.ranges import RangedBytes, Reading
from paddock.launcher.weights.reachability import Reach
from paddock.launcher.weights.select_files import choose
from paddock.launcher.weights.transfer import retry
from paddock.registry.derive import CARD, SMALL_BYTES, Derived, RepositoryContents, derive, to_read
from paddock.registry.errors import BadValue, CorruptFile, HubFailure, NoSpec, PaddockError
from paddock.registry.gguf import ByteSource, FileBytes, GgufHeader, read_header
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
    reads = to_read(reference, {name: file.size_bytes for name, file in by_name.items()})
    texts = {
        name: reading.read_checked(by_name[name])
        if by_name[name].size_bytes <= SMALL_BYTES
        else None
        for name in reads.small
    }
    sources = (RangedBytes(reading, by_name[name]) for name in reads.gguf)
    header = _header(reference, sources)
    return _derive_from(reference, reading.listing, texts, header, reads.gguf, today)


def _list_folder(reference: Reference) -> Listing:
    """The files of a folder, by the names that lead to them; not those of folders in it."""
    path = Path(reference.id)
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


def _on_disk(reference: Reference, listing: Listing, today: date) -> Derived:
    folder = Path(reference.id)
    sizes = {file.name: file.size_bytes for file in listing.files}
    reads = to_read(reference, sizes)
    try:
        texts = {
            name: (folder / name).read_bytes() if sizes[name] <= SMALL_BYTES else None
            for name in reads.small
        }
        opened = [(folder / name).open("rb") for name in reads.gguf]
    except OSError as error:
        reason = f"cannot be read here: {error.strerror}"
        raise BadValue("model", reference.text, reason) from None
    try:
        sources = [FileBytes(file, folder / file.name) for file in opened]
        header = _header(reference, sources)
    finally:
        for file in opened:
            file.close()
    return _derive_from(reference, listing, texts, header, reads.gguf, today)


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
    texts: Mapping[str, bytes | None],
    header: GgufHeader | None,
    header_files: tuple[str, ...],
    today: date,
) -> Derived:
    try:
        chosen = tuple(file.name for file in choose(listing, ()))
    except HubFailure:
        chosen = ()  # no safetensors
    facts = RepositoryContents(
        reference,
        listing.pin,
        {file.name: file.size_bytes for file in listing.files},
        chosen,
        {name: _parse(name, data) for name, data in texts.items()},
        header,
        header_files[0] if header_files else "",
    )
    return derive(facts, today)


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
    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_watch, daemon=True).start()
    terms = Terms(Path(request["home"]), request["timeout"], silence=10.0, tries=3)
    reference = Reference(**request["reference"])
    try:
        derived = look(reference, terms, request["known"], date.today())
        answer: dict[str, Any] = {"derived": derived.to_json() if derived else None}
    except PaddockError as error:
        answer = {"error": type(error).__name__, "fields": error.fields()}
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def _watch() -> None:
    sys.stdin.read()
    os._exit(1)  # the parent is gone, and nothing is half written


if __name__ == "__main__":
    main()
