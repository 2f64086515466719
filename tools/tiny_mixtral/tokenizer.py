"""Train the byte-level BPE tokenizer and write it as `transformers` and GGUF both read it.

The GPT-2 pre-tokenizer is used because llama.cpp knows it by name (`gpt2`, pre-tokenizer `gpt-2`).
"""

import argparse
import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

VOCABULARY = 1024
BOS, EOS, UNKNOWN = "<s>", "</s>", "<unk>"

# Published Mixtral's prompt, plus an optional system message:
# `<s> [INST] q [/INST] a</s> [INST] …`
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' %}"
    "{% set system = messages[0]['content'] | trim + '\\n\\n' %}{% set turns = messages[1:] %}"
    "{% else %}{% set system = '' %}{% set turns = messages %}{% endif %}"
    "{% for message in turns %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate user, assistant, user, assistant, …, "
    "after an optional system message.') }}"
    "{% endif %}"
    "{% if message['role'] == 'user' %}"
    "{{ ' [INST] ' + (system if loop.first else '') + message['content'] | trim + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}"
    "{{ ' ' + message['content'] | trim + eos_token }}"
    "{% else %}"
    "{{ raise_exception('Only the roles system, user and assistant are known.') }}"
    "{% endif %}"
    "{% endfor %}"
)


def train_tokenizer(texts: list[str]) -> Tokenizer:
    """Learn merges and return a tokenizer of exactly `VOCABULARY` tokens that adds BOS."""
    tokenizer = Tokenizer(models.BPE(unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    special = [AddedToken(text, special=True, normalized=False) for text in (UNKNOWN, BOS, EOS)]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() != VOCABULARY:
        raise ValueError(f"the tokenizer has {tokenizer.get_vocab_size()} tokens, not {VOCABULARY}")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A",
        pair=f"{BOS} $A {BOS}:1 $B:1",
        special_tokens=[(BOS, tokenizer.token_to_id(BOS))],
    )
    return tokenizer


def write_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json with the chat template."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": BOS,
        "eos_token": EOS,
        "unk_token": UNKNOWN,
        "model_max_length": 2048,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    text = json.dumps(config, indent=2, ensure_ascii=False)
    (folder / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Train the tokenizer on generated text.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--seed", type=int, default=1, help="seed of the generated text")
    parser.add_argument("--documents", type=int, default=60_000, help="how many to learn from")
    arguments = parser.parse_args()

    from .corpus import generate_documents

    documents = list(generate_documents(arguments.seed, arguments.documents))
    write_tokenizer(train_tokenizer([strip_marks(text) for text in documents]), arguments.out)


def strip_marks(document: str) -> str:
    """Remove the special tokens' text, which is never split into merges."""
    return document.replace(BOS, "").replace(EOS, "")


if __name__ == "__main__":
    main()
