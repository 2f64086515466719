"""Facts about hubs, without their clients. A hub is one row here, or an entry point.

Specs, settings, references, plans and the cache read this table. Importing it is cheap. Entry
points are looked up only for a name or prefix that is not built in, since that takes some 20 ms.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from paddock.registry.added import load_added
from paddock.registry.errors import BadValue, UnknownName

ENTRY_POINTS = "paddock.hubs"
LOCAL = ("local", "path")
"""Values in place of a hub for weights on disk: below the specs' folder, or at a path."""
AUTO = "auto"
"""The value for any hub in settings and requests."""
COMMIT = re.compile(r"[0-9a-f]{40}")

_RESERVED_NAMES = {*LOCAL, AUTO, "none"}
_RESERVED_PREFIXES = {"http", "https", "file"}
_NAME = re.compile(r"[a-z][a-z0-9_-]{1,31}")
_PREFIX = re.compile(r"[a-z][a-z0-9]{1,15}")


@dataclass(frozen=True)
class Page:
    """The repository, revision and file that the address of a web page names."""

    id: str
    revision: str | None = None
    file: str | None = None


@dataclass(frozen=True)
class HubSite:
    """A hub without its client.

    Attributes:
        name: in specs, settings and lockfiles.
        title: for people.
        prefix: of references: `hf` in hf:owner/name.
        adapter: import string of the class that `launcher/weights/base.py` describes.
        hosts: of its web pages, the main one first.
        endpoint_variable: environment variable that names a mirror, or empty.
        cache_variable: environment variable that names the folder of its client's cache, or empty.
        addresses: paths of its web pages, with {id}, {revision} and {file}; that of a model first.
        owners_excluded: words in the place of an owner in addresses of other pages.
        texts_excluded: texts that no id may contain.
        has_commits: whether a revision of 40 hex digits always means the same files.

    Raises:
        BadValue: a name or prefix outside its grammar, or a reserved one.
    """

    name: str
    title: str
    prefix: str
    adapter: str
    hosts: tuple[str, ...]
    endpoint_variable: str = ""
    cache_variable: str = ""
    addresses: tuple[str, ...] = ("{id}",)
    owners_excluded: frozenset[str] = frozenset()
    texts_excluded: tuple[str, ...] = ()
    has_commits: bool = False

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or self.name in _RESERVED_NAMES:
            raise BadValue("hub", self.name, "must be a free name of small letters and digits")
        if not _PREFIX.fullmatch(self.prefix) or self.prefix in _RESERVED_PREFIXES:
            raise BadValue("hub prefix", self.prefix, "must be 2 to 16 small letters and digits")
        if not self.hosts or not self.addresses:
            raise BadValue("hub", self.name, "must have a host and the address of a model")

    def page(self, id: str, host: str = "") -> str:
        """The address of a model's web page, on the hub's main host if no other is named."""
        return f"https://{host or self.hosts[0]}/{self.addresses[0].replace('{id}', id)}"

    def read(self, segments: Sequence[str]) -> Page | None:
        """The page at the path of an address, or None if that is no model's page."""
        for address in self.addresses:
            page = _match(address, segments)
            if page is not None and page.id.partition("/")[0] not in self.owners_excluded:
                return page
        return None

    def is_commit(self, revision: str | None) -> bool:
        """Whether the revision always means the same files."""
        return self.has_commits and COMMIT.fullmatch(revision or "") is not None


def _match(address: str, segments: Sequence[str]) -> Page | None:
    rest = list(segments)
    values: dict[str, str] = {}
    for part in address.split("/"):
        count = {"{id}": 2, "{file}": max(1, len(rest))}.get(part, 1)
        taken, rest = rest[:count], rest[count:]
        if len(taken) < count or (not part.startswith("{") and taken != [part]):
            return None
        if part.startswith("{"):
            values[part[1:-1]] = "/".join(taken)
    return None if rest else Page(**values)


BUILT_IN = (
    HubSite(
        name="huggingface",
        title="Hugging Face",
        prefix="hf",
        adapter="paddock.launcher.weights.huggingface:HuggingFace",
        hosts=("huggingface.co", "www.huggingface.co", "hf.co"),
        endpoint_variable="HF_ENDPOINT",
        cache_variable="HF_HOME",
        addresses=(
            "{id}",
            "{id}/discussions",
            "{id}/tree/{revision}",
            "{id}/blob/{revision}/{file}",
            "{id}/resolve/{revision}/{file}",
        ),
        owners_excluded=frozenset(
            ("datasets", "spaces", "docs", "collections", "papers", "api", "models")
        ),
        # It stands for `/` in the folder names of the hub's cache.
        texts_excluded=("--",),
        has_commits=True,
    ),
    HubSite(
        name="modelscope",
        title="ModelScope",
        prefix="ms",
        adapter="paddock.launcher.weights.modelscope:ModelScope",
        hosts=("modelscope.cn", "www.modelscope.cn"),
        endpoint_variable="MODELSCOPE_ENDPOINT",
        cache_variable="MODELSCOPE_CACHE",
        addresses=(
            "models/{id}",
            "models/{id}/summary",
            "models/{id}/files",
            "models/{id}/tree/{revision}",
            "models/{id}/file/view/{revision}/{file}",
            "models/{id}/resolve/{revision}/{file}",
        ),
    ),
)
_BUILT_IN: Mapping[str, HubSite] = {site.name: site for site in BUILT_IN}


@cache
def hub_sites() -> Mapping[str, HubSite]:
    """All hubs by name, built-in ones first."""
    sites = dict(_BUILT_IN)
    prefixes = {site.prefix for site in BUILT_IN}
    for site in load_added(ENTRY_POINTS, HubSite):
        # A package cannot replace a built-in hub or one of another package, only add to them.
        if site.name not in sites and site.prefix not in prefixes:
            prefixes.add(site.prefix)
            sites[site.name] = site
    return sites


def hub_names() -> tuple[str, ...]:
    """The names of all hubs, built-in ones first."""
    return tuple(hub_sites())


def added_hubs() -> list[str]:
    """The names of hubs that other packages add."""
    return [name for name in hub_sites() if name not in _BUILT_IN]


def find_hub(name: str) -> HubSite | None:
    """The hub of this name, or None."""
    return _BUILT_IN.get(name) or (None if name in _RESERVED_NAMES else hub_sites().get(name))


def find_prefix(prefix: str) -> HubSite | None:
    """The hub whose references begin with the prefix, or None."""
    for site in BUILT_IN:
        if site.prefix == prefix:
            return site
    if not _PREFIX.fullmatch(prefix) or prefix in _RESERVED_PREFIXES:
        return None
    return next((site for site in hub_sites().values() if site.prefix == prefix), None)


def hub_site(name: str) -> HubSite:
    """The hub of this name.

    Raises:
        UnknownName: no hub has it.
    """
    site = find_hub(name)
    if site is None:
        raise UnknownName.among("hub", name, hub_names())
    return site
