"""What the machine's processor can do, where engines differ by it."""

from __future__ import annotations

from pathlib import Path


def has_tiles() -> bool:
    """Whether it multiplies matrices by tiles (AMX): vLLM's quantized experts need it on a CPU."""
    facts = Path("/proc/cpuinfo")
    return facts.exists() and "amx_tile" in facts.read_text().split()
