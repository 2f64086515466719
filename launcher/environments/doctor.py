"""Looks an engine over: is it here, does it import, does it serve the bundled model?"""

from __future__ import annotations

import asyncio
import os
import secrets
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from paddock.engines.base import Engine
from paddock.launcher.hosts.environ import engine_environment
from paddock.launcher.hosts.host import probe_host
from paddock.launcher.planning.plan import LaunchPlan, LaunchRequest
from paddock.launcher.planning.resolve import resolve
from paddock.launcher.replicas.diagnosis import LINES, Diagnosis
from paddock.launcher.replicas.replica import Replica
from paddock.launcher.replicas.status import ReplicaConfig
from paddock.registry.catalog import Catalog
from paddock.registry.errors import NoEngine, PaddockError
from paddock.registry.settings import Settings

MODEL = "tiny-mixtral"
IMPORT_SECONDS = 300.0


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. `advice` is a command that would help."""

    name: str
    ok: bool
    says: str
    advice: str | None = None
    lines: tuple[str, ...] = field(default=())


def examine(engine: Engine, settings: Settings, report: Callable[[str], None]) -> Iterator[Check]:
    """The checks, in order, up to the first that fails. `report` gets the name of each step.

    The engine is started as a launch starts it, without Ray, and ended again.
    """
    detection = engine.detect()
    if detection.missing:
        yield Check("found", False, detection.missing)
        return
    yield Check("found", True, f"version {detection.version or 'unknown'}")
    if engine.environment is not None:
        report(f"importing {', '.join(engine.environment.modules)}")
        check = _imports(engine)
        yield check
        if not check.ok:
            return
    plan = _plan(engine, settings)
    if isinstance(plan, str):
        yield Check("serves", True, f"not tried: {plan}")
        return
    report(f"starting it with {MODEL} {plan.format} {plan.quantization}")
    yield asyncio.run(_serves(plan, _install(engine)))


def _install(engine: Engine) -> str | None:
    environment = engine.environment
    return None if environment is None else f"paddock engine install {environment.name} --force"


def _imports(engine: Engine) -> Check:
    assert engine.environment is not None
    environment = engine.environment
    installation = environment.active()
    assert installation is not None  # `examine` has checked it
    modules = environment.extra if installation.interpreter else environment.modules
    command = [str(installation.python), "-c", f"import {', '.join(modules)}"]
    try:
        done = subprocess.run(
            command,
            env=engine_environment(os.environ, {}),
            capture_output=True,
            text=True,
            timeout=IMPORT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Check("imports", False, f"not done in {IMPORT_SECONDS:.0f} s", _install(engine))
    lines = [line for line in done.stderr.splitlines() if line]
    if done.returncode:
        message = lines[-1] if lines else f"exit code {done.returncode}"
        return Check("imports", False, message, _install(engine), tuple(lines[-LINES:]))
    return Check("imports", True, f"on {installation.accelerator}, from {installation.folder}")


def _plan(engine: Engine, settings: Settings) -> LaunchPlan | str:
    """A launch of the bundled model; why there can be none."""
    request = LaunchRequest.parse(model_name=MODEL, model_engine=engine.name, context_length=256)
    try:
        return resolve(request, Catalog.load(), [probe_host(settings.home)])
    except NoEngine as error:
        reason = error.refused.get(engine.name, str(error))
        return f"of {MODEL}, the model that is bundled, it has nothing to serve: it {reason}"
    except PaddockError as error:
        return str(error)


async def _serves(plan: LaunchPlan, again: str | None) -> Check:
    with tempfile.TemporaryDirectory() as home:
        config = ReplicaConfig("doctor", plan.to_json(), home, secrets.token_hex(8))
        replica = Replica(config)
        status = await replica.begin()
        try:
            while status.state not in {"ready", "failed"}:
                status = await replica.watch(status.version)
            if status.diagnosis is not None:
                diagnosis = Diagnosis(**status.diagnosis)
                message = f"{diagnosis.cause}: {diagnosis.message}"
                return Check("serves", False, message, again, tuple(diagnosis.lines))
            pieces = [piece async for piece in replica.generate("The old elephant", max_tokens=8)]
        finally:
            await replica.stop()
    assert status.ready_at is not None
    seconds = status.ready_at - status.started_at
    return Check("serves", True, f"ready in {seconds:.1f} s; it said: {''.join(pieces).strip()!r}")
