"""What a launch chooses that names only a model: a table of machines, and that it does not change.

Machines are made up. On each, half of the memory is the launch's on a processor, nine tenths on a
GPU, and whatever is free at the moment makes no difference.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from paddock.engines import engine_names
from paddock.engines.base import Detection, Gpu, Host
from paddock.engines.evidence import Evidence, Measurement
from paddock.launcher.planning.candidates import search_candidates
from paddock.launcher.planning.expect import gpu_bandwidth
from paddock.launcher.planning.plan import LaunchPlan, LaunchRequest
from paddock.launcher.planning.resolve import resolve
from paddock.launcher.planning.servable import Free, chosen, offers_of
from paddock.launcher.planning.subject import subject_of_plan
from paddock.registry.spec import source_key
from tests.catalog import CATALOG

GB = 10**9


def machine(cpus: int, memory: int, gpu: int = 0, **changes: Any) -> Host:
    """A machine with so many GB, of which nine tenths are free, and every engine.

    llama.cpp computes on the processor, as its wheel does.
    """
    gpus = (Gpu(0, "NVIDIA GPU", "GPU-0", gpu * GB, (gpu - 1) * GB, "9.0", "595"),) if gpu else ()
    given: dict[str, Any] = {
        "node": "local",
        "name": "here",
        "cpus": cpus,
        "memory_total_bytes": memory * GB,
        "memory_free_bytes": memory * GB * 9 // 10,
        "disk_free_bytes": 10**13,
        "engines": {
            name: Detection("1", cuda=bool(gpu) and name != "llama.cpp") for name in engine_names()
        },
        "gpus": gpus,
    }
    return Host(**{**given, **changes})


MACHINES = {
    "2 cores, 16 GB": machine(2, 16),
    "8 cores, 32 GB": machine(8, 32),
    "24 GB GPU": machine(16, 64, 24),
    "80 GB GPU": machine(16, 128, 80),
}
# Size, quantization, context and slots on each of the machines.
TABLE: dict[str, tuple[tuple[str, str, int, int], ...]] = {
    "qwen2.5-instruct": (
        ("7", "q4_k_m", 32768, 1),
        ("7", "q4_k_m", 32768, 4),
        ("14", "Int4", 32768, 1),
        ("72", "Int4", 32768, 2),
    ),
    "qwen3": (
        ("8", "Q4_K_M", 16384, 1),
        ("8", "Q4_K_M", 32768, 2),
        ("30", "Int4", 16384, 1),
        ("32", "Int4", 32768, 4),
    ),
    "glm4-chat": (
        ("9", "Q4_K", 32768, 1),
        ("9", "Q4_K", 32768, 4),
        ("9", "none", 32768, 1),
        ("9", "none", 32768, 4),
    ),
    "llama-3.1-instruct": (
        ("8", "Q4_K_M", 16384, 1),
        ("8", "Q4_K_M", 32768, 2),
        ("8", "Int4", 32768, 2),
        ("70", "Int4", 32768, 2),
    ),
    "Qwen3-Coder": (
        ("30", "UD-IQ2_XXS", 8192, 1),
        ("30", "Q3_K_S", 16384, 1),
        ("30", "Int4", 16384, 1),
        ("30", "Int4", 32768, 4),
    ),
    "mixtral-v0.1": (
        ("46_7", "Q2_K", 8192, 1),
        ("46_7", "Q2_K", 8192, 1),
        ("46_7", "Q4_K_M", 32768, 1),
        ("46_7", "Int4", 32768, 4),
    ),
    "mistral-instruct-v0.3": (
        ("7", "Q4_K_M", 16384, 1),
        ("7", "Q4_K_M", 32768, 2),
        ("7", "Int4", 32768, 2),
        ("7", "Int4", 32768, 4),
    ),
    "gemma-3-it": (
        ("4", "Q4_K_M", 32768, 4),
        ("4", "Q4_K_M", 32768, 4),
        ("4", "none", 32768, 2),
        ("27", "none", 16384, 1),
    ),
}


def plan(host: Host, name: str, **request: Any) -> LaunchPlan:
    return resolve(LaunchRequest.parse(model_name=name, **request), CATALOG, [host])


def choice(made: LaunchPlan) -> tuple[str, str, int, int]:
    return made.size, made.quantization, made.context_length, made.slots


def test_documented_choices_are_these() -> None:
    """`docs/choices.md` has the same table."""
    lines = [f"| model | {' | '.join(MACHINES)} |", "|---|---|---|---|---|"]
    for name, choices in TABLE.items():
        cells = [
            f"{size} {quantization}, {context} × {slots}"
            for size, quantization, context, slots in choices
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    page = Path("docs/choices.md").read_text("utf-8")
    assert "\n".join(lines) in page


@pytest.mark.parametrize("where", MACHINES)
@pytest.mark.parametrize("name", TABLE)
def test_choices_of_a_model_on_a_machine(name: str, where: str) -> None:
    """Size, quantization, context and slots are those of the table."""
    made = plan(MACHINES[where], name)
    assert choice(made) == TABLE[name][list(MACHINES).index(where)]


@pytest.mark.parametrize("where", MACHINES)
def test_choice_does_not_follow_what_is_free(where: str) -> None:
    """A machine on which others take their part chooses the same ten minutes later."""
    host = MACHINES[where]
    gpus = tuple(replace(gpu, free_bytes=gpu.free_bytes * 19 // 20) for gpu in host.gpus)
    busy = replace(host, memory_free_bytes=host.memory_free_bytes * 7 // 10, gpus=gpus)
    for name in TABLE:
        forced = {"force": True}  # what does not fit now is refused, which is another question
        assert choice(plan(busy, name, **forced)) == choice(plan(host, name, **forced))


@pytest.mark.parametrize("where", MACHINES)
def test_no_model_is_chosen_in_sixteen_bits_while_a_quantization_serves(where: str) -> None:
    """Over the whole catalogue of language models, where none is here.

    A GPU takes 16 bits of what only a processor could serve quantized.
    """
    host = MACHINES[where]
    for spec in CATALOG:
        if spec.type != "LLM":
            continue
        quantized = {
            offer.size
            for offer in offers_of(spec, host)
            if offer.engine and offer.format in {"ggufv2", "gptq", "awq"}
            if offer.on_gpu or not host.gpus
        }
        if len(quantized) == len(spec.sizes):
            made = plan(host, spec.name, force=True)
            assert made.quantization.casefold() not in {"none", "bf16", "f16", "fp16", "f32"}


def test_processor_gets_about_eight_billion_or_four_active() -> None:
    """However much memory it has. Of a mixture of experts only what is active counts."""
    large = machine(8, 512)
    assert plan(large, "qwen2.5-instruct").size == "7"
    assert plan(large, "Qwen3-Coder").size == "30"
    reason = next(one for one in plan(large, "qwen2.5-instruct").reasons if "variant" in one)
    assert "largest that is quick on a processor" in reason


def test_bandwidth_that_was_measured_decides_what_is_quick() -> None:
    """Slow memory gets a smaller model; the plan has the speed, and says that it is reckoned."""
    slow = replace(machine(2, 16), memory_bandwidth=12e9)
    made = plan(slow, "qwen2.5-instruct")
    assert made.size == "3"
    assert made.expected is not None
    assert made.expected.source == "formula"
    assert made.expected.tokens_per_second is not None
    assert 3 < made.expected.tokens_per_second < 6
    fast = plan(replace(slow, memory_bandwidth=60e9), "qwen2.5-instruct")
    assert fast.size == "7"
    assert LaunchPlan.from_json(fast.to_json()) == fast


def test_model_that_is_slow_in_all_sizes_gets_its_smallest() -> None:
    """Better slow than not at all; the reason says so."""
    slow = replace(machine(2, 64), memory_bandwidth=1e9)
    made = plan(slow, "qwen2.5-instruct")
    assert made.size == "0_5"
    made = plan(machine(8, 64), "llama-3.3-instruct")
    assert made.quantization == "Q4_K_M" or made.memory.needed_bytes > 32 * GB


def test_measurement_on_this_machine_is_what_is_expected() -> None:
    """Speed and load time of these weights on this engine, whatever context they had."""
    host = machine(8, 32)
    first = plan(host, "qwen3")
    seen = Measurement(
        subject=replace(subject_of_plan(first), context_length=4096, slots=1),
        at=1.0,
        weights_bytes=first.weights.size_bytes,
        start_bytes=1,
        peak_bytes=1,
        load_seconds=7.5,
        speed=6.25,
        prompt_speed=40.0,
    )
    known = replace(host, evidence=Evidence(measured={seen.subject: seen}))
    expected = plan(known, "qwen3").expected
    assert expected is not None
    assert (expected.source, expected.tokens_per_second) == ("measured", 6.25)
    assert (expected.load_seconds, expected.prompt_tokens_per_second) == (7.5, 40.0)
    elsewhere = replace(seen, machine="another")
    other = replace(host, evidence=Evidence(measured={seen.subject: elsewhere}))
    assert plan(other, "qwen3").expected is None


def test_weights_that_are_here_are_taken() -> None:
    """A variant that somebody has brought is not passed over for a download."""
    host = machine(8, 64)
    spec = CATALOG.lookup("qwen3")
    (variant,) = spec.select(format="ggufv2", size="14", quantization="Q5_K_M")
    source = variant.sources[0]
    key = f"{source.hub}:{source.id}@{source.revision or ''}/{source.file or ''}"
    made = plan(replace(host, files={key: 10 * GB}), "qwen3")
    assert (made.size, made.quantization) == ("14", "Q5_K_M")
    assert "its weights are here" in made.reasons[0]


@pytest.mark.parametrize("name", ["qwen3", "mixtral-instruct-v0.1", "qwen2.5-instruct"])
def test_nodes_that_are_alike_are_paired_together_and_others_not(name: str) -> None:
    """What many nodes can serve is what each of them can; names and free memory are its own."""
    one = machine(8, 32)
    spec = CATALOG.lookup(name)
    source = source_key(spec.variants[-1].sources[0])
    nodes = [
        replace(one, node="a", name="a", memory_free_bytes=GB),
        replace(one, node="b", name="b", files={source: 5 * GB, "other/model": GB}),
        replace(one, node="c", name="c", files={"other/model": GB}),
        replace(machine(16, 64, 24), node="d", name="d"),
        replace(one, node="e", name="e", engines={"llama.cpp": Detection("2")}),
    ]
    request = LaunchRequest(model_name=name)

    together = search_candidates(request, spec, spec.variants, nodes)
    by_itself = [search_candidates(request, spec, spec.variants, [node]) for node in nodes]

    assert together.servable
    for node, alone in zip(nodes, by_itself, strict=True):
        assert [c for c in together.servable if c.host is node] == alone.servable


def test_more_than_half_of_the_machine_is_only_taken_when_asked_for() -> None:
    """A size that is named may take nine tenths, with a context that is no longer than needed."""
    host = machine(8, 32)
    for name in TABLE:
        made = plan(host, name)
        assert made.memory.needed_bytes <= 16 * GB or made.quantization == "Q2_K", name
    made = plan(host, "qwen2.5-instruct", size="32")
    assert made.quantization == "q4_k_m"
    assert (made.context_length, made.slots) == (8192, 1)
    assert 16 * GB < made.memory.needed_bytes < 29 * GB


def test_context_is_long_enough_for_agents_and_the_plan_says_so() -> None:
    """32k, 16k or 8k; not what the model could."""
    reasons = plan(machine(8, 32), "llama-3.1-instruct").reasons
    context = next(one for one in reasons if one.startswith("context"))
    assert context == "context 32768: of 131072; an agent's first prompt has 7,000 to 20,000 tokens"
    short = next(
        one
        for one in plan(machine(2, 16), "llama-3.1-instruct").reasons
        if one.startswith("context")
    )
    assert "the memory for it holds no more" in short


def test_tight_plan_has_a_warning() -> None:
    """Above four fifths of what is free, with the figure."""
    host = machine(8, 32, memory_free_bytes=15 * GB)
    (warning,) = plan(host, "qwen3").warnings
    assert "of the 15.00 GB that are free on here" in warning
    assert plan(machine(8, 32), "qwen3").warnings == ()


def test_search_chooses_as_a_launch_does() -> None:
    """`search --fits` and the dashboard name what a launch would take, from their table alone."""
    for host in MACHINES.values():
        for name in TABLE:
            offers = offers_of(CATALOG.lookup(name), host)
            best = chosen([offer for offer in offers if offer.engine])
            made = plan(host, name, force=True)
            assert (best.size, best.quantization, best.engine) == (
                made.size,
                made.quantization,
                made.engine,
            )
            assert best.fits(Free.on(host)) or not made.memory.fits


def test_bandwidth_of_a_gpu_is_found_by_its_name() -> None:
    """As drivers write it; one that nobody knows has none."""
    assert gpu_bandwidth("NVIDIA H100 80GB HBM3") == 3.35e12
    assert gpu_bandwidth("NVIDIA H100 PCIe") == 2.0e12
    assert gpu_bandwidth("NVIDIA A100-SXM4-80GB") == 1.555e12
    assert gpu_bandwidth("NVIDIA GeForce RTX 4090") == 1.008e12
    assert gpu_bandwidth("NVIDIA L40S") == 0.864e12
    assert gpu_bandwidth("Somebody's GPU") == 0
