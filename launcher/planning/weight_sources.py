"""Where a variant's weights come from: a hub, a path, files beside the specs; and its projector."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence

from paddock.engines.base import Host
from paddock.launcher.planning.lock import pinned_weights
from paddock.launcher.planning.memory import (
    weights_bytes,
)
from paddock.launcher.planning.pairs import Candidate, Pair
from paddock.launcher.planning.plan import (
    LaunchRequest,
    PlannedFile,
    PlannedWeights,
)
from paddock.registry.errors import BadValue, UnknownName
from paddock.registry.formats import weight_format
from paddock.registry.hubs import AUTO, LOCAL, find_hub, hub_names
from paddock.registry.shards import shard_names, unsharded_name
from paddock.registry.spec import ModelSpec, Source, Variant, source_key


def check_source(request: LaunchRequest, hosts: Sequence[Host]) -> None:
    """Refuses a hub that nobody knows, and a path where nothing is.

    Raises:
        BadValue: the path is relative, or nothing is there; or a hub is named beside it.
        UnknownName: no hub has this name.
    """
    if request.hub:
        read_hub(request.hub)
    path = request.model_path
    if path is None:
        return
    if request.hub and read_hub(request.hub):
        raise BadValue("hub", request.hub, "weights come from a hub or from --model-path, not both")
    if not path.startswith("/"):
        raise BadValue("model path", path, "must be an absolute path")
    if not any(files_at(path, host) for host in hosts):
        names = ", ".join(dict.fromkeys(host.name for host in hosts))
        raise BadValue("model path", path, f"no such file on {names}, or a folder without files")


def is_named_as(variant: Variant, names: set[str]) -> bool:
    """Whether the names of the files say that they are of this variant."""
    if weight_format(variant.format).is_single_file:
        return any(is_gguf_of(variant, name) for name in names)
    if not any(name.endswith(".safetensors") for name in names):
        return False
    return (variant.format == "gptq") == ("quantize_config.json" in names)


def is_gguf_of(variant: Variant, name: str) -> bool:
    """Whether the name of a GGUF says that it is of this variant."""
    # Q4_0 must not match IQ4_0.
    ending = rf"(?:^|[^a-z0-9]){re.escape(variant.quantization.casefold())}\.gguf"
    return re.search(rf"{ending}$", unsharded_name(name).casefold()) is not None


def plan_weights(request: LaunchRequest, spec: ModelSpec, pair: Pair) -> PlannedWeights | str:
    """Where the weights come from, or why they cannot come."""
    variant, host = pair.variant, pair.host
    if not pair.engine.formats:
        return PlannedWeights(hub="none", id="", size_bytes=0, here=True)
    if request.lock is not None:
        return pinned_weights(request.lock, host, request.offline)
    if request.model_path is not None:
        return _plan_from_path(request.model_path, variant, host)
    return plan_from_sources(request, spec, variant, host)


def plan_from_sources(
    request: LaunchRequest, spec: ModelSpec, variant: Variant, host: Host
) -> PlannedWeights | str:
    """The weights from one of the variant's sources, or why from none."""
    hub = read_hub(request.hub) if request.hub else None
    sources = [source for source in variant.sources if hub in {None, source.hub}]
    if not sources:
        return f"the spec has no source on {hub} for {variant.format} {variant.quantization}"
    on_hubs = [source for source in sources if source.hub not in LOCAL]
    ordered = iter(sorted(on_hubs, key=lambda source: source.hub != request.first_hub))
    sources = [next(ordered) if source in on_hubs else source for source in sources]
    for source in sources:
        if source.hub not in LOCAL:
            others = tuple(s for s in sources if s.hub not in {*LOCAL, source.hub})
            cached = next((s for s in (source, *others) if source_key(s) in host.files), None)
            if cached is not None:
                size = host.files[source_key(cached)]
                return _on_hub(cached, variant, spec, size).model_copy(update={"here": True})
            said = host.evidence.sizes.get(source_key(source))
            planned = _on_hub(source, variant, spec, variant.size_bytes if said is None else said)
            return planned.model_copy(update={"offline": request.offline, "others": others})
        if files := local_files(source, host):
            return _plan_local(source.hub, source.id, files)
    label = f"{sources[-1].id}/{sources[-1].file}" if sources[-1].file else sources[-1].id
    is_local = sources[-1].hub == "local"
    hint = "they come with a source checkout only" if is_local else "the spec names no other place"
    return f"its weights ({label}) are not on {host.name}; {hint}"


def _on_hub(source: Source, variant: Variant, spec: ModelSpec, size: int | None) -> PlannedWeights:
    file = PlannedFile(name=source.file, size_bytes=size) if source.file else None
    return PlannedWeights(
        hub=source.hub,
        id=source.id,
        revision=source.revision,
        files=(file,) if file else (),
        size_bytes=weights_bytes(variant, spec.shape(variant.size)) if size is None else size,
        size_known=size is not None,
        here=False,
    )


