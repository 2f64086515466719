"""A minute of random faults: nothing is lost, and nothing is left."""

from __future__ import annotations

import random
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench import soak
from bench.faults import Home
from paddock.launcher.hosts import processes

SECONDS = 45.0
SEED = 3507
"""Each kind of fault comes within the first 13 steps, behind two launches."""


def test_soak_ends_well() -> None:
    """Every model that is wanted serves, nothing else lives, and no bug was met."""
    result = soak.run(SECONDS, SEED)
    assert result["wrong"] == []
    assert result["tracebacks"] == 0
    assert result["answers"]["answered"] > 0


def test_process_is_compared_once_it_has_begun(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One that still imports holds few files; from then on those that it keeps open are told."""
    held = {"age": 1.0, "files": 5}
    gateway = SimpleNamespace(
        pid=1,
        environ=lambda: {processes.ROLE_VARIABLE: "gateway"},
        memory_info=lambda: SimpleNamespace(rss=1),
        num_fds=lambda: held["files"],
        create_time=lambda: time.time() - held["age"],
    )
    monkeypatch.setattr(processes, "belonging", lambda *_: [gateway])
    run = soak.Soak(Home(tmp_path, {}), random.Random(1))
    run.look()
    held.update(age=1000.0, files=5 + soak.GROWN_FILES + 1)
    run.look()
    assert run.growth() == []
    held["files"] += soak.GROWN_FILES + 1
    assert run.growth() == [f"the gateway holds 0 MB and {soak.GROWN_FILES + 1} files more"]
