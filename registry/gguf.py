"""Reads the header of a GGUF file and checks that the file is complete. Trusts nothing in it.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Every count is capped and every
offset is checked against the file's length, because headers come from strangers.
"""

from __future__ import annotations

import math
import os
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from paddock.registry.errors import CorruptFile

MAGIC = b"GGUF"
NOT_GGUF = "not a GGUF file (it does not begin with 'GGUF')"
VERSIONS = (2, 3)
MAX_ENTRIES = 1 << 16
MAX_TENSORS = 1 << 18
MAX_STRING = 1 << 24
MAX_ARRAY = 1 << 24
MAX_DIMENSIONS = 4
MAX_DEPTH = 2
MAX_ITEMS = 1 << 21
"""The limit on entries, tensors and array elements together. Gemma 3's header, one of the
largest, has 0.8 million; reading up to the limit takes about two seconds."""
MAX_TEXT = 1 << 26
"""The limit on the bytes of all stored metadata text."""
SHORT = 1024
"""Arrays of up to this many elements are stored; arrays of texts up to `SHORT_TEXTS`."""
SHORT_TEXTS = 64

# Struct codes of the metadata value types 0-12, without string (8) and array (9).
_SCALARS = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d",
}  # fmt: skip
_STRING, _ARRAY = 8, 9

# Tensor type → (weights in a block, bytes of a block), as ggml.h and ggml-common.h define them.
_BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34),
    9: (32, 36), 10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210),
    15: (256, 292), 16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18),
    21: (256, 110), 22: (256, 82), 23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8),
    28: (1, 8), 29: (256, 56), 30: (1, 2), 34: (256, 54), 35: (256, 66), 39: (32, 17),
}  # fmt: skip


class ByteSource(Protocol):
    """Bytes of a known length that can be read in pieces. Errors show its `name`."""

    name: str
    length: int

    def read(self, start: int, count: int) -> bytes:
        """The bytes from `start` on; fewer than `count` where they end."""
        ...


class FileBytes:
    """An open file as a `ByteSource`."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file = file
        self.name = str(path)
        self.length = os.fstat(file.fileno()).st_size

    def read(self, start: int, count: int) -> bytes:
        """The bytes from `start` on; fewer than `count` at the end of the file."""
        self._file.seek(start)
        return self._file.read(count)


@dataclass(frozen=True)
class GgufArray:
    """An array of the metadata: its length, and its items where they are few."""

    length: int
    items: tuple[Any, ...] | None = None


@dataclass(frozen=True)
class GgufHeader:
    """What a header says. `metadata` has no arrays, which can be megabytes; `arrays` has them."""

    version: int
    metadata: dict[str, Any]
    tensors: int
    needed_bytes: int
    """The least length of a complete file: the end of the last tensor of a known type."""
    arrays: Mapping[str, GgufArray] = field(default_factory=dict)
    parameters: int = 0
    """Weights of all tensors in this file, which may be one part of several."""
    expert_parameters: int = 0
    """The weights that belong to experts."""
    has_output: bool = False
    """Whether there is an output layer of its own."""
    has_rank_head: bool = False
    """Whether there is a layer that scores pairs."""


class _Reader:
    def __init__(self, source: ByteSource) -> None:
        self.source = source
        self.length = source.length
        self.at = 0
        self.items = 0
        self.text = 0

    def fail(self, reason: str) -> CorruptFile:
        return CorruptFile(self.source.name, reason)

    def take(self, count: int) -> bytes:
        data = self.source.read(self.at, count) if count <= self.length - self.at else b""
        if len(data) != count:
            raise self.short()
        self.at += count
        return data

    def skip(self, count: int) -> None:
        if count > self.length - self.at:
            raise self.short()
        self.at += count

    def short(self) -> CorruptFile:
        return self.fail(f"the header ends after {self.length} bytes: the file is cut short")

    def item(self, count: int = 1) -> None:
        self.items += count
        if self.items > MAX_ITEMS:
            raise self.fail(f"the header holds more than {MAX_ITEMS} items")

    def scalar(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}")))[0]

    def count(self, most: int, of: str) -> int:
        value = int(self.scalar("Q"))
        if value > most:
            raise self.fail(f"{value} {of} are declared, more than the {most} that are believable")
        return value

    def string(self) -> str:
        length = self.count(MAX_STRING, "bytes of text")
        self.text += length
        if self.text > MAX_TEXT:
            raise self.fail(f"the header holds more than {MAX_TEXT} bytes of text")
        return self.take(length).decode("utf-8", "replace")

    def value(self, kind: int) -> Any:
        if kind in _SCALARS:
            return self.scalar(_SCALARS[kind])
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            return self.array(1)
        raise self.fail(f"metadata of the unknown type {kind}")

    def array(self, depth: int) -> GgufArray:
        inner = int(self.scalar("I"))
        length = self.count(MAX_ARRAY, "array elements")
        if inner in _SCALARS:
            code = _SCALARS[inner]
            size = length * struct.calcsize(f"<{code}")
            if length <= SHORT:
                self.item(length)
                return GgufArray(length, struct.unpack(f"<{length}{code}", self.take(size)))
            self.skip(size)
        elif inner == _STRING and length <= SHORT_TEXTS:
            return GgufArray(length, tuple(self.texts(length)))
        elif inner == _STRING:
            for _ in range(length):
                self.item()
                self.skip(self.count(MAX_STRING, "bytes of text"))
        elif inner == _ARRAY and depth < MAX_DEPTH:
            for _ in range(length):
                self.item()
                self.array(depth + 1)
        else:
            raise self.fail(f"an array of the unknown type {inner}")
        return GgufArray(length)

    def texts(self, count: int) -> Iterator[str]:
        for _ in range(count):
            self.item()
            yield self.string()


def read_gguf(path: Path) -> GgufHeader:
    """Reads the header of a file.

    Raises:
        CorruptFile: not a GGUF, a version nobody knows, or cut short.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return read_header(FileBytes(file, path))


