"""A model's variants on one machine: where each is, who can serve it, what it takes. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from paddock.engines import engine_names, engines
from paddock.engines.base import UNKNOWN, Engine, Host
from paddock.engines.environment import Accelerator
from paddock.launcher.planning.assumed import with_engine
from paddock.launcher.planning.candidates import unable
from paddock.launcher.planning.capacity import CONTEXTS
from paddock.launcher.planning.estimate import estimate_table
from paddock.launcher.planning.memory import weights_bytes
from paddock.launcher.planning.servable import is_here
from paddock.launcher.planning.weight_sources import local_files
from paddock.registry.hubs import LOCAL
from paddock.registry.spec import ModelSpec, Source, Variant, source_key


def variant_rows(
    spec: ModelSpec,
    host: Host,
    accelerator: Accelerator,
    asked_by: str,
    consent: Mapping[str, str],
) -> list[dict[str, Any]]:
    """One row for each variant.

    `asked_by` is what to launch the model by, and `consent` maps the formats that would run a
    repository's code to how that is allowed (`--trust COMMIT`).
    """
    context = min(CONTEXTS[-1], spec.context_length)
    estimates = estimate_table(spec, spec.variants, [context], host)
    adapters = [engine for engine in engines() if engine.formats]
    rows = []
    for variant, estimate in zip(spec.variants, estimates, strict=True):
        reasons = {engine.name: _why_not(spec, variant, engine, host) for engine in adapters}
        adapted = {name.casefold() for name in engine_names()}
        for name in variant.engines:
            if name.casefold() not in adapted:
                reasons[name] = "this version of Paddock has no adapter for it"
        rows.append(
            {
                "model_format": variant.format,
                "model_size_in_billions": variant.size,
                "quantization": variant.quantization,
                **_stored_files(spec, variant, host),
                "sources": [_source(source, host) for source in variant.sources],
                "cached": is_here(variant, host),
                "engines": reasons,
                "installs": [
                    {"engine": engine.name, "command": f"paddock engine install {wanted}"}
                    for engine in adapters
                    if (wanted := _installable(spec, variant, engine, host, accelerator))
                ],
                "consent": consent.get(variant.format),
                "estimate": estimate,
                "fits": estimate["verdict"] == "fits" and None in reasons.values(),
                "launch_command": _command(spec, variant, asked_by, consent),
            }
        )
    return rows


def _why_not(spec: ModelSpec, variant: Variant, engine: Engine, host: Host) -> str | None:
    """Why it cannot serve the variant; reasons that an install would not change come first."""
    lasting = _unable(spec, variant, engine, with_engine(engine, host))
    return lasting or _unable(spec, variant, engine, host)


def _unable(spec: ModelSpec, variant: Variant, engine: Engine, host: Host) -> str | None:
    reason = unable(spec, variant, engine, host)
    if (
        reason is None
        and all(s.hub in LOCAL for s in variant.sources)
        and not is_here(variant, host)
    ):
        return f"its weights are not on {host.name}, and the spec names no other place"
    return reason


def _installable(
    spec: ModelSpec, variant: Variant, engine: Engine, host: Host, accelerator: Accelerator
) -> str | None:
    """The environment that makes it serve the variant, where it is not there."""
    environment, detection = engine.environment, host.engines.get(engine.name, UNKNOWN)
    if environment is None or not environment.pins(accelerator):
        return None
    if not (detection.missing or detection.formats) or not _unable(spec, variant, engine, host):
        return None
    refusal = _unable(spec, variant, engine, with_engine(engine, host))
    return environment.name if refusal is None else None


def _stored_files(spec: ModelSpec, variant: Variant, host: Host) -> dict[str, Any]:
    """The variant's files, where they are named, and how many bytes they have."""
    named = [source.file for source in variant.sources if source.file]
    files: list[dict[str, Any]] | None = None
    if named:
        files = [{"name": named[0], "size_bytes": variant.size_bytes}]
    for source in variant.sources:
        local = local_files(source, host) if source.hub in LOCAL else {}
        if local:
            files = [{"name": name, "size_bytes": size} for name, size in sorted(local.items())]
            return {"files": files, "size_bytes": sum(local.values()), "size_from": "measured"}
        if source_key(source) in host.files:
            size = host.files[source_key(source)]
            return {"files": files, "size_bytes": size, "size_from": "measured"}
    return {
        "files": files,
        "size_bytes": weights_bytes(variant, spec.shape(variant.size)),
        "size_from": "reckoned" if variant.size_bytes is None else "stated",
    }


def _source(source: Source, host: Host) -> dict[str, Any]:
    local = source.hub in LOCAL
    return {
        "hub": source.hub,
        "id": source.id,
        "revision": source.revision,
        "file": source.file,
        "cached": bool(local_files(source, host)) if local else source_key(source) in host.files,
    }


def _command(spec: ModelSpec, variant: Variant, asked_by: str, consent: Mapping[str, str]) -> str:
    size = ["--size-in-billions", variant.size] if len(spec.sizes) > 1 else []
    argv = ["paddock", "launch", asked_by, "--model-format", variant.format, *size]
    allowed = shlex.split(consent.get(variant.format, ""))
    return shlex.join([*argv, "--quantization", variant.quantization, *allowed])
