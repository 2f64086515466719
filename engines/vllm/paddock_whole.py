"""Runs in vLLM's workers: a load that leaves weights out has failed.

vLLM counts what it loads by the names of its own parameters, and of these it lets pass every layer
that works on its weights afterwards; one expert of eight, or a query without its key, has no name
of its own there. Such a model would answer with nonsense. So the memory of the model's parameters
begins as "not a number" (the largest one, where there are only whole numbers), and after the load
there must be nothing of it left.

vLLM imports this module as a worker's extension, which adds nothing to the worker.

It also asks the kernel for the CPU's matrix tiles (AMX), which every process must before it uses
them. vLLM's kernels for quantized weights do not, and where nothing of PyTorch has done so before
them, the first token ends the worker with an illegal instruction.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from vllm.model_executor.model_loader import base_loader

if hasattr(torch.cpu, "_init_amx"):
    torch.cpu._init_amx()  # False, and no more, where there are none

SHARE = 1e-5
"""Whole numbers may be the largest one by chance: one of four thousand million, if packed."""
PIECE = 1 << 24
"""Values that are checked in one step."""


class Whole:
    """The extension."""


def _marking(build: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(build)
    def marked(*args: Any, **kwargs: Any) -> Any:
        before = torch.are_deterministic_algorithms_enabled()
        warns = torch.is_deterministic_algorithms_warn_only_enabled()
        torch.use_deterministic_algorithms(True, warn_only=True)  # fills memory that is new
        try:
            return build(*args, **kwargs)
        finally:
            torch.use_deterministic_algorithms(before, warn_only=warns)

    return marked


def _checking(process: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(process)
    def checked(model: Any, *args: Any, **kwargs: Any) -> Any:
        unset_counts = {
            name: count
            for name, parameter in model.named_parameters()
            if (count := unset(parameter))
        }
        if unset_counts:
            names = sorted(unset_counts)
            listed = ", ".join(f"{name} ({unset_counts[name]} values)" for name in names[:4])
            more_names = f" and {len(names) - 4} more" if len(names) > 4 else ""
            # Not on the line that raises: a traceback would show the expression before its values.
            reason = f"weights_mismatch: not in the files: {listed}{more_names}"
            raise ValueError(reason)
        return process(model, *args, **kwargs)

    return checked


def unset(parameter: Any) -> int:
    """The number of its values that were never written."""
    kind = parameter.dtype
    if parameter.device.type == "meta" or (not kind.is_floating_point and kind.itemsize < 4):
        return 0
    flat = parameter.detach().reshape(-1)
    count = 0
    for start in range(0, flat.numel(), PIECE):
        piece = flat[start : start + PIECE]
        if not kind.is_floating_point:
            count += int((piece == torch.iinfo(kind).max).sum())
        else:
            count += int((piece if kind.itemsize > 1 else piece.half()).isnan().sum())
    return count if kind.is_floating_point or count > math.ceil(SHARE * flat.numel()) else 0


torch.utils.deterministic.fill_uninitialized_memory = True
base_loader.initialize_model = _marking(base_loader.initialize_model)
base_loader.process_weights_after_loading = _checking(base_loader.process_weights_after_loading)
