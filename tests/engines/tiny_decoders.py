"""Tiny decoders that nobody trained, and what their libraries say of them.

    python tiny_decoders.py FOLDER REQUEST

in the engine's environment writes into FOLDER `qwen` (a causal reranker as Qwen publishes it),
`headed` (the same with a head made of its yes and no), `saved` (as the library saves it, with
modules), `gemma` (one that says Yes) and `embedder` (last-token pooling, with a prompt), and prints
the scores by the model cards' code and the library's own vectors.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.base.modules import Normalize, Transformer
from sentence_transformers.cross_encoder.modules import LogitScore
from sentence_transformers.sentence_transformer.modules import Pooling
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GemmaConfig,
    GemmaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3ForSequenceClassification,
    Qwen3Model,
)

# The pattern of Qwen2's tokenizer, which llama.cpp knows as "qwen2".
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SHAPE: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
    "initializer_range": 0.2,
}
CHAT = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"


def tokenizer(text: str, special: tuple[str, ...], **names: str) -> Any:
    """Byte-level BPE of the text's words, in the way of Qwen's."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1000,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator([text + "\nyes\nno\nYes\nNo" * 50], trainer)
    made.add_special_tokens([AddedToken(one, special=True, normalized=False) for one in special])
    made.add_tokens([AddedToken(one, normalized=False) for one in ("<think>", "</think>")])
    return PreTrainedTokenizerFast(tokenizer_object=made, **names)


def make(folder: Path, text: str) -> None:
    """Writes all models."""
    special = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    words = tokenizer(text, special, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    config = Qwen3Config(vocab_size=len(words), pad_token_id=words.pad_token_id, **SHAPE)
    torch.manual_seed(0)
    qwen = Qwen3ForCausalLM(config)
    qwen.save_pretrained(folder / "qwen")
    words.chat_template = CHAT
    words.save_pretrained(folder / "qwen")
    yes, no = words.convert_tokens_to_ids(["yes", "no"])
    config.num_labels = 1
    headed = Qwen3ForSequenceClassification(config)
    headed.model.load_state_dict(qwen.model.state_dict())
    output = qwen.get_output_embeddings().weight
    headed.score.weight.data = (output[yes] - output[no])[None].clone()
    headed.save_pretrained(folder / "headed")
    words.save_pretrained(folder / "headed")
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "<|im_start|>assistant\n"
    )
    first = Transformer(
        str(folder / "qwen"),
        transformer_task="text-generation",
        processor_kwargs={"chat_template": template},
    )
    CrossEncoder(modules=[first, LogitScore(yes, no)], device="cpu").save(str(folder / "saved"))
    gemma_words = tokenizer(
        text, ("<pad>", "<eos>", "<bos>"), eos_token="<eos>", pad_token="<pad>", bos_token="<bos>"
    )
    ids = {
        f"{name}_token_id": getattr(gemma_words, f"{name}_token_id")
        for name in ("bos", "eos", "pad")
    }
    GemmaForCausalLM(GemmaConfig(vocab_size=len(gemma_words), **ids, **SHAPE)).save_pretrained(
        folder / "gemma"
    )
    gemma_words.save_pretrained(folder / "gemma")
    made = words.backend_tokenizer
    made.post_processor = processors.TemplateProcessing(
        single="$A <|endoftext|>",
        pair="$A $B <|endoftext|>",
        special_tokens=[("<|endoftext|>", words.pad_token_id)],
    )
    ended = PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    ended.padding_side = "left"
    inner = folder / "embedder"
    Qwen3Model.from_pretrained(folder / "qwen").save_pretrained(inner)
    ended.save_pretrained(inner)
    module = Transformer(str(inner))
    pooling = Pooling(module.get_embedding_dimension(), pooling_mode="lasttoken")
    SentenceTransformer(
        modules=[module, pooling, Normalize()],
        prompts={"query": "Instruct: Find it\nQuery:", "document": ""},
        device="cpu",
    ).save(str(inner))


def by_qwens_card(folder: Path, ranking: dict[str, Any], asked: dict[str, Any], limit: int) -> Any:
    """P(yes) against no, as the card of Qwen3-Reranker reckons it."""
    words = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    prefix, _, suffix = ranking["template"]
    before, behind = (words.encode(one, add_special_tokens=False) for one in (prefix, suffix))
    instruction = asked.get("instruction") or ranking["instruction"]
    pairs = [
        f"<Instruct>: {instruction}\n<Query>: {asked['query']}\n<Document>: {document}"
        for document in asked["documents"]
    ]
    rows = words(
        pairs,
        padding=False,
        truncation="longest_first",
        return_attention_mask=False,
        max_length=limit - len(before) - len(behind),
    )["input_ids"]
    rows = {"input_ids": [before + row + behind for row in rows]}
    inputs = words.pad(rows, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = model(**inputs).logits[:, -1, :]
    two = logits[:, words.convert_tokens_to_ids(["no", "yes"])]
    return torch.nn.functional.log_softmax(two, dim=1)[:, 1].exp().tolist()


def by_gemmas_card(folder: Path, ranking: dict[str, Any], asked: dict[str, Any]) -> Any:
    """The logit of Yes, as the card of bge-reranker-v2-gemma reckons it."""
    words = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def cut(text: str) -> list[int]:
        return list(words(text, add_special_tokens=False)["input_ids"])

    scores = []
    for document in asked["documents"]:
        ids = [words.bos_token_id, *cut(f"A: {asked['query']}"), *cut("\n")]
        ids += [*cut(f"B: {document}"), *cut("\n"), *cut(ranking["instruction"])]
        with torch.no_grad():
            scores.append(model(torch.tensor([ids])).logits[0, -1, cut("Yes")[0]].item())
    return scores


def main() -> None:
    """Writes the models, and prints what was asked."""
    folder, request = Path(sys.argv[1]), json.loads(sys.argv[2])
    make(folder, request["text"])
    asked, qwen = request["asked"], request["qwen"]
    embedder = SentenceTransformer(str(folder / "embedder"), device="cpu")
    saved = CrossEncoder(str(folder / "saved"), device="cpu")
    pairs = [(asked["query"], document) for document in asked["documents"]]
    said = {
        "qwen": by_qwens_card(folder / "qwen", qwen, asked, 1024),
        "instructed": by_qwens_card(
            folder / "qwen", qwen, {**asked, "instruction": request["instruction"]}, 1024
        ),
        "cut": by_qwens_card(folder / "qwen", qwen, asked, request["limit"]),
        "gemma": by_gemmas_card(folder / "gemma", request["gemma"], asked),
        "saved": saved.predict(pairs, batch_size=1).tolist(),
        "asked": saved.predict(pairs, batch_size=1, prompt=request["instruction"]).tolist(),
        "vectors": embedder.encode(asked["documents"], batch_size=1).tolist(),
        "queries": embedder.encode(asked["documents"], batch_size=1, prompt_name="query").tolist(),
        "tokens": [len(embedder.tokenizer(one)["input_ids"]) for one in asked["documents"]],
    }
    embedder.max_seq_length = request["limit"]
    for side in ("right", "left"):
        embedder.tokenizer.truncation_side = side
        said[side] = embedder.encode(asked["documents"], batch_size=1).tolist()
    print(json.dumps(said))


if __name__ == "__main__":
    main()
