"""llama.cpp's own reckoning of a launch: it is asked, and the formula agrees with it."""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench.llama_memory import CONTEXTS, HEAD, SLOTS, Row, compare, rows
from paddock.engines.base import Serving
from paddock.engines.llama_cpp import LlamaCppOptions, ask, launch_settings
from paddock.engines.llama_cpp.ask import Breakdown, ask_memory
from paddock.launcher.hosts.environ import engine_environment
from paddock.registry.catalog import specs_root
from paddock.registry.errors import ProbeFailed
from tests.headers import HEADERS, write_header

MIB = 1024 * 1024
TINY = specs_root() / "weights" / "tiny-mixtral" / "ggufv2" / "tiny-mixtral.Q4_K_M.gguf"


def asked(
    path: Path, timeout: float = ask.SECONDS, context: int = 2048, slots: int = 2
) -> Breakdown:
    """llama.cpp's breakdown of a launch of the file."""
    serving = Serving(
        model_id="asked",
        weights=path,
        port=0,
        api_key="",
        context_length=context,
        slots=slots,
        abilities=("generate",),
        options=LlamaCppOptions(n_threads=1, repack=True),
    )
    environ = engine_environment(os.environ, {})
    return ask_memory(sys.executable, launch_settings(serving), environ, timeout)


def check(found: list[Row]) -> None:
    """Fails with a table if any row is far off."""
    if not all(row.is_close for row in found):
        pytest.fail("\n".join((HEAD, *map(str, found))))


@pytest.mark.parametrize("name", HEADERS)
def test_the_formula_agrees_with_llama_cpp(tmp_path: Path, name: str) -> None:
    """Within 8 % or 64 MiB at three contexts and two numbers of slots, for each architecture."""
    check(list(rows(tmp_path, [name], CONTEXTS, SLOTS)))


@pytest.mark.parametrize(
    "options",
    [
        {"flash_attn": "off"},
        {"cache_type_k": "q8_0", "cache_type_v": "q8_0"},
        {"n_ubatch": 2048},
        {"n_ubatch": 128},
        {"n_batch": 256},
    ],
    ids=str,
)
def test_the_formula_follows_the_options(tmp_path: Path, options: dict[str, Any]) -> None:
    """Attention, the cache's types and the batches, for some architectures."""
    found = []
    for name in ("Llama 3.1 8B", "Gemma 3 12B", "DeepSeek V2 Lite", "Granite 4 H Tiny"):
        path = write_header(tmp_path / "header.gguf", replace(HEADERS[name], vocabulary=32_000))
        found.append(compare(name, path, 8192, 2, **options))
    check(found)


def test_the_formula_counts_the_logits_of_pooling(tmp_path: Path) -> None:
    """In embedding every token has logits, in the compute buffer."""
    path = write_header(tmp_path / "header.gguf", HEADERS["Qwen3 8B"])
    row = compare("Qwen3 8B", path, 2048, 1, "embed")
    check([row])
    assert row.predicted["compute"] > 1300 * MIB


def test_a_whole_file_and_its_header_alone_give_the_same_answer(tmp_path: Path) -> None:
    """No weight is read: a hole in their place changes nothing."""
    whole = asked(TINY)
    assert [device.name for device in whole.devices] == ["Host", "CPU_REPACK"]
    assert whole.devices[0].context_bytes == 4 * MIB
    sparse = tmp_path / "sparse.gguf"
    sparse.write_bytes(TINY.read_bytes()[:64_000])
    os.truncate(sparse, TINY.stat().st_size)
    assert asked(sparse).devices == whole.devices


def children() -> list[psutil.Process]:
    """Children of this process that ask llama.cpp."""
    mine = psutil.Process().children(recursive=True)
    return [one for one in mine if any("fit.py" in word for word in one.cmdline())]


def cut(path: Path) -> None:
    """A file that ends within its header."""
    path.write_bytes(TINY.read_bytes()[:3000])


