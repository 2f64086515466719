"""Thousands of requests made from the OpenAPI document, to a real gateway with a real model."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from paddock.client import Client
from tests.conftest import Paddock

HERE = Path(__file__).parent
EXAMPLES = 20
LEFT_OUT = {
    "/v1/clusters": "ends the gateway",
    "/v1/events": "never ends",
    "/v1/keys": "the first key closes the gateway to whoever has none",
}
# What a valid request is told depends on what there is, which a document cannot say; the next
# three need to make things first; the last is for gateways that ask for a key.
NOT_CHECKED = (
    "positive_data_acceptance",
    "use_after_free",
    "ensure_resource_availability",
    "object_level_authorization",
    "ignored_auth",
)


def test_no_request_finds_a_bug(
    shared_paddock: Paddock, client: Client, tiny: str, tmp_path: Path
) -> None:
    """No request is a 500, every answer has its documented shape, every wrong one is refused."""
    before = [model["model_uid"] for model in client.instances()]
    command = [
        *(sys.executable, "-m", "schemathesis.cli"),
        *("--config-file", str(HERE / "schemathesis.toml")),
        *("run", f"{client.endpoint}/openapi.json", "--no-color"),
        *("--phases", "coverage,fuzzing", "--seed", "1", "--max-examples", str(EXAMPLES)),
        *("--checks", "all", "--exclude-checks", ",".join(NOT_CHECKED)),
        *("--generation-database", "none", "--continue-on-failure", "--warnings", "off"),
        *(word for path in LEFT_OUT for word in ("--exclude-path", path)),
    ]
    done = subprocess.run(
        command,
        env={**os.environ, "SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(tmp_path)},
        cwd=_with_hooks(tmp_path),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert [model["model_uid"] for model in client.instances()] == before
    log = (shared_paddock.home / "logs" / "gateway.log").read_text()
    assert "Traceback" not in log


def _with_hooks(folder: Path) -> Path:
    """A folder where schemathesis may leave its files, with the hooks as a module."""
    (folder / "hooks.py").write_text((HERE / "schemathesis_hooks.py").read_text())
    return folder
