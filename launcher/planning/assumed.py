"""Hosts as they would be with engines or a GPU that they do not have, for plans of what could be.

Pure. Nothing that is planned on them can be launched as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from paddock.engines import engines
from paddock.engines.base import UNKNOWN, Detection, Engine, Gpu, Host
from paddock.engines.environment import Accelerator
from paddock.launcher.planning.plan import LaunchPlan
from paddock.registry.errors import BadValue

NOT_INSTALLED = "not installed"
"""The version of an engine that a plan only assumes."""
ASSUMED_GPU = "assumed GPU"


def with_engine(engine: Engine, host: Host) -> Host:
    """The host as if a new engine was installed there, for its GPUs where it has some."""
    detection = Detection(version=NOT_INSTALLED, cuda=bool(host.gpus and engine.environment))
    return replace(host, engines={**host.engines, engine.name: detection})


def with_all_engines(hosts: Sequence[Host]) -> list[Host]:
    """The hosts with every engine that is not there, as if it was."""
    return [_with_missing(host) for host in hosts]


def _with_missing(host: Host) -> Host:
    for engine in engines():
        missing = host.engines.get(engine.name, UNKNOWN).missing
        if missing and _can_be_there(engine, bool(host.gpus)):
            host = with_engine(engine, host)
    return host


def _can_be_there(engine: Engine, has_gpus: bool) -> bool:
    accelerator: Accelerator = "cuda" if has_gpus else "cpu"
    return engine.environment is None or bool(engine.environment.pins(accelerator))


def install_command(engine: Engine, host: Host, has_gpus: bool) -> str | None:
    """What installs the engine on the host; None if it is there, or no command of ours does."""
    detection = host.engines.get(engine.name, UNKNOWN)
    is_there = not detection.missing and detection.version != NOT_INSTALLED
    if is_there or engine.environment is None:
        return None
    name = engine.environment.name
    return f"paddock engine install {name}" if _can_be_there(engine, has_gpus) else None


def with_gpu(host: Host, total_bytes: int) -> Host:
    """The host with one GPU of this size, all of it free, in place of those that it has.

    Engines that have an environment of their own compute on it; those that are not there are
    assumed.
    """
    gpu = Gpu(0, ASSUMED_GPU, "assumed", total_bytes, total_bytes)
    host = _with_missing(replace(host, gpus=(gpu,)))
    detections = {
        engine.name: replace(host.engines[engine.name], cuda=engine.environment is not None)
        for engine in engines()
        if engine.name in host.engines
    }
    return replace(host, engines={**host.engines, **detections})


def note_missing(plan: LaunchPlan, host: Host) -> LaunchPlan:
    """The plan with what has to be there first. `host` is as it is, without what was assumed."""
    warnings = []
    detection = host.engines.get(plan.engine, UNKNOWN)
    engine = next(one for one in engines() if one.name == plan.engine)
    # Where a GPU is assumed, so is what its engine needs of it.
    install = install_command(engine, host, bool(plan.gpus or host.gpus))
    if install is not None:
        warnings.append(f"{plan.engine} is not installed on {host.name}; first: {install}")
    elif detection.missing:
        warnings.append(f"{plan.engine} is not installed on {host.name}: {detection.missing}")
    if any(gpu.name == ASSUMED_GPU for group in plan.gpus for gpu in group):
        warnings.append("the GPU is assumed: nothing can be launched by this plan")
    return plan.model_copy(update={"install": install, "warnings": (*warnings, *plan.warnings)})


def refuse_assumed(assume_gpu: int | None) -> None:
    """Raises `BadValue` for a launch on a GPU that is not there."""
    if assume_gpu is not None:
        reason = "is for plans only: paddock launch --dry-run, paddock estimate or POST /v1/plan"
        raise BadValue("assume_gpu", assume_gpu, reason)