def read_hub(name: str) -> str | None:
    """The hub of this name, or None for any.

    Raises:
        UnknownName: no hub has this name.
    """
    folded = name.casefold()
    if folded == AUTO:
        return None
    if folded in LOCAL or find_hub(folded) is not None:
        return folded
    raise UnknownName.among("hub", name, (*hub_names(), *LOCAL, AUTO))


def local_files(source: Source, host: Host) -> dict[str, int]:
    """The files of a local source that are on the host: name → bytes."""
    prefix = f"{source.id}/"
    sizes = {
        name.removeprefix(prefix): size
        for name, size in host.files.items()
        if name.startswith(prefix)
    }
    if not source.file:
        return sizes
    names = shard_names(source.file)
    if not names and source.file not in sizes:
        names = next(
            (shard_names(name) for name in sizes if unsharded_name(name) == source.file), ()
        )
    names = names or (source.file,)
    return {name: sizes[name] for name in names} if sizes.keys() >= set(names) else {}


def files_at(path: str, host: Host) -> dict[str, int]:
    """The file at the path with its other parts, or the files in the folder: plain name → bytes."""
    folder = path.rstrip("/")
    wanted = {path, *shard_names(path)} if path in host.files else set()
    return {
        posixpath.basename(name): size
        for name, size in host.files.items()
        if name in wanted or posixpath.dirname(name) == folder
    }


def _plan_from_path(path: str, variant: Variant, host: Host) -> PlannedWeights | str:
    """The weights at a path that the user named: a file, or what fits in a folder."""
    files = files_at(path, host)
    if not files:
        return f"{path} is not on {host.name}"
    is_file = path in host.files
    folder = posixpath.dirname(path) if is_file else path.rstrip("/")
    if weight_format(variant.format).is_single_file:
        chosen = _ggufs(files, variant, path, is_file)
        return chosen if isinstance(chosen, str) else _plan_local("path", folder, chosen)
    if is_file:
        return f"{path} is one file; name the folder that holds all of {variant.format}"
    return _plan_local("path", folder, files)


def _ggufs(
    files: Mapping[str, int], variant: Variant, path: str, is_file: bool
) -> Mapping[str, int] | str:
    """The one GGUF among the files, with all of its parts."""
    ggufs = {name: size for name, size in files.items() if name.casefold().endswith(".gguf")}
    chosen = {n: size for n, size in ggufs.items() if is_gguf_of(variant, n)} or ggufs
    if not chosen:
        return files if is_file else f"{path} holds no .gguf file"
    if len({unsharded_name(name) for name in chosen}) > 1:
        return f"{path} holds {len(chosen)} .gguf files; name the one to serve"
    missing = [name for name in shard_names(next(iter(chosen))) if name not in chosen]
    return f"{path} lacks parts of its weights: {', '.join(missing)}" if missing else chosen


def _plan_local(hub: str, identity: str, files: Mapping[str, int]) -> PlannedWeights:
    planned = tuple(PlannedFile(name=name, size_bytes=size) for name, size in sorted(files.items()))
    return PlannedWeights(
        hub=hub, id=identity, files=planned, size_bytes=sum(files.values()), here=True
    )


def with_projector(
    request: LaunchRequest, spec: ModelSpec, best: Candidate
) -> tuple[PlannedWeights, tuple[str, ...]]:
    """The weights with the requested projector, and the abilities that the model then has."""
    weights = add_projector(request, best.variant, best.weights, best.host)
    if not weight_format(best.variant.format).has_projectors:
        return weights, spec.abilities
    others = tuple(ability for ability in spec.abilities if ability != "vision")
    return weights, (*others, "vision") if weights.projector else others


def add_projector(
    request: LaunchRequest, variant: Variant, weights: PlannedWeights, host: Host
) -> PlannedWeights:
    """Raises `BadValue`, `UnknownName` for a projector that the variant cannot have."""
    wanted = request.projector
    if wanted is None:
        return weights
    if not weight_format(variant.format).has_projectors:
        reason = f"is for ggufv2; {variant.format} has what it needs for pictures in its weights"
        raise BadValue("projector", wanted, reason)
    if request.lock is not None:
        raise BadValue("projector", wanted, "is not in the lock, and so not used under it")
    if wanted.startswith("/"):
        if wanted not in host.files:
            raise BadValue("projector", wanted, f"no such file on {host.name}")
        return weights.model_copy(update={"projector": wanted})
    if not variant.projectors or request.model_path is not None:
        reason = "nothing says where that is; give an absolute path"
        raise BadValue("projector", wanted, reason)
    for name in variant.projectors:
        if name.casefold() == wanted.casefold():
            return weights.model_copy(update={"projector": name})
    raise UnknownName.among("projector", wanted, variant.projectors, of=variant.label)
