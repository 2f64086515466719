"""Runs SGLang's server in its environment, with the key from the environment.

Started by its path, as `python -m sglang.launch_server` would be but for the key: that one takes it
as an argument, and arguments are readable by every user of the machine.
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Serves until it is ended; whatever it has started ends with it."""
    from sglang.launch_server import run_server
    from sglang.srt.server_args import prepare_server_args
    from sglang.srt.utils import kill_process_tree

    key = os.environ.pop("PADDOCK_ENGINE_KEY")
    try:
        run_server(prepare_server_args([*sys.argv[1:], f"--api-key={key}"]))
    finally:
        kill_process_tree(os.getpid(), include_parent=False)


if __name__ == "__main__":  # its workers import this file again
    main()
