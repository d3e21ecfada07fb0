"""Newer weights of a run whose model is in a chat: its last checkpoint, or one that is saved now."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from llf_core.runs import Checkpoints, open_run, send_request
from llf_core.runs.shown_status import shown_status

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from llf_core.chat.target import Target
    from llf_core.runs import RunFolder

POLL_SECONDS = 1.0


def is_live(target: Target, home: Path | None) -> bool:
    """Whether the run of a model can save further checkpoints."""
    if not target.follows_run:
        return False
    try:
        return shown_status(open_run(target.run_id, home)).state == "running"
    except (OSError, ValueError, RuntimeError):  # the run was deleted, or cannot be read
        return False


def request_checkpoint(target: Target, home: Path | None) -> RunFolder:
    """Request a checkpoint of the running run of a model.

    Raises:
        ValueError: the run is not running, or the model is a fixed checkpoint, the base or of no run.
    """
    folder = open_run(target.run_id, home)
    if not is_live(target, home):
        raise ValueError(f"{folder.id} is not running, so it saves no checkpoint.")
    send_request(folder, "checkpoint", by="chat")
    return folder


def wait_for_checkpoint(
    folder: RunFolder, after: int, seconds: float, is_closed: Callable[[], bool] = lambda: False
) -> bool:
    """Wait for a checkpoint after step `after`, or the result of a run that ends, and return whether there is one.

    Args:
        is_closed: whether to stop waiting, since the view was closed; asked every second.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end and not is_closed():
        ended = shown_status(folder).has_ended  # before the look, so that none is saved after it
        steps = Checkpoints(folder).list()
        if steps and steps[-1] > after:
            return True
        if ended:
            return folder.output.is_dir()
        time.sleep(POLL_SECONDS)
    return False
