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
from paddock.launcher.hosts.environ import engine_environment
from paddock.launcher.hosts.file_records import FileRecords
from paddock.launcher.hosts.host import LOCAL as HERE
from paddock.launcher.planning.plan import LaunchPlan, PlannedWeights
from paddock.launcher.planning.subject import subject_of_plan
from paddock.launcher.truth.store import TruthStore
from paddock.launcher.weights.local import folder_of
from paddock.registry.errors import ProbeFailed
from paddock.registry.hubs import LOCAL
from paddock.registry.shards import shard_names
from paddock.registry.spec import Architecture, source_key

FAILED_SECONDS = 300.0
"""After so long an engine that failed to answer is asked again."""


class Asker:
    """Asks one question at a time: engines that answer take a core for a second."""

    def __init__(self, store: TruthStore, home: Path) -> None:
        self._store = store
        self._records = FileRecords(home)
        self._failed: dict[Subject, tuple[float, str]] = {}
        self._asking = asyncio.Lock()

    async def ask(self, plan: LaunchPlan, architecture: Architecture) -> tuple[bool, str]:
        """Asks the engine of a plan whose memory is a formula's.

        Returns:
            Whether more is known now, and if it said nothing, why not.
        """
        if plan.memory.source != "formula" or plan.node != HERE or plan.gpus:
            return False, ""
        if not plan.weights.here or plan.attached is not None:
            return False, ""
        subject = subject_of_plan(plan)
        async with self._asking:
            failed_at, reason = self._failed.get(subject, (0.0, ""))
            if failed_at and time.monotonic() - failed_at < FAILED_SECONDS:
                return False, reason
            try:
                return await asyncio.to_thread(self._ask, plan, architecture, subject), ""
            except (ProbeFailed, OSError) as error:
                reason = str(error)
                self._failed[subject] = (time.monotonic(), reason)
                return False, reason

    def _ask(self, plan: LaunchPlan, architecture: Architecture, subject: Subject) -> bool:
        engine = load_engine(plan.engine)
        weights = self._path(plan.weights)
        if weights is None:
            return False
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
        """The file that the engine would be given; None: it is not one file, or not known."""
        names = [file.name for file in weights.files]
        if not names or (len(names) > 1 and tuple(names) != shard_names(names[0])):
            return None
        if weights.hub in LOCAL:
            return folder_of(weights.hub, weights.id) / names[0]
        paths = self._records.paths(source_key(weights.sources[0]))
        return next((path for path in paths if path.name == Path(names[0]).name), None)
