"""What is told of a machine's GPUs: NVIDIA's binding for real, over a stand-in for the driver."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pynvml
import pytest

from paddock.engines import environment
from paddock.engines.base import Detection, Gpu, Host
from paddock.launcher.cluster.cluster import _host
from paddock.launcher.hosts.gpus import held_bytes, probe_gpus, visible
from paddock.launcher.hosts.host import probe_host

LOST, NO_DRIVER = 15, 9  # nvml.h: NVML_ERROR_GPU_IS_LOST, NVML_ERROR_DRIVER_NOT_LOADED
INSUFFICIENT_SIZE = 7  # nvml.h: NVML_ERROR_INSUFFICIENT_SIZE
HOLDERS = ((4001, 5_000_000_000), (4002, 700))
NAMES = ("NVIDIA H100 80GB HBM3", "NVIDIA L4")
TOTALS = (85_520_809_984, 24_152_899_584)
FREE = (85_000_000_000, 1_000_000_000)


class Driver:
    """Speaks as libnvidia-ml.so.1 does: C functions that write to where they are told to."""

    def __init__(self, lost: int | None = None, init: int = 0) -> None:
        self._lost, self._init = lost, init

    def nvmlInitWithFlags(self, flags: int) -> int:
        return self._init

    def nvmlErrorString(self, code: int) -> bytes:
        return b"the driver's own words"

    def nvmlSystemGetDriverVersion(self, text: Any, length: Any) -> int:
        text.value = b"595.71.05"
        return 0

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:
        count._obj.value = len(NAMES)
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: Any, handle: Any) -> int:
        # A handle is an address; what lies there is the driver's own.
        number = ctypes.cast(handle, ctypes.POINTER(ctypes.c_void_p))
        number[0] = index.value + 1
        return LOST if index.value == self._lost else 0

    def nvmlDeviceGetMemoryInfo(self, handle: Any, memory: Any) -> int:
        at = _index(handle)
        memory._obj.total, memory._obj.free = TOTALS[at], FREE[at]
        return 0

    def nvmlDeviceGetCudaComputeCapability(self, handle: Any, major: Any, minor: Any) -> int:
        major._obj.value, minor._obj.value = ((9, 0), (8, 9))[_index(handle)]
        return 0

    def nvmlDeviceGetName(self, handle: Any, text: Any, length: Any) -> int:
        text.value = NAMES[_index(handle)].encode()
        return 0

    def nvmlDeviceGetUUID(self, handle: Any, text: Any, length: Any) -> int:
        text.value = f"GPU-{_index(handle)}{_index(handle)}aa-bb".encode()
        return 0

    def nvmlDeviceGetComputeRunningProcesses_v3(self, handle: Any, count: Any, infos: Any) -> int:
        if infos is None:
            count._obj.value = len(HOLDERS)
            return INSUFFICIENT_SIZE
        for slot, (pid, used) in zip(infos, HOLDERS, strict=False):
            slot.pid, slot.usedGpuMemory = pid, used + _index(handle)
        count._obj.value = len(HOLDERS)
        return 0


def _index(handle: Any) -> int:
    return int(ctypes.cast(handle, ctypes.c_void_p).value or 0) - 1


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Puts a driver into this machine: the files by which one is seen, and its library."""

    def put(**changes: Any) -> None:
        gpus, devices = tmp_path / "gpus", tmp_path / "dev"
        for folder in (gpus, devices):
            folder.mkdir()
        (gpus / "0000:17:00.0").touch()
        monkeypatch.setattr(environment, "GPUS", (gpus, devices))
        monkeypatch.setattr(pynvml, "nvmlLib", None)
        monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
        monkeypatch.setattr(pynvml, "CDLL", lambda name: Driver(**changes))

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return put


H100 = Gpu(0, NAMES[0], "GPU-00aa-bb", TOTALS[0], FREE[0], "9.0", "595.71.05")
L4 = Gpu(1, NAMES[1], "GPU-11aa-bb", TOTALS[1], FREE[1], "8.9", "595.71.05")


def test_gpus_are_told_as_the_driver_tells_them(
    driver: Callable[..., None], tmp_path: Path
) -> None:
    """Each with its index, name, memory and capability; they are among the host's facts."""
    driver()
    assert probe_gpus() == (H100, L4)
    assert probe_host(tmp_path).gpus == (H100, L4)


def test_gpu_that_is_lost_is_left_out(
    driver: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    """The others count; the log says which, in the driver's words."""
    driver(lost=0)
    assert probe_gpus() == (L4,)
    assert "GPU 0 is left out" in caplog.text


def test_memory_is_told_by_process(driver: Callable[..., None]) -> None:
    """Over all GPUs, as an engine may hold several."""
    driver()
    assert held_bytes() == {4001: 10_000_000_001, 4002: 1401}


def test_without_a_driver_that_answers_there_are_none(
    driver: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    """A machine whose driver is not loaded plans with its processor, and says why."""
    driver(init=NO_DRIVER)
    assert probe_gpus() == ()
    assert "does not answer" in caplog.text
    assert held_bytes() == {}
    assert "does not tell" in caplog.text


def test_without_the_drivers_files_its_library_is_not_looked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Most machines have none, and the gateway stays light."""
    monkeypatch.setattr(environment, "GPUS", (tmp_path / "none", tmp_path / "nothing"))
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: pytest.fail("it was looked for"))
    assert probe_gpus() == ()


@pytest.mark.parametrize(
    ("named", "found"),
    [
        (None, (H100, L4)),
        ("1", (L4,)),
        ("1, 0", (L4, H100)),
        ("GPU-11", (L4,)),
        ("0,7,1", (H100,)),
        ("", ()),
        ("-1", ()),
    ],
)
def test_what_is_hidden_from_paddock_is_not_used(named: str | None, found: tuple[Gpu, ...]) -> None:
    """CUDA_VISIBLE_DEVICES is read as CUDA reads it: up to the first that names nothing."""
    assert visible((H100, L4), named) == found


def test_facts_of_another_node_come_whole() -> None:
    """Over the bridge, as JSON, and back."""
    engines = {"vLLM": Detection("1", "", ("MixtralForCausalLM",), ("pytorch",), cuda=True)}
    host = Host("n", "there", 2, 3, 2, 1, engines, {"a/b": 1}, "10.0.0.2", (H100, L4))
    assert _host(json.loads(json.dumps(asdict(host)))) == host
