"""Holds registry/sizes/mixtures.py against llama.cpp's own rules, tensor by tensor.

    python -m bench.mixtures PATH/TO/llama.cpp [--write]

It compiles src/llama-quant.cpp of a source tree, unchanged, with bench/mixtures.cpp, which needs no
build of llama.cpp and some seconds, and asks it for the types of all tensors of the published
models in tests/headers.py, in each type of file. `--write` keeps the sizes that follow for
tests/registry/test_mixtures.py.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from paddock.registry.derive.gguf import FILE_TYPE_NUMBERS
from paddock.registry.sizes.mixtures import (
    FILE_TYPES,
    Arrangement,
    Mixture,
    Network,
    Tensor,
    arrange,
    assign_types,
    tensors_bytes,
)
from tests.headers import HEADERS, Header, tensor_shapes

KEPT = Path(__file__).parents[1] / "tests" / "registry" / "mixtures.json"
_OF_16_BITS = {"F32", "F16", "BF16"}
_70B = {"block_count": 80, "embedding_length": 8192, "feed_forward_length": 28_672}
MODELS = HEADERS | {
    "Llama 3.1 70B": replace(
        HEADERS["Llama 3.1 8B"],
        numbers={**HEADERS["Llama 3.1 8B"].numbers, **_70B, "attention.head_count": 64},
    )
}
"""The published models, and one that llama.cpp treats apart."""
QUANTIZED = tuple(name for name in FILE_TYPES if name not in _OF_16_BITS)


def tensors_of(header: Header) -> Arrangement:
    """The tensors of a published model."""
    return arrange(Tensor(name, shape) for name, shape in tensor_shapes(header))


def network_of(header: Header) -> Network:
    """What the rules ask of it."""
    heads, shared = (
        _first(header, "attention.head_count"),
        _first(header, "attention.head_count_kv"),
    )
    experts = int(header.get("expert_count", 0))
    is_70b = header.name in {"llama", "qwen2"} and header.layers == 80 and heads != shared
    return Network(header.layers, heads // shared if shared else 0, experts, is_70b)


def _first(header: Header, key: str) -> int:
    value = header.get(key, 0)
    return int(value[0] if isinstance(value, list) else value)


def _build(source: Path, folder: Path) -> Path:
    """Compiles the rules and what they call; the rest of llama.cpp stays undefined."""
    (folder / "ggml-version.h").write_text("")
    includes = ["src", "include", "ggml/include", "ggml/src", "common", "vendor"]
    options = ["-O0", "-w", "-D_GNU_SOURCE", '-DGGML_VERSION=""', '-DGGML_COMMIT=""', f"-I{folder}"]
    options += [f"-I{source / name}" for name in includes]
    objects = []
    for file in (
        Path(__file__).with_suffix(".cpp"),
        *(source / "src" / f"llama-{name}.cpp" for name in ("quant", "arch", "hparams", "impl")),
        *(source / "ggml/src" / name for name in ("ggml.c", "ggml-quants.c", "ggml-threading.cpp")),
    ):
        made = folder / f"{file.name}.o"
        compiler = ["gcc", "-std=c11"] if file.suffix == ".c" else ["g++", "-std=c++17"]
        subprocess.run([*compiler, *options, "-c", file, "-o", made], check=True)
        objects.append(made)
    program = folder / "mixtures"
    unresolved = ["-Wl,--unresolved-symbols=ignore-all", "-no-pie", "-lpthread", "-w"]
    subprocess.run(["g++", *objects, "-o", program, *unresolved], check=True)
    return program


def _ask(program: Path, header: Header, tensors: Sequence[Tensor]) -> dict[str, list[str]]:
    """The types that llama.cpp gives the tensors, by the type of the file."""
    network = network_of(header)
    heads = _first(header, "attention.head_count")
    shared = _first(header, "attention.head_count_kv")
    lines = [
        f"{header.name} {header.layers} {heads} {shared} {network.experts} "
        f"{int(network.is_70b)} {len(tensors)}"
    ]
    for tensor in tensors:
        row, rows, matrices = (*tensor.shape, 1, 1)[:3]
        lines.append(f"{tensor.name} {row} {rows} {matrices}")
    numbers = {str(FILE_TYPE_NUMBERS[name]): name for name in QUANTIZED}
    answer = subprocess.run(
        [program, *numbers], input="\n".join(lines), text=True, capture_output=True, check=True
    )
    table = (line.split() for line in answer.stdout.splitlines())
    return {numbers[number]: [kind.upper() for kind in kinds] for number, *kinds in table}


_PLANNED = re.compile(
    r"^\[ *\d+/ *\d+\] (?P<name>\S+) +- \[.*\], type = +(?P<old>\w+), size = "
    r".*?(?:\((?P<new>\w+)\))?$"
)


def planned_types(
    program: str, file: Path, file_type: str, matrix: Path | None = None
) -> dict[str, str]:
    """The type that `llama-quantize --dry-run` plans for each tensor of a file in 16 bits.

    `matrix` is a file with an importance matrix, where there is one.
    """
    options = ["--imatrix", matrix] if matrix else []
    command = [program, "--dry-run", *map(str, options), str(file), file_type]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = map(_PLANNED.match, (done.stdout + done.stderr).splitlines())
    return {line["name"]: (line["new"] or line["old"]).upper() for line in lines if line}


def main() -> int:
    """Prints the tensors that differ; 1 where there are any."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("--write", action="store_true")
    chosen = parser.parse_args()
    sizes: dict[str, dict[str, int]] = {}
    wrong = compared = 0
    with tempfile.TemporaryDirectory() as folder:
        program = _build(chosen.source, Path(folder))
        for title, header in MODELS.items():
            tensors = tensors_of(header)
            for name, kinds in _ask(program, header, tensors.tensors).items():
                ours = assign_types(tensors, network_of(header), Mixture(name))
                asked = []
                for (tensor, kind), theirs in zip(ours, kinds, strict=True):
                    compared += 1
                    # 16 bits stand for what it leaves in the type of the file that it reads.
                    kept = theirs == "F16" and kind in _OF_16_BITS
                    asked.append((tensor, kind if kept else theirs))
                    if not kept and kind != theirs:
                        wrong += 1
                        print(f"{title} {name}: {tensor.name} {tensor.shape} {theirs}, not {kind}")
                sizes.setdefault(title, {})[name] = tensors_bytes(asked)
    print(f"{compared:,} types, of {len(sizes)} models × {len(QUANTIZED)} files: {wrong} differ")
    if chosen.write:
        KEPT.write_text(json.dumps(sizes, indent=0) + "\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
