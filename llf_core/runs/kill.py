"""Kills a run immediately, whichever of its processes are alive."""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from typing import TYPE_CHECKING

import psutil

from llf_core.runs.checkpoints import recoverable_message
from llf_core.runs.control import send_request
from llf_core.runs.jsonl import append
from llf_core.runs.pace import last_logged_step
from llf_core.runs.process import host
from llf_core.runs.status import StatusFields, effective_status, read_status, update

if TYPE_CHECKING:
    from llf_core.runs.folder import RunFolder
    from llf_core.runs.process import ProcessId
    from llf_core.runs.status import Status

SUPERVISOR_SECONDS = 3.0  # for a live supervisor to act on a request; chosen by hand
RUN_VARIABLE = "LLF_RUN"
"""Environment variable of a trainer that holds its run's folder."""
AGENT_VARIABLE = "LLF_AGENT"
"""Environment variable of a rank that holds the process id of torchrun's agent, its parent."""
ELSEWHERE_SECONDS = 15.0  # the same over a network drive


def kill_run(folder: RunFolder, by: str = "") -> Status:
    """Kill a run through its supervisor, or directly if that is gone; returns the new status.

    Raises:
        RuntimeError: the run is on another machine where nothing answers the request, or its status names a process
            that does not belong to it.
    """
    status = read_status(folder)
    if status.final:
        return status
    elsewhere = status.mirror is not None or status.host != host()
    if elsewhere or (
        status.is_on_this_host and status.supervisor_process is not None and status.supervisor_process.alive()
    ):
        send_request(folder, "kill", by=by)
        now = _wait_for_end(folder, ELSEWHERE_SECONDS if elsewhere else SUPERVISOR_SECONDS)
        if now.final:
            return now
        if elsewhere and (status.mirror is not None or effective_status(now).state != "lost"):
            raise RuntimeError(
                f"{folder.id} runs on {status.host}, and its supervisor does not respond. "
                "End its processes on that machine."
            )
    return _end(folder, read_status(folder))


def _wait_for_end(folder: RunFolder, seconds: float) -> Status:
    until = time.monotonic() + seconds
    while not (now := read_status(folder)).final and time.monotonic() < until:
        time.sleep(0.05)
    return now


def _end(folder: RunFolder, status: Status) -> Status:
    """Kill supervisor and trainer after verifying their identity, then write the final status."""
    for process in (status.supervisor_process, status.trainer):
        if process is not None and status.is_on_this_host:
            if process.alive() and not belongs_to_run(process, folder) and process.alive():
                raise RuntimeError(
                    f"status.json of {folder.id} names process {process.pid}, which does not belong to this run, so it "
                    "was not killed. Inspect it with `ps`."
                )
            _kill_group(process)
    status = dataclasses.replace(status, step=last_logged_step(folder, status))
    reason = killed_reason(folder, status)
    end: StatusFields = {"state": "failed", "reason": reason, "exit_code": -signal.SIGKILL, "step": status.step}
    now = update(folder, of_attempt=status.attempt, **end)
    if now.reason == reason:  # else the run has written its own final status meanwhile
        word = {"type": "state", "state": now.state, "reason": reason}
        append(folder.events, {"v": 1, "time": time.time(), "attempt": status.attempt, **word})
    return now


def belongs_to_run(process: ProcessId, folder: RunFolder) -> bool:
    """Whether a process belongs to a run. The status file may be forged and name any process of the user.

    The process's arguments (supervisor and default trainer) or its variable `LLF_RUN` (any trainer) must name the run's
    folder. False for a process that has ended or that the system does not show to this user.
    """
    own = os.path.realpath(folder.path)
    try:
        there = psutil.Process(process.pid)
        if any(os.path.realpath(part) == own for part in there.cmdline() if os.path.isabs(part)):  # noqa: PTH117
            return True
        named = there.environ().get(RUN_VARIABLE)
    except psutil.Error:
        return False
    return named is not None and os.path.realpath(named) == own


def _kill_group(process: ProcessId, seconds: float = 10.0) -> None:
    """Send SIGKILL to a process, and to its group (with data loader workers) if it leads one; wait until it is gone."""
    if not process.alive():
        return
    try:
        leads = os.getpgid(process.pid) == process.pid
        (os.killpg if leads else os.kill)(process.pid, signal.SIGKILL)
    except ProcessLookupError:  # it exited meanwhile
        return
    until = time.monotonic() + seconds
    while process.alive():
        if time.monotonic() > until:
            raise TimeoutError(f"Process {process.pid} is still alive after SIGKILL. Inspect it with `ps`.")
        time.sleep(0.01)


def killed_reason(folder: RunFolder, status: Status) -> str:
    """The reason of a run that the user killed, with what can be recovered."""
    return f"Killed by the user at step {status.step} of {status.total}. {recoverable_message(folder)}"
