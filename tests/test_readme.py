"""The README's commands, as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.conftest import Paddock

ROOT = Path(__file__).parent.parent


def test_shell_blocks_of_the_readme_run(paddock: Paddock) -> None:
    """Every command in a shell block of the README succeeds, in the order in which they stand."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    script = "set -eux\n" + "".join(blocks)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-c", script],
        env={**paddock.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=paddock.home.parent,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(blocks) >= 4


def test_python_client_of_the_readme_is_the_one_that_exists() -> None:
    """The client class that the README names can be imported and made."""
    from paddock.client import Client

    assert Client("http://127.0.0.1:9997/").endpoint == "http://127.0.0.1:9997"
