"""Asks engines themselves what a planned launch takes, where the weights are here; and keeps it."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import replace
from pathlib import Path

from paddock.engines import load_engine
from paddock.engines.base import Serving
from paddock.engines.evidence import Subject
from paddock.launcher.fleet.hub_facts import HubFacts
from paddock.launcher.hosts.environ import engine_environment
from paddock.launcher.hosts.file_records import FileRecords
from paddock.launcher.hosts.host import LOCAL as HERE
from paddock.launcher.planning.plan import LaunchPlan, PlannedWeights
from paddock.launcher.planning.subject import subject_of_plan
from paddock.launcher.truth.store import TruthStore
from paddock.launcher.weights.local import folder_of
from paddock.registry.errors import ProbeFailed
from paddock.registry.hubs import LOCAL
from paddock.registry.settings import Settings
from paddock.registry.shards import shard_names
from paddock.registry.spec import Architecture, source_key

FAILED_SECONDS = 300.0
"""After so long an engine that failed to answer is asked again."""


TIGHT_SHARE = 0.5
"""Of the free memory: a launch that takes less needs no figures that are exact to be right."""


class Asker:
    """Asks one question at a time: engines that answer take a core for a second."""

    def __init__(self, store: TruthStore, settings: Settings, hub: HubFacts) -> None:
        self._store = store
        self._hub = hub
        self._records = FileRecords(settings.home)
        self._failed: dict[Subject, tuple[float, str]] = {}
        self._asking = asyncio.Lock()

    async def ask(
        self,
        plan: LaunchPlan,
        architecture: Architecture,
        *,
        may_download: bool,
        however_roomy: bool = False,
    ) -> tuple[bool, str]:
        """Asks the engine of a plan whose memory is a formula's.

        Where the weights are on a hub and memory may be short (or however roomy it is), their
        header is read there, if that is allowed; a hub that does not give it leaves the plan as it
        is.

        Returns:
            Whether more is known now, and if it said nothing, why not.
        """
        weights, memory = plan.weights, plan.memory
        is_tight = however_roomy or memory.needed_bytes > TIGHT_SHARE * memory.free_bytes
        if memory.source != "formula" or plan.attached is not None or not _is_one_file(weights):
            return False, ""
        if not weights.here and (weights.offline or not (may_download and is_tight)):
            return False, ""
        if plan.node != HERE or plan.gpus:
            return False, ""
        subject = subject_of_plan(plan)
        async with self._asking:
            failed_at, reason = self._failed.get(subject, (0.0, ""))
            if failed_at and time.monotonic() - failed_at < FAILED_SECONDS:
                return False, reason
            try:
                answered, reason = await self._ask_once(plan, architecture, subject)
                # A launch meets the hub again, when it brings the weights.
                return answered, reason if however_roomy else ""
            except (ProbeFailed, OSError) as error:
                self._failed[subject] = (time.monotonic(), str(error))
                return False, str(error)

    async def _ask_once(
        self, plan: LaunchPlan, architecture: Architecture, subject: Subject
    ) -> tuple[bool, str]:
        weights = plan.weights
        path = self._path(weights) if weights.here else await self._hub.bring_header(weights)
        if isinstance(path, str):
            return False, path
        if path is None:
            return False, ""
        return await asyncio.to_thread(self._ask, plan, path, architecture, subject), ""

    def _ask(
        self, plan: LaunchPlan, weights: Path, architecture: Architecture, subject: Subject
    ) -> bool:
        engine = load_engine(plan.engine)
        projector = plan.weights.projector
        if projector is not None and not projector.startswith("/"):
            return False  # of a repository: where it lies is the hub's client's to say
        serving = Serving(
            model_id=plan.model_id,
            weights=weights,
            port=0,
            api_key="",
            context_length=plan.context_length,
            slots=plan.slots,
            abilities=plan.abilities,
            options=engine.options.parse(plan.engine, plan.options),
            projector=Path(projector) if projector else None,
            quantization=plan.quantization,
        )
        asked = engine.ask(serving, architecture, engine_environment(os.environ, {}))
        if asked is None:
            return False
        self._store.note_asked(subject, replace(asked, at=round(time.time())))
        return True

    def _path(self, weights: PlannedWeights) -> Path | None:
        """The file that the engine would be given; None: where it lies is not known."""
        names = [file.name for file in weights.files]
        if weights.hub in LOCAL:
            return folder_of(weights.hub, weights.id) / names[0]
        paths = self._records.paths(source_key(weights.sources[0]))
        return next((path for path in paths if path.name == Path(names[0]).name), None)


def _is_one_file(weights: PlannedWeights) -> bool:
    """Whether the engine is given one file; where it is the first of several, they must be here."""
    names = tuple(file.name for file in weights.files)
    if len(names) == 1:
        return weights.here or not shard_names(names[0])
    return weights.here and bool(names) and names == shard_names(names[0])
