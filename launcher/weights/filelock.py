"""Locks on files, between threads and processes, that end with whoever holds them."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from paddock.launcher.weights.base import Cancelled, cancelled_failure

POLL_SECONDS = 0.1


@contextmanager
def locked(
    path: Path, label: str, cancelled: Cancelled, waiting: Callable[[], None]
) -> Iterator[None]:
    """Holds the lock that the hubs' clients take too; `waiting` is called while another has it.

    The file stays: to delete it would let two hold two locks of one name. The kernel lets go of
    the lock when its holder ends, however it ends.

    Raises:
        HubFailure: `cancelled`, while it waited.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o664)
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                waiting()
            if cancelled.wait(POLL_SECONDS):
                raise cancelled_failure(label)
        yield
    finally:
        os.close(handle)