@dataclass(frozen=True)
class GgufShape:
    """What the first entries of a header say of the network; 0: they do not."""

    architecture: str
    layers: int
    hidden_size: int


def read_shape(path: Path) -> GgufShape:
    """Reads the header as far as it takes to know the shape, which mostly is its first page.

    Raises:
        CorruptFile, OSError: as `read_gguf`.
    """
    with path.open("rb") as file:
        reader = _Reader(FileBytes(file, path))
        _, _, entries = _begin(reader)
        metadata: dict[str, Any] = {}
        name, layers, width = "", 0, 0
        for _ in range(entries):
            if name and layers and width:
                break
            reader.item()
            key = reader.string()
            metadata[key] = reader.value(int(reader.scalar("I")))
            name = str(metadata.get("general.architecture", ""))
            layers = _whole(metadata.get(f"{name}.block_count"))
            width = _whole(metadata.get(f"{name}.embedding_length"))
        return GgufShape(name, layers, width)


@dataclass(frozen=True)
class GgufKind:
    """What a GGUF is for, by the first entries of its header; 0 and "": they do not say.

    `type` is `model`, `adapter`, `imatrix`, `mmproj`, or another that its writer has made up.
    """

    architecture: str = ""
    type: str = "model"
    tensors: int = 0
    layers: int = 0
    hidden_size: int = 0


KIND_BYTES = 1 << 17
"""How far into a header its kind is looked for; vocabularies, which are long, come behind it."""


def read_kind(source: ByteSource) -> GgufKind:
    """Reads the header as far as it takes to know what the file is for.

    Raises:
        CorruptFile: as `read_gguf`; and what the source itself raises.
    """
    reader = _Reader(source)
    _, tensors, entries = _begin(reader)
    metadata: dict[str, Any] = {}
    kind = GgufKind(tensors=tensors)
    for _ in range(entries):
        reader.item()
        key = reader.string()
        if reader.at > KIND_BYTES or key.startswith("tokenizer."):
            break
        metadata[key] = reader.value(int(reader.scalar("I")))
        name = str(metadata.get("general.architecture", ""))
        kind = GgufKind(
            name,
            str(metadata.get("general.type", "model")),
            tensors,
            _whole(metadata.get(f"{name}.block_count")),
            _whole(metadata.get(f"{name}.embedding_length")),
        )
        if "general.type" in metadata and (kind.type != "model" or kind.layers * kind.hidden_size):
            break
    return kind


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


# Beginnings of files that are taken for GGUFs. ggml, ggmf, ggjt and ggla are numbers of 32 bits.
_MAGICS = {
    b"lmgg": "a GGML file, which llama.cpp has not read since 2023",
    b"fmgg": "a GGML file, which llama.cpp has not read since 2023",
    b"tjgg": "a GGML file, which llama.cpp has not read since 2023",
    b"algg": "a LoRA adapter in the format before GGUF",
    b"PK\x03\x04": "a ZIP archive, or a model that PyTorch has pickled",
    b"\x80\x02": "a pickle",
    b"\x1f\x8b": "a gzip archive",
    b"\xfd7zXZ": "an xz archive",
    b"(\xb5/\xfd": "a zstd archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"FUGG": "a GGUF with its bytes in reverse order",
    b"\x89HDF": "an HDF5 file",
}
_PAGE = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<!--.*?-->\s*)*<(?:!doctype|html|head|\?xml)", re.I | re.S
)
HEAD_BYTES = 512
SAFETENSORS = "a safetensors file"
_FORMS: tuple[tuple[str, Callable[[bytes], bool]], ...] = (
    ("an empty file", lambda head: not head),
    ("a git-annex pointer, whose file git annex get brings", lambda head: b"/annex/obj" in head),
    ("a web page, such as one that asks for a login", lambda head: bool(_PAGE.match(head))),
    (
        SAFETENSORS,
        lambda head: head[8:10] == b'{"' and int.from_bytes(head[:8], "little") < 1 << 28,
    ),
    ("zeros: a download that did not come to its end", lambda head: not head.strip(b"\0")),
    (
        "JSON, such as a server's error",
        lambda head: head.isascii() and head.lstrip()[:1] in {b"{", b"["},
    ),
    ("text", lambda head: head.isascii() and b"\0" not in head),
)


