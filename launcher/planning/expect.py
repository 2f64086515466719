"""How fast a variant is likely to answer: as measured on this machine, else by memory bandwidth.

For each token an engine reads the weights that the token passes through once. So bandwidth ÷ bytes
of the active weights bounds the speed of a single request. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

from paddock.engines.evidence import Measurement
from paddock.launcher.planning.pairs import Candidate
from paddock.launcher.planning.plan import Expected, LaunchPlan
from paddock.launcher.planning.subject import device_of, subject_of_plan, weights_label
from paddock.registry.spec import Architecture

BANDWIDTH_SHARE = 0.6
"""The part of the bandwidth that an engine reaches with one request: assumed, not measured."""
GPU_BANDWIDTHS = {
    "B200": 8.0e12,
    "H200": 4.8e12,
    "H100 PCIe": 2.0e12,
    "H100": 3.35e12,
    "A100": 1.555e12,
    "L40S": 0.864e12,
    "L40": 0.864e12,
    "L4": 0.3e12,
    "A10": 0.6e12,
    "T4": 0.32e12,
    "RTX 5090": 1.792e12,
    "RTX 4090": 1.008e12,
    "RTX 3090": 0.936e12,
}
"""Bytes/s by words of the GPU's name, from NVIDIA's data sheets; of several models the slowest."""

Key = tuple[str, str, str]
"""Engine, weights and device of a `Subject`."""


def newest_measurements(measured: Iterable[Measurement]) -> dict[Key, Measurement]:
    """The newest measurement of this machine with a speed, whatever its options and context."""
    newest: dict[Key, Measurement] = {}
    for one in measured:
        if one.machine or not one.speed:
            continue
        key = (one.subject.engine, one.subject.weights, one.subject.device)
        if key not in newest or one.at > newest[key].at:
            newest[key] = one
    return newest


def tokens_per_second(
    candidate: Candidate, shape: Architecture, newest: dict[Key, Measurement]
) -> float:
    """The speed of one request; 0 where nothing is known."""
    device = device_of([gpu.name for gpu in candidate.gpus[: candidate.devices.count]])
    measured = newest.get((candidate.engine.name, weights_label(candidate.variant), device))
    if measured is not None and measured.is_of(candidate.weights.size_bytes):
        return measured.speed
    bandwidth = candidate.host.memory_bandwidth
    if candidate.gpus:
        bandwidth = gpu_bandwidth(candidate.gpus[0].name) * candidate.devices.count
    return by_bandwidth(bandwidth, candidate.loaded_bytes, shape)


def gpu_bandwidth(name: str) -> float:
    """Bytes/s of a GPU's memory; 0 for one that is not in the table."""
    words = f" {name.replace('-', ' ')} "
    return next((rate for key, rate in GPU_BANDWIDTHS.items() if f" {key} " in words), 0.0)


def by_bandwidth(bandwidth: float, loaded_bytes: int, shape: Architecture) -> float:
    """Tokens/s for so many bytes of weights; 0 where the bandwidth is not known."""
    active_bytes = loaded_bytes * shape.active_parameters / shape.parameters
    return BANDWIDTH_SHARE * bandwidth / active_bytes if active_bytes else 0.0


def expect(plan: LaunchPlan, best: Candidate, shape: Architecture) -> Expected | None:
    """What is known of the speed and the start of a planned replica; None where nothing is."""
    subject, evidence = subject_of_plan(plan), best.host.evidence
    newest = newest_measurements(evidence.measured.values())
    similar = newest.get((subject.engine, subject.weights, subject.device))
    known = [
        one
        for one in (evidence.measured.get(subject), similar)
        if one is not None and not one.machine and one.is_of(plan.weights.size_bytes)
    ]
    load = next((one.load_seconds for one in known if one.load_seconds), None)
    speed = next((one.speed for one in known if one.speed), None)
    if speed:
        prompt = next((one.prompt_speed for one in known if one.prompt_speed), None)
        return Expected(
            tokens_per_second=speed,
            prompt_tokens_per_second=prompt,
            load_seconds=load,
            source="measured",
        )
    if plan.type == "LLM" and plan.memory.fits and not plan.memory.offload_bytes:
        speed = round(tokens_per_second(best, shape, {}), 1) or None
    return Expected(tokens_per_second=speed, load_seconds=load) if speed or load else None
