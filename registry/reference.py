"""A model that no spec names: a repository on a hub, or weights on disk.

    hf:owner/name          ms:owner/name          either with @revision
    https://huggingface.co/owner/name[/tree/REVISION | /blob/REVISION/FILE.gguf]
    https://modelscope.cn/models/owner/name[/tree/REVISION | /file/view/REVISION/FILE.gguf]
    /a/folder              /a/file.gguf           on the gateway's machine; also file:///a/folder

A hub's address may lack its https://, as in hf.co/owner/name.

Prefixes, hosts and addresses are those of the hubs in `hubs.py`. Pure. No request goes
to the address in a reference, only to the hub that it names.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from paddock.registry.errors import BadValue
from paddock.registry.hubs import BUILT_IN, HubSite, find_hub, find_prefix, hub_site, hub_sites

MAX_LENGTH = 512
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,40}")
_OTHERS = ("http://", "https://", "file:", "/", "./", "../", "~")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True)
class Reference:
    """The place of a model. `id` is owner/name, or for `path` an absolute folder.

    `file` is a single GGUF file; None stands for all files.
    """

    hub: str
    id: str
    revision: str | None = None
    file: str | None = None

    @property
    def text(self) -> str:
        """The reference in its shortest form, which parses to the same reference."""
        if self.hub == "path":
            return f"{self.id}/{self.file}" if self.file else self.id
        prefix = hub_site(self.hub).prefix
        if not self.file:
            return f"{prefix}:{self.id}" + (f"@{self.revision}" if self.revision else "")
        # The file begins behind the first slash, so a branch with slashes is quoted.
        return f"{prefix}:{self.id}@{(self.revision or '').replace('/', '%2F')}/{self.file}"

    @property
    def pinned(self) -> bool:
        """Whether it always means the same files."""
        site = find_hub(self.hub)
        return site is not None and site.is_commit(self.revision)


def is_reference(name: str) -> bool:
    """Whether the name of a model is a reference, valid or not."""
    folded = name.strip().casefold()
    if _is_bare_address(folded):
        return True
    prefix, colon, _ = folded.partition(":")
    return folded.startswith(_OTHERS) or bool(colon and find_prefix(prefix))


def _is_bare_address(folded: str) -> bool:
    """Whether it begins with a hub's host and not with https://, which browsers hide."""
    host, slash, _ = folded.partition("/")
    return bool(slash) and any(host in site.hosts for site in BUILT_IN)


def split_tag(name: str) -> tuple[str, str | None]:
    """A reference, and the quantization that stands behind a colon, as other tools write it."""
    head, colon, tag = name.strip().rpartition(":")
    is_path = head.startswith(("/", ".", "~", "file:"))
    if colon and _TAG.fullmatch(tag) and is_reference(head) and not is_path:
        return head, tag
    return name, None


def absolute(name: str) -> str:
    """A relative path as an absolute one; any other name unchanged.

    The name of a GGUF file that is there is a path too.

    Raises:
        BadValue: a home folder of a user that does not exist.
    """
    is_file = name.casefold().endswith(".gguf") and not is_reference(name) and os.path.isfile(name)
    if not is_file and not name.startswith(("./", "../", "~")):
        return name
    try:
        return os.path.abspath(Path(name).expanduser())
    except RuntimeError as error:  # the home folder of a user that does not exist
        raise BadValue("model", name, str(error)) from None


Hosts = Mapping[str, frozenset[str]]


def hosts(environ: Mapping[str, str]) -> Hosts:
    """Host (and port) → names of its hubs, with the endpoints of the environment."""
    hubs_by_host: dict[str, frozenset[str]] = {}
    for hub, site in hub_sites().items():
        mirror = _host_of(environ.get(site.endpoint_variable, ""))
        for host in (*site.hosts, *filter(None, [mirror])):
            hubs_by_host[host] = hubs_by_host.get(host, frozenset()) | {hub}
    return hubs_by_host


def _host_of(endpoint: str) -> str:
    """The host, and port, of an endpoint that may lack its https://; empty for none."""
    try:
        parts = urlsplit(endpoint if "://" in endpoint else f"https://{endpoint}")
    except ValueError:  # the hub's own client says what is wrong with it
        return ""
    return parts.netloc.lower()


