"""The last step of a run, from its files: the status is some seconds behind the metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.runs.checkpoints import Checkpoints
from llf_core.runs.event_fields import is_count
from llf_core.runs.jsonl import parse
from llf_core.untrusted import read_end

if TYPE_CHECKING:
    from llf_core.runs.folder import RunFolder
    from llf_core.runs.status import Status

MAX_BYTES = 64 * 1024  # bytes at the end of the metrics; a record has about 300


def last_logged_step(folder: RunFolder, status: Status) -> int:
    """The last step of an attempt according to its status, metrics and checkpoints."""
    steps = [status.step, *Checkpoints(folder).list()[-1:]]
    try:
        records = [parse(line) for line in read_end(folder.metrics, MAX_BYTES).splitlines()]
    except OSError:  # missing or unreadable: checkpoints and status are used
        records = []
    own = (record.get("step") for record in records if record and record.get("attempt") == status.attempt)
    return max([*steps, *(step for step in own if isinstance(step, int) and is_count(step))])
