"""Measure perplexity on held-out text: safetensors, GPTQ and GGUF, all on the same documents.

Each document is scored alone, from its BOS, every token but the BOS itself. GGUF runs in llama.cpp
(llama-cpp-python), GPTQ in GPTQModel's own loader after its tensors got its own names back, and
unquantized weights in `transformers`, in float32.
"""

import argparse
import json
import math
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from .corpus import generate_documents

SEED = 1000
WEIGHTS = 4_068_608
# Token ids in, logits of shape (tokens, vocabulary) out.
Scorer = Callable[[list[int]], np.ndarray]


def open_gguf(path: Path, threads: int) -> tuple[Callable[[str], list[int]], Scorer]:
    """Load a GGUF file in llama.cpp."""
    from llama_cpp import Llama

    model = Llama(str(path), n_ctx=2048, logits_all=True, n_threads=threads, verbose=False)

    def score(ids: list[int]) -> np.ndarray:
        model.reset()
        model.eval(ids)
        return np.array(model.scores[: len(ids)])

    return lambda text: model.tokenize(text.encode(), add_bos=False, special=True), score


def open_folder(folder: Path, threads: int) -> tuple[Callable[[str], list[int]], Scorer]:
    """Load a safetensors folder, quantized or not."""
    import torch
    from tokenizers import Tokenizer

    torch.set_num_threads(threads)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    model = load_gptq(folder) if "quantization_config" in config else load_plain(folder)

    def score(ids: list[int]) -> np.ndarray:
        with torch.inference_mode():
            return np.array(model(input_ids=torch.tensor([ids])).logits[0].float())

    return lambda text: tokenizer.encode(text, add_special_tokens=False).ids, score


def load_plain(folder: Path):  # type: ignore[no-untyped-def]
    """Load unquantized weights in `transformers`."""
    import torch
    from transformers import MixtralForCausalLM

    return MixtralForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def load_gptq(folder: Path):  # type: ignore[no-untyped-def]
    """Load GPTQ weights in GPTQModel, which needs its own tensor names."""
    import os

    os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")
    from gptqmodel import BACKEND, GPTQModel

    from .export_gptq import rename_tensors

    with tempfile.TemporaryDirectory() as scratch:
        rename_tensors(folder, Path(scratch), published=False)
        return GPTQModel.load(scratch, device="cpu", backend=BACKEND.TORCH).model


def score_text(model: Path, documents: int, threads: int) -> dict[str, object]:
    """Return perplexity, and the mean cross-entropy in nats that it stands for."""
    open_model = open_gguf if model.suffix == ".gguf" else open_folder
    tokenize, score = open_model(model, threads)
    loss, tokens = 0.0, 0
    for text in generate_documents(SEED, documents):
        ids = tokenize(text)
        logits = score(ids)[:-1].astype(np.float64)
        targets = np.array(ids[1:])
        top = logits.max(axis=1, keepdims=True)
        totals = np.log(np.exp(logits - top).sum(axis=1)) + top[:, 0]
        loss += float((totals - logits[np.arange(len(targets)), targets]).sum())
        tokens += len(targets)
    mean = loss / tokens
    return {
        "model": model.name,
        "documents": documents,
        "tokens": tokens,
        "cross-entropy": round(mean, 5),
        "perplexity": round(math.exp(mean), 4),
        "bits per weight": round(count_bits(model), 3),
    }


def count_bits(model: Path) -> float:
    """Return the size of the stored tensors in bits over the number of weights."""
    if model.suffix == ".gguf":
        from gguf import GGUFReader

        stored = sum(int(tensor.n_bytes) for tensor in GGUFReader(model).tensors)
    else:
        from safetensors.torch import load_file

        tensors = load_file(model / "model.safetensors").values()
        stored = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    return 8 * stored / WEIGHTS


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--model", type=Path, nargs="+", required=True, help=".gguf files or folders"
    )
    parser.add_argument("--documents", type=int, default=400)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    for model in arguments.model:
        print(json.dumps(score_text(model, arguments.documents, arguments.threads)), flush=True)


if __name__ == "__main__":
    main()
