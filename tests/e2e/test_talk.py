"""Talking to a model on a terminal, and serving files that the user names."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.conftest import Paddock
from tests.e2e.terminal import converse

WEIGHTS = Path("specs/weights/tiny-mixtral/ggufv2/tiny-mixtral.Q4_K_M.gguf")


def test_run_without_a_prompt_is_a_conversation(shared_paddock: Paddock, tiny: str) -> None:
    """On a terminal `run` without a prompt chats line by line; an empty line ends it."""
    code, said = converse(
        shared_paddock,
        ["run", "tiny-mixtral", "-u", tiny, "--temperature", "0", "--max-tokens", "40"],
        [
            ("> ", b"What does a lion eat?\n"),
            ("> ", b"And what does a zebra eat?\n"),
            ("> ", b"\n"),
        ],
    )
    assert code == 0
    answers = [line for line in said.splitlines() if line.strip() and not line.startswith("> ")]
    assert len(answers) >= 3  # the hint, and an answer to each question


def test_control_d_ends_a_conversation(shared_paddock: Paddock, tiny: str) -> None:
    """Ctrl-D on an empty line ends `generate` without a prompt, with exit code 0."""
    code, _ = converse(shared_paddock, ["generate", "-u", tiny], [("> ", b"\x04")])
    assert code == 0


def test_interrupt_while_generating_ends_quietly(shared_paddock: Paddock) -> None:
    """Ctrl-C in the middle of an answer ends the command with 130 and no traceback."""
    shared_paddock.ok(
        "launch", "tiny-mixtral", "-en", "echo", "-u", "talks", "--token_seconds", "0.2"
    )
    arguments = ["generate", "-u", "talks", "word " * 300]
    code, said = converse(shared_paddock, arguments, [("word", b"\x03")])
    assert code == 130
    assert "Traceback" not in said
    shared_paddock.ok("terminate", "-u", "talks")


def test_weights_on_disk_are_served_under_a_spec(shared_paddock: Paddock, tmp_path: Path) -> None:
    """`--model-path` takes a file or a folder, relative to where the user is."""
    shutil.copy(WEIGHTS, tmp_path / "mine.Q4_K_M.gguf")
    for uid, path in (("by-file", tmp_path / "mine.Q4_K_M.gguf"), ("by-folder", tmp_path)):
        shared_paddock.ok("launch", "tiny-mixtral", "--model-path", str(path), "-u", uid)
        model = next(m for m in shared_paddock.json("list") if m["model_uid"] == uid)
        assert model["plan"]["quantization"] == "Q4_K_M"
        assert model["plan"]["weights"]["hub"] == "path"
        assert shared_paddock.ok("generate", "-u", uid, "--max-tokens", "5", "The old").strip()
        shared_paddock.ok("terminate", "-u", uid)


def test_log_is_followed_until_the_model_is_gone(shared_paddock: Paddock) -> None:
    """`logs --follow` shows the log from its beginning, and ends when the model is terminated."""
    launch = ("launch", "tiny-mixtral", "-en", "echo", "-u", "logged", "--say", "hay for all")
    shared_paddock.ok(*launch)
    assert "hay for all" in shared_paddock.ok("logs", "-u", "logged")
    following = shared_paddock.start("logs", "-u", "logged", "--follow")
    assert following.stdout is not None
    assert following.stdout.readline() == "hay for all\n"
    shared_paddock.ok("terminate", "-u", "logged")
    following.communicate(timeout=60)
    assert following.returncode == 0
