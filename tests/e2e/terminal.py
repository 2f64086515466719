"""Runs a command on a pseudo-terminal and answers what it says."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Sequence

from tests.conftest import Paddock

SECONDS = 90.0
# Gives the process the terminal as its own, so that Ctrl-C reaches it, and becomes the command.
LOGIN = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


def converse(
    paddock: Paddock, arguments: Sequence[str], answers: Sequence[tuple[str, bytes]]
) -> tuple[int, str]:
    """Each answer is typed once its text has been said after the one before; exit code and text."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", LOGIN, sys.executable, "-m", "paddock", *arguments],
        env=paddock.environ,
        stdin=follower,
        stdout=follower,
        stderr=follower,
        start_new_session=True,
    )
    os.close(follower)
    said, heard, left = "", 0, list(answers)
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        if not select.select([leader], [], [], 0.2)[0]:
            if process.poll() is not None:
                break
            continue
        try:
            chunk = os.read(leader, 65536)
        except OSError:  # the other end is closed
            break
        said += chunk.decode("utf-8", "replace")
        if left and left[0][0] in said[heard:]:
            heard = len(said)
            os.write(leader, left.pop(0)[1])
    os.close(leader)
    assert not left, f"never said {left[0][0]!r}: {said}"
    return process.wait(timeout=30), said
