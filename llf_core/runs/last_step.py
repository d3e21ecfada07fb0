"""How far a run came, told by what it wrote: its status is some seconds behind its metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.door import read_end
from llf_core.runs.checkpoints import Checkpoints
from llf_core.runs.jsonl import parse

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
