"""Ends a run at once, whoever of its processes is still there."""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from typing import TYPE_CHECKING

import psutil

from llf_core.runs.checkpoints import what_is_safe
from llf_core.runs.control import send_request
from llf_core.runs.jsonl import append
from llf_core.runs.last_step import last_logged_step
from llf_core.runs.process import host
from llf_core.runs.status import read_status, shown, update

if TYPE_CHECKING:
    from llf_core.runs.folder import RunFolder
    from llf_core.runs.process import ProcessId
    from llf_core.runs.status import Status

SUPERVISOR_SECONDS = 3.0  # that a live supervisor has to act on a request
WORKS_FOR = "LLF_RUN"
"""The variable of a trainer's environment that names its run's folder."""
ELSEWHERE_SECONDS = 15.0  # the same over a network drive


def kill_run(folder: RunFolder, by: str = "") -> Status:
    """Kills a run: by its supervisor, or, where that is gone, directly.

    Args:
        folder: the run.
        by: who asks.

    Returns:
        The status as it is now: `failed`, unless the run had ended before.

    Raises:
        RuntimeError: it runs on another machine, and nothing there answers the request; or its status names a process
            that is none of its own.
    """
    status = read_status(folder)
    if status.final:
        return status
    elsewhere = status.host != host()
    if elsewhere or (status.here and status.guard is not None and status.guard.alive()):
        send_request(folder, "kill", by=by)
        now = _wait_for_end(folder, ELSEWHERE_SECONDS if elsewhere else SUPERVISOR_SECONDS)
        if now.final:
            return now
        if elsewhere and shown(now).state != "lost":
            raise RuntimeError(
                f"{folder.id} runs on {status.host}, and its supervisor there does not act on the request. "
                "End its processes on that machine."
            )
    return _end(folder, read_status(folder))


def _wait_for_end(folder: RunFolder, seconds: float) -> Status:
    until = time.monotonic() + seconds
    while not (now := read_status(folder)).final and time.monotonic() < until:
        time.sleep(0.05)
    return now


def _end(folder: RunFolder, status: Status) -> Status:
    """Kills supervisor and trainer by verified identity, then writes the final status for them."""
    for process in (status.guard, status.trainer):
        if process is not None and status.here:
            if process.alive() and not works_for(process, folder) and process.alive():
                raise RuntimeError(
                    f"status.json of {folder.id} names process {process.pid}, which does not work for this run, so it "
                    "was left alone. Look at it with `ps`."
                )
            kill_group(process)
    status = dataclasses.replace(status, step=last_logged_step(folder, status))
    reason = killed_reason(folder, status)
    end = {"state": "failed", "reason": reason, "exit_code": -signal.SIGKILL, "step": status.step}
    now = update(folder, of_attempt=status.attempt, **end)
    if now.reason == reason:  # else the run had its own last word meanwhile, and said it
        word = {"type": "state", "state": now.state, "reason": reason}
        append(folder.events, {"v": 1, "time": time.time(), "attempt": status.attempt, **word})
    return now


def works_for(process: ProcessId, folder: RunFolder) -> bool:
    """Whether a process is a run's own: the status may be written by somebody else, and name any process.

    Its arguments (of a supervisor and our trainer) or its variable `LLF_RUN` (of any trainer) name the run's folder.
    """
    own = os.path.realpath(folder.path)
    try:
        there = psutil.Process(process.pid)
        if any(os.path.realpath(part) == own for part in there.cmdline() if os.path.isabs(part)):  # noqa: PTH117
            return True
        named = there.environ().get(WORKS_FOR)
    except psutil.Error:
        return False
    return named is not None and os.path.realpath(named) == own


def kill_group(process: ProcessId, seconds: float = 10.0) -> None:
    """SIGKILL to the very process that is meant, and to its group where it leads one; waits for its end.

    Raises:
        TimeoutError: the system does not let go of it (for example in a driver call).
    """
    if not process.alive():
        return
    try:
        leads = os.getpgid(process.pid) == process.pid
        (os.killpg if leads else os.kill)(process.pid, signal.SIGKILL)
    except ProcessLookupError:  # it ended by itself meanwhile
        return
    until = time.monotonic() + seconds
    while process.alive():
        if time.monotonic() > until:
            raise TimeoutError(f"Process {process.pid} does not end after SIGKILL. Look at it with `ps`.")
        time.sleep(0.01)


def killed_reason(folder: RunFolder, status: Status) -> str:
    """The sentence of a run that was killed on purpose."""
    return f"Killed by the user at step {status.step} of {status.total}. {what_is_safe(folder)}"
