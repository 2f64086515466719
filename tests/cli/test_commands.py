"""The command line as a whole: help, start-up, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys

import click
import pytest

from paddock.cli.errors import exit_code
from paddock.cli.launch import _pairs
from paddock.cli.main import COMMANDS, cli
from paddock.cli.output import size, table
from paddock.registry import errors
from paddock.registry.errors import BadValue, GatewayError


def command(name: str) -> click.Command:
    """A command by its name."""
    found = cli.get_command(click.Context(cli), name)
    assert found is not None
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_the_tables_line_an_example_and_json(name: str) -> None:
    """Each command's help begins with its line in the table, shows an example, and has `--json`."""
    found = command(name)
    assert found.short_help == COMMANDS[name][1]
    text = found.get_help(click.Context(found, info_name=name))
    assert COMMANDS[name][1] in text
    assert f"paddock {name}" in text.split("Example:")[1]
    assert "--json" in text


HEAVY = {"ray", "starlette", "pydantic", "yaml", "rich", "requests", "aiohttp", "psutil"}


def imported(arguments: list[str]) -> set[str]:
    """What a command imports."""
    program = (
        "import json, sys\nfrom paddock.cli.main import main\n"
        "try: main(sys.argv[1:])\nexcept SystemExit: pass\n"
        "print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stderr))


@pytest.mark.parametrize("arguments", [["--help"], ["launch", "--help"], ["list", "--help"]])
def test_starting_imports_nothing_heavy(arguments: list[str]) -> None:
    """The command line starts without ray, starlette, pydantic, yaml, rich or requests."""
    assert not imported(arguments) & HEAVY


@pytest.mark.parametrize("arguments", [["registrations", "--json"], ["search", "qwen", "coder"]])
def test_the_compiled_catalogue_is_enough_to_list_and_search(arguments: list[str]) -> None:
    """The first call compiles it; from then on neither pydantic nor an engine is imported."""
    imported(arguments)
    assert not imported(arguments) & (HEAVY | {"paddock.engines"})


def test_every_error_has_an_exit_code_of_its_own_kind() -> None:
    """Errors keep their exit code when they come over HTTP."""
    local = errors.UnknownName("model", "x")
    assert exit_code(local) == 2
    assert exit_code(GatewayError(400, "", {"code": "UnknownName"})) == 2
    assert exit_code(errors.NoEngine("x")) == 4
    assert exit_code(GatewayError(404, "", {"code": "NotLaunched"})) == 3
    assert exit_code(GatewayError(502, "", {"code": "LaunchFailed"})) == 4
    assert exit_code(errors.GatewayUnreachable("http://x")) == 5
    assert exit_code(GatewayError(418, "", {"code": "PaddockTeapot"})) == 2
    assert exit_code(GatewayError(500, "", {})) == 1


def test_engine_options_are_read_from_pairs() -> None:
    """`--key value`, `--key=value`, a bare `--key`, and negative numbers are all understood."""
    given = ["--n-ctx", "4096", "--flash_attn=off", "--mlock", "--n_gpu_layers", "-1"]
    assert _pairs(given) == {
        "n_ctx": "4096",
        "flash_attn": "off",
        "mlock": "true",
        "n_gpu_layers": "-1",
    }
    with pytest.raises(BadValue, match="stray"):
        _pairs(["--n_ctx", "4096", "stray"])


def test_tables_align_and_sizes_are_decimal() -> None:
    """Columns line up, numbers to the right; a gigabyte has 10⁹ bytes."""
    assert table(("A", "BYTES"), [("x", "1"), ("long", "22")], right=(1,)) == (
        "A     BYTES\nx         1\nlong     22"
    )
    assert size(26_440_000_000) == "26.44 GB"
    assert size(2_622_368) == "2.6 MB"
    assert size(12) == "12 B"
