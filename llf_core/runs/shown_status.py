"""The status of a run as views show it, with the last step and recovery advice for a lost run."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from llf_core.runs.checkpoints import recoverable_message
from llf_core.runs.disk_errors import failure_message, is_unwritable
from llf_core.runs.final_status import kept_reason
from llf_core.runs.pace import last_logged_step
from llf_core.runs.status import effective_status, is_never_started, read_status

if TYPE_CHECKING:
    from llf_core.runs.folder import RunFolder
    from llf_core.runs.status import Status


def shown_status(folder: RunFolder) -> Status:
    """The status of a run as views show it.

    A run that waits in the queue is `queued`. A lost run has the reason kept by `final_status`, or a sentence with its
    last step and what can be recovered.
    """
    status = effective_status(read_status(folder))
    if status.mirror is not None:  # what its host says
        return status
    if is_never_started(folder, status):
        status = dataclasses.replace(status, state="lost")
    if status.state == "created" and folder.queue.exists():
        return dataclasses.replace(status, state="queued")
    if status.state != "lost":
        return status
    step = last_logged_step(folder, status)
    at = f"at step {step} of {status.total}" if status.total else "before the first step"
    reason = kept_reason(folder, status.attempt) or _why_lost(folder, at)
    return dataclasses.replace(status, step=step, reason=reason)


def _why_lost(folder: RunFolder, at: str) -> str:
    gone = f"The run's processes exited without a final status, {at}."
    return (
        " ".join([gone, *failure_message(folder)]) if is_unwritable(folder) else f"{gone} {recoverable_message(folder)}"
    )
