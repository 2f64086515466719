"""The reader of GGUF headers: whole files pass, every other one is a `CorruptFile`, soon."""

import random
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paddock.registry.catalog import specs_root
from paddock.registry.errors import CorruptFile
from paddock.registry.gguf import (
    MAX_ARRAY,
    MAX_ITEMS,
    SHORT,
    SHORT_TEXTS,
    FileBytes,
    GgufKind,
    check_gguf,
    foreign_kind,
    read_gguf,
    read_header,
    read_kind,
)
from tests.fakes import ARRAY, STRING, Memory, entry, gguf, tensor, text, texts

# The same examples each time, however slow the machine is.
FUZZ = settings(derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
TINY = specs_root() / "weights" / "tiny-mixtral" / "ggufv2" / "tiny-mixtral.Q4_K_M.gguf"

U32 = 4
HEADER_BYTES = 60_000
"""More than the headers of the bundled models have."""
WORDS = entry("tokens", ARRAY, struct.pack("<IQ", STRING, 3) + text("a") + text("") + text("é"))
NUMBERS = entry("scores", ARRAY, struct.pack("<IQ3f", 6, 3, 1.0, 2.0, 3.0))
NESTED = entry("pairs", ARRAY, struct.pack("<IQIQ2B", ARRAY, 1, 0, 2, 1, 2))
NAME = entry("general.architecture", STRING, text("llama"))
SMALL = gguf(
    [NAME, entry("n", U32, struct.pack("<I", 7)), WORDS, NUMBERS, NESTED],
    [tensor("a", (4, 2)), tensor("b", (32,), 8, 32)],
    bytes(32 + 34),
)


def write(folder: Path, data: bytes) -> Path:
    path = folder / "model.gguf"
    path.write_bytes(data)
    return path


def test_a_whole_file_is_read(tmp_path: Path) -> None:
    """The header gives version, scalars and texts, the number of tensors and the least length."""
    header = check_gguf(write(tmp_path, SMALL))
    assert header.version == 3
    assert header.metadata == {"general.architecture": "llama", "n": 7}
    assert header.tensors == 2
    assert header.needed_bytes == len(SMALL)


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"", "an empty file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 12345\n",
         "a Git LFS pointer to a file of 12345 bytes, which git lfs pull brings"),
        (b"../.git/annex/objects/Xk/9p/SHA256E-s1--4d.gguf", "a git-annex pointer"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"\n\n<!-- proxy --><HTML>", "a web page"),
        (b"\xef\xbb\xbf<?xml version='1.0'?><Error>", "a web page"),
        (b"lmgg" + bytes(90), "a GGML file"),
        (b"tjgg" + bytes(90), "a GGML file"),
        (b"algg" + bytes(90), "a LoRA adapter in the format before GGUF"),
        (b"PK\x03\x04", "a ZIP archive, or a model that PyTorch has pickled"),
        (b"\x80\x02}q", "a pickle"),
        (b"\x1f\x8b\x08", "a gzip archive"),
        (struct.pack("<Q", 90) + b'{"a": 1}', "a safetensors file"),
        (bytes(600), "zeros: a download that did not come to its end"),
        (b'{"error": "Invalid username or password."}', "JSON, such as a server's error"),
        (b"Entry not found", "text"),
        (b"\xfa\x01" * 20, ""),
    ],
)  # fmt: skip
def test_what_stands_in_the_place_of_weights_is_named(head: bytes, kind: str) -> None:
    """Pointers, pages and files of other formats, by their first bytes."""
    found = foreign_kind(head)
    assert found.startswith(kind)
    assert bool(found) == bool(kind)
    with pytest.raises(CorruptFile, match="not a GGUF file") as error:
        read_header(Memory(head))
    assert found in error.value.reason


def test_the_kind_of_a_file_is_read_from_its_first_entries() -> None:
    """A projector, an adapter and a model, none of them farther than it takes."""
    projector = gguf([entry("general.type", STRING, text("mmproj")), NAME], [tensor("a", (4, 2))])
    assert read_kind(Memory(projector)).type == "mmproj"
    whole = Memory(TINY.read_bytes())
    assert read_kind(whole) == GgufKind("llama", "model", read_gguf(TINY).tensors, 2, 256)
    assert whole.reached < HEADER_BYTES


def test_the_bundled_model_is_whole() -> None:
    """The least length of the model that ships is its real length, to the alignment."""
    header = check_gguf(TINY)
    assert header.metadata["llama.expert_count"] == 8
    assert 0 <= TINY.stat().st_size - header.needed_bytes < 32


