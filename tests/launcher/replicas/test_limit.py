"""The memory at which a replica is ended."""

import pytest

from paddock.launcher.planning.plan import LaunchPlan, MemoryEstimate
from paddock.launcher.replicas.limit import loading_limit, serving_limit
from tests.launcher.replicas.test_replica import echo

GB = 10**9
HUGE = 10**15


def plan(limit: int | None = None, **memory: int) -> LaunchPlan:
    """A plan with these figures, in GB."""
    estimate = MemoryEstimate(
        **{
            name: value if name in {"paged", "gpus"} else value * GB
            for name, value in {
                "weights_bytes": 8,
                "cache_bytes": 3,
                "overhead_bytes": 1,
                "free_bytes": 100,
                **memory,
            }.items()
        }
    )
    return echo().model_copy(update={"memory": estimate, "memory_limit": limit})


@pytest.mark.parametrize(
    ("asked", "total", "loading", "serving"),
    [
        # 12 GB planned, the weights twice while they are read; a quarter more, but 2 GB at least.
        (plan(), HUGE, 25, 15),
        (plan(weights_bytes=1, cache_bytes=0), HUGE, 5, 4),
        # Mapped weights are no memory of its own, but some engines pack them anew.
        (plan(paged=1), HUGE, 15, 6),
        # A twentieth of the machine stays, unless the plan itself takes that.
        (plan(), 14 * GB, 20, 13.3),
        (plan(), 12 * GB, 20, 12),
        # On a GPU: what it offloads, and what drivers and processes take.
        (plan(gpus=1, offload_bytes=4), HUGE, 30, 15),
        # The user's.
        (plan(limit=5 * GB), HUGE, 5, 5),
        (plan(limit=0), HUGE, 0, 0),
    ],
)
def test_limits(asked: LaunchPlan, total: int, loading: float, serving: float) -> None:
    """While it loads, and while it serves, in GB; it held 0.5 GB when it was ready."""
    assert loading_limit(asked, total) == pytest.approx(loading * GB)
    assert serving_limit(asked, total, GB // 2, True) == pytest.approx(serving * GB)


def test_what_an_engine_held_when_it_was_ready_counts() -> None:
    """Also where the plan knew nothing of it; a cache that is to come has its room beside it."""
    assert serving_limit(plan(), HUGE, 20 * GB, True) == pytest.approx(26.25 * GB)
    assert serving_limit(plan(), HUGE, 20 * GB, False) == pytest.approx(30 * GB)
