"""Locks on files, between threads and processes, that end with whoever holds them."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from paddock.launcher.weights.base import Cancelled, cancelled_failure

POLL_SECONDS = 0.1
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF}
"""What file systems without locks say of one."""


@contextmanager
def locked(
    path: Path, label: str, cancelled: Cancelled, waiting: Callable[[], None]
) -> Iterator[None]:
    """Holds the lock that the hubs' clients take too; `waiting` is called while another has it.

    The file stays: to delete it would let two hold two locks of one name. The kernel lets go of
    the lock when its holder ends, however it ends. On a file system without such locks (some NFS,
    FUSE and CIFS mounts) a file of this machine stands for it: others are not kept out then.

    Raises:
        HubFailure: `cancelled`, while it waited.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = _open(path)
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                waiting()
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise
                os.close(handle)
                handle = _open(_stand_in(path))
                continue
            if cancelled.wait(POLL_SECONDS):
                raise cancelled_failure(label)
        yield
    finally:
        os.close(handle)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o664)


def _stand_in(path: Path) -> Path:
    """A file of this machine whose lock stands for that of `path`."""
    folder = Path(tempfile.gettempdir()) / f"paddock-locks-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder / hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:32]
