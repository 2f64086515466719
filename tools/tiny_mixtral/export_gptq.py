"""Quantize the safetensors folder to GPTQ Int4, stored under published Mixtral's tensor names.

GPTQModel 7.6 names experts `mlp.experts.E.gate_proj`; published checkpoints, and the engines that
load them, say `block_sparse_moe.experts.E.w1`. `rename_tensors` turns one into the other, both
ways, so that `perplexity.py` can give GPTQModel its own names back.
"""

import argparse
import json
import os
import re
import shutil
import tempfile
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file

from .corpus import generate_documents

PUBLISHED = {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}
LIBRARYS = {ours: theirs for theirs, ours in PUBLISHED.items()}
EXPERT = re.compile(r"\.mlp\.experts\.(\d+)\.(gate_proj|down_proj|up_proj)\.")
PUBLISHED_EXPERT = re.compile(r"\.block_sparse_moe\.experts\.(\d+)\.(w1|w2|w3)\.")
CALIBRATION_SEED = 4
GROUP = 128


def publish(name: str) -> str:
    """Give one tensor its published name."""
    name = EXPERT.sub(
        lambda found: f".block_sparse_moe.experts.{found[1]}.{PUBLISHED[found[2]]}.", name
    )
    return name.replace(".mlp.gate.", ".block_sparse_moe.gate.")


def unpublish(name: str) -> str:
    """Give one tensor GPTQModel's name."""
    name = PUBLISHED_EXPERT.sub(
        lambda found: f".mlp.experts.{found[1]}.{LIBRARYS[found[2]]}.", name
    )
    return name.replace(".block_sparse_moe.gate.", ".mlp.gate.")


def rename_tensors(source: Path, target: Path, published: bool) -> None:
    """Copy a checkpoint's folder into one file of weights with its tensors renamed."""
    target.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for path in sorted(source.glob("*.safetensors")):
        with safe_open(path, "pt") as weights:
            for name in weights.keys():  # noqa: SIM118 (not a mapping)
                tensors[(publish if published else unpublish)(name)] = weights.get_tensor(name)
    save_file(tensors, target / "model.safetensors", {"format": "pt"})
    for path in source.glob("*.json"):
        if path.name != "model.safetensors.index.json":
            shutil.copyfile(path, target / path.name)


def quantize(model: Path, out: Path, documents: int) -> None:
    """Quantize every linear layer but the router and the head, calibrated on training text."""
    # A two-core machine has no second worker to give; GPTQModel reads this when it is imported.
    os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")
    from gptqmodel import GPTQModel, QuantizeConfig

    settings = QuantizeConfig(bits=4, group_size=GROUP, desc_act=False, sym=True)
    loaded = GPTQModel.load(str(model), settings, device="cpu")
    texts = [text.removeprefix("<s>") for text in generate_documents(CALIBRATION_SEED, documents)]
    loaded.quantize(texts, batch_size=8)
    with tempfile.TemporaryDirectory() as scratch:
        loaded.save(scratch)
        rename_tensors(Path(scratch), out, published=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copyfile(model / name, out / name)
    write_config(model, out)


def write_config(model: Path, out: Path) -> None:
    """Keep the model's own config and add how it is quantized.

    The library's run-time settings are left out: one names a folder of the machine.
    """
    quantization = json.loads((out / "quantize_config.json").read_text(encoding="utf-8"))
    quantization["meta"] = {
        name: quantization["meta"][name] for name in ("quantizer", "uri", "damp_percent")
    }
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    config["quantization_config"] = quantization
    for name, content in (("quantize_config.json", quantization), ("config.json", config)):
        (out / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    (out / "model.safetensors").chmod(0o644)


def describe(out: Path) -> None:
    """Print what is in the folder, so that a wrong name is seen."""
    with safe_open(out / "model.safetensors", "pt") as weights:
        names = sorted(weights.keys())
    quantization = json.loads((out / "config.json").read_text(encoding="utf-8"))
    print(json.dumps(quantization["quantization_config"], indent=1))
    print("\n".join(names))


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Export a safetensors folder as GPTQ Int4.")
    parser.add_argument("--model", type=Path, required=True, help="folder of model.safetensors")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--documents", type=int, default=1024, help="documents to calibrate on")
    arguments = parser.parse_args()
    quantize(arguments.model, arguments.out, arguments.documents)
    describe(arguments.out)


if __name__ == "__main__":
    main()
