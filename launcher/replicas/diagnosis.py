"""Why a launch failed: one cause from a closed list, the engine's last lines, what to do next.

The same object is shown by the CLI, returned by REST and kept in the state store.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from signal import Signals
from typing import Any, Literal, get_args

from paddock.engines.base import Engine
from paddock.launcher.planning.plan import LaunchPlan

Cause = Literal[
    "corrupt_file",  # the weights are not a whole file of their format
    "hub_unreachable",  # no hub that has the weights answers
    "not_found",  # the hub has no such repository, revision or file
    "gated_repo",  # the hub wants an accepted licence and a token
    "token_refused",  # the hub does not take the token
    "rate_limited",  # the hub, or the endpoint to be attached, asks to come again later
    "stalled",  # the hub has stopped sending
    "checksum_mismatch",  # the bytes are not those that the hub lists, or that are locked
    "disk_full",  # the disk cannot take the weights, or filled while they came
    "not_writable",  # the hub's cache cannot be written by this user
    "weights_mismatch",  # the files lack weights of the model, or have others
    "oom",  # memory ran out, in the host or on the device
    "memory_limit",  # the engine held more memory than its replica may, and was ended
    "oom_host",  # others took the memory between the plan and the start: nothing was begun
    "unsupported_arch",  # the engine does not know the model's architecture
    "bad_option",  # the engine refused one of its options
    "chat_template",  # the engine refused the chat template
    "load_failed",  # the engine said that it could not load the model
    "engine_exited",  # the engine ended by itself
    "engine_killed",  # a signal ended the engine
    "engine_hung",  # the engine was ready, and shows no sign of life any more
    "engine_missing",  # the plan names an engine that this Paddock does not know
    "port_in_use",  # the engine's port was taken
    "start_timeout",  # the engine neither got ready nor said anything for too long
    "probe_failed",  # the engine said it was ready, and could not answer one token
    "actor_died",  # the replica's actor is gone
    "node_lost",  # Ray, or the node, cannot be reached
    "endpoint_unreachable",  # an attached endpoint does not answer, or says that it cannot now
    "endpoint_refused",  # an attached endpoint does not take the key
    "endpoint_unfit",  # what is attached speaks another language than OpenAI's, or lacks the model
    "cancelled",  # the user called it off
    "internal",  # a bug in Paddock; the log has a traceback
]
CAUSES: tuple[str, ...] = get_args(Cause)
LINES = 12
"""How many of the engine's last lines a diagnosis carries."""


@dataclass(frozen=True)
class Diagnosis:
    """One failure. `exit_code` and `signal` are the engine's; `tried` says what was attempted."""

    cause: Cause
    message: str
    next_command: str | None = None
    lines: tuple[str, ...] = ()
    exit_code: int | None = None
    signal: str | None = None
    tried: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The diagnosis as JSON."""
        return asdict(self)


class Failure(Exception):
    """Ends a start from within; carries the diagnosis."""

    def __init__(self, diagnosis: Diagnosis) -> None:
        super().__init__(diagnosis.message)
        self.diagnosis = diagnosis


def diagnose_excess(
    plan: LaunchPlan, held_bytes: int, limit_bytes: int, lines: Sequence[str]
) -> Diagnosis:
    """The end of an engine whose processes held more than the limit."""
    limit = f"its limit of {limit_bytes / 1e9:.1f} GB"
    if plan.memory_limit is None:
        limit += f" ({plan.memory.total_bytes / 1e9:.1f} GB are planned, and there is a margin)"
    message = (
        f"{plan.engine} held {held_bytes / 1e9:.1f} GB of memory, more than {limit}, and was ended"
    )
    following = launch_command(plan, "--memory-limit", f"{-(-held_bytes * 3 // 2 // 10**9)}GB")
    return Diagnosis("memory_limit", message, following, tuple(lines[-LINES:]), signal="SIGKILL")


def launch_command(plan: LaunchPlan, *extra: str) -> str:
    """A command line that launches the plan's variant, with `extra` options added."""
    argv = ["paddock", "launch", "--model-name", plan.name, "--model-format", plan.format]
    argv += ["--quantization", plan.quantization, *extra]
    if plan.weights.lock is not None:
        argv.append("--locked")
    elif plan.weights.hub == "path" and "--model-path" not in extra:
        files = plan.weights.files
        argv += ["--model-path", "/".join([plan.weights.id, *(f.name for f in files[:1])])]
    if plan.model_id != plan.model:
        argv += ["--model-uid", plan.model_id]
    return shlex.join(argv)


def diagnose_exit(
    engine: Engine,
    plan: LaunchPlan,
    exit_code: int | None,
    signal: int | None,
    lines: Sequence[str],
    is_oom: bool = False,
) -> Diagnosis:
    """Reads the cause of an engine's end from its exit and its last lines.

    The lines do not count if SIGKILL or SIGTERM ended it: those come from outside, whatever an
    engine may have said in hours of service. `is_oom`: the kernel has ended a process for want of
    memory meanwhile.
    """
    excerpt = lines[-LINES:]
    name = _signal_name(signal)
    ending = f"was ended by {name}" if name else f"exited with code {exit_code}"
    for symptom in () if name in {"SIGKILL", "SIGTERM"} else engine.symptoms:
        for number, line in enumerate(lines, 1):
            match = symptom.pattern.search(line)
            if match:
                cause: Cause = symptom.cause  # type: ignore[assignment]  # checked by a test
                message = symptom.message.format(*match.groups())
                if number <= len(lines) - LINES:
                    # A hundred lines of others' tracebacks may follow the one that says why.
                    excerpt = lines[max(0, number - LINES) : number]
                return Diagnosis(
                    cause,
                    f"{message} ({engine.name} {ending})",
                    _next(cause, plan),
                    tuple(excerpt),
                    exit_code,
                    name,
                )
    if is_oom:
        message = f"the system ran out of memory, and ended {engine.name}"
        return Diagnosis("oom", message, _next("oom", plan), tuple(excerpt), exit_code, name)
    if name == "SIGKILL":
        message = f"{engine.name} was ended by SIGKILL: by somebody, or by the system out of memory"
    else:
        message = f"{engine.name} {ending}"
    cause = "engine_killed" if name else "engine_exited"
    return Diagnosis(cause, message, _next(cause, plan), tuple(excerpt), exit_code, name)


def _signal_name(number: int | None) -> str | None:
    if number is None:
        return None
    try:
        return Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def _next(cause: Cause, plan: LaunchPlan) -> str:
    if cause == "corrupt_file":
        return launch_command(plan, "--model-path", "PATH_OF_A_WHOLE_FILE")
    if cause == "oom":
        if plan.context_length > 1024:
            return launch_command(plan, "--context-length", str(plan.context_length // 2))
        return shlex.join(["paddock", "estimate", plan.name])
    if cause == "chat_template":
        return launch_command(plan, "--chat-template", "FILE")
    if cause == "port_in_use":
        return launch_command(plan)
    return shlex.join(["paddock", "logs", "--model-uid", plan.model_id])