def foreign_kind(head: bytes) -> str:
    """What a file is that begins with `head` and should be weights; "" where that is unknown."""
    head = head[:HEAD_BYTES]
    if head.startswith(b"version https://git-lfs.github.com/"):
        return _pointer(head)
    magic = next((name for magic, name in _MAGICS.items() if head.startswith(magic)), "")
    return magic or next((name for name, fits in _FORMS if fits(head)), "")


def _pointer(head: bytes) -> str:
    """What a Git LFS pointer points to."""
    size = re.search(rb"^size ([0-9]{1,18})\s*$", head, re.MULTILINE)
    of = f" of {int(size[1])} bytes" if size else ""
    return f"a Git LFS pointer to a file{of}, which git lfs pull brings"


def _begin(reader: _Reader) -> tuple[int, int, int]:
    """The version and the numbers of tensors and entries of a header that begins as one."""
    head = reader.source.read(0, min(HEAD_BYTES, reader.length))
    if head[:4] != MAGIC:
        foreign = foreign_kind(head)
        raise reader.fail(f"not a GGUF file but {foreign}" if foreign else NOT_GGUF)
    if reader.length < 24:
        raise reader.short()
    reader.at = len(MAGIC)
    version = int(reader.scalar("I"))
    if version.to_bytes(4, "little") in {b"\0\0\0\x02", b"\0\0\0\x03"}:
        raise reader.fail("GGUF version of the other byte order (big endian)")
    if version not in VERSIONS:
        raise reader.fail(f"GGUF version {version}; 2 and 3 are known")
    tensors = reader.count(MAX_TENSORS, "tensors")
    return version, tensors, reader.count(MAX_ENTRIES, "metadata entries")


def read_header(source: ByteSource) -> GgufHeader:
    """Reads the header, and nothing behind it.

    Raises:
        CorruptFile: as `read_gguf`; and what the source itself raises.
    """
    reader = _Reader(source)
    version, tensors, entries = _begin(reader)
    metadata: dict[str, Any] = {}
    for _ in range(entries):
        reader.item()
        key = reader.string()
        if key in metadata:
            raise reader.fail(f"the metadata {key[:80]!r} stands there twice")
        metadata[key] = reader.value(int(reader.scalar("I")))
    sums = _Tensors()
    for _ in range(tensors):
        _read_tensor(reader, sums)
    alignment = metadata.get("general.alignment", 32)
    # bool is a subclass of int.
    if type(alignment) is not int or not 1 <= alignment <= 1 << 20:
        raise reader.fail(f"alignment {str(alignment)[:80]}")
    if alignment & (alignment - 1):
        raise reader.fail(f"alignment {alignment} is not a power of two")
    start = -(-reader.at // alignment) * alignment
    arrays = {key: value for key, value in metadata.items() if isinstance(value, GgufArray)}
    return GgufHeader(
        version,
        {key: value for key, value in metadata.items() if key not in arrays},
        tensors,
        start + sums.end,
        arrays,
        sums.weights,
        sums.expert_weights,
        sums.has_output,
        sums.has_rank_head,
    )


@dataclass
class _Tensors:
    """Sums over the tensors; `end` is counted from the start of all data."""

    end: int = 0
    weights: int = 0
    expert_weights: int = 0
    has_output: bool = False
    has_rank_head: bool = False


def _read_tensor(reader: _Reader, sums: _Tensors) -> None:
    """Adds a tensor. The end of one of an unknown type is not known."""
    reader.item()
    name = reader.string()[:80]
    dimensions = int(reader.scalar("I"))
    if dimensions > MAX_DIMENSIONS:
        raise reader.fail(f"tensor {name!r} has {dimensions} dimensions")
    weights = math.prod(int(reader.scalar("Q")) for _ in range(dimensions))
    kind = int(reader.scalar("I"))
    offset = int(reader.scalar("Q"))
    if offset > 1 << 48 or weights > 1 << 48:
        raise reader.fail(f"tensor {name!r} lies at {offset} with {weights} weights")
    sums.weights += weights
    sums.expert_weights += weights if "_exps." in name else 0
    sums.has_output |= name == "output.weight"
    sums.has_rank_head |= name in {"cls.weight", "cls.output.weight"}
    if kind in _BLOCKS:
        per_block, block_bytes = _BLOCKS[kind]
        sums.end = max(sums.end, offset + -(-weights // per_block) * block_bytes)


def check_gguf(path: Path) -> GgufHeader:
    """Reads the header and checks that all the data that it declares is there.

    Raises:
        CorruptFile: as `read_gguf`, or the file is shorter than its tensors.
        OSError: the file cannot be read.
    """
    header = read_gguf(path)
    length = path.stat().st_size
    if length < header.needed_bytes:
        raise CorruptFile(
            str(path),
            f"cut short: {length} bytes of at least {header.needed_bytes} that its header declares",
        )
    return header