def parse_reference(text: str, known: Hosts) -> Reference:
    """The reference in `text`; `known` is the result of `hosts`.

    Raises:
        BadValue: it is no reference, or names no model repository.
    """
    text = text.strip()
    if text.casefold().startswith("file:"):
        return parse_reference(_from_uri(text), known)
    if len(text) > MAX_LENGTH or _CONTROLS.search(text):
        raise BadValue("model", text, f"is no reference: {_examples()}")
    if _is_bare_address(text.casefold()):
        return parse_reference(f"https://{text}", known)
    head, tag = split_tag(text)
    if tag is not None:
        reason = f"names a quantization behind a colon: give it by --quantization {tag}"
        raise BadValue("model", text, f"{reason}, and the model as {head}")
    prefix, colon, rest = text.partition(":")
    if text.startswith("/"):
        return _path(text)
    if text.startswith((".", "~")):
        reason = "must be absolute: the gateway works in another folder"
        raise BadValue("model", text, reason)
    site = find_prefix(prefix.casefold()) if colon else None
    if site is not None:
        return _short(text, site, rest)
    if colon and prefix.casefold() in {"http", "https"}:
        return _address(text, known)
    raise BadValue("model", text, f"is no reference: {_examples()}")


def _from_uri(text: str) -> str:
    """The path of a file:// address, whose name may hold what cuts other addresses."""
    path = text[len("file:") :]
    if path.startswith("//"):
        host, slash, path = path[2:].partition("/")
        if host.casefold() not in {"", "localhost"} or not slash:
            raise BadValue("model", text, "must be file:///path, on the gateway's machine")
        path = f"/{path}"
    if not path.startswith("/"):
        raise BadValue("model", text, "must be file:///path, on the gateway's machine")
    return unquote(path)


def _examples() -> str:
    short = ", ".join(f"{site.prefix}:owner/name" for site in hub_sites().values())
    return f"{short}, an address of such a repository, or a path"


def _path(text: str) -> Reference:
    plain = "/" + "/".join(part for part in text.split("/") if part not in {"", "."})
    folder, _, name = plain.rpartition("/")
    if name.casefold().endswith(".gguf"):
        return _checked(text, Reference("path", folder, None, name))
    return _checked(text, Reference("path", plain))


def _short(text: str, site: HubSite, rest: str) -> Reference:
    identity, at, suffix = rest.partition("@")
    if at and not suffix:
        raise BadValue("model", text, "ends where a revision should stand; leave the @ out")
    if not identity:
        raise BadValue("model", text, "is not owner/name")
    revision, file = suffix, None
    if suffix.casefold().endswith(".gguf"):
        revision, slash, file = suffix.partition("/")
        if not slash:
            raise BadValue("model", text, "a file stands behind a revision: @main/FILE.gguf")
        revision = unquote(revision)
    return _checked(text, Reference(site.name, identity, revision or None, file))


def _address(text: str, known: Hosts) -> Reference:
    try:
        parts = urlsplit(text)
        hubs = known.get(parts.netloc.lower())
    except ValueError as error:
        raise BadValue("model", text, f"is no address: {error}") from None
    if hubs is None:
        reason = f"is at none of the hubs' hosts ({', '.join(sorted(known))})"
        raise BadValue("model", text, reason)
    segments = [unquote(part) for part in parts.path.split("/") if part]
    # A mirror may serve several hubs: then the form of the path decides.
    sites = [site for site in hub_sites().values() if site.name in hubs]
    for site in sites:
        page = site.read(segments)
        if page is None:
            continue
        if page.file is not None and not page.file.casefold().endswith(".gguf"):
            reason = f"one file can be named where it is a .gguf; else: {site.prefix}:{page.id}"
            raise BadValue("model", text, reason)
        return _checked(text, Reference(site.name, page.id, page.revision, page.file))
    pages = " or ".join(site.page("owner/name", parts.netloc) for site in sites)
    raise BadValue("model", text, f"is no address of a model, a revision or a file: {pages}")


def _checked(text: str, reference: Reference) -> Reference:
    """The reference, after a check of its parts against the grammar of a spec's source."""
    from pydantic import ValidationError

    from paddock.registry.spec import Source

    try:
        Source(
            hub=reference.hub,
            id=reference.id,
            revision=reference.revision,
            file_template=reference.file,
        )
    except ValidationError as error:
        message = error.errors(include_url=False)[0]["msg"]
        raise BadValue("model", text, str(message)) from None
    braces = {"{", "}"} & set(f"{reference.id}{reference.file or ''}")
    if braces:
        raise BadValue("model", text, "has braces, which no repository's or file's name has")
    return reference
