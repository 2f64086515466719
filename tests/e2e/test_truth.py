"""What a launch was planned to take, what llama.cpp says of it, and what it took."""

from __future__ import annotations

import json
from pathlib import Path

from tests.conftest import Paddock

LAUNCH = ("launch", "tiny-mixtral", "-q", "Q4_K_M")
WEIGHTS = "tiny-mixtral 0_004 ggufv2 Q4_K_M"


def test_plan_is_as_exact_as_what_is_known(paddock: Paddock, tmp_path: Path) -> None:
    """Asked of llama.cpp first; then measured, and held by the next plan; until it is forgotten."""
    asked = paddock.json(*LAUNCH, "--dry-run")["memory"]
    assert asked["source"] == "engine"
    again = paddock.json(*LAUNCH, "--dry-run")["memory"]
    assert again["at"] == asked["at"]  # from the store

    paddock.ok(*LAUNCH)
    client = paddock.client()
    client.complete("tiny-mixtral", "the old lion " * 300, max_tokens=64)
    paddock.ok("terminate", "-u", "tiny-mixtral")
    (row,) = paddock.json("truth", "list", "tiny")["measurements"]
    assert row["subject"]["weights"] == WEIGHTS
    assert 0 < row["start_bytes"] <= row["peak_bytes"]
    assert row["longest_prompt"] > 512
    assert row["load_seconds"] > 0
    assert row["speed"] > 0
    assert row["prompt_speed"] > 0

    plan = paddock.json(*LAUNCH, "--dry-run")["memory"]
    assert plan["source"] == "measured"
    # Weights in pages of their file were not measured; llama.cpp's figures are in whole MiB.
    assert abs(plan["total_bytes"] - row["peak_bytes"]) <= 3 * 1024 * 1024
    assert "measured here on" in paddock.ok(*LAUNCH, "--dry-run")

    exported = tmp_path / "truth.json"
    paddock.ok("truth", "export", str(exported))
    assert paddock.json("truth", "forget", "tiny-mixtral")["forgotten"] == 1
    assert paddock.json("truth", "list")["measurements"] == []
    document = json.loads(exported.read_text())
    exported.write_text(json.dumps({**document, "machine": "elsewhere"}))
    refused = paddock.run("truth", "import", str(exported))
    assert refused.returncode == 2
    assert "'elsewhere'" in refused.stderr
    assert paddock.json("truth", "import", str(exported), "--label", "big one")["taken"] == 1
    assert "measured on big one" in paddock.ok(*LAUNCH, "--dry-run")


def test_file_of_which_the_engine_says_nothing_is_reckoned(
    paddock: Paddock, tmp_path: Path
) -> None:
    """The plan says why, and that its figures are a formula's."""
    whole = Path("specs/weights/tiny-mixtral/ggufv2/tiny-mixtral.Q4_K_M.gguf").read_bytes()
    cut = tmp_path / "cut.Q4_K_M.gguf"
    cut.write_bytes(whole[: len(whole) // 3])
    plan = paddock.json(*LAUNCH, "--model-path", str(cut), "--dry-run")
    assert plan["memory"]["source"] == "formula"
    (warning,) = plan["warnings"]
    assert warning.startswith(f"llama.cpp did not say what memory {cut} takes: ")
    assert "not within the file bounds" in warning
