"""Memory: the figures agree with what the cards state and with what was measured."""

import dataclasses
import os
import re
from pathlib import Path

import pytest

from paddock.engines import engine_names, load_engine
from paddock.engines.base import Detection, Host
from paddock.engines.llama_cpp import LlamaCpp, LlamaCppOptions
from paddock.engines.llama_cpp.memory import process_bytes
from paddock.engines.transformers import Transformers, TransformersOptions
from paddock.launcher.hosts import machine
from paddock.launcher.hosts.host import probe_host
from paddock.launcher.planning.cache import cache_bytes
from paddock.launcher.planning.estimate import estimate_table
from paddock.launcher.planning.memory import (
    loaded_bytes,
    slot_tokens,
    weight_bits,
    weights_bytes,
)
from paddock.registry.catalog import Catalog
from paddock.registry.errors import BadValue
from paddock.registry.spec import Architecture, ModelSpec, Variant

MIB = 1024 * 1024
HOST = Host("local", "here", 2, 10**12, 10**12, 10**12, {"llama.cpp": Detection("1")})
# The card's table: quantization, GB of the file, GB of "max RAM required".
CARD = {
    "Q2_K": (15.64, 18.14),
    "Q3_K_M": (20.36, 22.86),
    "Q4_0": (26.44, 28.94),
    "Q4_K_M": (26.44, 28.94),
    "Q5_0": (32.23, 34.73),
    "Q5_K_M": (32.23, 34.73),
    "Q6_K": (38.38, 40.88),
    "Q8_0": (49.62, 52.12),
}


@pytest.fixture(scope="module")
def mixtral() -> ModelSpec:
    return Catalog.load().lookup("mixtral-v0.1")


@pytest.fixture(scope="module")
def shape(mixtral: ModelSpec) -> Architecture:
    return mixtral.architecture


def test_a_token_of_mixtral_takes_128_kib(shape: Architecture) -> None:
    """32 layers × 8 heads × 128 × 2 tensors × 2 bytes; half of it and a bit in q8_0."""
    assert cache_bytes(shape, 1) == 131072
    assert cache_bytes(shape, 32768) == 4 * 1024**3
    assert cache_bytes(shape, 1024, element_bytes=(34 / 32, 34 / 32)) == 1024 * 131072 * 34 // 64


def test_a_slot_is_rounded_up() -> None:
    """A slot's cache is a whole number of steps, and never less than asked."""
    assert [slot_tokens(n, 256) for n in (1, 256, 257)] == [256, 256, 512]
    assert slot_tokens(7, 1) == 7


@pytest.mark.parametrize("quantization", CARD)
def test_estimates_agree_with_the_card(mixtral: ModelSpec, quantization: str) -> None:
    """Weights are the file's size, and the card's flat 2.5 GB pays for 16,384 tokens of context."""
    variants = mixtral.select(format="ggufv2", quantization=quantization)
    rows = estimate_table(mixtral, variants, (2048, 16384, 32768), HOST)
    file, most = CARD[quantization]
    assert {row["weights_bytes"] for row in rows} == {round(file * 10**9)}
    totals = [row["total_bytes"] / 10**9 for row in rows]
    assert totals[0] < totals[1] < most < totals[2]
    assert most - totals[1] < 0.1


def test_other_formats_agree_with_the_cards(mixtral: ModelSpec) -> None:
    """Half precision is over 90 GB, 8-bit over 45, 4-bit over 23; in GPTQ under 30."""
    half, four, eight = estimate_table(mixtral, mixtral.select(format="pytorch"), (2048,), HOST)
    assert 90 < half["weights_bytes"] / 1e9 < half["total_bytes"] / 1e9 < 96
    assert 23 < four["weights_bytes"] / 1e9 < 45 < eight["weights_bytes"] / 1e9 < 50
    (gptq,) = estimate_table(mixtral, mixtral.select(format="gptq"), (2048,), HOST)
    assert 23 < gptq["weights_bytes"] / 1e9 < gptq["total_bytes"] / 1e9 < 30


