"""The training text: stories and dialogues, one document each, from a seed."""

import argparse
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .dialogues import BOS, EOS, hold_dialogue
from .stories import tell_story

STORY_SHARE = 0.33


def make_document(rng: random.Random, long: bool = False) -> str:
    """Make one story or dialogue; `long` dialogues have up to 40 turns."""
    if not long and rng.random() < STORY_SHARE:
        return f"{BOS}{tell_story(rng)}{EOS}"
    if long:
        return hold_dialogue(rng, rng.randint(10, 40))
    return hold_dialogue(rng, rng.choice((1, 1, 1, 2, 2, 3, 4, 6)))


def generate_documents(seed: int, count: int, long_share: float = 0.0) -> Iterator[str]:
    """Yield documents; the same seed gives the same text on every machine."""
    rng = random.Random(seed)
    for _ in range(count):
        yield make_document(rng, rng.random() < long_share)


def main() -> None:
    parser = argparse.ArgumentParser(description="Generate and tokenise the training text.")
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder of tokenizer.json")
    parser.add_argument("--out", type=Path, required=True, help=".npy file of uint16 token ids")
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--documents", type=int, required=True)
    parser.add_argument("--long-share", type=float, default=0.0, help="share of 10–40-turn dialogues")
    arguments = parser.parse_args()

    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(arguments.tokenizer / "tokenizer.json"))
    pieces: list[np.ndarray] = []
    batch: list[str] = []

    def flush() -> None:
        encoded = tokenizer.encode_batch_fast(batch, add_special_tokens=False)
        pieces.append(np.array([i for e in encoded for i in e.ids], dtype=np.uint16))
        batch.clear()

    for text in generate_documents(arguments.seed, arguments.documents, arguments.long_share):
        batch.append(text)
        if len(batch) == 20_000:
            flush()
    if batch:
        flush()
    ids = np.concatenate(pieces)
    np.save(arguments.out, ids)
    print(f"{arguments.documents} documents, {len(ids)} tokens → {arguments.out}")


if __name__ == "__main__":
    main()
