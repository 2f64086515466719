"""Formats of weights: what follows from a format's name. A format is one row here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class WeightFormat:
    """One way in which weights are stored.

    Attributes:
        name: in specs, requests and plans, as Xinference writes it.
        engines: that read it, for specs which name none; the first is taken first.
        is_single_file: a variant is one file, or the parts of one, of many in its repository.
        has_projectors: a file beside the weights may let a model see pictures.
        may_have_code: a repository may bring Python code or pickles of its own.
        is_quantized_at_load: quantizations may be made while loading, and share one set of files.
    """

    name: str
    engines: tuple[str, ...]
    is_single_file: bool = False
    has_projectors: bool = False
    may_have_code: bool = True
    is_quantized_at_load: bool = False


_ROWS = (
    WeightFormat("pytorch", ("Transformers", "vLLM", "SGLang"), is_quantized_at_load=True),
    WeightFormat("gptq", ("Transformers", "vLLM", "SGLang")),
    WeightFormat("awq", ("Transformers", "vLLM", "SGLang")),
    WeightFormat("fp8", ("vLLM", "SGLang")),
    WeightFormat("bnb", ("Transformers",), is_quantized_at_load=True),
    WeightFormat("mlx", ("MLX",)),
    WeightFormat(
        "ggufv2", ("llama.cpp",), is_single_file=True, has_projectors=True, may_have_code=False
    ),
)
FORMATS: Mapping[str, WeightFormat] = {row.name: row for row in _ROWS}
GGUF = "ggufv2"
_OTHER = WeightFormat("", ())


def weight_format(name: str) -> WeightFormat:
    """The format of this name; one without anything special for a name that is none of these."""
    return FORMATS.get(name, _OTHER)
