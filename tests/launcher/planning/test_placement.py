"""Plans on machines with GPUs, which are made up: none is needed to plan for one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from paddock.engines.base import Detection, Gpu, Host
from paddock.launcher.planning.estimate import estimate_table
from paddock.launcher.planning.placement import estimate_more_replicas
from paddock.launcher.planning.plan import LaunchPlan, LaunchRequest
from paddock.launcher.planning.reservations import Reservation, subtract_reservations
from paddock.launcher.planning.resolve import resolve
from paddock.launcher.planning.servable import Free, offers_of
from paddock.registry.errors import BadValue, NoEngine, NoRoom
from tests.catalog import CATALOG

GB = 10**9


def gpu(index: int, total: float = 85, free: float | None = None) -> Gpu:
    left = total - 1 if free is None else free
    names = {85: "NVIDIA H100", 24: "NVIDIA L4"}
    name = names.get(round(total), "GPU")
    return Gpu(index, name, f"GPU-{index}", round(total * GB), round(left * GB), "9.0", "595")


def host(*gpus: Gpu, memory: float = 64, cuda: bool = True, **changes: Any) -> Host:
    names = ("vLLM", "Transformers", "SGLang")
    engines = {name: Detection("1", cuda=cuda) for name in names}
    engines["llama.cpp"] = Detection("1")
    free = round(memory * GB)
    given = {"node": "local", "name": "here", "disk_free_bytes": 10**13, "gpus": gpus, **changes}
    return Host(
        **{"cpus": 16, "memory_total_bytes": free, "memory_free_bytes": free, **given},
        engines=engines,
    )


def plan(*hosts: Host, **request: Any) -> LaunchPlan:
    asked = {"model_name": "mixtral-v0.1", "format": "gptq", "model_engine": "vLLM", **request}
    return resolve(LaunchRequest.parse(**asked), CATALOG, hosts)


def indices(made: LaunchPlan) -> list[list[int]]:
    return [[gpu.index for gpu in group] for group in made.gpus]


def test_gpu_holds_what_the_host_could_not() -> None:
    """Its memory is what counts, and the plan says which one and with which numbers."""
    made = plan(host(gpu(0), memory=8))
    assert indices(made) == [[0]]
    assert made.memory.fits
    assert made.memory.gpus == 1
    assert made.memory.free_bytes == 84 * GB
    (reason,) = [reason for reason in made.reasons if "GPU 0" in reason]
    takes = f"{made.memory.total_bytes / GB:.2f} GB"
    assert reason == f"GPU 0 (NVIDIA H100, 84.00 of 85.00 GB free): takes {takes}; " + (
        "there are no others"
    )
    assert LaunchPlan.from_json(made.to_json()) == made


def test_on_gpus_an_engine_that_is_made_for_them_comes_first() -> None:
    """Of a mixture's tokens vLLM makes five to nine times as many there as Transformers."""
    made = plan(host(gpu(0)), model_engine=None)
    assert made.engine == "vLLM"
    assert "engine vLLM: the first choice for gptq on GPUs" in made.reasons
    assert made.options["n_threads"] is None  # they are a processor's
    made = plan(host(), model_engine=None)
    assert made.engine == "Transformers"
    assert "engine Transformers: the first choice for gptq" in made.reasons
    assert made.options["n_threads"] == 15


def test_the_most_free_gpu_is_taken() -> None:
    """Of mixed sizes too, and where the largest is busy."""
    assert indices(plan(host(gpu(0, 24), gpu(1), gpu(2, 48)))) == [[1]]
    assert indices(plan(host(gpu(0, 85, free=30), gpu(1, 48, free=46)))) == [[1]]
    assert indices(plan(host(*map(gpu, range(8))))) == [[0]]


def test_several_gpus_share_a_replica_in_equal_parts() -> None:
    """As many as the engine's option says; the least free of them is the measure."""
    eight = host(*(gpu(index, free=84 if index % 2 else 60) for index in range(8)))
    options = {"tensor_parallel_size": 4}
    made = plan(eight, format="pytorch", quantization="none", engine_options=options)
    assert indices(made) == [[1, 3, 5, 7]]
    assert made.memory.weights_bytes > 90 * GB
    assert made.memory.gpu_bytes * 4 >= made.memory.total_bytes
    assert made.memory.free_bytes == 4 * 84 * GB
    both = {"tensor_parallel_size": 2, "pipeline_parallel_size": 3}
    made = plan(eight, format="pytorch", quantization="none", engine_options=both)
    assert indices(made) == [[0, 1, 2, 3, 5, 7]]
    assert made.memory.free_bytes == 6 * 60 * GB


