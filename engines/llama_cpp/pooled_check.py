"""Whether a GGUF file can embed or rank. llama.cpp does so with any, and gives what means nothing.

A language model ranks by rows of its output layer and a prompt, and one that embeds by its last
token wants a mark at each text's end: a converter has to put all of it into the file. Started by
its path, it runs a `llama-server` in its place where the file is fit:

    python pooled_check.py rank|end FILE.gguf llama-server --model FILE.gguf …
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from paddock.registry.errors import CorruptFile
from paddock.registry.gguf import GgufHeader, read_gguf
from paddock.registry.shards import shard_names

PROMPT = "tokenizer.chat_template.rerank"
END = "tokenizer.ggml.add_eos_token"
RANKS, ENDS = "rank", "end"
"""What is checked: that the file can rank, or that it ends each text with a token."""
WAY_OUT = "take a file that was converted as a reranker, or the safetensors"


def why_unfit(need: str, headers: Sequence[GgufHeader]) -> str | None:
    """Why a file of these parts is not fit; None if it is."""
    metadata = headers[0].metadata
    if need == ENDS:
        if metadata.get(END) is True:
            return None
        reason = f"the file does not end texts with a token ({END}), as the model was trained"
        return f"{reason}; take a newer conversion of it, or the safetensors"
    if not any(header.has_rank_head for header in headers):
        return f"the file has no layer that scores pairs (cls.output); {WAY_OUT}"
    name = str(metadata.get("general.architecture", ""))
    # Encoders say that they are no decoders, and take query and document side by side.
    if metadata.get(f"{name}.attention.causal", True) and PROMPT not in metadata:
        return f"the file has no prompt of pairs ({PROMPT}); {WAY_OUT}"
    return None


def check(need: str, path: Path) -> None:
    """Ends the process with the reason if the file is not fit. Other faults llama.cpp tells."""
    names = shard_names(path.name) or (path.name,)
    try:
        reason = why_unfit(need, [read_gguf(path.with_name(name)) for name in names])
    except (CorruptFile, OSError):
        return
    if reason is not None:
        raise SystemExit(f"unfit: {reason}")


def main() -> None:
    """Checks the file, and becomes the program that serves it."""
    need, path, program, *rest = sys.argv[1:]
    check(need, Path(path))
    os.execv(program, [program, *rest])


if __name__ == "__main__":
    main()
