"""Safetensors as plain Python: to make checkpoints that are wrong in one place."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

Tensors = dict[str, tuple[str, list[int], bytes]]
"""Name → type, shape and bytes."""


def read(path: Path) -> Tensors:
    """All tensors of a file."""
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    header.pop("__metadata__", None)
    return {
        name: (one["dtype"], one["shape"], body[slice(*one["data_offsets"])])
        for name, one in header.items()
    }


def write(path: Path, tensors: Tensors) -> None:
    """A file of these tensors."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, (kind, shape, data) in tensors.items():
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    body = b"".join(data for _, _, data in tensors.values())
    path.write_bytes(struct.pack("<Q", len(head)) + head + body)


def changed(source: Path, target: Path, change: Callable[[Tensors], None]) -> None:
    """A copy of a checkpoint of one file, with its tensors changed."""
    shutil.copytree(source, target)
    tensors = read(target / "model.safetensors")
    change(tensors)
    write(target / "model.safetensors", tensors)


def without(name: str) -> Callable[[Tensors], None]:
    """A tensor is missing."""
    return lambda tensors: tensors.pop(name) and None


def halved(name: str) -> Callable[[Tensors], None]:
    """A tensor has half as many rows."""

    def change(tensors: Tensors) -> None:
        kind, (rows, *rest), data = tensors[name]
        tensors[name] = kind, [rows // 2, *rest], data[: len(data) // 2]

    return change


def surplus(name: str) -> Callable[[Tensors], None]:
    """There is one tensor too many."""

    def change(tensors: Tensors) -> None:
        tensors[name] = "F32", [2], bytes(8)

    return change


def in_shards(folder: Path, lost: bool) -> None:
    """The checkpoint's one file becomes two with an index; the second of them may be lost."""
    tensors = read(folder / "model.safetensors")
    names = list(tensors)
    weight_map: dict[str, str] = {}
    for number, some in enumerate((names[::2], names[1::2]), 1):
        file = f"model-{number:05}-of-00002.safetensors"
        weight_map |= dict.fromkeys(some, file)
        if number == 1 or not lost:
            write(folder / file, {name: tensors[name] for name in some})
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()


def called(old: str, new: str) -> Callable[[Tensors], None]:
    """A tensor has another name."""

    def change(tensors: Tensors) -> None:
        tensors[new] = tensors.pop(old)

    return change
