"""Whether a GGUF at a path is the model that it is launched as, by the shape in its header."""

from __future__ import annotations

from pathlib import Path

from paddock.registry.errors import BadValue, CorruptFile
from paddock.registry.gguf import GgufShape, read_shape
from paddock.registry.spec import Architecture

SPARE_LAYERS = 4
"""Layers for predicting several tokens, which some files count with the others."""


def check_named_weights(path: Path, name: str, shape: Architecture) -> None:
    """Refuses the GGUF of another model; names and architectures may differ, the shape may not.

    What is not on this machine, not a GGUF, or of a model whose shape nobody states is not looked
    at. Blocks for some milliseconds.

    Raises:
        BadValue: with both shapes, and the way out.
    """
    if shape.reckoned or not path.name.casefold().endswith(".gguf"):
        return
    try:
        held = read_shape(path)
    except (CorruptFile, OSError):  # the launch will tell
        return
    if not _is_same(held, shape.layers, shape.hidden_size):
        raise BadValue(
            "model path",
            str(path),
            f"its header says {held.architecture}, {held.layers} layers {held.hidden_size} wide; "
            f"{name} has {shape.layers} layers {shape.hidden_size} wide; "
            f"to launch what it is: paddock launch {path}",
        )


def _is_same(held: GgufShape, layers: int, hidden_size: int) -> bool:
    if not held.layers or not held.hidden_size:
        return True
    return held.hidden_size == hidden_size and 0 <= held.layers - layers <= SPARE_LAYERS
