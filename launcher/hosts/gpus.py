"""The NVIDIA GPUs of this machine, as the driver's own library (NVML) tells of them.

By NVIDIA's binding, `nvidia-ml-py`: it needs no torch, and is imported only where the driver's
files are. `nvidia-smi` would tell the same, by a process that takes 0.1 to 1 s.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

from paddock.engines.base import Gpu
from paddock.engines.environment import find_accelerator

log = logging.getLogger(__name__)

VISIBLE = "CUDA_VISIBLE_DEVICES"


def probe_gpus() -> tuple[Gpu, ...]:
    """Those that this process may use, by the driver's index; none where there is no driver."""
    if find_accelerator() != "cuda":
        return ()
    import pynvml

    try:
        # Never shut down: to start it anew takes seconds where no process keeps the driver awake.
        pynvml.nvmlInit()
        driver = pynvml.nvmlSystemGetDriverVersion()
        gpus = [_gpu(index, driver) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError as error:
        log.warning("NVIDIA's driver does not answer, so GPUs are not counted: %s", error)
        return ()
    return visible([gpu for gpu in gpus if gpu is not None], os.environ.get(VISIBLE))


def held_bytes() -> dict[int, int]:
    """What each process of this machine holds of its GPUs' memory, by the process's id.

    All GPUs count, also those that CUDA_VISIBLE_DEVICES hides from this process.
    """
    if find_accelerator() != "cuda":
        return {}
    import pynvml

    held: dict[int, int] = {}
    try:
        pynvml.nvmlInit()
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            for one in pynvml.nvmlDeviceGetComputeRunningProcesses(handle):
                # None: the driver does not tell, as in a container without the host's processes.
                held[one.pid] = held.get(one.pid, 0) + (one.usedGpuMemory or 0)
    except pynvml.NVMLError as error:
        log.warning("NVIDIA's driver does not tell who holds the GPUs' memory: %s", error)
    return held


def _gpu(index: int, driver: str) -> Gpu | None:
    import pynvml

    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
        return Gpu(
            index=index,
            name=pynvml.nvmlDeviceGetName(handle),
            uuid=pynvml.nvmlDeviceGetUUID(handle),
            total_bytes=memory.total,
            free_bytes=memory.free,
            capability=f"{major}.{minor}",
            driver=driver,
        )
    except pynvml.NVMLError as error:  # it fell off the bus, or shares the host's memory
        log.warning("GPU %d is left out: %s", index, error)
        return None


def visible(gpus: Sequence[Gpu], named: str | None) -> tuple[Gpu, ...]:
    """Those that CUDA_VISIBLE_DEVICES names, of which NVML itself takes no notice; None: all.

    As CUDA reads it: indices, or beginnings of UUIDs, up to the first that names nothing. Indices
    count in the order of the bus, which is CUDA's own where all GPUs are alike.
    """
    if named is None:
        return tuple(gpus)
    matches = []
    for entry in named.split(","):
        text = entry.strip()
        match = next(
            (gpu for gpu in gpus if text and (text == str(gpu.index) or _is_uuid(text, gpu))), None
        )
        if match is None:
            break
        matches.append(match)
    return tuple(dict.fromkeys(matches))


def _is_uuid(text: str, gpu: Gpu) -> bool:
    return text.startswith("GPU-") and gpu.uuid.startswith(text)
