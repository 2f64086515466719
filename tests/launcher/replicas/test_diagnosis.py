"""Diagnoses: the cause from the engine's words, and a next command that is a command."""

import re
import shlex
from typing import Any

import pytest
from click import Context

from paddock.cli.main import cli
from paddock.engines import load_engine
from paddock.engines.base import Detection, Host
from paddock.launcher.planning.plan import LaunchPlan, LaunchRequest
from paddock.launcher.planning.resolve import resolve
from paddock.launcher.replicas.diagnosis import CAUSES, LINES, diagnose_exit, launch_command
from paddock.registry.catalog import Catalog

LLAMA = load_engine("llama.cpp")


def plan(**request: Any) -> LaunchPlan:
    files = {"/w/a b.Q4_0.gguf": 5}
    engines = {"llama.cpp": Detection("1"), "echo": Detection("1")}
    host = Host("local", "here", 2, 10**12, 10**12, 10**12, engines, files)
    request = {"model_name": "mixtral-v0.1", "format": "ggufv2", "quantization": "Q4_0", **request}
    return resolve(LaunchRequest.parse(**request), Catalog.load(), [host])


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("unknown model architecture: 'nonsense'", "unsupported_arch"),
        ("gguf_init_from_reader: invalid magic characters: 'hell'", "corrupt_file"),
        ("tensor 'x' data is not within the file bounds, model is corrupted or incomplete",
         "corrupt_file"),
        ("ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 1", "oom"),
        ("couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 1", "port_in_use"),
        ("failed to load lora adapter '/x.gguf'", "bad_option"),
        ("llama_init_from_model: quantized V cache requires flash_attn", "bad_option"),
        ("failed to load model '/x.gguf'", "load_failed"),
        ("nothing that anybody knows", "engine_exited"),
    ],
)  # fmt: skip
def test_the_cause_is_read_from_the_lines(line: str, cause: str) -> None:
    """The engine's own words decide, wherever among its last lines they stand."""
    found = diagnose_exit(LLAMA, plan(), 1, None, ["before", line, "after"])
    assert found.cause == cause
    assert found.exit_code == 1
    assert "exited with code 1" in found.message
    assert line in found.lines


def test_the_architecture_is_named() -> None:
    """What the pattern found becomes part of the message."""
    found = diagnose_exit(LLAMA, plan(), 1, None, ["unknown model architecture: 'nonsense'"])
    assert "nonsense" in found.message


def test_a_broken_adapter_is_no_broken_model() -> None:
    """A bad LoRA file shows the same line as bad weights, and then its own."""
    lines = ["invalid magic characters: 'hell'", "failed to load lora adapter '/x'"]
    assert diagnose_exit(LLAMA, plan(), 1, None, lines).cause == "bad_option"


@pytest.mark.parametrize("signal", [9, 15])
def test_a_kill_from_outside_is_not_explained_by_old_lines(signal: int) -> None:
    """What an engine said while it served has no part in its being killed."""
    found = diagnose_exit(LLAMA, plan(), None, signal, ["out of memory", "failed to load model"])
    assert found.cause == "engine_killed"
    assert found.signal in {"SIGKILL", "SIGTERM"}


def test_an_abort_is_explained_by_its_lines() -> None:
    """Engines abort on purpose, after they have said why."""
    found = diagnose_exit(LLAMA, plan(), None, 6, ["failed to allocate buffer"])
    assert (found.cause, found.signal) == ("oom", "SIGABRT")
    assert diagnose_exit(LLAMA, plan(), None, 40, []).signal is not None


def test_the_last_lines_are_kept() -> None:
    """Enough to see, and no more."""
    found = diagnose_exit(LLAMA, plan(), 1, None, [str(n) for n in range(100)])
    assert found.lines == tuple(str(n) for n in range(100 - LINES, 100))
    assert found.to_json()["lines"][-1] == "99"


@pytest.mark.parametrize("line", ["invalid magic", "out of memory", "couldn't bind", "x"])
@pytest.mark.parametrize("request_", [{}, {"context_length": 512}, {"model_uid": "a/b"}])
def test_every_next_command_parses(line: str, request_: dict[str, Any]) -> None:
    """What is suggested is a `paddock` command with options that exist."""
    found = diagnose_exit(LLAMA, plan(**request_), 1, None, [line])
    assert found.next_command is not None
    program, name, *arguments = shlex.split(found.next_command)
    assert program == "paddock"
    command = cli.get_command(Context(cli), name)
    assert command is not None
    with Context(command) as context:
        command.parse_args(context, arguments)


def test_the_launch_command_says_where_the_weights_are() -> None:
    """Weights from a path stay from that path, quoted; another path takes its place."""
    given = plan(model_path="/w", model_uid="mine")
    said = launch_command(given)
    assert "--model-path '/w/a b.Q4_0.gguf'" in said
    assert said.endswith("--model-uid mine")
    assert launch_command(given, "--model-path", "/x").count("--model-path") == 1


def test_causes_are_words() -> None:
    """The closed list is snake case, without doubles."""
    assert len(set(CAUSES)) == len(CAUSES)
    assert all(re.fullmatch(r"[a-z_]+", cause) for cause in CAUSES)
