"""Runs one engine and sees to it that nothing of it is left behind.

Run as a script, by path, with `python -I -S`: it uses only the standard library and starts in
some 30 ms. A process of its own between the replica's actor and the engine, because

- the actor is a process with many threads, where forking with anything to do in the child (a
  parent-death signal) can deadlock, and a parent-death signal follows the forking *thread*;
- when the actor is killed, somebody must still end the engine's whole group;
- as a subreaper (Linux) it inherits grandchildren that left the group, and can end those too.

    python -I -S warden.py GRACE_SECONDS LIMIT_BYTES COMMAND [ARGUMENT ...]

stdin is a leash: when it closes, the engine is stopped (SIGTERM, after GRACE_SECONDS SIGKILL). If
the warden itself is killed, the kernel kills the engine (PR_SET_PDEATHSIG).
stdout gets one JSON line `{"pid": …}` at the start and `{"code": …, "signal": …, "stopped": …,
"held_bytes": …, "peak_bytes": …}` at the end, when no process of the engine is left. stderr is the
engine's log, for both its streams.

When the engine's processes hold more than LIMIT_BYTES of their own (memory that no file backs),
they are ended at once, and `held_bytes` says how much that was; else it is 0. A line on stdin is
another limit; 0 is none. `peak_bytes` is the most that they held since the last such line. Should
memory run out first, the kernel ends engines before others.
"""

import contextlib
import ctypes
import json
import os
import select
import signal
import sys
import time

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
LOOK_SECONDS = 0.1
"""Between two looks at the engine's memory."""
FAMILY_SECONDS = 2.0
"""Between two looks for the processes that it has started, and after memory that was shared."""
PEAK_STEP = 0.01
"""By how much more they must hold than before for the exact sum to be taken."""
KILLED_FIRST = "800"
"""Of 1,000: what the kernel adds to the engine's part of the memory when it chooses what to end."""
LINUX = sys.platform == "linux"


def _prctl(option: int, value: int) -> None:
    if LINUX:
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _start(argv: list[str], log: int) -> int:
    """Forks the engine into a session and group of its own, its output going to `log`."""
    warden = os.getpid()
    started, started_write = os.pipe()
    pid = os.fork()
    if pid:
        # The pipe's end tells that the program runs (or could not): before that, a SIGTERM would
        # find no group, or a copy of this process that does not mind it.
        os.close(started_write)
        os.read(started, 1)
        os.close(started)
        return pid
    try:
        os.setsid()
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "r+") as score:
            if int(score.read()) < int(KILLED_FIRST):
                score.write(KILLED_FIRST)
        if os.getppid() != warden:  # the warden died before the signal was asked for
            os._exit(127)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        os.execvp(argv[0], argv)
    except OSError as error:
        os.write(log, f"{argv[0]}: {error.strerror}\n".encode())
    os._exit(127)


def _descendants() -> list[int]:
    """Every process below this one, as the kernel lists them now; empty outside Linux."""
    if not LINUX:
        return []
    parents: dict[int, int] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as stat:
                # The command's name may hold spaces and brackets: fields count from the last one.
                parents[int(name)] = int(stat.read().rpartition(b")")[2].split()[1])
    below, descendants = {os.getpid()}, []
    grew = True
    while grew:
        new = [pid for pid, parent in parents.items() if parent in below and pid not in below]
        below.update(new)
        descendants += new
        grew = bool(new)
    return descendants


def _kilobytes(path: str, names: tuple[str, ...]) -> int:
    """The sum of a process's figures of these names; 0 where it has ended."""
    total = 0
    with contextlib.suppress(OSError, ValueError), open(path) as file:
        for line in file:
            name, _, value = line.partition(":")
            if name in names:
                total += int(value.split()[0])
    return total