def test_replicas_have_gpus_of_their_own_while_there_are_some() -> None:
    """Each takes what is most free once the earlier ones have theirs; then they share."""
    assert indices(plan(host(gpu(0), gpu(1, free=70)), replicas=2)) == [[0], [1]]
    made = plan(host(gpu(0), gpu(1, 24, free=10)), replicas=2)
    assert indices(made) == [[0], [0]]
    assert made.memory.fits
    with pytest.raises(NoRoom, match=r"GPU 0 \(NVIDIA H100\)"):
        plan(host(gpu(0)), replicas=4)


def test_refusal_names_the_gpu_and_both_numbers() -> None:
    """What a replica needs of it, and what it has; beside several, that it is the tightest."""
    full = {"format": "pytorch", "quantization": "none"}
    said = r"needs \d+\.\d\d GB of GPU memory, GPU 0 \(NVIDIA H100\) has 84\.00 GB free "
    with pytest.raises(NoRoom, match=said):
        plan(host(gpu(0)), **full)
    several = host(gpu(0, 24), gpu(1, 24, free=3))
    said = r"of GPU 0 \(NVIDIA L4\), GPU 1 \(NVIDIA L4\) the tightest has 3\.00 GB free"
    with pytest.raises(NoRoom, match=said):
        plan(several, **full, engine_options={"tensor_parallel_size": 2})
    with pytest.raises(NoEngine, match="ask for 4 GPUs for each replica, of which there are 2"):
        plan(several, engine_options={"tensor_parallel_size": 4})


def test_gpus_can_be_named() -> None:
    """By index, to choose among; and counted, which must agree with the engine's options."""
    four = host(*map(gpu, range(4)))
    assert indices(plan(four, gpu_idx=[2])) == [[2]]
    assert indices(plan(four, gpu_idx=[2, 3], replicas=2)) == [[2], [3]]
    assert indices(plan(four, n_gpu=2, engine_options={"tensor_parallel_size": 2})) == [[0, 1]]
    with pytest.raises(BadValue, match=r"gpu_idx.*here: 0 \(NVIDIA H100\), 1"):
        plan(four, gpu_idx=[7])
    with pytest.raises(BadValue, match="n_gpu"):
        plan(four, n_gpu=5)
    with pytest.raises(BadValue, match="here: none"):
        plan(host(), gpu_idx=[0])
    for count in (0, 2):
        with pytest.raises(
            NoEngine, match=f"ask for 1 GPUs for each replica, and n_gpu for {count}"
        ):
            plan(four, n_gpu=count)


def test_what_computes_on_the_processor_lies_in_the_hosts_memory() -> None:
    """llama.cpp's wheel, and engines that were installed for the CPU; they take no GPU's name."""
    made = plan(host(gpu(0)), format="ggufv2", quantization="Q4_K_M", model_engine="llama.cpp")
    assert (made.gpus, made.memory.gpus, made.gpu_share) == ((), 0, 0.0)
    assert made.memory.free_bytes == 64 * GB
    assert plan(host(gpu(0), cuda=False)).gpus == ()
    assert plan(host(gpu(0)), n_gpu=0, model_engine="llama.cpp", format="ggufv2").gpus == ()
    with pytest.raises(NoEngine, match="computes on the processor of here"):
        plan(host(gpu(0)), gpu_idx=[0], format="ggufv2", model_engine="llama.cpp")


def test_weights_can_be_left_in_the_hosts_memory() -> None:
    """As much as vLLM is told to; with Transformers' device map, whatever does not fit."""
    small = host(gpu(0, 24))
    with pytest.raises(NoRoom):
        plan(small)
    made = plan(small, engine_options={"cpu_offload_gb": 10})
    assert made.memory.offload_bytes == 10 * 2**30
    assert made.memory.fits
    spread = {"model_engine": "Transformers", "engine_options": {"device_map": "auto"}}
    made = plan(small, **spread)
    assert made.memory.fits
    assert any("stay in the host's memory" in reason for reason in made.reasons)
    assert plan(host(gpu(0)), **spread).memory.offload_bytes == 0
    assert plan(host(gpu(0), gpu(1)), **spread).memory.gpus == 2
    with pytest.raises(NoRoom, match=r"here has 1\.00 GB"):
        plan(host(gpu(0, 24), memory=1), **spread)
    on_cpu = {"model_engine": "Transformers", "engine_options": {"device_map": "cpu"}}
    assert plan(host(gpu(0)), **on_cpu).gpus == ()


def test_variant_is_chosen_by_the_memory_that_it_would_lie_in() -> None:
    """On machines with little memory. What is not quantized comes before what 16 bits give."""
    left_open = {"format": None, "model_engine": "Transformers", "quantization": None}

    def chosen(*hosts: Host) -> str:
        return plan(*hosts, **left_open).quantization

    sizes = (140, 85, 40)
    assert [chosen(host(gpu(0, size), memory=4)) for size in sizes] == ["Int4"] * 3
    left_open["format"] = "pytorch"
    assert [chosen(host(gpu(0, size), memory=4)) for size in sizes] == ["none", "4-bit", "4-bit"]


