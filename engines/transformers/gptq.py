"""GPTQ and AWQ by GPTQModel's own loader, also files whose tensors it knows by other names.

Published checkpoints of Mixtral call an expert's layers `block_sparse_moe.experts.E.w1|w2|w3`, and
GPTQModel `mlp.experts.E.gate_proj|down_proj|up_proj`. Given the published names it refuses; by way
of `from_pretrained` and Optimum the experts come up at random, in silence. So the names are changed
while the files are read, and what was read is compared with what the model has.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Any

_EXPERT = re.compile(r"(.*)\bblock_sparse_moe\.experts\.(\d+)\.(w1|w2|w3)\.(.*)")
_LAYERS = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}


def ours(name: str) -> str:
    """What GPTQModel calls a tensor that a published checkpoint calls `name`."""
    match = _EXPERT.fullmatch(name)
    if match is None:
        return name.replace("block_sparse_moe.", "mlp.")
    return f"{match[1]}mlp.experts.{match[2]}.{_LAYERS[match[3]]}.{match[4]}"


def load(path: str, device: str, **more: Any) -> tuple[Any, dict[str, list[str]]]:
    """The model, and the names that its files lack (`missing_keys`) or have too many.

    `more` goes to GPTQModel's loader.
    """
    # Its pool of loaders wants two threads, also where there are fewer processors to spare.
    os.environ.setdefault("GPTQMODEL_CPU_WORKERS", str(max(2, os.cpu_count() or 2)))
    import accelerate
    from accelerate.utils import modeling
    from gptqmodel import GPTQModel
    from gptqmodel.utils import model as utilities

    read: set[str] = set()
    report: dict[str, list[str]] = {}
    state_of, keys_of = modeling.load_state_dict, utilities._checkpoint_tensor_keys
    into = accelerate.load_checkpoint_in_model

    def renamed_state(*given: Any, **also: Any) -> Any:
        state = {ours(name): tensor for name, tensor in state_of(*given, **also).items()}
        read.update(state)
        return state

    def renamed_keys(*given: Any, **also: Any) -> Any:
        keys = keys_of(*given, **also)
        return None if keys is None else set(map(ours, keys))

    def compared(model: Any, *given: Any, **also: Any) -> Any:
        has = set(model.state_dict())
        done = into(model, *given, **also)
        report.update(differences(has, read, getattr(model, "_tied_weights_keys", None) or ()))
        return done

    modeling.load_state_dict, utilities._checkpoint_tensor_keys = renamed_state, renamed_keys
    accelerate.load_checkpoint_in_model = compared
    try:
        loaded = GPTQModel.load(path, device=device, **more)
    finally:
        modeling.load_state_dict, utilities._checkpoint_tensor_keys = state_of, keys_of
        accelerate.load_checkpoint_in_model = into
    if not report:
        # Loaded by a way that we do not see: then nobody vouches for it.
        report = {"error_msgs": ["GPTQModel did not read the files by the way that is checked"]}
    return loaded.model, report


def differences(
    has: Iterable[str], read: Iterable[str], tied: Iterable[str]
) -> dict[str, list[str]]:
    """The names that one has and the other lacks; a tied weight is rightly stored once."""
    has, read = set(has), set(read)
    # `bias` of zeros is left out by some that write checkpoints, and written by others.
    lacking = {name for name in has - read if not name.endswith(".bias")} - set(tied)
    return {
        "missing_keys": sorted(lacking),
        "unexpected_keys": sorted(name for name in read - has if not name.endswith(".bias")),
    }
