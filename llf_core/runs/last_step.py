"""How far a run came, told by what it wrote: its status is some seconds behind its metrics."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from llf_core.door import read_end
from llf_core.runs.checkpoints import Checkpoints
from llf_core.runs.final_status import kept_reason
from llf_core.runs.jsonl import parse
from llf_core.runs.status import never_began, read_status, shown

if TYPE_CHECKING:
    from llf_core.runs.folder import RunFolder
    from llf_core.runs.status import Status

LOOKED_AT = 64 * 1024  # bytes at the end of the metrics; a record has about 300


def last_logged_step(folder: RunFolder, status: Status) -> int:
    """The last step that an attempt has made, by its status, its metrics or its checkpoints.

    Args:
        folder: the run.
        status: as stored; its attempt counts.
    """
    steps = [status.step, *Checkpoints(folder).list()[-1:]]
    try:
        records = [parse(line) for line in read_end(folder.metrics, LOOKED_AT).splitlines()]
    except OSError:  # none yet, or none that is read: checkpoints and status prove enough
        records = []
    own = [record.get("step") for record in records if record and record.get("attempt") == status.attempt]
    return max(step for step in [*steps, *own] if isinstance(step, int))


def what_is_safe(folder: RunFolder) -> str:
    """What of a run can be used after its end, in one sentence."""
    latest = Checkpoints(folder).latest()
    if latest is None:
        return "There is no checkpoint yet: resume starts from the beginning."
    return f"{latest.name} is whole: resume goes on from there."


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
    from llf_core.runs.disk_errors import takes_nothing, told  # these sentences say what is safe, too

    gone = f"The run's processes ended without a final status, {at}."
    return " ".join([gone, *told(folder)]) if takes_nothing(folder) else f"{gone} {what_is_safe(folder)}"
