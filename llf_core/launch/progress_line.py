"""Progress of a run on stdout: a progress bar in a terminal, occasional lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from llf_core.runs.formatting import duration, number
from llf_core.runs.pace import Pace, read_pace, remaining

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from llf_core.runs import RunReader, Status

SHARE = 0.05  # of the steps between two printed lines, at least
SECONDS = 10.0  # between two printed lines, at least


class ProgressLine:
    """Shows the progress of one run on stdout."""

    def __init__(self, reader: RunReader) -> None:
        self._reader = reader
        self._bar: tuple[Progress, TaskID] | None = _bar() if sys.stdout.isatty() else None
        self._state = ""
        self._step = -1
        self._printed = float("-inf")

    def show(self, status: Status) -> None:
        """Update the bar; without a terminal, print if the state changed, or after 5 % of the steps and 10 s."""
        pace = read_pace(self._reader.folder, status)
        if self._bar is not None:
            bar, task = self._bar
            bar.update(task, completed=pace.step, total=status.total or None, description=self._text(status, pace))
        elif self._is_news(status, pace.step):
            self._state, self._step, self._printed = status.state, pace.step, time.monotonic()
            print(self._text(status, pace), flush=True)  # noqa: T201 - the caller's cell or file

    def close(self) -> None:
        """Stop the progress bar; the last line stays."""
        if self._bar is not None:
            self._bar[0].stop()

    def _is_news(self, status: Status, step: int) -> bool:
        if status.state != self._state:
            return True
        moved = step - self._step >= max(1.0, SHARE * status.total)
        return moved and time.monotonic() - self._printed >= SECONDS

    def _text(self, status: Status, pace: Pace) -> str:
        parts = [status.state]
        if status.total:
            parts.append(f"step {pace.step} of {status.total}")
        loss = self._reader.metrics().last("loss")
        if loss is not None:
            parts.append(f"loss {number(loss)}")
        left = remaining(status.state, pace.step, status.total, pace.per_step)
        if left is not None:
            parts.append(f"{duration(left)} left")
        return " · ".join(parts)


def _bar() -> tuple[Progress, TaskID]:
    from rich.progress import BarColumn, Progress, TextColumn

    bar = Progress(BarColumn(bar_width=30), TextColumn("{task.description}", markup=False))
    bar.start()
    return bar, bar.add_task("", total=None)
