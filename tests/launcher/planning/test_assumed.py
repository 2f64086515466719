"""Plans with engines and GPUs that are not there."""

from __future__ import annotations

from typing import Any

import pytest

from paddock.engines import engine_names
from paddock.engines.base import Detection, Host
from paddock.launcher.planning.assumed import (
    note_missing,
    refuse_assumed,
    with_all_engines,
    with_gpu,
)
from paddock.launcher.planning.estimate import estimate_table
from paddock.launcher.planning.plan import LaunchPlan, LaunchRequest
from paddock.launcher.planning.resolve import resolve
from paddock.registry.errors import BadValue, NoEngine
from tests.catalog import CATALOG
from tests.launcher.planning.test_choice import GB, machine

MISSING = {name: Detection(missing="it is not installed") for name in engine_names()}


def bare(**engines: Detection) -> Host:
    return machine(8, 32, engines={**MISSING, **engines})


def plan(host: Host, **request: Any) -> LaunchPlan:
    return resolve(LaunchRequest.parse(**request), CATALOG, [host])


@pytest.mark.parametrize(
    ("request_", "install"),
    [
        ({"model_engine": "vLLM"}, "paddock engine install vllm"),
        ({"format": "pytorch", "size": "7"}, "paddock engine install transformers"),
        ({"format": "gptq", "size": "7"}, "paddock engine install transformers"),
    ],
)
def test_plan_names_what_has_to_be_installed_first(request_: dict[str, Any], install: str) -> None:
    """The engine need not be there; the command that brings it is in the plan, and a warning."""
    host = bare()
    with pytest.raises(NoEngine):
        plan(host, model_name="qwen2.5-instruct", **request_)
    (assumed,) = with_all_engines([host])
    made = note_missing(plan(assumed, model_name="qwen2.5-instruct", **request_), host)
    assert made.install == install
    assert made.engine_version == "not installed"
    assert install in made.warnings[0]
    assert LaunchPlan.from_json(made.to_json()) == made


def test_engine_that_cannot_be_there_is_not_assumed() -> None:
    """SGLang has no build for a processor: the refusal stands."""
    (assumed,) = with_all_engines([bare()])
    with pytest.raises(NoEngine):
        plan(assumed, model_name="qwen2.5-instruct", model_engine="SGLang")
    on_gpu = with_gpu(bare(), 80 * GB)
    made = plan(on_gpu, model_name="qwen2.5-instruct", model_engine="SGLang", size="7")
    assert note_missing(made, bare()).install == "paddock engine install sglang"


def test_engine_of_ours_that_is_missing_has_its_own_reason() -> None:
    """llama.cpp comes with Paddock, so that there is no command of ours for it."""
    (assumed,) = with_all_engines([bare()])
    made = note_missing(plan(assumed, model_name="qwen2.5-instruct", format="ggufv2"), bare())
    assert made.install is None
    assert "llama.cpp is not installed on here: it is not installed" in made.warnings


def test_gpu_that_is_assumed_is_what_is_planned_for() -> None:
    """In place of those that there are, all free; the plan says that it can not be launched."""
    host = machine(16, 64, 80)
    made = note_missing(plan(with_gpu(host, 24 * GB), model_name="qwen2.5-instruct"), host)
    assert made.memory.free_bytes == 24 * GB
    assert made.size == plan(machine(16, 64, 24), model_name="qwen2.5-instruct").size
    assert made.install is None
    assert any("the GPU is assumed" in warning for warning in made.warnings)


def test_estimate_assumes_too() -> None:
    """Its rows name the engine, and what installs it."""
    spec = CATALOG.lookup("qwen2.5-instruct")
    variants = spec.select(format="gptq", size="7", quantization="Int4")
    (here,) = estimate_table(spec, variants, (8192,), bare())
    assert (here["engine"], here["gpu"]) == ("Transformers", None)
    assert here["install"] == "paddock engine install transformers"
    (row,) = estimate_table(spec, variants, (8192,), with_gpu(bare(), 8 * GB))
    assert row["gpu"] == "GPU 0 (assumed GPU)"
    assert row["install"]
    assert row["verdict"] == "fits"
    (row,) = estimate_table(spec, variants, (8192,), machine(8, 32))
    assert row["install"] is None


@pytest.mark.parametrize(
    ("text", "size"),
    [("24GB", 24 * GB), ("24", None), ("8gib", 8 << 30), (8 * GB, 8 * GB), ("1.5 TB", 1500 * GB)],
)
def test_sizes_have_units(text: Any, size: int | None) -> None:
    """GB are 10⁹ bytes, GiB 2³⁰; a text without a unit is refused."""
    if size is None:
        with pytest.raises(BadValue, match="such as 24GB"):
            LaunchRequest.parse(model_name="m", assume_gpu=text)
    else:
        assert LaunchRequest.parse(model_name="m", assume_gpu=text).assume_gpu == size


def test_no_launch_is_on_a_gpu_that_is_assumed() -> None:
    """It is refused by name."""
    refuse_assumed(None)
    with pytest.raises(BadValue, match="for plans only"):
        refuse_assumed(24 * GB)
