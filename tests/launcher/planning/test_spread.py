"""Replicas over nodes: the fewest first, where there is room, each planned by itself."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from paddock.engines.base import Detection, Host
from paddock.launcher.planning.plan import LaunchRequest
from paddock.launcher.planning.spread import plan_replicas
from paddock.registry.errors import NoRoom
from tests.launcher.fleet.conftest import catalog, host

GB = 10**9


def node(name: str, free: int = 50 * GB, **changes: Any) -> Host:
    """A machine like this one."""
    return replace(host(), node=name, name=name, memory_free_bytes=free, **changes)


def places(hosts: list[Host], replicas: int, **more: Any) -> Counter[str]:
    """How many replicas come to which node."""
    request = LaunchRequest.parse(
        model_name="tiny-mixtral",
        model_engine="llama.cpp",
        quantization="Q4_K_M",
        replicas=replicas,
        **more,
    )
    plan, found = plan_replicas(request, catalog(), hosts)
    assert plan.replicas == len(found) == replicas
    return Counter(place.node for place in found)


def test_replicas_are_spread_over_all_nodes() -> None:
    """As evenly as can be, the node with the most free memory first."""
    hosts = [node("local"), node("n1", 60 * GB), node("n2", 40 * GB)]
    assert places(hosts, 3) == Counter({"local": 1, "n1": 1, "n2": 1})
    assert places(hosts, 4) == Counter({"local": 1, "n1": 2, "n2": 1})
    assert places(hosts[:1], 3) == Counter({"local": 3})


def test_node_that_is_named_gets_all() -> None:
    """Spreading is the default, not a rule."""
    assert places([node("local"), node("n1")], 2, node="n1") == Counter({"n1": 2})


def test_nodes_without_room_or_engine_are_left_out() -> None:
    """What earlier replicas of the same launch take is not free for the next."""
    engines = {**host().engines, "llama.cpp": Detection(missing="not here")}
    hosts = [node("local"), node("n1", engines=engines), node("n2", 10_000_000)]
    assert places(hosts, 3) == Counter({"local": 3})
    one = LaunchRequest.parse(
        model_name="tiny-mixtral", model_engine="llama.cpp", quantization="Q4_K_M"
    )
    plan, _ = plan_replicas(one, catalog(), [node("local")])
    needed = plan.memory.least_bytes
    hosts = [node("local", needed * 3 // 2), node("n1", needed * 5 // 2)]
    fixed = {"context_length": plan.context_length, "engine_options": {"n_parallel": plan.slots}}
    assert places(hosts, 3, **fixed) == Counter({"local": 1, "n1": 2})


def test_launch_that_no_node_can_take_whole_is_refused() -> None:
    """With the numbers of the node that would have been next."""
    with pytest.raises(NoRoom) as refusal:
        places([node("local", 90_000_000), node("n1", 90_000_000)], 3)
    assert refusal.value.free_bytes < 90_000_000


def test_replica_on_another_node_has_a_plan_of_its_own() -> None:
    """Threads are those of its machine; context and slots are the model's."""
    request = LaunchRequest.parse(
        model_name="tiny-mixtral", model_engine="llama.cpp", quantization="Q4_K_M", replicas=2
    )
    hosts = [node("local", cpus=4), node("n1", 40 * GB, cpus=16)]
    plan, (own, other) = plan_replicas(request, catalog(), hosts)
    assert (plan.node, own.plan) == ("local", None)
    assert other.plan is not None
    assert other.plan.options["n_threads"] == 15
    assert plan.options["n_threads"] == 3
    assert (other.plan.slots, other.plan.context_length) == (plan.slots, plan.context_length)
