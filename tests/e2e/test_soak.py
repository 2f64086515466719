"""A minute of random faults: nothing is lost, and nothing is left."""

from __future__ import annotations

from bench.soak import run

SECONDS = 45.0
SEED = 20261130


def test_soak_ends_well() -> None:
    """Every model that is wanted serves, nothing else lives, and no bug was met."""
    result = run(SECONDS, SEED)
    assert result["wrong"] == []
    assert result["tracebacks"] == 0
    assert result["answers"]["answered"] > 0
