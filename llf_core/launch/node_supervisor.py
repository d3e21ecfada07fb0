"""Supervises the ranks of a run on a machine that has joined it; the first machine's supervisor writes the status."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

from llf_core.launch.local_process import Trainer, computing_environment, threads_of, trainer_command
from llf_core.runs import read_status
from llf_core.runs.files import open_to_append
from llf_core.runs.kill import RUN_VARIABLE
from llf_core.runs.shown_status import shown_status
from llf_core.runs.status import BrokenRunError

if TYPE_CHECKING:
    from collections.abc import Callable

    from llf_core.runs import RunFolder

POLL_SECONDS = 0.5
END_SECONDS = 10.0
"""Maximum seconds for the ranks to end by themselves after the run has ended elsewhere."""


def supervise_node(folder: RunFolder, taken_over: Callable[[], object]) -> None:
    """Start the ranks of this machine, and end them when the run has ended, is lost or is removed."""
    attempt = read_status(folder).attempt
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: asked.append(number))
    with open_to_append(folder.log) as log:
        environment = computing_environment(os.environ, threads_of(folder)) | {RUN_VARIABLE: str(folder.path)}
        ranks = Trainer(trainer_command(folder), environment, log)
    ranks.go()
    taken_over()
    over_since: float | None = None
    while ranks.wait(POLL_SECONDS) is None:
        if asked:
            asked.clear()
            ranks.signal(signal.SIGTERM)
        if not _is_over(folder, attempt):
            over_since = None
        elif over_since is None:
            over_since = time.monotonic()
        elif time.monotonic() - over_since > END_SECONDS:
            ranks.signal(signal.SIGKILL, group=True)


def _is_over(folder: RunFolder, attempt: int) -> bool:
    try:
        now = shown_status(folder)
    except BrokenRunError:
        return True
    except OSError:  # a drive that does not answer
        return False
    return now.has_ended or now.attempt != attempt
