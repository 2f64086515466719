"""Makes an AWQ checkpoint of a plain one, in the layout that is published: run where torch is.

    python awq.py SOURCE TARGET

Weights are rounded to the nearest of 16 steps in groups of 128: of AWQ that is the file's layout
without its search for scales, which wants a GPU. Experts keep their published names.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

GROUP = 128
# Eight numbers share 32 bits, in this order.
ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


def packed(numbers: torch.Tensor) -> torch.Tensor:
    """Numbers of four bits, of shape [rows, columns], as words of shape [rows, columns / 8]."""
    parts = numbers.reshape(numbers.shape[0], -1, 8).to(torch.int64)
    words = sum(parts[:, :, column] << (4 * place) for place, column in enumerate(ORDER))
    assert isinstance(words, torch.Tensor)
    return (words - ((words >> 31) << 32)).to(torch.int32)


def quantized(weight: torch.Tensor) -> dict[str, torch.Tensor]:
    """`qweight`, `qzeros` and `scales` of a layer's weight, of shape [out, in]."""
    groups = weight.float().reshape(weight.shape[0], -1, GROUP)
    least, most = groups.amin(-1, keepdim=True).clamp(max=0), groups.amax(-1, keepdim=True)
    scales = ((most.clamp(min=0) - least) / 15).clamp(min=1e-5).half().float()
    zeros = (-least / scales).round().clamp(0, 15)
    steps = (groups / scales + zeros).round().clamp(0, 15).reshape(weight.shape)
    return {
        "qweight": packed(steps.T),
        "qzeros": packed(zeros.squeeze(-1).T),
        "scales": scales.squeeze(-1).T.half(),
    }


def main() -> None:
    """Writes the checkpoint."""
    source, target = map(Path, sys.argv[1:3])
    shutil.copytree(source, target)
    made: dict[str, torch.Tensor] = {}
    for name, weight in load_file(source / "model.safetensors").items():
        layer = name.removesuffix(".weight")
        if "_proj" in name or "experts" in name:
            made |= {
                f"{layer}.{part}": tensor.contiguous() for part, tensor in quantized(weight).items()
            }
        else:
            made[name] = weight.half()
    save_file(made, target / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((source / "config.json").read_text())
    config["dtype"] = "float16"
    config["quantization_config"] = {
        "quant_method": "awq",
        "bits": 4,
        "group_size": GROUP,
        "zero_point": True,
        "version": "gemm",
        "modules_to_not_convert": ["gate"],
    }
    (target / "config.json").write_text(json.dumps(config))


if __name__ == "__main__":
    main()
