"""The memory formula for llama.cpp against llama.cpp itself, for headers of many architectures.

    .venv/bin/python -m bench.llama_memory [--only TEXT] [--contexts 4096,16384,65536] [--slots 1,4]

Needs no weights: the files have headers alone (`tests/headers.py`). Figures are MiB;
`docs/memory.md` has a table of them.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paddock.engines.base import Serving
from paddock.engines.llama_cpp import LlamaCpp, LlamaCppOptions, launch_settings
from paddock.engines.llama_cpp.ask import Breakdown, ask_memory
from paddock.engines.llama_cpp.memory import (
    CONTEXT_STEP,
    Batch,
    output_bytes,
    process_bytes,
)
from paddock.launcher.hosts.environ import engine_environment
from paddock.launcher.planning.reckon import Setup, reckon
from paddock.registry.derive.gguf import from_header
from paddock.registry.derive.repository import RepositoryContents
from paddock.registry.gguf import read_gguf
from paddock.registry.reference import Reference
from paddock.registry.spec import Architecture
from tests.headers import HEADERS, write_header

MIB = 1024 * 1024
CONTEXTS, SLOTS = (4096, 16_384, 65_536), (1, 4)


@dataclass(frozen=True)
class Row:
    """One comparison, in bytes; the process itself is not in it."""

    name: str
    context: int
    slots: int
    predicted: Mapping[str, int]
    asked: Breakdown

    @property
    def predicted_bytes(self) -> int:
        """The formula's sum."""
        return sum(self.predicted.values())

    @property
    def difference(self) -> int:
        """Bytes that the formula says too many."""
        return self.predicted_bytes - self.asked.total_bytes

    @property
    def is_close(self) -> bool:
        """Whether the formula is within 8 % or 64 MiB."""
        return abs(self.difference) <= max(64 * MIB, 0.08 * self.asked.total_bytes)

    def __str__(self) -> str:
        parts = " + ".join(f"{value // MIB:,}" for value in self.predicted.values())
        asked = [
            sum(getattr(device, part) for device in self.asked.devices) // MIB
            for part in ("model_bytes", "context_bytes", "compute_bytes")
        ]
        return (
            f"| {self.name} | {self.slots} × {self.context:,} | {parts} | "
            f"{' + '.join(f'{value:,}' for value in asked)} | "
            f"{self.predicted_bytes // MIB:,} : {self.asked.total_bytes // MIB:,} | "
            f"{self.difference / MIB:+,.0f} ({self.difference / self.asked.total_bytes:+.1%}) |"
        )


HEAD = (
    "| header | slots × context | formula: weights + cache + compute | llama.cpp: the same "
    "| predicted : asked | difference |\n|---|---|---|---|---|---|"
)


def architecture_of(path: Path) -> Architecture:
    """The architecture that a spec derived from the file has."""
    reference = Reference("path", str(path), None, path.name)
    found = RepositoryContents(
        reference, "", {path.name: path.stat().st_size}, (), {}, read_gguf(path), path.name
    )
    return Architecture.model_validate(from_header(str(path), found).architecture)


def compare(
    name: str, path: Path, context: int, slots: int, ability: str = "generate", **options: Any
) -> Row:
    """The formula and llama.cpp on one launch."""
    settled = LlamaCppOptions.model_validate({"n_threads": 1, "repack": False, **options})
    pooled = ability != "generate"
    outputs = context + CONTEXT_STEP if pooled else slots
    shape = architecture_of(path)
    engine = LlamaCpp()
    setup = Setup(shape, path.stat().st_size, engine, settled, pooled)
    memory = reckon(setup, context, slots, 1 << 60)
    serving = Serving(
        model_id="asked",
        weights=path,
        port=0,
        api_key="",
        context_length=context,
        slots=slots,
        abilities=(ability,),
        options=settled,
    )
    asked = ask_memory(sys.executable, launch_settings(serving), engine_environment(os.environ, {}))
    predicted = {
        "weights": memory.weights_bytes,
        "cache": memory.cache_bytes,
        # llama.cpp's breakdown has neither the process nor the output buffer.
        "compute": memory.overhead_bytes
        - process_bytes(shape)
        - output_bytes(shape, Batch(outputs, outputs)),
    }
    return Row(name, context, slots, predicted, asked)


def rows(
    folder: Path, names: Sequence[str], contexts: Sequence[int], slots: Sequence[int]
) -> Iterator[Row]:
    """All comparisons of the headers with these names."""
    for name in names:
        path = write_header(folder / f"{name.replace(' ', '-')}.gguf", HEADERS[name])
        for context in contexts:
            for count in slots:
                yield compare(name, path, context, count)
        path.unlink()


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="", help="headers whose name has this text")
    parser.add_argument("--contexts", default=",".join(map(str, CONTEXTS)))
    parser.add_argument("--slots", default=",".join(map(str, SLOTS)))
    args = parser.parse_args()
    names = [name for name in HEADERS if args.only.casefold() in name.casefold()]
    contexts, slots = (
        [int(number) for number in text.split(",")] for text in (args.contexts, args.slots)
    )
    print(HEAD)
    with tempfile.TemporaryDirectory() as folder:
        for row in rows(Path(folder), names, contexts, slots):
            print(row, "" if row.is_close else "FAR", flush=True)


if __name__ == "__main__":
    main()
