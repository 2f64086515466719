"""The types and sizes of mixtures, against a `llama-quantize` on the PATH.

    .venv/bin/python -m pytest bench/against_quantize.py

By hand: no package on the index has the program built. `tests/registry/test_mixtures.py` holds the
rules against what `bench.mixtures` has kept.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest

from bench.mixtures import MODELS, QUANTIZED, network_of, planned_types
from paddock.registry.sizes.mixtures import Mixture, Tensor, arrange, assign_types, mixture_bytes
from tests.headers import HEADERS, tensor_shapes, write_header

PROGRAM = shutil.which("llama-quantize") or "llama-quantize"
OF_16_BITS = {"F32", "F16"}
MADE = [name for name in QUANTIZED if not name.startswith(("IQ1", "IQ2", "IQ3_X", "Q2_K_S"))]
"""Types that need no importance matrix."""


def write_matrix(path: Path) -> Path:
    """An importance matrix of one entry: that there is one is what the rules ask."""
    writer = gguf.GGUFWriter(path, "imatrix")
    writer.add_array("imatrix.datasets", ["nothing"])
    writer.add_uint32("imatrix.chunk_count", 1)
    writer.add_uint32("imatrix.chunk_size", 512)
    for name, length in (("in_sum2", 32), ("counts", 1)):
        writer.add_tensor(f"blk.0.attn_q.weight.{name}", np.ones((1, length), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("title", MODELS)
@pytest.mark.parametrize("imatrix", [False, True])
def test_it_plans_these_types(tmp_path: Path, title: str, imatrix: bool) -> None:
    """In each type of file every tensor of a published model gets the type that we say."""
    header = replace(MODELS[title], vocabulary=1024)
    path = write_header(tmp_path / "model.gguf", header, gguf.GGMLQuantizationType.F16)
    arrangement = arrange(Tensor(name, shape) for name, shape in tensor_shapes(header))
    matrix = write_matrix(tmp_path / "matrix.gguf") if imatrix else None
    for name in QUANTIZED:
        planned = planned_types(PROGRAM, path, name, matrix)
        ours = assign_types(arrangement, network_of(header), Mixture(name, imatrix))
        assert {tensor.name for tensor, _ in ours} == set(planned)
        for tensor, kind in ours:
            theirs = planned[tensor.name]
            # What is not quantized stays as the header has it.
            kept = theirs in OF_16_BITS and kind in OF_16_BITS
            assert kept or kind == theirs, f"{name}: {tensor} {theirs}"


@pytest.mark.parametrize("name", MADE)
def test_its_files_have_this_size(tmp_path: Path, name: str) -> None:
    """The file that it makes of a small model is as large as its header and these tensors."""
    numbers = {**HEADERS["Mixtral 8x7B"].numbers, "block_count": 8, "embedding_length": 256}
    numbers |= {"feed_forward_length": 320, "attention.head_count": 4}
    numbers |= {"attention.head_count_kv": 1, "attention.key_length": 64}
    numbers["attention.value_length"] = 64
    header = replace(HEADERS["Mixtral 8x7B"], numbers=numbers, vocabulary=512)
    path = write_header(tmp_path / "model.gguf", header, gguf.GGMLQuantizationType.F16)
    made = tmp_path / "made.gguf"
    subprocess.run([PROGRAM, path, made, name], capture_output=True, check=True)
    arrangement = arrange(Tensor(name, shape) for name, shape in tensor_shapes(header))
    size = mixture_bytes(arrangement, network_of(header), Mixture(name))
    assert made.stat().st_size == gguf.GGUFReader(made).data_offset + size
