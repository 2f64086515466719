"""GPTQ and AWQ by GPTQModel's own loader, also files whose tensors it knows by other names.

Published checkpoints of Mixtral call an expert's layers `block_sparse_moe.experts.E.w1|w2|w3`, and
GPTQModel `mlp.experts.E.gate_proj|down_proj|up_proj`. Given the published names it refuses; by way
of `from_pretrained` and Optimum the experts come up at random, in silence. So the names are changed
while the files are read, and what was read is compared with what the model has.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from typing import Any

_EXPERT = re.compile(r"(.*)\bblock_sparse_moe\.experts\.(\d+)\.(w1|w2|w3)\.(.*)")
_LAYERS = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}


def ours(name: str) -> str:
    """GPTQModel's name of a tensor that a published checkpoint calls `name`."""
    match = _EXPERT.fullmatch(name)
    if match is None:
        return name.replace("block_sparse_moe.", "mlp.")
    return f"{match[1]}mlp.experts.{match[2]}.{_LAYERS[match[3]]}.{match[4]}"


def _kernel(config: dict[str, Any]) -> str:
    """The fastest of GPTQModel's for GPUs that need no compiler of CUDA: Triton's.

    By itself it chooses kernels that it compiles first (Marlin, …). That takes minutes with an
    `nvcc`; without one it falls back to Triton's.
    """
    if config["quant_method"] == "awq":
        return "AWQ_GEMM_TRITON"
    return "GPTQ_TRITON" if config["bits"] in {2, 4, 8} else "GPTQ_TORCH"


def load(
    path: str, config: dict[str, Any], dtype: str, placement: str
) -> tuple[Any, dict[str, list[str]]]:
    """The model, and the names that its files lack (`missing_keys`) or have too many.

    `config` is the checkpoint's quantization config; `placement` is a device, or a device map that
    divides the model between several.
    """
    # Its pool of loaders wants two threads, also where there are fewer processors to spare.
    os.environ.setdefault("GPTQMODEL_CPU_WORKERS", str(max(2, os.cpu_count() or 2)))
    import accelerate
    import torch
    from accelerate.utils import modeling
    from gptqmodel import BACKEND, GPTQModel
    from gptqmodel.utils import model as utilities

    read: set[str] = set()
    report: dict[str, list[str]] = {}
    state_of, keys_of = modeling.load_state_dict, utilities._checkpoint_tensor_keys
    into = accelerate.load_checkpoint_in_model

    def renamed_state(*args: Any, **kwargs: Any) -> Any:
        state = {ours(name): tensor for name, tensor in state_of(*args, **kwargs).items()}
        read.update(state)
        return state

    def renamed_keys(*args: Any, **kwargs: Any) -> Any:
        keys = keys_of(*args, **kwargs)
        return None if keys is None else set(map(ours, keys))

    def compared(model: Any, *args: Any, **kwargs: Any) -> Any:
        expected = set(model.state_dict())
        done = into(model, *args, **kwargs)
        report.update(differences(expected, read, getattr(model, "_tied_weights_keys", None) or ()))
        return done

    modeling.load_state_dict, utilities._checkpoint_tensor_keys = renamed_state, renamed_keys
    accelerate.load_checkpoint_in_model = compared
    try:
        place = {"device" if placement in {"cpu", "cuda"} else "device_map": placement}
        on_gpu = torch.cuda.is_available() and placement != "cpu"
        if on_gpu and dtype == "float32":
            sys.exit(f"dtype_refused: {config['quant_method']} is computed in 16 bits on a GPU")
        kernel = BACKEND[_kernel(config) if on_gpu else "AUTO"]
        kind = dtype if dtype == "auto" else getattr(torch, dtype)  # it ignores types given by name
        loaded = GPTQModel.load(path, dtype=kind, backend=kernel, **place)
    finally:
        modeling.load_state_dict, utilities._checkpoint_tensor_keys = state_of, keys_of
        accelerate.load_checkpoint_in_model = into
    if not report:
        # Loaded without the functions that are replaced above, so nothing was compared.
        report = {"error_msgs": ["GPTQModel did not read the files by the way that is checked"]}
    return loaded.model, report


def differences(
    expected: Iterable[str], read: Iterable[str], tied: Iterable[str]
) -> dict[str, list[str]]:
    """The names that only one of both has. A tied weight is rightly stored once."""
    expected, read = set(expected), set(read)
    # Some programs that write checkpoints leave a `bias` of zeros out, and others write it.
    lacking = {name for name in expected - read if not name.endswith(".bias")} - set(tied)
    return {
        "missing_keys": sorted(lacking),
        "unexpected_keys": sorted(name for name in read - expected if not name.endswith(".bias")),
    }