def test_node_with_the_most_free_gpu_is_taken() -> None:
    """Not the one with the most memory."""
    near, far = host(gpu(0, 24)), host(gpu(0), memory=8, node="far", name="far")
    assert plan(near, far).node == "far"


def test_more_replicas_go_where_there_is_room_now() -> None:
    """By what the host has free then, and numbered on."""
    made = plan(host(gpu(0), gpu(1)))
    now = host(gpu(0, free=20), gpu(1))
    memory, gpus = estimate_more_replicas(made, now, 1)
    assert memory.can_run
    assert [[gpu.index for gpu in group] for group in gpus] == [[1]]
    assert not estimate_more_replicas(made, host(gpu(0, free=5)), 1)[0].can_run
    assert not estimate_more_replicas(made, host(), 1)[0].can_run


def test_what_is_on_its_way_is_not_free() -> None:
    """Of two launches at once the second takes the other GPU, or is told why there is no room."""
    first = plan(host(gpu(0), gpu(1, free=80)))
    taken = Reservation("a", "local", first.memory, first.gpus_of(0))
    both = subtract_reservations(host(gpu(0), gpu(1, free=80)), [taken])
    assert both.reserved == {"a": first.memory.gpu_bytes}
    second = plan(both, model_uid="b")
    assert (indices(first), indices(second)) == ([[0]], [[1]])
    size = f"{first.memory.gpu_bytes / GB:.2f} GB"
    assert f"reserved: {size} for a, still starting" in second.reasons
    pytorch = {"format": "pytorch", "quantization": "none"}
    with pytest.raises(NoRoom, match=f"{size} for a, still starting"):
        plan(subtract_reservations(host(gpu(0)), [taken]), **pytorch)


def test_what_is_loaded_already_is_not_counted_twice() -> None:
    """Of the host's memory; another node's is not this one's, and mapped weights make way."""
    full = {"format": "pytorch", "quantization": "none", "model_engine": "Transformers"}
    made = plan(host(memory=200), **full)
    needs = made.memory.total_bytes
    for held, left in ((0, 200 * GB - needs), (needs, 200 * GB), (2 * needs, 200 * GB)):
        found = subtract_reservations(
            host(memory=200), [Reservation("a", "local", made.memory, held_bytes=held)]
        )
        assert found.memory_free_bytes == left
    assert subtract_reservations(host(), [Reservation("a", "elsewhere", made.memory)]) == host()
    gguf = {"format": "ggufv2", "quantization": "Q4_K_M", "model_engine": "llama.cpp"}
    mapped = plan(host(), **gguf, engine_options={"repack": "false"}).memory
    found = subtract_reservations(host(), [Reservation("a", "local", mapped)])
    own = mapped.cache_bytes + mapped.overhead_bytes
    assert found.reserved == {"a": own}
    assert found.memory_free_bytes == 64 * GB - own


def test_estimates_and_searches_count_the_gpu() -> None:
    """Where an engine computes on one: its memory decides what fits, not the host's."""
    mixtral = CATALOG.lookup("mixtral-v0.1")
    variants = mixtral.select(format="gptq")
    (row,) = estimate_table(mixtral, variants, (4096,), host(gpu(0, 24), gpu(1), memory=8))
    assert (row["gpu"], row["free_bytes"]) == ("GPU 1 (NVIDIA H100)", 84 * GB)
    assert row["verdict"] == "fits"
    (row,) = estimate_table(mixtral, variants, (4096,), host(gpu(0, 85, free=9), memory=8))
    assert row["verdict"] == "fits once other programs give memory back"
    (row,) = estimate_table(mixtral, variants, (4096,), host(gpu(0, 24), memory=64))
    assert row["verdict"] == "too large"
    (row,) = estimate_table(mixtral, variants, (4096,), host(gpu(0, 24), cuda=False))
    assert (row["gpu"], row["free_bytes"]) == (None, 64 * GB)
    there = host(gpu(0), memory=8)
    (offer,) = [one for one in offers_of(mixtral, there) if one.format == "gptq"]
    assert offer.on_gpu
    assert offer.fits(Free.on(there))
    assert not offer.fits(Free(64 * GB))


def test_a_gpu_is_rather_taken_than_the_processor() -> None:
    """Though the host has more free memory than it."""
    mixed = host(gpu(0), memory=500)
    engines = {**mixed.engines, "Transformers": Detection("1")}
    made = plan(replace(mixed, engines=engines), model_engine=None)
    assert (made.engine, indices(made)) == ("vLLM", [[0]])
