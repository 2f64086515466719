"""Whether a GGUF file can rank. llama.cpp ranks with any, and gives numbers that mean nothing.

A language model ranks by rows of its output layer and a prompt, which a converter has to put into
the file. Started by its path, it runs a `llama-server` in its place where the file can rank:

    python rank_check.py FILE.gguf llama-server --model FILE.gguf …
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
WAY_OUT = "take a file that was converted as a reranker, or the safetensors"


def why_unfit(headers: Sequence[GgufHeader]) -> str | None:
    """Why a file of these parts cannot rank; None if it can."""
    metadata = headers[0].metadata
    if not any(header.has_rank_head for header in headers):
        return f"the file has no layer that scores pairs (cls.output); {WAY_OUT}"
    name = str(metadata.get("general.architecture", ""))
    # Encoders say that they are no decoders, and take query and document side by side.
    if metadata.get(f"{name}.attention.causal", True) and PROMPT not in metadata:
        return f"the file has no prompt of pairs ({PROMPT}); {WAY_OUT}"
    return None


def check(path: Path) -> None:
    """Ends the process with the reason if the file cannot rank. Other faults llama.cpp tells."""
    names = shard_names(path.name) or (path.name,)
    try:
        reason = why_unfit([read_gguf(path.with_name(name)) for name in names])
    except (CorruptFile, OSError):
        return
    if reason is not None:
        raise SystemExit(f"cannot_rank: {reason}")


def main() -> None:
    """Checks the file, and becomes the program that serves it."""
    path, program, *rest = sys.argv[1:]
    check(Path(path))
    os.execv(program, [program, *rest])


if __name__ == "__main__":
    main()
