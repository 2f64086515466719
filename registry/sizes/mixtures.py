"""Which type llama.cpp gives each tensor of a GGUF file, by the file's type. Pure.

The rules are those of `llama-quantize` (llama.cpp's src/llama-quant.cpp, build 11434, November
2026); the layout of the types is that of ggml/src/ggml-common.h. `bench/mixtures.py` holds this
module against that source, tensor by tensor.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

ALIGNMENT = 32
"""Tensors begin at multiples of it (GGUF_DEFAULT_ALIGNMENT)."""

# Numbers in one block, and the bytes that it takes.
BLOCKS = {
    "F32": (1, 4), "F16": (1, 2), "BF16": (1, 2),
    "Q4_0": (32, 18), "Q4_1": (32, 20), "Q5_0": (32, 22), "Q5_1": (32, 24), "Q8_0": (32, 34),
    "IQ4_NL": (32, 18), "MXFP4": (32, 17),
    "Q2_K": (256, 84), "Q3_K": (256, 110), "Q4_K": (256, 144), "Q5_K": (256, 176),
    "Q6_K": (256, 210), "IQ1_S": (256, 50), "IQ1_M": (256, 56), "IQ2_XXS": (256, 66),
    "IQ2_XS": (256, 74), "IQ2_S": (256, 82), "IQ3_XXS": (256, 98), "IQ3_S": (256, 110),
    "IQ4_XS": (256, 136), "TQ1_0": (256, 54), "TQ2_0": (256, 66),
}  # fmt: skip

# The type of most tensors, by the type of the file (llama_ftype_get_default_type).
FILE_TYPES = {
    "F32": "F32", "F16": "F16", "BF16": "BF16",
    "Q4_0": "Q4_0", "Q4_1": "Q4_1", "Q5_0": "Q5_0", "Q5_1": "Q5_1", "Q8_0": "Q8_0",
    "Q2_K": "Q2_K", "Q2_K_S": "Q2_K", "Q3_K_S": "Q3_K", "Q3_K_M": "Q3_K", "Q3_K_L": "Q3_K",
    "Q4_K_S": "Q4_K", "Q4_K_M": "Q4_K", "Q5_K_S": "Q5_K", "Q5_K_M": "Q5_K", "Q6_K": "Q6_K",
    "IQ1_S": "IQ1_S", "IQ1_M": "IQ1_M", "IQ2_XXS": "IQ2_XXS", "IQ2_XS": "IQ2_XS",
    "IQ2_S": "IQ2_XS", "IQ2_M": "IQ2_S", "IQ3_XXS": "IQ3_XXS", "IQ3_XS": "IQ3_S",
    "IQ3_S": "IQ3_S", "IQ3_M": "IQ3_S", "IQ4_NL": "IQ4_NL", "IQ4_XS": "IQ4_XS",
    "TQ1_0": "TQ1_0", "TQ2_0": "TQ2_0", "MXFP4_MOE": "MXFP4",
}  # fmt: skip

# What a row takes that is no multiple of the type's block.
_FALLBACKS = {
    **dict.fromkeys(
        ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_XS"), "IQ4_NL"
    ),
    **dict.fromkeys(("Q2_K", "Q3_K", "TQ1_0", "TQ2_0"), "Q4_0"),
    "Q4_K": "Q5_0",
    "Q5_K": "Q5_1",
    "Q6_K": "Q8_0",
}

# Matrices that are never quantized: those that the conversion writes in float32 (prepare_tensors in
# conversion/base.py), and those that stay in the 16 bits of the file that was converted.
_PLAIN = re.compile(
    r"_norm\.weight$|ffn_gate_inp\.weight|ssm_conv1d|shortconv\.conv\.weight|position_embd\.weight"
    r"|token_types\.weight|altup_(?:correct|predict)_coef"
    r"|time_mix_(?:first|w[012]|decay_w[12]|lerp_fused)\.weight"
)
_HALF = re.compile(
    r"altup|laurel|per_layer_model_proj|attn_rel_b\.weight|indexer\.[kq]_proj\.weight"
    r"|time_mix_(?:[va][012]|g[12])\.weight"
)

_LOWEST = frozenset({"IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M"})
_FROM_IMATRIX = _LOWEST | {"Q2_K_S", "IQ3_XXS"}
"""Types of files that llama.cpp makes with an importance matrix only."""
_IQ2_UPPER = frozenset({"IQ2_S", "IQ2_M"})

# attn_v by the type of the file: where 4 or more heads share keys and values, and elsewhere.
_VALUES = {
    "Q2_K": ("Q4_K", "Q3_K"),
    "Q2_K_S": ("Q4_K", None),
    "Q3_K_M": ("Q4_K", "Q4_K"),
    "Q3_K_L": ("Q5_K", "Q5_K"),
    "IQ3_XXS": ("Q4_K", None),
    "IQ3_XS": ("Q4_K", None),
    "IQ3_S": ("Q4_K", None),
    "IQ3_M": ("Q4_K", "Q4_K"),
    "IQ4_NL": ("Q5_K", None),
    "IQ4_XS": ("Q5_K", None),
}
# ffn_down, in the first eighth of the layers (Q3_K_M: sixteenth; Q4_K_M and Q5_K_M: those of
# `_is_favoured`) and in the others; some change with an importance matrix.
_DOWN: dict[str, tuple[str | None, str | None]] = {
    "Q2_K": (None, "Q3_K"),
    "Q2_K_S": ("Q4_K", None),
    "Q3_K_M": ("Q5_K", "Q4_K"),
    "Q3_K_L": (None, "Q5_K"),
    "Q4_K_S": ("Q5_K", None),
    "Q4_K_M": ("Q6_K", None),
    "Q5_K_M": ("Q6_K", None),
    "IQ3_M": ("Q4_K", None),
}
_DOWN_WITH_MATRIX: dict[str, tuple[str | None, str | None]] = {
    "Q4_0": ("Q4_1", None),
    "Q5_0": ("Q5_1", None),
}
_DOWN_WITHOUT: dict[str, tuple[str | None, str | None]] = {
    "IQ3_XXS": ("Q4_K", "Q3_K"),
    "IQ4_NL": ("Q5_K", None),
    "IQ4_XS": ("Q5_K", None),
}
# attn_output, in networks that have not 8 experts.
_OUTPUTS = {
    "Q2_K": "Q3_K", "Q3_K_M": "Q4_K", "Q3_K_L": "Q5_K", "IQ3_XXS": "IQ3_S", "IQ3_M": "Q4_K",
    "IQ1_S": "IQ2_XXS", "IQ1_M": "IQ2_XXS", "IQ2_S": "IQ3_S", "IQ2_M": "IQ3_S",
}  # fmt: skip
# Types of files whose attn_output is Q5_K with 8 experts.
_OUTPUTS_OF_8 = _LOWEST | {
    "Q2_K", "Q3_K_S", "Q3_K_M", "Q4_K_S", "Q4_K_M", "IQ3_XXS", "IQ3_XS", "IQ3_S", "IQ3_M",
    "IQ4_NL", "IQ4_XS",
}  # fmt: skip
# token_embd, where the output layer is a tensor of its own.
_EMBEDDINGS = {
    **dict.fromkeys(("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS"), "Q2_K"),
    **dict.fromkeys(("IQ2_S", "IQ2_M", "IQ3_XXS"), "IQ3_S"),
    **dict.fromkeys(("TQ1_0", "TQ2_0"), "Q4_K"),
}


@dataclass(frozen=True)
class Tensor:
    """One tensor by its name in GGUF files; `shape` begins with the length of a row."""

    name: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """The numbers in it."""
        return math.prod(self.shape)

    def size_bytes(self, kind: str) -> int:
        """Bytes in a type, without padding."""
        block, size = BLOCKS[kind]
        return self.elements // block * size


@dataclass(frozen=True)
class Network:
    """What the rules ask of a network beside its tensors.

    Attributes:
        heads_per_key: attention heads that share a key in the first layer; 0 where none does.
        is_70b: Llama or Qwen 2 with 80 layers, of which llama.cpp keeps attn_v larger.
    """

    layers: int
    heads_per_key: int
    experts: int = 0
    is_70b: bool = False


@dataclass(frozen=True)
class Mixture:
    """The type of a file, and how it was made.

    Attributes:
        imatrix: whether an importance matrix was at hand; it changes some first layers.
        outer: the type of embeddings and output layer, where they were named (`Q4_K_L`: Q8_0).
    """

    file_type: str
    imatrix: bool = False
    outer: str | None = None

    @classmethod
    def named(cls, quantization: str) -> Mixture | None:
        """The mixture that a quantization's name stands for, None where no rule is known for it.

        `_L` and `_XL` that llama.cpp does not know are bartowski's: embeddings and output in Q8_0.
        `i1-` is mradermacher's prefix for an importance matrix. `UD-` is Unsloth's for types
        chosen by layer, of which the mixture that they are named after is the nearest known.
        """
        name = quantization.upper().removeprefix("I1-").replace("FP16", "F16")
        if name.startswith("UD-"):
            nearest = cls.named(_NEAREST.get(name[3:], name[3:]))
            return nearest and cls(nearest.file_type, imatrix=True)
        name = name.replace("FP32", "F32")
        imatrix = name in _FROM_IMATRIX or quantization.casefold().startswith("i1-")
        if name in FILE_TYPES:
            # Those who publish IQ4 files make them with a matrix too.
            return cls(name, imatrix or name.startswith("IQ"))
        if name in _ALIASES:
            return cls(_ALIASES[name], imatrix)
        inner = _LARGER.get(name)
        return cls(inner, imatrix, outer="Q8_0") if inner else None


# Names that llama-quantize takes for others (tools/quantize/quantize.cpp), and that people shorten.
_ALIASES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M", "MXFP4": "MXFP4_MOE"}
_NEAREST = {
    "Q2_K_XL": "Q2_K", "Q3_K_XL": "Q3_K_M", "Q4_K_L": "Q4_K_M", "Q4_K_XL": "Q4_K_M",
    "Q5_K_XL": "Q5_K_M", "Q6_K_S": "Q6_K", "Q6_K_XL": "Q6_K", "Q8_K_XL": "Q8_0",
    "IQ4_NL_XL": "IQ4_NL",
}  # fmt: skip
_LARGER = {
    "Q2_K_L": "Q2_K", "Q3_K_XL": "Q3_K_L", "Q4_K_L": "Q4_K_M", "Q5_K_L": "Q5_K_M", "Q6_K_L": "Q6_K",
}  # fmt: skip


@dataclass(frozen=True)
class _Place:
    """Where a tensor stands: `nth` of its role in llama.cpp's order, in which layer."""

    nth: int = 0
    layer: int = -1