def test_every_prefix_is_refused(tmp_path: Path) -> None:
    """However short a file is cut, in its header or in its data, that is seen."""
    for length in range(len(SMALL)):
        with pytest.raises(CorruptFile, match=r"cut short|not a GGUF"):
            check_gguf(write(tmp_path, SMALL[:length]))


def test_a_cut_of_the_real_model_is_refused(tmp_path: Path) -> None:
    """The message has both lengths, so that a user sees how much is missing."""
    path = write(tmp_path, TINY.read_bytes()[:-1000])
    with pytest.raises(CorruptFile) as error:
        check_gguf(path)
    assert str(path.stat().st_size) in str(error.value)
    assert str(path) in str(error.value)


COUNTS = struct.Struct("<4sIQQ")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not a GGUF"),
        (b"PK\3\4" + bytes(40), "not a GGUF"),
        (COUNTS.pack(b"GGUF", 1, 0, 0), "version 1"),
        (struct.pack(">4sIQQ", b"GGUF", 3, 0, 0), "version"),
        (COUNTS.pack(b"GGUF", 3, 2**63, 0), "tensors are declared"),
        (COUNTS.pack(b"GGUF", 3, 0, 2**64 - 1), "metadata entries are declared"),
        (COUNTS.pack(b"GGUF", 3, 0, 1000), "cut short"),
        (gguf([entry("k", STRING, struct.pack("<Q", 2**62))]), "bytes of text"),
        (gguf([entry("k", STRING, struct.pack("<Q", 5000))]), "cut short"),
        (gguf([entry("k", 13, b"")]), "unknown type 13"),
        (gguf([entry("k", ARRAY, struct.pack("<IQ", 13, 0))]), "unknown type 13"),
        (gguf([entry("k", ARRAY, struct.pack("<IQ", 0, MAX_ARRAY + 1))]), "array elements"),
        (gguf([entry("k", ARRAY, struct.pack("<IQ", 10, MAX_ARRAY))]), "cut short"),
        (gguf([entry("k", ARRAY, struct.pack("<IQ", ARRAY, 1) * 4)]), "unknown type 9"),
        (gguf([NAME, NAME]), "twice"),
        (gguf([entry("general.alignment", U32, struct.pack("<I", 0))]), "alignment 0"),
        (gguf([entry("general.alignment", U32, struct.pack("<I", 24))]), "power of two"),
        (gguf([entry("general.alignment", 7, b"\1")]), "alignment True"),
        (gguf([entry("general.alignment", STRING, text("x" * 500))]), "alignment x"),
        (gguf([], [tensor("t", (1,) * 5)]), "5 dimensions"),
        (gguf([], [tensor("t", (2**40, 2**40))]), "weights"),
        (gguf([], [tensor("t", (1,), 0, 2**60)]), "lies at"),
        (gguf([], [tensor("t", (1,), 0, 2**40)]), "cut short"),
    ],
)
def test_a_hostile_header_is_refused(tmp_path: Path, data: bytes, reason: str) -> None:
    """Counts, lengths, types and offsets that cannot be are refused, in one readable line."""
    with pytest.raises(CorruptFile, match=reason) as error:
        check_gguf(write(tmp_path, data))
    assert "\n" not in str(error.value)
    assert len(error.value.reason) < 200


def test_a_header_of_endless_items_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A huge file of empty strings costs seconds at most, not hours."""
    assert MAX_ITEMS <= 4_000_000  # each takes less than a microsecond
    monkeypatch.setattr("paddock.registry.gguf.MAX_ITEMS", 10_000)
    words = entry("k", ARRAY, struct.pack("<IQ", STRING, 10_001))
    path = write(tmp_path, gguf([words]))
    with path.open("r+b") as file:
        file.truncate(8 * 10_100)  # sparse: empty strings are zeros
    with pytest.raises(CorruptFile, match="more than 10000 items"):
        read_gguf(path)


def test_an_unknown_tensor_type_is_left_to_the_engine(tmp_path: Path) -> None:
    """Types newer than this reader are not called corrupt."""
    assert check_gguf(write(tmp_path, gguf([], [tensor("t", (32,), 99)]))).tensors == 1


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    """A file that is not there is not a broken file."""
    with pytest.raises(FileNotFoundError):
        read_gguf(tmp_path / "none.gguf")


def test_mutations_never_escape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three thousand random changes end in a header or in `CorruptFile`, and nothing else.

    None is read more often than it has bytes.
    """
    generator = random.Random(20261121)
    path = tmp_path / "model.gguf"
    refused = 0
    reads = 0
    read = FileBytes.read

    def counted(source: FileBytes, start: int, count: int) -> bytes:
        nonlocal reads
        reads += 1
        return read(source, start, count)

    monkeypatch.setattr(FileBytes, "read", counted)
    for _ in range(3000):
        data = bytearray(SMALL)
        for _ in range(generator.randint(1, 4)):
            at = generator.randrange(len(data))
            if generator.random() < 0.5:
                data[at] = generator.choice((0, 1, 0x7F, 0x80, 0xFF, generator.randrange(256)))
            else:
                data[at : at + 8] = generator.getrandbits(64).to_bytes(8, "little")
        path.write_bytes(bytes(data))
        reads = 0
        try:
            check_gguf(path)
        except CorruptFile:
            refused += 1
        assert 0 < reads < len(data)
    assert 1000 < refused < 3000


