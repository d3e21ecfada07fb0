"""The status of a run as views show it: of a lost one, how far it came, why it ended and what is safe."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from llf_core.runs.checkpoints import what_is_safe
from llf_core.runs.disk_errors import takes_nothing, told
from llf_core.runs.final_status import kept_reason
from llf_core.runs.last_step import last_logged_step
from llf_core.runs.status import never_began, read_status, shown

if TYPE_CHECKING:
    from llf_core.runs.folder import RunFolder
    from llf_core.runs.status import Status


def shown_status(folder: RunFolder) -> Status:
    """The status of a run as a view shows it; a lost one says how far it came and what is safe.

    Raises:
        BrokenRunError: there is no readable status.
    """
    status = shown(read_status(folder))
    if never_began(folder, status):
        status = dataclasses.replace(status, state="lost")
    if status.state != "lost":
        return status
    step = last_logged_step(folder, status)
    at = f"at step {step} of {status.total}" if status.total else "before the first step"
    reason = kept_reason(folder, status.attempt) or _why_lost(folder, at)
    return dataclasses.replace(status, step=step, reason=reason)


def _why_lost(folder: RunFolder, at: str) -> str:
    """What is known of a run whose processes left no word anywhere."""
    gone = f"The run's processes ended without a final status, {at}."
    return " ".join([gone, *told(folder)]) if takes_nothing(folder) else f"{gone} {what_is_safe(folder)}"