@dataclass(frozen=True)
class _Group:
    """Tensors of one role and shape. `fixed` is their type where no mixture changes it."""

    role: str
    tensor: Tensor
    fixed: str | None
    places: tuple[_Place, ...]


@dataclass(frozen=True)
class Arrangement:
    """The tensors of a network in groups, from which the size of each mixture is quickly had.

    Attributes:
        tied: whether the output layer is the embedding.
        values: the number of tensors that the rules of attn_v are for.
    """

    tensors: tuple[Tensor, ...]
    places: tuple[tuple[str, _Place], ...]
    groups: tuple[_Group, ...]
    tied: bool
    values: int


def arrange(tensors: Iterable[Tensor]) -> Arrangement:
    """The tensors in llama.cpp's order, by layer, then by name."""
    ordered = tuple(sorted(tensors, key=lambda tensor: (_layer(tensor.name), tensor.name)))
    passed: dict[str, int] = {}
    places: list[tuple[str, _Place]] = []
    groups: dict[tuple[str, tuple[int, ...], str | None], tuple[Tensor, list[_Place]]] = {}
    for tensor in ordered:
        role, fixed, nth = _role(tensor.name), _fixed(tensor), 0
        if fixed is None:
            nth = passed.get(role, 0)
            passed[role] = nth + 1
        place = _Place(nth, _layer(tensor.name))
        places.append((role, place))
        groups.setdefault((role, tensor.shape, fixed), (tensor, []))[1].append(place)
    return Arrangement(
        ordered,
        tuple(places),
        tuple(
            _Group(role, tensor, fixed, tuple(among))
            for (role, _, fixed), (tensor, among) in groups.items()
        ),
        tied=all(tensor.name != "output.weight" for tensor in ordered),
        values=sum(role == "value" for role, _ in places),
    )


