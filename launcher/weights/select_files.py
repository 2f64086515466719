"""Which files of a repository a variant needs. Pure."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence

from paddock.launcher.weights.base import Listing, RemoteFile
from paddock.registry.derive.repository import is_pickled
from paddock.registry.errors import HubFailure, near
from paddock.registry.shards import shard_names, unsharded_name

# Configuration, tokenizers and templates beside the weights. Code is never among them.
_NEEDED_SUFFIXES = {
    ".safetensors",
    ".json",
    ".txt",
    ".model",
    ".jinja",
    ".tiktoken",
    ".vocab",
    ".bpe",
}
# Copies of the weights for other programs.
_DOUBLES = re.compile(
    r"(?:^|/)(?:original|onnx|openvino|coreml|gguf|flax|\.[^/]*)/|(?:^|/)consolidated[^/]*$"
)
_PRECISION = re.compile(r"\.(?:fp16|bf16|fp32)(?=[.-])")


def choose(
    listing: Listing, wanted: Sequence[str], *, code: bool = False
) -> tuple[RemoteFile, ...]:
    """The files that `wanted` names, with all parts of a split file in order.

    Without names: the files of the repository that a model needs. With `code` these include its
    Python files, and pickled weights if there are no others.

    Raises:
        HubFailure: `not_found`, with what is there instead.
    """
    if wanted:
        return tuple(file for name in wanted for file in _find_named(listing, name))
    needed = [file for file in listing.files if is_needed(file.name)]
    names = {file.name for file in needed}
    # Of model.safetensors and model.fp16.safetensors only the first is needed.
    needed = [
        f for f in needed if _PRECISION.sub("", f.name) == f.name or _plain_name(f) not in names
    ]
    scripts = [f for f in listing.files if code and f.name.endswith(".py")]
    if any(file.name.endswith(".safetensors") for file in needed):
        return (*needed, *scripts)
    if code:
        pickled = [f for f in listing.files if is_pickled(f.name) and not _DOUBLES.search(f.name)]
        if pickled:
            return (*needed, *scripts, *pickled)
    pickles = [file.name for file in listing.files if is_pickled(file.name)]
    reason = (
        f"has no safetensors, only pickled weights ({', '.join(pickles[:3])}), which can run code"
    )
    raise HubFailure(
        "not_found",
        f"{listing.id} {reason if pickles else 'has no safetensors and no pickled weights'}",
    )


def _find_named(listing: Listing, name: str) -> tuple[RemoteFile, ...]:
    by_name = {file.name: file for file in listing.files}
    names = shard_names(name)
    if not names and name in by_name:
        return (by_name[name],)
    # A file that is too large for one is often there in parts under the same stem.
    names = names or next((shard_names(one) for one in by_name if unsharded_name(one) == name), ())
    if not names:
        instead = near(name, by_name)
        hint = f"; it has {', '.join(instead)}" if instead else ""
        raise HubFailure("not_found", f"{listing.id} has no file {name}{hint}")
    missing = [one for one in names if one not in by_name]
    if missing:
        raise HubFailure("not_found", f"{listing.id} lacks parts of {name}: {', '.join(missing)}")
    return tuple(by_name[one] for one in names)


def _plain_name(file: RemoteFile) -> str:
    return _PRECISION.sub("", file.name)


def is_needed(name: str) -> bool:
    """Whether a model that is a whole repository needs the file of this name."""
    return posixpath.splitext(name)[1] in _NEEDED_SUFFIXES and not _DOUBLES.search(name)
