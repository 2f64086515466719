"""One reckoner: what a plan says of memory is what an estimate says."""

from __future__ import annotations

import pytest

from paddock.launcher.planning.estimate import estimate_table
from paddock.launcher.planning.plan import LaunchRequest
from paddock.launcher.planning.resolve import resolve
from tests.catalog import CATALOG
from tests.launcher.planning.test_resolve import host


@pytest.mark.parametrize("context", [100, 255, 256, 257, 2000, 2048])
@pytest.mark.parametrize("slots", [1, 3])
def test_plan_and_estimate_agree(context: int, slots: int) -> None:
    """At contexts that are no multiple of the engine's step, too."""

    here = host()
    options = {"n_parallel": str(slots)}
    request = LaunchRequest.parse(
        model_name="tiny-mixtral", context_length=context, engine_options=options
    )
    planned = resolve(request, CATALOG, [here]).memory
    spec = CATALOG.lookup("tiny-mixtral")
    variants = spec.select(format="ggufv2", quantization="Q4_K_M")
    (row,) = estimate_table(spec, variants, [context], here, slots)
    assert row["cache_bytes"] == planned.cache_bytes
    assert row["overhead_bytes"] == planned.overhead_bytes
    assert row["total_bytes"] == planned.total_bytes
