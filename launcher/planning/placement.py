"""Which GPUs a launch gets, and what it takes of them. Pure.

Replicas of one model may share a GPU, but each has its own part of it; a replica that has several
GPUs divides itself between them in equal parts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from paddock.engines.base import UNKNOWN, Devices, Engine, EngineOptions, Gpu, Host
from paddock.launcher.planning.plan import LaunchPlan, LaunchRequest, MemoryEstimate, PlannedGpu
from paddock.registry.errors import BadValue, NoRoom

Groups = tuple[tuple[PlannedGpu, ...], ...]
"""Each replica's GPUs."""


def check_gpus(request: LaunchRequest, hosts: Sequence[Host]) -> None:
    """Refuses GPUs that no host has, or more than any.

    Raises:
        BadValue: with the GPUs that there are.
    """
    has = "; ".join(f"{host.name}: {_list_gpus(host.gpus) or 'none'}" for host in hosts)
    reason = f"the GPUs that can be used are: {has}"
    indices = [{gpu.index for gpu in host.gpus} for host in hosts]
    if request.gpu_idx and not any(one >= set(request.gpu_idx) for one in indices):
        raise BadValue("gpu_idx", list(request.gpu_idx), reason)
    if request.n_gpu and not any(request.n_gpu <= len(one) for one in indices):
        raise BadValue("n_gpu", request.n_gpu, reason)


def eligible_gpus(
    request: LaunchRequest, engine: Engine, host: Host, options: EngineOptions
) -> tuple[tuple[Gpu, ...], Devices] | str:
    """The GPUs to choose from and how many each replica takes, or why the request is impossible."""
    among = tuple(gpu for gpu in host.gpus if gpu.index in (request.gpu_idx or {gpu.index}))
    if missing := set(request.gpu_idx) - {gpu.index for gpu in among}:
        return f"{host.name} has no GPU {min(missing)}; it has {_list_gpus(host.gpus) or 'none'}"
    devices = Devices(0)
    if host.gpus and host.engines.get(engine.name, UNKNOWN).cuda:
        devices = engine.devices(options, len(among))
    requested, count = request.n_gpu, devices.count
    if count == 0 and (requested or request.gpu_idx):
        return f"as it is installed there it computes on the processor of {host.name}"
    if requested not in {None, count}:
        return f"its options ask for {count} GPUs for each replica, and n_gpu for {requested}"
    if count > len(among):
        return f"its options ask for {count} GPUs for each replica, of which there are {len(among)}"
    return (among if count else ()), devices


def choose_gpus(
    gpus: Sequence[Gpu], each: int, replicas: int, bytes_each: int
) -> tuple[tuple[tuple[Gpu, ...], ...], int]:
    """The most free GPUs for each replica, from which what earlier replicas take is gone.

    Also the free bytes of the tightest of them when its replica comes.
    """
    free = {gpu.index: gpu.free_bytes for gpu in gpus}
    groups, tightest = [], []
    for _ in range(replicas):
        chosen = sorted(gpus, key=lambda gpu: (-free[gpu.index], gpu.index))[:each]
        tightest.append(min(free[gpu.index] for gpu in chosen))
        for gpu in chosen:
            free[gpu.index] -= bytes_each
        groups.append(tuple(sorted(chosen, key=lambda gpu: gpu.index)))
    return tuple(groups), max(0, min(tightest))


def to_gpu_memory(
    estimate: MemoryEstimate, gpus: Sequence[Gpu], devices: Devices
) -> MemoryEstimate:
    """What was reckoned for the host's memory, in that of GPUs."""
    each, weights = devices.count, estimate.weights_bytes
    if devices.offload_bytes is None:
        free = each * choose_gpus(gpus, each, 1, 0)[1]
        left = max(0, estimate.total_bytes - free)
    else:
        left = devices.offload_bytes * each
    left = min(weights, left)
    changes = {"weights_bytes": weights - left, "offload_bytes": left, "gpus": each, "paged": False}
    return _against(estimate.model_copy(update=changes), gpus)


