"""The child process that asks llama.cpp what a launch takes: its one argument is the launch's own.

llama.cpp reads the header, prints its memory breakdown and would then load the model, so the caller
(`ask.py`) ends this process at the breakdown's end.
"""

from __future__ import annotations

import json
import os
import resource
import secrets
import sys
from typing import Any

from serve import server_params

VERBOSITY = 4
"""From this on llama.cpp prints the breakdown (LOG_TRC of its common/fit.cpp)."""

MOST_BYTES = 4 << 30


def main() -> None:
    """Prints llama.cpp's log on stderr until it is killed, or has failed to read the header."""
    request: dict[str, Any] = json.loads(sys.stdin.read())
    # A caller that is killed leaves no child that computes for ever.
    seconds = request["seconds"]
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # The states of recurrent layers are allocated even so, and a header may claim any size.
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_BYTES, MOST_BYTES))
    os.environ["PADDOCK_ENGINE_KEY"] = secrets.token_hex()
    params = server_params(request["settings"])
    params.fit_params = True
    params.fit_params_print = True
    params.verbosity = VERBOSITY
    params.warmup = False
    import xllamacpp

    try:
        xllamacpp.Server(params)
    except RuntimeError as error:
        raise SystemExit(f"llama.cpp: {error}") from None


if __name__ == "__main__":
    main()
