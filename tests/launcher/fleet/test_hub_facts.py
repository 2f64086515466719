"""What a hub says before weights are brought: their size, and the header of a GGUF."""

from __future__ import annotations

from pathlib import Path

import pytest

from paddock.launcher.fleet.planner import Planner
from paddock.launcher.planning.estimate import estimate_table
from paddock.launcher.planning.plan import LaunchRequest
from paddock.launcher.truth.store import TruthStore
from paddock.registry.catalog import specs_root
from paddock.registry.settings import Settings, read_settings
from tests.fakes import Fault, HubServer

MODEL, REPO = "qwen2.5-instruct", "Qwen/Qwen2.5-0.5B-Instruct-GGUF"
FILE, OTHER = "qwen2.5-0.5b-instruct-q4_k_m.gguf", "qwen2.5-0.5b-instruct-q5_k_m.gguf"
TINY = specs_root() / "weights/tiny-mixtral/ggufv2/tiny-mixtral.Q4_K_M.gguf"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A home of its own."""
    return read_settings({"home": str(tmp_path / "home")})


@pytest.fixture
def planner(settings: Settings, hub: HubServer) -> Planner:
    """Plans with the hub in reach, which has a smaller model by another's names."""
    hub.repos[REPO] = {FILE: TINY.read_bytes(), OTHER: TINY.read_bytes()}
    return Planner.alone(settings)


def wish(quantization: str = "q4_k_m", offline: bool = False) -> LaunchRequest:
    """A launch from the hub."""
    return LaunchRequest.parse(
        model_name=MODEL,
        size="0_5",
        format="ggufv2",
        quantization=quantization,
        hub="huggingface",
        context_length=512,
        force=True,
        offline=offline,
    )


async def test_plan_has_the_size_that_the_hub_says(planner: Planner, hub: HubServer) -> None:
    """Asked once: the next plan knows it, and no file is fetched for it."""
    plan = await planner.plan(wish("q5_k_m"))
    assert (plan.weights.size_known, plan.weights.size_bytes) == (True, TINY.stat().st_size)
    asked = len(hub.asked)
    assert (await planner.plan(wish("q5_k_m"))).weights == plan.weights
    assert len(hub.asked) == asked
    assert hub.files() == []


async def test_hub_that_says_no_size_is_not_asked_again_at_once(
    planner: Planner, hub: HubServer
) -> None:
    """The plan has the size that is reckoned, and says that it is."""
    hub.fail("api", *[Fault(status=503)] * 20)
    plan = await planner.plan(wish("q5_k_m"))
    assert not plan.weights.size_known
    assert plan.weights.size_bytes > 400_000_000
    asked = len(hub.asked)
    assert not (await planner.plan(wish("q6_k"))).weights.size_known
    assert len(hub.asked) == asked


async def test_file_that_a_hub_does_not_have_leaves_others_to_be_asked_for(
    planner: Planner, hub: HubServer
) -> None:
    """It is no fault of the hub's."""
    assert not (await planner.plan(wish("q6_k"))).weights.size_known
    assert (await planner.plan(wish("q5_k_m"))).weights.size_known


async def test_plan_offline_asks_nobody(planner: Planner, hub: HubServer) -> None:
    """Nor does a launch, which asks for the weights themselves."""
    plan = await planner.plan(wish("q5_k_m", offline=True))
    assert not plan.weights.size_known
    await planner.plan_launch(await planner.understand(wish("q5_k_m")))
    assert hub.asked == []


async def test_exact_estimate_asks_the_engine_about_a_header(
    planner: Planner, hub: HubServer, settings: Settings
) -> None:
    """Rows of the table are by the engine then; each is asked about once, the header read once."""
    spec = planner.catalog.lookup(MODEL)
    variants = spec.select(size="0_5", format="ggufv2", quantization="q4_k_m")
    host = (await planner.hosts())[0]
    rows = estimate_table(spec, variants, (512, 1024), host)
    assert {row["source"] for row in rows} == {"formula"}
    said: list[str] = []

    assert await planner.ask_exactly(MODEL, rows, say=said.append) == []

    assert len(said) == 2
    assert hub.files() == [FILE]
    host = (await planner.hosts())[0]
    rows = estimate_table(spec, variants, (512, 1024), host)
    # The header is another model's than the spec's.
    asked = TruthStore(settings.home).evidence().asked
    assert sorted(one.context_length for one in asked) == [512, 1024]
    assert {one.slots for one in asked} == {1}


async def test_exact_estimate_says_why_there_is_none(planner: Planner, hub: HubServer) -> None:
    """The hub's own words."""
    del hub.repos[REPO]
    spec = planner.catalog.lookup(MODEL)
    variants = spec.select(size="0_5", format="ggufv2", quantization="q4_k_m")
    rows = estimate_table(spec, variants, (512,), (await planner.hosts())[0])
    (failure,) = await planner.ask_exactly(MODEL, rows)
    assert REPO in failure