def _against(memory: MemoryEstimate, gpus: Sequence[Gpu]) -> MemoryEstimate:
    _, tightest = choose_gpus(gpus, memory.gpus, memory.replicas, memory.gpu_bytes)
    return memory.model_copy(update={"free_bytes": tightest * memory.gpus * memory.replicas})


def gpus_of_replicas(memory: MemoryEstimate, gpus: Sequence[Gpu]) -> Groups:
    """Each replica's GPUs; none for what lies in the host's memory."""
    if not memory.gpus:
        return ()
    groups, _ = choose_gpus(gpus, memory.gpus, memory.replicas, memory.gpu_bytes)
    names = PlannedGpu.model_fields
    return tuple(
        tuple(PlannedGpu(**{name: getattr(gpu, name) for name in names}) for gpu in group)
        for group in groups
    )


def estimate_more_replicas(
    plan: LaunchPlan, host: Host, count: int
) -> tuple[MemoryEstimate, Groups]:
    """What `count` more replicas of a plan take of its host as it is now, and the GPUs of each.

    Those are chosen among all of the host's: which ones a launch was held to, plans do not tell.
    """
    memory = plan.memory.model_copy(update={"replicas": count})
    if not memory.gpus:
        return memory.model_copy(update={"free_bytes": host.memory_free_bytes}), ()
    if len(host.gpus) < memory.gpus:
        return memory.model_copy(update={"free_bytes": 0}), ()
    return _against(memory, host.gpus), gpus_of_replicas(memory, host.gpus)


def memory_refusal(
    memory: MemoryEstimate,
    gpus: Groups,
    host: Host,
    way_out: str,
    commands: tuple[str, ...] = (),
) -> NoRoom:
    """The refusal of what does not fit: where GPUs are to hold it, of its part of one of them."""
    if not memory.gpus:
        used = _used(host, "", host.memory_total_bytes, host.memory_free_bytes)
        return NoRoom(
            "memory", host.name, memory.least_bytes, memory.free_bytes, way_out, used, commands
        )
    free = memory.free_bytes // (memory.gpus * memory.replicas)
    every = {gpu.index: gpu for group in gpus for gpu in group}
    tightest = min(every.values(), key=lambda gpu: gpu.free_bytes, default=None)
    used = {}
    if tightest is not None:
        used = _used(host, tightest.uuid, tightest.total_bytes, tightest.free_bytes)
    where = _list_gpus([every[index] for index in sorted(every)], "GPU ")
    where = f"of {where} the tightest" if len(every) > 1 else where or f"{host.name}'s GPUs"
    return NoRoom("GPU memory", where, memory.gpu_bytes, free, way_out, used, commands)


def _used(host: Host, place: str, total_bytes: int, free_bytes: int) -> dict[str, int]:
    """Who holds what is not free: launched models by id, and all other processes together."""
    models = {name: size for name, size in sorted(host.used.get(place, {}).items()) if size}
    promised = sum(host.reserved.values()) if not place else 0
    others = total_bytes - free_bytes - promised - sum(models.values())
    return {**models, NoRoom.OTHERS: others} if others > 0 else models


def explain_gpus(memory: MemoryEstimate, gpus: Groups, among: int) -> Iterator[str]:
    """The reasons of a plan: which GPUs of how many, with the numbers."""
    for number, group in enumerate(gpus):
        whose = f"replica {number}: " if len(gpus) > 1 else ""
        shares = ", ".join(
            f"GPU {gpu.index} ({gpu.name}, {gpu.free_bytes / 1e9:.2f} of "
            f"{gpu.total_bytes / 1e9:.2f} GB free)"
            for gpu in group
        )
        reason = f"the most free of {among}" if among > len(group) else "there are no others"
        takes = f"takes {memory.gpu_bytes / 1e9:.2f} GB" + " of each" * (len(group) > 1)
        yield f"{whose}{shares}: {takes}; {reason}"
    if memory.offload_bytes:
        yield f"{memory.offload_bytes / 1e9:.2f} GB of the weights stay in the host's memory"


def _list_gpus(gpus: Sequence[Gpu | PlannedGpu], prefix: str = "") -> str:
    return ", ".join(f"{prefix}{gpu.index} ({gpu.name})" for gpu in gpus)
