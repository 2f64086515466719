"""A model that no spec names: a repository on a hub, or weights on disk.

    hf:owner/name          ms:owner/name          either with @revision
    https://huggingface.co/owner/name[/tree/REVISION | /blob/REVISION/FILE.gguf]
    https://modelscope.cn/models/owner/name[/tree/REVISION | /file/view/REVISION/FILE.gguf]
    /a/folder              /a/file.gguf           on the gateway's machine

Pure; no address in a reference is ever asked, only the hub that it names.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from paddock.registry.errors import BadValue

HUBS: Mapping[str, Literal["huggingface", "modelscope"]] = {
    "hf": "huggingface",
    "ms": "modelscope",
}
COMMIT = re.compile(r"[0-9a-f]{40}")
MAX_LENGTH = 512
# Where an address does not name a file: what may stand behind the repository's id.
_PAGES = {"", "summary", "files", "discussions"}
_OTHERS = {"datasets", "spaces", "docs", "collections", "papers", "api"}
_EXAMPLES = "hf:owner/name, ms:owner/name, an address of such a repository, or a path"


@dataclass(frozen=True)
class Reference:
    """Where a model is. `id` is owner/name, or for `path` an absolute folder.

    `file` is the one GGUF file that is meant, where only one is.
    """

    hub: Literal["huggingface", "modelscope", "path"]
    id: str
    revision: str | None = None
    file: str | None = None

    @property
    def text(self) -> str:
        """The reference in its shortest form, which parses to the same."""
        if self.hub == "path":
            return f"{self.id}/{self.file}" if self.file else self.id
        prefix = next(short for short, hub in HUBS.items() if hub == self.hub)
        if not self.file:
            return f"{prefix}:{self.id}" + (f"@{self.revision}" if self.revision else "")
        # A branch may have slashes, and the file begins behind the first.
        return f"{prefix}:{self.id}@{(self.revision or '').replace('/', '%2F')}/{self.file}"

    @property
    def pinned(self) -> bool:
        """Whether it can only ever mean the same files."""
        return self.hub == "huggingface" and COMMIT.fullmatch(self.revision or "") is not None


def is_reference(name: str) -> bool:
    """Whether the name of a model is a reference, be it a right one or a wrong one."""
    folded = name.strip().casefold()
    return folded.startswith(("hf:", "ms:", "http://", "https://", "/", "./", "../", "~"))


def absolute(name: str) -> str:
    """A relative path in place of a name made absolute; everything else as it is."""
    if not name.startswith(("./", "../", "~")):
        return name
    try:
        return os.path.abspath(Path(name).expanduser())
    except RuntimeError as error:  # the home folder of a user that does not exist
        raise BadValue("model", name, str(error)) from None


Hosts = Mapping[str, frozenset[str]]


def hosts(environ: Mapping[str, str]) -> Hosts:
    """Whose addresses are whose: host (and port) → hubs, with the endpoints of the environment."""
    known: dict[str, frozenset[str]] = {
        "huggingface.co": frozenset({"huggingface"}),
        "www.huggingface.co": frozenset({"huggingface"}),
        "hf.co": frozenset({"huggingface"}),
        "modelscope.cn": frozenset({"modelscope"}),
        "www.modelscope.cn": frozenset({"modelscope"}),
    }
    for variable, hub in (("HF_ENDPOINT", "huggingface"), ("MODELSCOPE_ENDPOINT", "modelscope")):
        named = environ.get(variable, "")
        if named:
            host = urlsplit(named if "://" in named else f"https://{named}").netloc.lower()
            known[host] = known.get(host, frozenset()) | {hub}
    return known


def parse_reference(text: str, known: Hosts) -> Reference:
    """The reference in `text`; `known` is of `hosts`.

    Raises:
        BadValue: it is none, or names what is no model repository.
    """
    text = text.strip()
    if len(text) > MAX_LENGTH or not text.isprintable():
        raise BadValue("model", text, f"is no reference: {_EXAMPLES}")
    prefix, colon, rest = text.partition(":")
    if text.startswith("/"):
        return _path(text)
    if text.startswith((".", "~")):
        why = "must be absolute: the gateway works in another folder"
        raise BadValue("model", text, why)
    if colon and prefix.casefold() in HUBS:
        return _short(text, HUBS[prefix.casefold()], rest)
    if colon and prefix.casefold() in {"http", "https"}:
        return _address(text, known)
    raise BadValue("model", text, f"is no reference: {_EXAMPLES}")


def _path(text: str) -> Reference:
    plain = "/" + "/".join(part for part in text.split("/") if part not in {"", "."})
    folder, _, name = plain.rpartition("/")
    if name.casefold().endswith(".gguf"):
        return _checked(text, Reference("path", folder, None, name))
    return _checked(text, Reference("path", plain))


def _short(text: str, hub: Literal["huggingface", "modelscope"], rest: str) -> Reference:
    identity, at, behind = rest.partition("@")
    if at and not behind:
        raise BadValue("model", text, "ends where a revision should stand; leave the @ out")
    if not identity:
        raise BadValue("model", text, "is not owner/name")
    revision, file = behind, None
    if behind.casefold().endswith(".gguf"):
        revision, slash, file = behind.partition("/")
        if not slash:
            raise BadValue("model", text, "a file stands behind a revision: @main/FILE.gguf")
        revision = unquote(revision)
    return _checked(text, Reference(hub, identity, revision or None, file))


def _address(text: str, known: Hosts) -> Reference:
    try:
        parts = urlsplit(text)
        hubs = known.get(parts.netloc.lower())
    except ValueError as error:
        raise BadValue("model", text, f"is no address: {error}") from None
    named = [unquote(part) for part in parts.path.split("/") if part]
    if hubs is None:
        hosts_named = ", ".join(sorted({"huggingface.co", "modelscope.cn", *known}))
        why = f"is at none of the hubs' hosts ({hosts_named})"
        raise BadValue("model", text, why)
    # A mirror may be of both hubs: then the form of the path tells which.
    hub: Literal["huggingface", "modelscope"] = "huggingface"
    if "modelscope" in hubs and named[:1] == ["models"]:
        hub, named = "modelscope", named[1:]
    elif "huggingface" not in hubs:
        raise BadValue("model", text, "is no model's address: …/models/owner/name")
    if len(named) < 2 or named[0] in _OTHERS:
        why = f"is no model's address: https://{parts.netloc}/owner/name"
        raise BadValue("model", text, why)
    identity, rest = "/".join(named[:2]), named[2:]
    if rest[:2] == ["file", "view"]:
        rest = ["blob", *rest[2:]]
    match rest:
        case [] | ["tree", _]:
            revision, file = (rest[1] if rest else None), None
        case [page] if page in _PAGES:
            revision, file = None, None
        case ["blob" | "resolve", revision, *names] if names:
            file = "/".join(names)
        case _:
            why = "names neither a repository, nor a revision, nor a file of one"
            raise BadValue("model", text, why)
    if file is not None and not file.casefold().endswith(".gguf"):
        short = next(short for short, name in HUBS.items() if name == hub)
        why = f"one file can be named where it is a .gguf; else: {short}:{identity}"
        raise BadValue("model", text, why)
    return _checked(text, Reference(hub, identity, revision, file))


def _checked(text: str, found: Reference) -> Reference:
    """The reference, if each of its parts follows the grammar of a spec's source."""
    from pydantic import ValidationError

    from paddock.registry.spec import Source

    try:
        Source(hub=found.hub, id=found.id, revision=found.revision, file_template=found.file)
    except ValidationError as error:
        said = error.errors(include_url=False)[0]["msg"]
        raise BadValue("model", text, str(said)) from None
    braces = {"{", "}"} & set(f"{found.id}{found.file or ''}")
    if braces:
        raise BadValue("model", text, "has braces, which no repository's or file's name has")
    return found