def test_another_type_in_memory_counts(mixtral: ModelSpec) -> None:
    """16-bit weights take twice their files as float32; quantized ones stay as they are."""
    plain, four, *_ = mixtral.select(format="pytorch")
    (gptq,) = mixtral.select(format="gptq")
    stored = weights_bytes(plain, mixtral.architecture)
    wide = Transformers().weight_element_bytes(TransformersOptions(dtype="float32"))
    left = Transformers().weight_element_bytes(TransformersOptions())
    assert loaded_bytes(plain, mixtral.architecture, stored, wide) == 2 * stored
    assert loaded_bytes(plain, mixtral.architecture, 2 * stored, wide) == 2 * stored
    assert loaded_bytes(plain, mixtral.architecture, stored, left) == stored
    assert loaded_bytes(gptq, mixtral.architecture, 9, wide) == 9
    assert loaded_bytes(four, mixtral.architecture, stored, wide) < stored


def test_bits_agree_with_stated_sizes(mixtral: ModelSpec) -> None:
    """Without a stated size, bits × parameters come within a sixth of the real file."""
    for variant in mixtral.variants:
        if variant.size_bytes is not None:
            reckoned = weights_bytes(
                variant.model_copy(update={"size_bytes": None}), mixtral.architecture
            )
            assert reckoned == pytest.approx(variant.size_bytes, rel=1 / 6)


# What llama.cpp itself printed as its compute buffer: shape, options, context of a slot, MiB.
BUFFERS = [
    ("tiny-mixtral", {}, 256, 2.88),
    ("tiny-mixtral", {}, 2048, 7.52),
    ("tiny-mixtral", {"n_ubatch": 2048}, 2048, 30.07),
    ("tiny-mixtral", {"n_ubatch": 128}, 2048, 1.88),
    ("tiny-mixtral", {"flash_attn": "off"}, 2048, 23.51),
    ("mixtral-v0.1", {}, 2048, 210.02),
    ("mixtral-v0.1", {}, 32768, 240.02),
    ("mixtral-v0.1", {"n_ubatch": 2048}, 2048, 840.07),
    ("mixtral-v0.1", {"flash_attn": "off"}, 8192, 580.01),
]


@pytest.mark.parametrize(("model", "options", "context", "mib"), BUFFERS)
def test_the_compute_buffer_agrees_with_what_llama_cpp_prints(
    model: str, options: dict[str, object], context: int, mib: float
) -> None:
    """The formula comes within a fiftieth of the engine's own figure, for two shapes."""
    architecture = Catalog.load().lookup(model).architecture
    engine = LlamaCpp()
    given = LlamaCppOptions.parse("llama.cpp", options)
    buffer = engine.overhead_bytes(architecture, given, context) - process_bytes(architecture)
    assert buffer == pytest.approx(mib * MIB, rel=0.02)


def test_kept_prompts_are_counted(shape: Architecture) -> None:
    """Memory for prompts of earlier requests is part of the overhead."""
    engine = load_engine("llama.cpp")
    without = engine.overhead_bytes(shape, LlamaCppOptions.parse("e", {}), 2048)
    kept = LlamaCppOptions.parse("e", {"cache_ram_mib": 100})
    assert engine.overhead_bytes(shape, kept, 2048) - without == 100 * MIB


def test_verdicts_say_how_it_sits_on_the_machine(mixtral: ModelSpec) -> None:
    """Fits, fits once others make room, runs from the disk, or is too large."""
    q2 = mixtral.select(format="ggufv2", quantization="Q2_K")
    half = mixtral.select(format="pytorch", quantization="none")

    def verdict(total: float, free: float, variants: tuple[Variant, ...] = q2) -> str:
        there = dataclasses.replace(
            HOST,
            memory_total_bytes=round(total * 1e9),
            memory_free_bytes=round(free * 1e9),
        )
        (row,) = estimate_table(mixtral, variants, (2048,), there)
        return str(row["verdict"])

    assert verdict(64, 32) == "fits"
    assert verdict(64, 8) == "fits once other programs give memory back"
    assert verdict(8, 6) == "too large: runs from the disk, slowly"
    assert verdict(0.5, 0.3) == "too large"
    assert verdict(64, 60, half) == "too large"


def test_contexts_outside_the_model_are_refused(mixtral: ModelSpec) -> None:
    """Zero and more than the model was trained for are wrong values."""
    for context in (0, -1, 32769):
        with pytest.raises(BadValue, match="context length"):
            estimate_table(mixtral, mixtral.variants, (context,), HOST)


