"""The memory of variants at several contexts, as `paddock estimate` shows it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from paddock.engines import engines
from paddock.engines.base import UNKNOWN, Devices, Engine, Host
from paddock.launcher.planning.assumed import install_command
from paddock.launcher.planning.memory import loaded_bytes, weights_bytes
from paddock.launcher.planning.placement import to_gpu_memory
from paddock.launcher.planning.reckon import Setup, reckon
from paddock.launcher.planning.subject import subject_of
from paddock.launcher.planning.weight_sources import local_files
from paddock.registry.errors import BadValue
from paddock.registry.hubs import LOCAL
from paddock.registry.spec import ModelSpec, Variant, source_key

Verdict = Literal[
    "fits",
    "fits once other programs give memory back",
    "too large: runs from the disk, slowly",
    "too large",
]
CONTEXTS = (2048, 4096, 8192, 32768)


def estimate_table(
    spec: ModelSpec,
    variants: Sequence[Variant],
    contexts: Sequence[int],
    host: Host,
    slots: int = 1,
) -> list[dict[str, Any]]:
    """One row for each variant and context: bytes by part, and how that sits on the host.

    Where a GPU is there and an engine that computes on it, it is the memory of the most free one,
    which the row names in `gpu`; `free_bytes` is what is free of it, or of the host's. `install` is
    the command for an engine that is not there. The cache is for `slots` requests side by side,
    each of which has the whole context.

    Raises:
        BadValue: a context beyond the model's.
    """
    for context in contexts:
        if context < 1:
            raise BadValue("context length", context, "must be 1 or more")
        if context > spec.context_length:
            reason = f"{spec.name} was trained for {spec.context_length} at most"
            raise BadValue("context length", context, reason)
    chosen = sorted(set(contexts)) or _contexts(spec)
    return [_row(spec, variant, context, host, slots) for variant in variants for context in chosen]


def _contexts(spec: ModelSpec) -> list[int]:
    return sorted({min(context, spec.context_length) for context in CONTEXTS})


def _row(spec: ModelSpec, variant: Variant, context: int, host: Host, slots: int) -> dict[str, Any]:
    engine = _adapter(spec, variant, host)
    on_gpu = engine is not None and host.engines.get(engine.name, UNKNOWN).cuda
    gpu = max(host.gpus, key=lambda gpu: gpu.free_bytes, default=None) if on_gpu else None
    memory = reckon(_setup(spec, variant, host, engine), context, slots, host.memory_free_bytes)
    if gpu is not None:
        memory = to_gpu_memory(memory, [gpu], Devices(1))
    verdict: Verdict
    if memory.fits:
        verdict = "fits"
    elif memory.total_bytes <= (gpu.total_bytes if gpu else host.memory_total_bytes):
        verdict = "fits once other programs give memory back"
    elif memory.paged and memory.can_run:
        verdict = "too large: runs from the disk, slowly"
    else:
        verdict = "too large"
    return {
        "format": variant.format,
        "size": variant.size,
        "quantization": variant.quantization,
        "engine": engine and engine.name,
        "install": engine and install_command(engine, host, bool(host.gpus)),
        "context_length": context,
        "weights_bytes": memory.weights_bytes,
        "cache_bytes": memory.cache_bytes,
        "overhead_bytes": memory.overhead_bytes,
        "source": memory.source,
        "total_bytes": memory.total_bytes,
        "gpu": gpu and f"GPU {gpu.index} ({gpu.name})",
        "free_bytes": memory.free_bytes,
        "verdict": verdict,
    }


def _adapter(spec: ModelSpec, variant: Variant, host: Host) -> Engine | None:
    """An engine for the variant: where there is a GPU, rather one that computes on it."""
    able = [one for one in engines() if variant.format in one.formats and spec.type in one.types]
    if host.gpus:
        able.sort(key=lambda one: not host.engines.get(one.name, UNKNOWN).cuda)
    return next(iter(able), None)


def _setup(spec: ModelSpec, variant: Variant, host: Host, engine: Engine | None) -> Setup:
    shape = spec.shape(variant.size)
    known = _known_bytes(variant, host)
    stored = weights_bytes(variant, shape) if known is None else known
    weights = loaded_bytes(variant, shape, stored)
    if engine is None:
        return Setup(shape, weights)
    options = engine.fill_defaults(engine.options.parse(engine.name, {}), host, weights)
    on_gpu = host.gpus and host.engines.get(engine.name, UNKNOWN).cuda
    gpus = [max(host.gpus, key=lambda gpu: gpu.free_bytes).name] if on_gpu else []
    subject = subject_of(variant, engine.name, options, host, gpus)
    pooled = spec.type != "LLM"
    evidence = host.evidence
    return Setup(shape, weights, engine, options, pooled, known, subject, evidence, len(gpus))


def _known_bytes(variant: Variant, host: Host) -> int | None:
    """Of the files: as they are here, as a hub or the spec says; None where nobody does."""
    for source in variant.sources:
        if source.hub in LOCAL and (files := local_files(source, host)):
            return sum(files.values())
    keys = [source_key(source) for source in variant.sources]
    for sizes in (host.files, host.evidence.sizes):
        known = next((sizes[key] for key in keys if key in sizes), None)
        if known is not None:
            return known
    return variant.size_bytes
