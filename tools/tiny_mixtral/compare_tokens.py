"""Check that training, `transformers` and llama.cpp turn the same text into the same tokens.

Compares documents, prompts and chat templates, and that a chat has exactly one BOS in llama.cpp.
"""

import argparse
from pathlib import Path

from tokenizers import Tokenizer
from transformers import AutoTokenizer

from .chat import LlamaRunner, Messages
from .corpus import generate_documents
from .dialogues import format_dialogue

ODD_TEXTS = (
    "",
    " ",
    "The old elephant",
    "  two  spaces",
    "Zürich: 3,5 €!",
    "a\n\nb",
    "🦊 it's",
)
CHAT: Messages = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "What do lions eat?"},
    {"role": "assistant", "content": " The lion eats meat. "},
    {"role": "user", "content": "And where does it live?"},
]
WRONG_CHATS: tuple[Messages, ...] = (
    [CHAT[1], CHAT[1]],
    [CHAT[2], CHAT[1]],
    [CHAT[1], CHAT[0]],
    [CHAT[1], {"role": "tool", "content": "x"}, CHAT[1]],
)


def count_refusals(tokenizer: AutoTokenizer) -> int:
    """Count the wrong chats that the template refuses."""
    refused = 0
    for chat in WRONG_CHATS:
        try:
            tokenizer.apply_chat_template(chat, tokenize=False)
        except Exception as error:  # noqa: BLE001 (the library wraps Jinja's own error)
            refused += "Roles must alternate" in str(error) or "Only the roles" in str(error)
    return refused


def compare(folder: Path, gguf: Path, documents: int) -> None:
    """Compare and print; raises AssertionError where two disagree."""
    trained = Tokenizer.from_file(str(folder / "tokenizer.json"))
    library = AutoTokenizer.from_pretrained(folder)
    llama = LlamaRunner(gguf, threads=1)

    def tokenize(text: str, add_special: bool) -> list[int]:
        body = {"content": text, "add_special": add_special, "parse_special": True}
        tokens: list[int] = llama.post("/tokenize", body)["tokens"]
        return tokens

    for text in generate_documents(5, documents):
        ids = trained.encode(text, add_special_tokens=False).ids
        assert ids == library(text, add_special_tokens=False)["input_ids"], text
        assert ids == tokenize(text, add_special=False), text
        assert trained.decode(ids, skip_special_tokens=False) == text, text
    for text in ODD_TEXTS:
        ids = library(text)["input_ids"]
        assert ids == trained.encode(text).ids == tokenize(text, add_special=True), text
        assert ids.count(1) == 1, text

    turns = [("What do lions eat?", "The lion eats meat."), ("And where does it live?", "")]
    wanted = format_dialogue(turns, "Be kind.").removesuffix(" </s>")
    rendered = library.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
    assert rendered == wanted, rendered
    theirs = llama.post("/apply-template", {"messages": CHAT})["prompt"]
    assert theirs.removeprefix("<s>") == wanted.removeprefix("<s>"), theirs
    usage = llama.post("/v1/chat/completions", {"messages": CHAT, "max_tokens": 1})["usage"]
    ids = library(wanted, add_special_tokens=False)["input_ids"]
    assert usage["prompt_tokens"] == len(ids), usage
    assert count_refusals(library) == len(WRONG_CHATS)
    print(f"{documents} documents, {len(ODD_TEXTS)} odd texts and the chat template agree")


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="folder of tokenizer.json")
    parser.add_argument("--gguf", type=Path, required=True)
    parser.add_argument("--documents", type=int, default=500)
    arguments = parser.parse_args()
    compare(arguments.model, arguments.gguf, arguments.documents)


if __name__ == "__main__":
    main()