def unknown(path: Path) -> None:
    """A header of an architecture that llama.cpp does not know."""
    write_header(path, replace(HEADERS["Qwen3 8B"], name="okapi", vocabulary=1024))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (cut, "failed to read key-value pairs"),
        (unknown, "unknown model architecture: 'okapi'"),
        (lambda path: None, "failed to load model"),
    ],
    ids=["cut", "unknown", "missing"],
)
def test_a_header_that_llama_cpp_refuses_is_an_error_with_its_words(
    tmp_path: Path, make: Callable[[Path], object], reason: str
) -> None:
    """The error names the file, and no child is left."""
    path = tmp_path / "bad.gguf"
    make(path)
    with pytest.raises(ProbeFailed) as failed:
        asked(path)
    assert reason in failed.value.reason
    assert failed.value.path == str(path)
    assert not children()


def test_states_that_are_too_large_are_not_allocated(tmp_path: Path) -> None:
    """llama.cpp allocates those of recurrent layers even when it is only asked."""
    header = replace(HEADERS["Mamba 2 1.3B"], vocabulary=1024)
    path = write_header(tmp_path / "states.gguf", header)
    with pytest.raises(ProbeFailed, match="failed to allocate buffer for rs cache"):
        asked(path, slots=250)


def test_a_child_that_takes_too_long_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all that it started; the error says how long it had."""
    program, fifo = tmp_path / "fit.py", tmp_path / "held"
    os.mkfifo(fifo)
    program.write_text(
        "import subprocess\n"
        f"held = open({str(fifo)!r}, 'wb')\n"
        "subprocess.Popen(['sleep', '600'], stdout=held).wait()\n"
    )
    monkeypatch.setattr(ask, "FIT", program)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        start = time.monotonic()
        with pytest.raises(ProbeFailed, match="no answer within 2 s"):
            asked(TINY, timeout=2.0)
        assert time.monotonic() - start < 10
        ended = select.poll()
        ended.register(reader, select.POLLHUP)
        assert ended.poll(10_000)  # nobody holds its other end any more
    finally:
        os.close(reader)


def test_a_child_that_crashes_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says how the child ended."""
    program = tmp_path / "fit.py"
    program.write_text("import os\nos.abort()\n")
    monkeypatch.setattr(ask, "FIT", program)
    with pytest.raises(ProbeFailed, match="it ended with -6"):
        asked(TINY)


GPU_LOG = """\
0.0 I common_memory_breakdown_print: | memory breakdown [MiB] | total   free    self   model |
0.1 I common_memory_breakdown_print: |   - CUDA0 (H200)   | 143771 = 142000 + ( 9293 =  8137 +    1024 +     132) +       -12 |
0.1 I common_memory_breakdown_print: |   - CUDA1 (H200)   | 143771 = 142000 + (  300 =   100 +     150 +      50) +       400 |
0.1 I common_memory_breakdown_print: |   - Host           |                     552 =   532 +       0 +      20                |
0.1 I srv    load_model: [mtmd] estimated worst-case memory usage of mmproj is 812.50 MiB (took 1.00 ms)
0.2 I common_params_fit_impl: projected to use 9593 MiB of device memory vs. 284000 MiB
"""  # noqa: E501 — as llama.cpp prints it


def test_rows_of_gpus_are_read() -> None:
    """Their free memory stands before, and what is not accounted for behind; a projector apart."""
    found = ask.parse_breakdown(GPU_LOG.splitlines())
    assert [(one.name, one.model_bytes // MIB) for one in found.devices] == [
        ("CUDA0 (H200)", 8137),
        ("CUDA1 (H200)", 100),
        ("Host", 532),
    ]
    assert found.devices[0].total_bytes == 9293 * MIB
    assert found.projector_bytes == 812.5 * MIB
    assert found.total_bytes == (9293 + 300 + 552 + 812.5) * MIB