def test_short_arrays_are_kept_and_long_ones_are_counted(tmp_path: Path) -> None:
    """Numbers by layer and languages are there; a vocabulary is a length."""
    long = entry("long", ARRAY, struct.pack("<IQ", 4, SHORT + 1) + bytes(4 * (SHORT + 1)))
    words = [str(number) for number in range(SHORT_TEXTS + 1)]
    data = gguf([WORDS, NUMBERS, NESTED, long, texts("words", words)])
    arrays = read_gguf(write(tmp_path, data)).arrays
    assert (arrays["tokens"].length, arrays["tokens"].items) == (3, ("a", "", "é"))
    assert arrays["scores"].items == (1.0, 2.0, 3.0)
    assert (arrays["pairs"].length, arrays["pairs"].items) == (1, None)
    assert (arrays["long"].length, arrays["long"].items) == (SHORT + 1, None)
    assert (arrays["words"].length, arrays["words"].items) == (SHORT_TEXTS + 1, None)


def test_tensors_tell_the_parameters() -> None:
    """All of them, those of experts, and whether there is an output layer."""
    header = read_gguf(TINY)
    assert (header.parameters, header.expert_parameters) == (4_068_608, 3_145_728)
    assert header.has_output
    tied = read_header(Memory(gguf([], [tensor("token_embd.weight", (4, 2))], bytes(32))))
    assert (tied.parameters, tied.expert_parameters, tied.has_output) == (8, 0, False)


def test_nothing_behind_the_header_is_read() -> None:
    """Of 2.6 MB the reader takes the first 50 kB."""
    memory = Memory(TINY.read_bytes())
    read_header(memory)
    assert memory.reached < HEADER_BYTES


def test_text_that_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A header of nothing but long texts ends before it fills the memory."""
    monkeypatch.setattr("paddock.registry.gguf.MAX_TEXT", 1000)
    long = [entry(f"k{number}", STRING, text("x" * 600)) for number in range(2)]
    assert read_header(Memory(gguf(long[:1]))).metadata == {"k0": "x" * 600}
    with pytest.raises(CorruptFile, match="1000 bytes of text"):
        read_header(Memory(gguf(long)))


REAL = {path.name: path.read_bytes()[:HEADER_BYTES] for path in sorted(TINY.parent.glob("*.gguf"))}
CHANGES = st.lists(
    st.tuples(
        st.integers(0, HEADER_BYTES),
        st.sampled_from([0, 1, 2**31, 2**32 - 1, 2**62, 2**64 - 1]) | st.integers(0, 2**64 - 1),
        st.sampled_from([1, 2, 4, 8]),
    ),
    min_size=1,
    max_size=6,
)


@settings(FUZZ, max_examples=600)
@given(st.sampled_from(sorted(REAL)), CHANGES, st.integers(0, HEADER_BYTES), st.integers(20, 50))
def test_changed_real_headers_give_a_header_or_are_corrupt(
    name: str, changes: list[tuple[int, int, int]], cut: int, length: int
) -> None:
    """Bytes, counts and lengths of the bundled models' headers changed at will, or cut short.

    Nothing else comes out, and no more is asked for than the file is said to hold.
    """
    data = bytearray(REAL[name])
    for place, value, width in changes:
        at = place % len(data)
        data[at : at + width] = value.to_bytes(8, "little")[:width]
    if cut % 5 == 0:
        del data[cut:]
    source = Memory(bytes(data))
    source.length = 1 << length if cut % 2 else len(data)
    try:
        found = read_header(source)
    except CorruptFile:
        return
    assert found.tensors >= 0
    assert source.reached <= source.length
