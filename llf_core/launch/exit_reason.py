"""Explains why a trainer exited without a final status."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llf_core.runs import Checkpoints, RunReader
from llf_core.runs.checkpoints import recoverable_message
from llf_core.runs.disk_errors import failure_message as disk_told
from llf_core.runs.disk_errors import is_unwritable
from llf_core.runs.kill import killed_reason
from llf_core.user_error import BAD_CONFIG

if TYPE_CHECKING:
    from llf_core.runs import RunFolder, Status

EXTERNAL_SIGNALS = {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT}
MAX_LOG_CHARACTERS = 400  # characters of a sentence taken from a log
_EXCEPTION = re.compile(r"^(?:[\w.]+(?:Error|Exception|Interrupt|Exit|Warning|Iteration))(?::.*)?$")


@dataclass(frozen=True)
class ProcessEnd:
    """How a trainer ended.

    Attributes:
        exit_code: negative for a signal.
        out_of_memory: whether the OOM killer ended a process of the run.
        memory_limit: memory limit of the container in bytes; None if there is none.
    """

    exit_code: int
    kill_requested: bool = False
    stop_requested: bool = False
    out_of_memory: bool = False
    memory_limit: int | None = None


def exit_reason(folder: RunFolder, status: Status, ending: ProcessEnd) -> tuple[str, str]:
    """Final state and reason, with what to do, of a trainer that exited without a final status."""
    at = f"at step {status.step} of {status.total}" if status.total else "before its first step"
    safe = recoverable_message(folder)
    if ending.kill_requested:
        return "failed", killed_reason(folder, status)
    if ending.stop_requested and ending.exit_code in {0, -signal.SIGTERM}:
        if Checkpoints(folder).latest() is not None:
            return "stopped", f"Stopped {at}, during a step. {safe}"
        before = ", before the first checkpoint" if status.total else ""
        return "failed", f"Stopped {at}{before}. Restart it with resume."
    said = _last_error(folder, status.attempt) if ending.exit_code > 0 else None
    # What ends a trainer that finds no room to say so: any error, or a mapped file that could not grow.
    if said is None and ending.exit_code in {-signal.SIGBUS, *range(1, 256)} and is_unwritable(folder):
        return "failed", " ".join(disk_told(folder))
    if ending.exit_code <= 0:
        return "failed", f"{_ended_rank(folder, status.attempt)} {_sudden_end(ending)} {at}. {safe}"
    said = said or _last_line(folder) or f"The trainer exited with code {ending.exit_code}. See log.txt."
    return "failed", said if ending.exit_code == BAD_CONFIG else f"{said} {safe}"


def _sudden_end(ending: ProcessEnd) -> str:
    if ending.exit_code == 0:
        return "exited without a final status (see log.txt)"
    if ending.exit_code == -signal.SIGKILL and ending.out_of_memory:
        remedy = "lower per_device_train_batch_size or cutoff_len, or provide more memory"
        if ending.memory_limit is None:
            return f"was killed by the system, which ran out of memory ({remedy}),"
        return f"was killed by the memory limit of {ending.memory_limit / 1e9:.1f} GB ({remedy}),"
    number = -ending.exit_code
    name = signal_name(number)
    return f"was terminated by {name}" if number in EXTERNAL_SIGNALS else f"crashed with {name} (see log.txt)"


def signal_name(number: int) -> str:
    """Name of a signal, such as `SIGKILL`; `signal 35` for one without a name."""
    return next((one.name for one in signal.Signals if one == number), f"signal {number}")


def _ended_rank(folder: RunFolder, attempt: int) -> str:
    for event in reversed(RunReader(folder).events()):
        if event["type"] == "rank_ended" and event.get("attempt") == attempt:
            return f"Process {event.get('rank')} of {event.get('of')} (counted from 0)"
    return "The trainer"


def _last_error(folder: RunFolder, attempt: int) -> str | None:
    for event in reversed(RunReader(folder).events()):
        if event["type"] == "error" and event.get("attempt") == attempt and event.get("message"):
            return f"{event['message']} {event.get('what_to_do') or ''}".strip()
    return None


def _last_line(folder: RunFolder) -> str | None:
    lines = [line.strip() for line in RunReader(folder).log_tail(50).splitlines() if line.strip()]
    if not lines:
        return None
    said = next((line for line in reversed(lines) if _EXCEPTION.match(line)), lines[-1])[:MAX_LOG_CHARACTERS]
    return said if said.endswith((".", "!", "?")) else f"{said}."
