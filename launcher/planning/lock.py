"""What a lock allows of a launch: the variant, the engine and its version, the files. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from paddock.engines.base import Host
from paddock.launcher.planning.plan import LaunchRequest, PlannedFile, PlannedWeights
from paddock.registry.errors import NotLocked
from paddock.registry.formats import weight_format
from paddock.registry.hubs import AUTO, LOCAL
from paddock.registry.lockfile import LockedModel
from paddock.registry.spec import ModelSpec, source_key

"""In place of a hub: the first that can be reached."""


def pin(request: LaunchRequest, spec: ModelSpec) -> LaunchRequest:
    """The request with all that its lock names filled in; as it is where there is no lock.

    Raises:
        NotLocked: it asks for something else than is locked.
    """
    lock = request.lock
    if lock is None:
        return request
    hub = None if (request.hub or AUTO).casefold() == AUTO else request.hub
    place = f"{lock.id}/{lock.first}" if weight_format(lock.format).is_single_file else lock.id
    for what, locked, requested in (
        ("model", lock.model, spec.name),
        ("format", lock.format, request.format),
        ("size", lock.size, request.size),
        ("quantization", lock.quantization, request.quantization),
        ("hub", lock.hub, hub),
        ("engine", lock.engine, request.model_engine),
        ("path", place if lock.hub == "path" else lock.hub, request.model_path),
    ):
        if requested is not None and requested.casefold() != locked.casefold():
            raise NotLocked(spec.name, what, locked, requested)
    pinned = {
        "format": lock.format,
        "size": lock.size,
        "quantization": lock.quantization,
        "model_engine": lock.engine,
        "hub": None,
        "model_path": None,
    }
    return request.model_copy(update=pinned)


def with_engine(lock: LockedModel, hosts: Sequence[Host]) -> Sequence[Host]:
    """The hosts that have the engine in the locked version.

    Raises:
        NotLocked: it is there, but only in others.
    """
    detections = {host.node: host.engines.get(lock.engine) for host in hosts}
    versions_by_node = {
        node: engine.version for node, engine in detections.items() if engine and not engine.missing
    }
    if versions_by_node and lock.engine_version not in versions_by_node.values():
        versions = " or ".join(dict.fromkeys(versions_by_node.values()))
        raise NotLocked(lock.model, f"the engine {lock.engine} in", lock.engine_version, versions)
    return [
        host
        for host in hosts
        if versions_by_node.get(host.node, lock.engine_version) == lock.engine_version
    ]


def pinned_weights(lock: LockedModel, host: Host, offline: bool) -> PlannedWeights | str:
    """The locked files, or why they cannot be had on this host."""
    if lock.hub in LOCAL:
        return _plan_local_files(lock, host)
    source = lock.source
    return PlannedWeights(
        hub=lock.hub,
        id=lock.id,
        revision=source.revision,
        files=(PlannedFile(name=source.file, size_bytes=lock.size_bytes),) if source.file else (),
        size_bytes=lock.size_bytes,
        here=source_key(source) in host.files,
        offline=offline,
        lock=lock,
    )


def _plan_local_files(lock: LockedModel, host: Host) -> PlannedWeights | str:
    prefix = f"{lock.id.rstrip('/')}/"
    present_sizes = {
        name.removeprefix(prefix): size
        for name, size in host.files.items()
        if name.startswith(prefix)
    }
    locked_sizes = {file.name: file.size_bytes for file in lock.files}
    for name, size in locked_sizes.items():
        if name not in present_sizes:
            return f"{prefix}{name} is locked, and not on {host.name}"
        if present_sizes[name] != size:
            return f"{prefix}{name} is locked with {size} bytes, and has {present_sizes[name]}"
    # An engine gets a whole folder, but a single GGUF file.
    if not weight_format(lock.format).is_single_file:
        for name in present_sizes:
            if name not in locked_sizes:
                return f"{prefix}{name} is there, and the lock does not name it"
    return PlannedWeights(
        hub=lock.hub,
        id=lock.id,
        files=tuple(
            PlannedFile(name=name, size_bytes=size) for name, size in sorted(locked_sizes.items())
        ),
        size_bytes=lock.size_bytes,
        here=True,
        lock=lock,
    )