class _Memory:
    """What the engine's processes hold of their own, at most, and whether that is too much."""

    def __init__(self, engine: int, limit: int) -> None:
        self._engine = engine
        self._family = [engine]
        self._look_at = self._search_at = 0.0
        self.begin(limit)

    def begin(self, limit: int) -> None:
        """Counts anew, with this limit."""
        self.limit = limit
        self.peak = 0
        self._rough = 0

    @property
    def pause(self) -> float | None:
        """Seconds until the next look; None: none comes."""
        return max(0.0, self._look_at - time.monotonic()) if LINUX else None

    def excess(self) -> int:
        """The bytes that they hold, if it is time to look and they are over the limit; else 0."""
        now = time.monotonic()
        if not LINUX or now < self._look_at:
            return 0
        self._look_at = now + LOOK_SECONDS
        if now >= self._search_at:
            self._search_at = now + FAMILY_SECONDS
            self._family = _descendants() or [self._engine]
        # It counts twice what a process shares with one that it forked. The exact sum is dear.
        rough = self._sum("status", ("RssAnon", "VmSwap"))
        is_over = 0 < self.limit < rough
        if not is_over and rough <= self._rough * (1 + PEAK_STEP):
            return 0
        self._rough = max(self._rough, rough)
        held = self._sum("smaps_rollup", ("Pss_Anon", "Pss_Shmem", "SwapPss"))
        self.peak = max(self.peak, held)
        if 0 < self.limit < held:
            return held
        if is_over:
            self._look_at = now + FAMILY_SECONDS
        return 0

    def _sum(self, file: str, names: tuple[str, ...]) -> int:
        return 1024 * sum(_kilobytes(f"/proc/{pid}/{file}", names) for pid in self._family)


def _signal_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _reap(engine: int) -> tuple[int | None, bool]:
    """Collects ended children; the engine's status if it was among them, and if any are left."""
    status = None
    while True:
        try:
            pid, ended = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return status, False
        if pid == 0:
            return status, True
        if pid == engine:
            status = ended


def _clear(engine: int, status: int | None) -> int:
    """Kills whatever is left until nothing is; the engine's status."""
    while True:
        if status is None or not LINUX:  # once it is reaped, its number may be another's
            _signal_group(engine, signal.SIGKILL)
        for pid in _descendants():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        engine_status, has_children = _reap(engine)
        status = engine_status if engine_status is not None else status
        if not has_children:
            return status if status is not None else 0
        select.select([], [], [], 0.005)


def main() -> None:
    """Runs the command line; see the module."""
    grace, limit, argv = float(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    wake, wake_write = os.pipe()
    for end in (wake, wake_write):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    stopping = False

    def ask(*_: object) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, ask)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    engine = _start(argv, 2)
    _report({"pid": engine})

    memory = _Memory(engine, limit)
    status: int | None = None
    deadline: float | None = None
    leash, said, held = [0], b"", 0
    while True:
        status, _ = _reap(engine)
        if status is not None:
            break
        held = memory.excess()
        if held:
            break
        if stopping and deadline is None:
            _signal_group(engine, signal.SIGTERM)
            deadline = time.monotonic() + grace
            leash = []
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            break
        pauses = [pause for pause in (left, memory.pause) if pause is not None]
        readable, _, _ = select.select([*leash, wake], [], [], min(pauses, default=None))
        if wake in readable:
            with contextlib.suppress(BlockingIOError):
                os.read(wake, 4096)
        if 0 in readable:
            read = os.read(0, 4096)
            stopping = stopping or not read
            *lines, said = (said + read).split(b"\n")
            for line in lines:
                memory.begin(int(line))
    status = _clear(engine, status)
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
    code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
    ended = {"code": code, "signal": number, "stopped": stopping}
    _report({**ended, "held_bytes": held, "peak_bytes": memory.peak})


def _report(line: dict[str, object]) -> None:
    # The actor may be gone: then nobody reads, and the work is done all the same.
    with contextlib.suppress(OSError):
        os.write(1, f"{json.dumps(line)}\n".encode())


if __name__ == "__main__":
    main()