def assign_types(
    arrangement: Arrangement, network: Network, mixture: Mixture
) -> list[tuple[Tensor, str]]:
    """Each tensor with its type."""
    rules = _Rules(network, mixture, arrangement)
    return [
        (tensor, rules.kind(role, tensor, _fixed(tensor), place))
        for tensor, (role, place) in zip(arrangement.tensors, arrangement.places, strict=True)
    ]


def mixture_bytes(arrangement: Arrangement, network: Network, mixture: Mixture) -> int:
    """Bytes of the tensors in a file, as `tensors_bytes` of `assign_types`."""
    rules = _Rules(network, mixture, arrangement)
    total = 0
    for group in arrangement.groups:
        places = group.places
        if group.fixed is not None or not rules.depends_on_place(group.role):
            kind = rules.kind(group.role, group.tensor, group.fixed, places[0])
            total += len(places) * _padded(group.tensor, kind)
            continue
        kinds = Counter(rules.kind(group.role, group.tensor, None, place) for place in places)
        total += sum(count * _padded(group.tensor, kind) for kind, count in kinds.items())
    return total


def tensors_bytes(types: Iterable[tuple[Tensor, str]]) -> int:
    """Bytes of the tensors in a file, each padded to `ALIGNMENT`."""
    return sum(_padded(tensor, kind) for tensor, kind in types)


