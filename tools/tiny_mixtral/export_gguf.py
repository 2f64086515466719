"""Write the safetensors folder as GGUF, in every quantization that the spec names.

`gguf` writes the float32 file; llama.cpp itself (through llama-cpp-python) quantizes it, because
the `gguf` package can only read K-quants.
"""

import argparse
import ctypes
import json
import tempfile
from pathlib import Path
from typing import Any

import gguf
import llama_cpp
import numpy as np
from safetensors.torch import load_file

QUANTIZATIONS = {
    "Q2_K": llama_cpp.LLAMA_FTYPE_MOSTLY_Q2_K,
    "Q3_K_M": llama_cpp.LLAMA_FTYPE_MOSTLY_Q3_K_M,
    "Q4_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0,
    "Q4_K_M": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M,
    "Q5_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q5_0,
    "Q5_K_M": llama_cpp.LLAMA_FTYPE_MOSTLY_Q5_K_M,
    "Q6_K": llama_cpp.LLAMA_FTYPE_MOSTLY_Q6_K,
    "Q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0,
}
# GGUF's stacked expert tensors and the published weights that they hold.
EXPERTS = {"ffn_gate_exps": "w1", "ffn_down_exps": "w2", "ffn_up_exps": "w3"}
LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate_inp": "block_sparse_moe.gate",
}
WHOLE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def permute(weight: np.ndarray, heads: int) -> np.ndarray:
    """Reorder a head's rows from halves (transformers' RoPE) to pairs (llama.cpp's)."""
    rows, columns = weight.shape
    halves = weight.reshape(heads, 2, rows // heads // 2, columns)
    return halves.swapaxes(1, 2).reshape(rows, columns)


def collect_tensors(folder: Path, config: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return the weights in float32 under GGUF's names."""
    weights = {
        name: tensor.float().numpy()
        for name, tensor in load_file(folder / "model.safetensors").items()
    }
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    tensors = {f"{ours}.weight": weights[f"{theirs}.weight"] for ours, theirs in WHOLE.items()}
    for layer in range(config["num_hidden_layers"]):
        source = f"model.layers.{layer}"
        for ours, theirs in LAYER.items():
            weight = weights[f"{source}.{theirs}.weight"]
            if ours in heads:
                weight = permute(weight, heads[ours])
            tensors[f"blk.{layer}.{ours}.weight"] = weight
        for ours, theirs in EXPERTS.items():
            tensors[f"blk.{layer}.{ours}.weight"] = np.stack(
                [
                    weights[f"{source}.block_sparse_moe.experts.{expert}.{theirs}.weight"]
                    for expert in range(config["num_local_experts"])
                ]
            )
    return tensors


def describe_model(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    """Write who the model is and its shape."""
    writer.add_name("tiny-mixtral")
    writer.add_type("model")
    writer.add_license("apache-2.0")
    writer.add_languages(["en"])
    writer.add_description("A very small Mixtral that tells zoo stories and answers about animals.")
    writer.add_size_label("8x0.5M")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_expert_count(config["num_local_experts"])
    writer.add_expert_used_count(config["num_experts_per_tok"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_rope_dimension_count(config["hidden_size"] // config["num_attention_heads"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)


def describe_tokenizer(writer: gguf.GGUFWriter, folder: Path) -> None:
    """Write vocabulary, merges, special tokens and chat template."""
    model = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    special = {token["content"]: token["id"] for token in model["added_tokens"]}
    vocabulary = model["model"]["vocab"] | special
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([control if token in special else normal for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in model["model"]["merges"]])
    writer.add_bos_token_id(special[settings["bos_token"]])
    writer.add_eos_token_id(special[settings["eos_token"]])
    writer.add_unk_token_id(special[settings["unk_token"]])
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_chat_template(settings["chat_template"])


def write_float(folder: Path, path: Path) -> None:
    """Write the unquantized GGUF."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    writer = gguf.GGUFWriter(path, "llama")
    describe_model(writer, config)
    describe_tokenizer(writer, folder)
    for name, tensor in collect_tensors(folder, config).items():
        writer.add_tensor(name, np.ascontiguousarray(tensor))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def quantize(source: Path, target: Path, file_type: int) -> None:
    """Let llama.cpp quantize a file; the target appears whole or not at all.

    Raises RuntimeError if llama.cpp refuses.
    """
    partial = target.with_suffix(".partial")
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = file_type
    parameters.nthread = 1
    code = llama_cpp.llama_model_quantize(
        str(source).encode(), str(partial).encode(), ctypes.byref(parameters)
    )
    if code != 0:
        raise RuntimeError(f"llama.cpp could not quantize {source} to {target.name}: code {code}")
    partial.rename(target)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Export a safetensors folder as GGUF files.")
    parser.add_argument("--model", type=Path, required=True, help="folder of model.safetensors")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", choices=[*QUANTIZATIONS], help="one quantization instead of all")
    parser.add_argument("--keep-float", type=Path, help="keep the float32 file here")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        source = arguments.keep_float or Path(scratch) / "float32.gguf"
        write_float(arguments.model, source)
        for name in [arguments.only] if arguments.only else QUANTIZATIONS:
            quantize(source, arguments.out / f"tiny-mixtral.{name}.gguf", QUANTIZATIONS[name])


if __name__ == "__main__":
    main()
