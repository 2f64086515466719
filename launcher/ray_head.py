"""Runs a local Ray until SIGTERM: `python -m paddock.launcher.ray_head HOME`.

A process of its own, so that Ray and the models in it outlive the gateway. `ray.init` in it takes
3 to 4 s where `ray start --head` takes 6, and needs one process fewer. Writes `HOME/ray.json` once
Ray is up and removes it, and Ray's temporary folder, at the end.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import sys
import tempfile
from pathlib import Path

FILE = "ray.json"
TOKEN = "ray-token"  # noqa: S105 - a file's name
OBJECT_STORE_BYTES = 80_000_000
"""The least that Ray takes: nothing of ours goes through its object store."""


def environment(home: Path) -> dict[str, str]:
    """What a process must have in its environment before it imports ray.

    Token authentication with a token of our own; no usage reports; and loopback only: Ray listens
    on every interface unless its node's address is 127.0.0.1, which it takes for itself only where
    it believes that clusters are not to be had.
    """
    token = home / TOKEN
    if not token.exists():
        home.mkdir(parents=True, exist_ok=True)
        made = home / f".{TOKEN}.{os.getpid()}"
        made.touch(mode=0o600)
        made.write_text(secrets.token_hex(32), "ascii")
        made.replace(token)
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }


def main() -> None:
    """Starts Ray, says where, waits for SIGTERM, ends Ray."""
    home = Path(sys.argv[1])
    os.environ.update(environment(home))
    os.environ.pop("RAY_ADDRESS", None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import ray

    # Ray's sockets lie below this folder, and a socket's path may have no more than 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="paddock-ray-", dir="/tmp"))
    try:
        context = ray.init(
            address="local",
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            log_to_driver=False,
            configure_logging=False,
            _temp_dir=str(folder),
        )
        # Ray sets a handler of its own in init: block, then wait, instead of racing with it.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        found = {"address": context.address_info["gcs_address"], "pid": os.getpid()}
        made = home / f".{FILE}.{os.getpid()}"
        made.write_text(json.dumps(found), "ascii")
        made.replace(home / FILE)
        signal.sigwait({signal.SIGTERM})
        (home / FILE).unlink(missing_ok=True)
        ray.shutdown()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
