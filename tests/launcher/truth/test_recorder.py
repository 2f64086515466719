"""Measurements from what replicas and requests tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from paddock.engines.evidence import Measurement
from paddock.launcher.planning.plan import LaunchPlan, LaunchRequest
from paddock.launcher.planning.resolve import resolve
from paddock.launcher.truth.recorder import Recorder
from paddock.launcher.truth.store import TruthStore
from tests.catalog import CATALOG
from tests.launcher.planning.test_resolve import host


def planned() -> LaunchPlan:
    request = LaunchRequest.parse(model_name="tiny-mixtral", quantization="Q4_K_M")
    return resolve(request, CATALOG, [host()])


def took(**changes: Any) -> dict[str, Any]:
    """What a replica tells."""
    told = {"weights_bytes": 100, "start_bytes": 50, "peak_bytes": 50, "load_seconds": 1.5}
    return {**told, **changes}


@pytest.fixture
def store(tmp_path: Path) -> TruthStore:
    """An empty one."""
    return TruthStore(tmp_path)


async def kept(recorder: Recorder, store: TruthStore) -> Measurement:
    """The one measurement that is kept."""
    await recorder.close()
    (one,) = store.evidence().measured.values()
    return one


async def test_peaks_and_speeds_come_with_the_end(store: TruthStore) -> None:
    """A short answer tells no speed; of the others it is the middle one."""
    recorder = Recorder(store)
    recorder.hear("m-rep0", planned(), 0, "", took())
    assert (await kept(recorder, store)).peak_bytes == 50
    for seconds in (1.0, 2.0, 4.0):
        recorder.see_request("m-rep0", 600, 0.5, 100, seconds)
    recorder.see_request("m-rep0", 3, 0.5, 3, 0.001)
    recorder.hear("m-rep0", planned(), 0, "", took(peak_bytes=70))
    one = await kept(recorder, store)
    assert (one.start_bytes, one.peak_bytes, one.load_seconds) == (50, 70, 1.5)
    assert (one.speed, one.prompt_speed, one.longest_prompt) == (50.0, 1200.0, 600)


async def test_what_was_told_is_written_once(store: TruthStore) -> None:
    """Statuses come often; the same again is not written."""
    recorder = Recorder(store)
    recorder.hear("m-rep0", planned(), 0, "", took())
    before = await kept(recorder, store)
    store.forget(lambda _: True)
    recorder.hear("m-rep0", planned(), 0, "", took())
    await recorder.close()
    assert store.evidence().measured == {}
    recorder.hear("m-rep0", planned(), 0, "", took(load_seconds=2.0))  # another start
    assert (await kept(recorder, store)).load_seconds != before.load_seconds


async def test_requests_of_an_earlier_start_say_nothing_of_the_next(store: TruthStore) -> None:
    """It may have other options."""
    recorder = Recorder(store)
    recorder.hear("m-rep0", planned(), 0, "far", took())
    recorder.see_request("m-rep0", 600, 0.5, 100, 1.0)
    recorder.hear("m-rep0", planned(), 0, "far", took(load_seconds=2.0))
    one = await kept(recorder, store)
    assert (one.longest_prompt, one.speed, one.machine) == (0, 0.0, "far")
