"""The training text: stories and dialogues, one document each, from a seed."""

import argparse
import itertools
import random
from collections.abc import Iterator
from pathlib import Path

from .dialogues import BOS, EOS, hold_dialogue
from .stories import tell_story

STORY_SHARE = 0.33


def make_document(rng: random.Random, most_turns: int = 0) -> str:
    """Make one story or dialogue, or a dialogue of ten turns to `most_turns`."""
    if not most_turns and rng.random() < STORY_SHARE:
        return f"{BOS}{tell_story(rng)}{EOS}"
    if most_turns:
        return hold_dialogue(rng, rng.randint(10, most_turns))
    return hold_dialogue(rng, rng.choice((1, 1, 1, 2, 2, 3, 4, 6)))


def generate_documents(
    seed: int, count: int, long_share: float = 0.0, most_turns: int = 40
) -> Iterator[str]:
    """Yield documents; the same seed gives the same text on every machine."""
    rng = random.Random(seed)
    for _ in range(count):
        yield make_document(rng, most_turns if rng.random() < long_share else 0)


def write_tokens(documents: Iterator[str], tokenizer_folder: Path, out: Path) -> int:
    """Tokenise documents, one after another, into a file of uint16 ids and return how many."""
    import numpy as np
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    pieces = []
    while batch := list(itertools.islice(documents, 20_000)):
        encoded = tokenizer.encode_batch_fast(batch, add_special_tokens=False)
        pieces.append(np.array([i for e in encoded for i in e.ids], dtype=np.uint16))
    ids = np.concatenate(pieces)
    np.save(out, ids)
    return len(ids)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Generate and tokenise the training text.")
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder of tokenizer.json")
    parser.add_argument("--out", type=Path, required=True, help=".npy file of uint16 token ids")
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--documents", type=int, required=True)
    parser.add_argument("--long-share", type=float, default=0.0, help="share of long dialogues")
    parser.add_argument("--most-turns", type=int, default=40, help="of long dialogues, from 10 on")
    arguments = parser.parse_args()
    documents = generate_documents(
        arguments.seed, arguments.documents, arguments.long_share, arguments.most_turns
    )
    tokens = write_tokens(documents, arguments.tokenizer, arguments.out)
    print(f"{arguments.documents} documents, {tokens} tokens → {arguments.out}")


if __name__ == "__main__":
    main()
