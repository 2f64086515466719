"""What a plan's figures are of: the `Subject` by which evidence is kept and found. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from typing import Any

from paddock.engines.base import EngineOptions, Host
from paddock.engines.evidence import PROCESSOR, Subject, options_text
from paddock.launcher.planning.plan import LaunchPlan
from paddock.registry.spec import Variant


def subject_of_plan(plan: LaunchPlan, number: int = 0) -> Subject:
    """That of the replica of this number."""
    label = f"{plan.model} {plan.size} {plan.format} {plan.quantization}"
    return Subject(
        engine=plan.engine,
        engine_version=plan.engine_version,
        weights=_with_projector(label, plan.weights.projector),
        options=options_text(plan.options),
        context_length=plan.context_length,
        slots=plan.slots,
        device=device_of([gpu.name for gpu in plan.gpus_of(number)]),
    )


def subject_of(
    variant: Variant,
    engine: str,
    options: EngineOptions,
    host: Host,
    gpus: Sequence[str] = (),
    projector: str | None = None,
) -> Subject:
    """That of a variant with an engine on a host; context and slots are still open."""
    dumped: dict[str, Any] = options.model_dump(mode="json")
    return Subject(
        engine=engine,
        engine_version=host.engines[engine].version if engine in host.engines else "",
        weights=weights_label(variant, projector),
        options=options_text(dumped),
        context_length=0,
        slots=0,
        device=device_of(gpus),
    )


def weights_label(variant: Variant, projector: str | None = None) -> str:
    """The weights in a subject's words."""
    return _with_projector(variant.label, projector)


def device_of(gpus: Sequence[str]) -> str:
    """The GPUs of one replica in words; without any, the processor."""
    return f"{len(gpus)} x {gpus[0]}" if gpus else PROCESSOR


def _with_projector(label: str, projector: str | None) -> str:
    return f"{label} + {posixpath.basename(projector)}" if projector else label
