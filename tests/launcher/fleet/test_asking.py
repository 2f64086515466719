"""Engines are asked what a launch takes: of files that are here, and of headers on a hub."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from paddock.launcher.fleet.asking import Asker
from paddock.launcher.fleet.hub_facts import HubFacts
from paddock.launcher.hosts.file_records import FileRecords
from paddock.launcher.planning.cache import cache_bytes
from paddock.launcher.planning.plan import LaunchPlan, LaunchRequest, MemoryEstimate
from paddock.launcher.planning.resolve import resolve
from paddock.launcher.planning.subject import subject_of_plan
from paddock.launcher.truth.store import TruthStore
from paddock.registry.catalog import specs_root
from paddock.registry.settings import read_settings
from tests.catalog import CATALOG
from tests.fakes import HubServer
from tests.launcher.planning.test_resolve import host

REPO, FILE = "TheBloke/Mixtral-8x7B-v0.1-GGUF", "mixtral-8x7b-v0.1.Q4_K_M.gguf"
TINY = specs_root() / "weights/tiny-mixtral/ggufv2/tiny-mixtral.Q4_K_M.gguf"


def planned(free_bytes: int, **wishes: str) -> LaunchPlan:
    """A launch of Mixtral from a hub, whose memory is this small part of what is free."""
    wishes = {"quantization": "Q4_K_M", "format": "ggufv2", "hub": "huggingface", **wishes}
    request = LaunchRequest.parse(
        model_name="mixtral-v0.1", context_length=512, engine_options={"n_parallel": 1}, **wishes
    )
    here = replace(host(), memory_free_bytes=100_000_000_000, disk_free_bytes=100_000_000_000)
    plan = resolve(request, CATALOG, [here])
    memory = MemoryEstimate(
        weights_bytes=100, cache_bytes=10, overhead_bytes=10, free_bytes=free_bytes
    )
    return plan.model_copy(update={"memory": memory})


@pytest.fixture
def store(tmp_path: Path) -> TruthStore:
    """An empty one."""
    return TruthStore(tmp_path / "home")


@pytest.fixture
def asker(store: TruthStore, tmp_path: Path, hub: HubServer) -> Asker:
    """Asks with the hub in reach, which has a small model by the name of a large one."""
    hub.repos[REPO] = {FILE: TINY.read_bytes()}
    settings = read_settings({"home": str(tmp_path / "home")})
    return Asker(store, settings, HubFacts(store, settings))


async def test_header_on_a_hub_tells_what_a_tight_launch_takes(
    asker: Asker, store: TruthStore, hub: HubServer
) -> None:
    """Nothing but the header is fetched, and nothing of it is left."""
    plan = planned(free_bytes=121)
    shape = CATALOG.lookup("tiny-mixtral").shape("0_004")
    assert await asker.ask(plan, shape, may_download=False) == (False, "")
    assert hub.files() == []
    assert await asker.ask(plan, shape, may_download=True) == (True, "")
    asked = store.evidence().asked[subject_of_plan(plan)]
    assert asked.file_bytes == TINY.stat().st_size
    mib = 1024 * 1024
    assert abs(asked.cache_bytes - cache_bytes(shape, 512)) <= mib
    assert abs(asked.weights_bytes - asked.file_bytes) <= 3 * mib
    assert asked.process_bytes > 0


async def test_file_in_a_hubs_cache_is_found_by_what_was_brought(
    asker: Asker, store: TruthStore, tmp_path: Path
) -> None:
    """Without asking the hub's client, which the gateway never imports."""
    path = tmp_path / FILE
    path.write_bytes(TINY.read_bytes())
    plan = planned(free_bytes=100_000)
    weights = plan.weights.model_copy(update={"here": True})
    records = FileRecords(tmp_path / "home")
    records.note(path, "digest")
    records.mark_complete(weights.sources[0], [path])
    plan = plan.model_copy(update={"weights": weights})
    shape = CATALOG.lookup("tiny-mixtral").shape("0_004")
    assert await asker.ask(plan, shape, may_download=False) == (True, "")
    assert store.evidence().asked[subject_of_plan(plan)].file_bytes == path.stat().st_size


async def test_launch_with_much_room_reads_no_header(asker: Asker, hub: HubServer) -> None:
    """It is right by the formula, whatever the last byte."""
    plan = planned(free_bytes=100_000)
    shape = CATALOG.lookup("tiny-mixtral").shape("0_004")
    assert await asker.ask(plan, shape, may_download=True) == (False, "")
    assert hub.asked == []


async def test_hub_that_gives_no_header_leaves_the_plan_as_it_is(
    asker: Asker, hub: HubServer
) -> None:
    """The download that follows says what is wrong there."""
    del hub.repos[REPO]
    shape = CATALOG.lookup("tiny-mixtral").shape("0_004")
    assert await asker.ask(planned(free_bytes=121), shape, may_download=True) == (False, "")