def test_local_weights_count_by_their_files() -> None:
    """tiny-mixtral's rows show the sizes that its files have, one file or a folder."""
    tiny = Catalog.load().lookup("tiny-mixtral")
    there = dataclasses.replace(
        HOST,
        files={
            "weights/tiny-mixtral/ggufv2/tiny-mixtral.Q4_K_M.gguf": 111,
            "weights/tiny-mixtral/pytorch/none/a.safetensors": 5,
            "weights/tiny-mixtral/pytorch/none/b.json": 7,
        },
    )
    (one,) = estimate_table(tiny, tiny.select(quantization="Q4_K_M"), (), there)
    (folder,) = estimate_table(tiny, tiny.select(format="pytorch", quantization="none"), (), there)
    assert (one["weights_bytes"], folder["weights_bytes"]) == (111, 12)


def write_group(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def test_a_control_group_limits_what_a_host_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Limits of a container count, and file pages in it count as free."""
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    write_group(
        tmp_path,
        memory__max="1000000000\n",
        memory__current="900000000\n",
        memory__stat="anon 100\nactive_file 300000000\ninactive_file 100000000\n",
        cpu__max="50000 100000\n",
    )
    found = probe_host(tmp_path)
    assert found.memory_total_bytes == 1_000_000_000
    assert found.memory_free_bytes == 500_000_000
    assert found.cpus == 1


@pytest.mark.parametrize("limits", [{}, {"memory__max": "max", "cpu__max": "max 100000"}])
def test_without_limits_the_machine_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limits: dict[str, str]
) -> None:
    """No group, or one without limits, leaves the machine's own figures."""
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    write_group(tmp_path, **limits)
    found = probe_host(tmp_path / "not" / "yet" / "there")
    assert found.cpus == len(os.sched_getaffinity(0))
    assert 0 < found.memory_free_bytes <= found.memory_total_bytes


def test_named_paths_are_found_under_the_name_given(tmp_path: Path) -> None:
    """A file and a folder's files come back under the user's own spelling; nothing for nothing."""
    (tmp_path / "a.gguf").write_bytes(b"123")
    (tmp_path / "sub").mkdir()
    odd = f"{tmp_path}//"
    files = probe_host(tmp_path, [f"{tmp_path}/a.gguf", odd, f"{tmp_path}/none"]).files
    named = {name: size for name, size in files.items() if name.startswith("/")}
    assert named == {f"{tmp_path}/a.gguf": 3}


def test_the_host_lists_engines_and_shipped_weights(tmp_path: Path) -> None:
    """Every engine has a finding, and the bundled weights are there by their relative names."""
    found = probe_host(tmp_path)
    assert set(found.engines) == set(engine_names())
    shipped = "weights/tiny-mixtral/ggufv2/tiny-mixtral.Q4_K_M.gguf"
    assert found.files[shipped] > 1_000_000
    assert re.match(r"xllamacpp \d", found.engines["llama.cpp"].version)


def test_each_size_of_a_family_is_reckoned_for_itself() -> None:
    """The 8B of a family takes what an 8B takes, whatever other sizes there are."""
    spec = Catalog.load().lookup("qwen3")
    taken = {}
    for size in ("0_6", "8"):
        variants = spec.select(format="ggufv2", size=size, quantization="Q4_K_M")
        (row,) = estimate_table(spec, variants, (4096,), HOST)
        taken[size] = row["weights_bytes"] / 1e9, row["cache_bytes"]
    assert taken["0_6"][0] == pytest.approx(0.397, rel=0.015)
    assert taken["8"][0] == pytest.approx(5.03, rel=0.015)
    assert taken["8"][1] > taken["0_6"][1]


@pytest.mark.parametrize(
    ("quantization", "bits"),
    [
        ("q4_k_m", 4.5),
        ("UD-Q4_K_XL", 4.5),
        ("i1-IQ3_XXS", 3.4375),
        ("BF16", 16),
        ("4bit", 4.5),
        ("8-bit", 8.5),
        ("FP8", 8),
        ("something", 16),
        ("Q8", 8.5),
        ("55IQ2_XXS-34Q2_K", 2.5),
        ("zoo-Q4_0", 4.5),
        ("qwen3-8b", 16),
    ],
)
def test_a_quantizations_name_tells_its_bits(quantization: str, bits: float) -> None:
    """Case, prefixes and the mixture's suffix do not matter; what says nothing counts in full."""
    assert weight_bits(quantization) == bits