def _padded(tensor: Tensor, kind: str) -> int:
    return -(-tensor.size_bytes(kind) // ALIGNMENT) * ALIGNMENT


def _layer(name: str) -> int:
    found = re.match(r"blk\.(\d+)\.", name)
    return int(found[1]) if found else -1


def _role(name: str) -> str:
    """What a tensor is to the rules, which match parts of its name in this order."""
    if name == "output.weight":
        return "head"
    if name in {"token_embd.weight", "per_layer_token_embd.weight"}:
        return "embedding"
    for part, role in (
        ("attn_qkv.weight", "value"),
        ("attn_kv_b.weight", "value"),
        ("attn_v.weight", "value"),
        ("attn_k.weight", "key"),
        ("attn_q.weight", "query"),
        ("attn_output.weight", "output"),
        ("ffn_up", "up"),
        ("ffn_gate", "gate"),
        ("ffn_down", "down"),
    ):
        if part in name:
            return role
    return "other"


def _fixed(tensor: Tensor) -> str | None:
    """The type that a tensor has in every mixture; `_WIDE` for that of the unquantized file."""
    # Trailing dimensions of one do not count (ggml_n_dims).
    dimensions = max((n for n, size in enumerate(tensor.shape, 1) if size > 1), default=1)
    if dimensions < 2 or not tensor.name.endswith("weight") or _PLAIN.search(tensor.name):
        return "F32"
    return _WIDE if _HALF.search(tensor.name) else None


_WIDE = "wide"


class _Rules:
    """The type of a tensor in one mixture of one network."""

    def __init__(self, network: Network, mixture: Mixture, arrangement: Arrangement) -> None:
        self.network = network
        self.mixture = mixture
        self.base = FILE_TYPES[mixture.file_type]
        self.tied = arrangement.tied
        self.values = arrangement.values

    def depends_on_place(self, role: str) -> bool:
        """Whether tensors of a role and shape may differ in type."""
        file_type = self.mixture.file_type
        if role in {"up", "gate"}:
            return file_type == "IQ3_XS"
        return role in {"value", "down"} and file_type not in {"Q4_1", "Q5_1", "Q6_K", "Q8_0"}

    def kind(self, role: str, tensor: Tensor, fixed: str | None, place: _Place) -> str:
        """The type of a tensor of a role, at a place."""
        if fixed == _WIDE:
            return self.base if self.base in {"F32", "BF16"} else "F16"
        if fixed is not None:
            return fixed
        if self.base in {"F32", "F16", "BF16"}:
            return self.base
        if self.mixture.outer and role in {"head", "embedding"}:
            kind = self.mixture.outer
        else:
            kind = self._rule(role, tensor, place)
        return _fitting(kind, tensor.shape[0])

    def _rule(self, role: str, tensor: Tensor, place: _Place) -> str:
        if role == "head" or (role == "embedding" and self.tied):
            return self._head(tensor)
        if self.mixture.file_type == "MXFP4_MOE":
            return "MXFP4" if len(tensor.shape) > 2 and tensor.shape[2] > 1 else "Q8_0"
        if role == "embedding":
            return _EMBEDDINGS.get(self.mixture.file_type, self.base)
        if self.mixture.file_type in _LOWEST:
            return self._lowest(role, place.nth)
        rule = _BY_ROLE.get(role)
        if rule is None:
            return self.base
        # With experts the layer counts, for there are several tensors of a role in each.
        by_layer = self.network.experts > 1 and role != "value"
        return rule(self, place.layer if by_layer else place.nth)

    def _head(self, tensor: Tensor) -> str:
        file_type = self.mixture.file_type
        if file_type == "MXFP4_MOE" or tensor.shape[0] % BLOCKS[self.base][0]:
            return "Q8_0"
        if file_type in _LOWEST | {"IQ3_XXS"}:
            return "Q5_K"
        return "Q8_0" if self.base == "Q8_0" else "Q6_K"

    def _lowest(self, role: str, nth: int) -> str:
        """IQ1 and IQ2 files."""
        upper = self.mixture.file_type in _IQ2_UPPER
        if role == "value":
            shared = self.network.heads_per_key >= 4 or self.network.experts >= 4
            return "Q4_K" if shared else "IQ3_S" if upper else "Q2_K"
        if role == "key" and self.network.experts == 8:
            return "Q4_K"
        if role == "down" and nth < self.network.layers // 8:
            return "IQ3_S" if upper else "Q2_K"
        return self._output(nth) if role == "output" else self.base

    def _value(self, nth: int) -> str:
        file_type, kind = self.mixture.file_type, self.base
        if file_type in _VALUES:
            shared, alone = _VALUES[file_type]
            kind = (shared if self.network.heads_per_key >= 4 else alone) or kind
            if file_type == "IQ3_XXS" and kind == self.base and not self.mixture.imatrix:
                kind = "IQ3_S"
            if file_type == "Q3_K_M" and nth < 2:
                kind = "Q5_K"
        elif file_type in {"Q4_K_M", "Q5_K_M"} and _is_favoured(nth, self.values):
            kind = "Q6_K"
        elif file_type == "Q4_K_S" and nth < 4:
            kind = "Q5_K"
        if self.network.is_70b and kind in {"Q3_K", "Q4_K"}:
            kind = "Q5_K"
        return "Q8_0" if self.network.experts == 8 else kind

    def _query(self, nth: int) -> str:
        return {"IQ3_XS": "IQ3_XXS", "IQ3_XXS": "IQ2_S"}.get(self.mixture.file_type, self.base)

    def _key(self, nth: int) -> str:
        return "Q8_0" if self.network.experts == 8 else self._query(nth)

    def _inner(self, place: int) -> str:
        layers = self.network.layers
        is_between = layers // 8 <= place < 7 * layers // 8
        return "IQ3_XXS" if self.mixture.file_type == "IQ3_XS" and is_between else self.base

    def _output(self, nth: int) -> str:
        if self.network.experts == 8:
            return "Q5_K" if self.mixture.file_type in _OUTPUTS_OF_8 else self.base
        return _OUTPUTS.get(self.mixture.file_type, self.base)

    def _down(self, place: int) -> str:
        file_type, layers = self.mixture.file_type, self.network.layers
        by_matrix = _DOWN_WITH_MATRIX if self.mixture.imatrix else _DOWN_WITHOUT
        first, rest = (_DOWN | by_matrix).get(file_type, (None, None))
        few = layers // 16 if file_type == "Q3_K_M" else layers // 8
        is_upper = _is_favoured(place, layers) and (
            file_type in {"Q4_K_M", "Q5_K_M"}
            or (file_type == "IQ3_M" and self.network.experts == 8)
        )
        return (first if is_upper or place < few else None) or rest or self.base


_BY_ROLE: dict[str, Callable[[_Rules, int], str]] = {
    "value": _Rules._value,
    "key": _Rules._key,
    "query": _Rules._query,
    "output": _Rules._output,
    "down": _Rules._down,
    "up": _Rules._inner,
    "gate": _Rules._inner,
}


def _is_favoured(nth: int, count: int) -> bool:
    """Whether a layer gets more bits: the first and last eighth, and every third between."""
    return nth < count // 8 or nth >= 7 * count // 8 or (nth - count // 8) % 3 == 2


def _fitting(kind: str, row: int) -> str:
    if row % BLOCKS[kind][0]:
        kind = _FALLBACKS.get(kind, kind)
    return "F16" if row % BLOCKS[kind][0] else kind
