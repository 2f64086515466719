"""What is known beats what is reckoned: asked of the engine, and better, measured."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from paddock.engines.evidence import Asked, Evidence, Measurement, Subject
from paddock.launcher.planning.estimate import estimate_table
from paddock.launcher.planning.plan import LaunchPlan, LaunchRequest, MemoryEstimate
from paddock.launcher.planning.reckon import FULL_BATCH, replace_measured
from paddock.launcher.planning.resolve import resolve
from paddock.launcher.planning.subject import subject_of_plan
from tests.catalog import CATALOG
from tests.launcher.planning.test_resolve import host


def plan(evidence: Evidence, **values: Any) -> LaunchPlan:
    """A launch of tiny-mixtral on a host of which this is known."""
    request = LaunchRequest.parse(model_name="tiny-mixtral", quantization="Q4_K_M", **values)
    return resolve(request, CATALOG, [replace(host(), evidence=evidence)])


SUBJECT = subject_of_plan(plan(Evidence()))
WEIGHTS = plan(Evidence()).weights.size_bytes
ASKED = Asked(2_600_000, 2_500_000, 8_000_000, 5_000_000, 20_000_000, WEIGHTS, at=50.0)
MEASURED = Measurement(SUBJECT, 100.0, WEIGHTS, 30_000_000, 34_000_000, longest_prompt=FULL_BATCH)


def test_nothing_is_known() -> None:
    """Then it is the formula's."""
    assert plan(Evidence()).memory.source == "formula"


def test_what_the_engine_says_takes_the_place_of_the_formula() -> None:
    """All parts of it."""
    memory = plan(Evidence(asked={SUBJECT: ASKED})).memory
    assert (memory.source, memory.at) == ("engine", 50.0)
    assert memory.weights_bytes == ASKED.weights_bytes
    assert memory.cache_bytes == ASKED.cache_bytes
    assert memory.overhead_bytes == ASKED.compute_bytes + ASKED.process_bytes


def test_what_was_measured_beats_both() -> None:
    """The peak is what the next one is planned to take."""
    memory = plan(Evidence({SUBJECT: MEASURED}, {SUBJECT: ASKED})).memory
    assert (memory.source, memory.at) == ("measured", 100.0)
    assert memory.total_bytes == MEASURED.peak_bytes + ASKED.mapped_bytes


@pytest.mark.parametrize(
    "other",
    [
        {"context_length": 1024},
        {"engine_options": {"n_ubatch": "128"}},
        {"engine_options": {"n_parallel": "1"}},
    ],
)
def test_only_the_very_same_counts(other: dict[str, Any]) -> None:
    """Another context, other slots or options are reckoned."""
    memory = plan(Evidence({SUBJECT: MEASURED}, {SUBJECT: ASKED}), **other).memory
    assert memory.source == "formula"


def test_other_weights_by_the_same_name_are_reckoned() -> None:
    """A file of another size is another model."""
    other = replace(MEASURED, weights_bytes=2 * WEIGHTS)
    assert plan(Evidence({SUBJECT: other})).memory.source == "formula"


def test_estimate_says_the_same() -> None:
    """One reckoner."""
    planned = plan(Evidence({SUBJECT: MEASURED}))
    here = replace(host(), evidence=Evidence({SUBJECT: MEASURED}))
    spec = CATALOG.lookup("tiny-mixtral")
    variants = spec.select(format="ggufv2", quantization="Q4_K_M")
    (row,) = estimate_table(spec, variants, [planned.context_length], here, planned.slots)
    assert (row["source"], row["total_bytes"]) == ("measured", planned.memory.total_bytes)


ESTIMATE = MemoryEstimate(
    weights_bytes=1000, cache_bytes=400, overhead_bytes=300, free_bytes=10_000
)


def measured(start: int, peak: int, longest_prompt: int = FULL_BATCH) -> Measurement:
    """Of no matter what."""
    subject = Subject("e", "1", "w", "{}", 1, 1)
    return Measurement(subject, 1.0, 1000, start, peak, longest_prompt)


def test_cache_that_grows_stays_reckoned_full() -> None:
    """An engine that takes its cache as requests fill it had little of it when it was measured."""
    new = replace_measured(ESTIMATE, measured(1200, 1250), None, allocates_cache=False)
    assert (new.cache_bytes, new.total_bytes) == (400, 1000 + 400 + 200)
    full = replace_measured(ESTIMATE, measured(1200, 1700), None, allocates_cache=False)
    assert full.total_bytes == 1700


def test_buffers_that_no_prompt_has_filled_stay_reckoned() -> None:
    """By what the engine said of them, else by the formula."""
    start = measured(1450, 1460, longest_prompt=3)
    assert replace_measured(ESTIMATE, start, None, allocates_cache=True).overhead_bytes == 300
    asked = Asked(1000, 0, 400, compute_bytes=70, process_bytes=200, file_bytes=1000)
    said = replace_measured(ESTIMATE, start, asked, allocates_cache=True)
    assert said.overhead_bytes == 60 + 70


def test_pages_of_files_were_not_measured() -> None:
    """Weights that stay in their file are added to what the process holds of its own."""
    paged = ESTIMATE.model_copy(update={"paged": True})
    new = replace_measured(paged, measured(450, 470), None, allocates_cache=True)
    assert (new.weights_bytes, new.overhead_bytes) == (1000, 70)


def test_measurement_that_cannot_be_is_not_used() -> None:
    """Less than weights and cache: they lie elsewhere than was thought."""
    assert replace_measured(ESTIMATE, measured(900, 900), None, allocates_cache=True) == ESTIMATE


def test_weights_on_a_gpu_were_measured() -> None:
    """There they are no pages of a file, whatever the engine does with the host's memory."""
    paged = ESTIMATE.model_copy(update={"paged": True})
    there = measured(1450, 1470)
    there = replace(there, subject=replace(there.subject, device="1 x NVIDIA H200"))
    new = replace_measured(paged, there, None, allocates_cache=True)
    assert (new.weights_bytes, new.overhead_bytes) == (1000, 70)
