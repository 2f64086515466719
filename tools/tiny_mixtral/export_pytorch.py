"""Write a checkpoint as the folder that `transformers`, vLLM and SGLang load: bfloat16 safetensors.

`save_pretrained` gives the tensors the names of published Mixtral checkpoints
(`model.layers.N.block_sparse_moe.experts.E.w1.weight`), which this module checks.
"""

import argparse
import shutil
from pathlib import Path

import torch
from safetensors import safe_open
from transformers import GenerationConfig, MixtralForCausalLM

from .train import BOS_ID, EOS_ID, make_config

EXPERT = "model.layers.0.block_sparse_moe.experts.0.w1.weight"


def export(checkpoint: Path, tokenizer: Path, out: Path) -> None:
    """Write config, generation config, weights and tokenizer.

    Raises ValueError if the library stored the experts under other names.
    """
    config = make_config()
    config.output_router_logits = False
    config.head_dim = config.hidden_size // config.num_attention_heads
    model = MixtralForCausalLM(config)
    model.load_state_dict(torch.load(checkpoint, weights_only=True))
    model.generation_config = GenerationConfig(bos_token_id=BOS_ID, eos_token_id=EOS_ID)
    model.to(torch.bfloat16).save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)
    with safe_open(out / "model.safetensors", "pt") as weights:
        if EXPERT not in weights.keys():  # noqa: SIM118 (not a mapping)
            raise ValueError(f"{out / 'model.safetensors'} has no tensor {EXPERT}")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(tokenizer / name, out / name)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Export a checkpoint as bfloat16 safetensors.")
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder of tokenizer.json")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    export(arguments.checkpoint, arguments.tokenizer, arguments.out)


if __name__ == "__main__":
    main()
