"""The queue of runs on one machine.

Each queued run has its own supervisor that waits for its turn, so the queue needs no central process.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llf_core.runs import read_meta, status
from llf_core.runs.files import json_bytes, lock_path, locked, replace_file
from llf_core.runs.pace import read_pace, remaining
from llf_core.runs.process import host
from llf_core.runs.run_index import RunIndex

if TYPE_CHECKING:
    from pathlib import Path

    from llf_core.runs import RunFolder

POLL_SECONDS, MAX_POLL_SECONDS = 2.0, 30.0
"""Seconds between two checks, per run ahead, and the maximum; chosen by hand."""


def enqueue(folder: RunFolder) -> None:
    """Put a run that has not started into the queue: its supervisor then waits for its turn."""
    replace_file(folder.queue, json_bytes({"v": 1, "since": time.time()}))


@dataclass(frozen=True)
class RunAhead:
    """A run that must end before another one starts; `remaining` is in seconds."""

    id: str
    name: str
    waits: bool
    step: int
    total: int
    remaining: float | None

    def __str__(self) -> str:
        """Name, progress and remaining time: `tune (step 40 of 100), about 3 min`."""
        steps = f" (step {self.step:,} of {self.total:,})" if self.total else ""
        left = f", about {max(1, round(self.remaining / 60))} min" if self.remaining else ""
        return f"{self.name}{steps}{left}"


QueuedRun = tuple[tuple[float, str], RunAhead]
"""Position of a queued run (time of creation, id), and the run."""


class MachineLoad:
    """Running and queued runs on this machine. A check takes one `stat` per run; ended runs are not read again."""

    def __init__(self, home: Path | str | None = None) -> None:
        self._index = RunIndex(home)
        self._ended: dict[str, int] = {}  # when the status of an ended run was written

    def ahead(self) -> list[RunAhead]:
        """Runs that a newly queued run would wait for, in order."""
        running, queued = self.running_and_queued()
        return [*running, *(one for _, one in queued)]

    def running_and_queued(self, *, exclude: str = "") -> tuple[list[RunAhead], list[QueuedRun]]:
        """Running runs, and queued runs with their positions, in order."""
        running: list[RunAhead] = []
        queued: list[QueuedRun] = []
        for name in self._index.names():
            folder = self._index.folder(name)
            try:
                written = folder.status.stat().st_mtime_ns
                if name == exclude or self._ended.get(name) == written:
                    continue
                now = status.effective_status(status.read_status(folder))
            except (OSError, status.BrokenRunError):
                continue
            if now.final or now.state == "lost":
                self._ended[name] = written
            elif now.host in {None, host()}:
                waits = now.state == "created" and folder.queue.exists()
                step, per_step = read_pace(folder, now)
                left = remaining(now.state, step, now.total, per_step)
                one = RunAhead(name, read_meta(folder)["name"] or name, waits, step, now.total, left)
                if waits:
                    queued.append(((now.created, name), one))
                else:  # one that was just made and starts at once is running too
                    running.append(one)
        return running, sorted(queued, key=lambda pair: pair[0])


class QueuePosition:
    """Decides when a queued run may start: when no other run is active and none has waited longer."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._machine = MachineLoad(folder.home)

    def ahead(self) -> list[RunAhead]:
        """Runs ahead of it: active runs, then those that have waited longer."""
        mine = self._place()
        running, queued = self._machine.running_and_queued(exclude=self._folder.id)
        return [*running, *(one for place, one in queued if place < mine)]

    def behind(self) -> int:
        """Number of queued runs behind it."""
        mine = self._place()
        return sum(place > mine for place, _ in self._machine.running_and_queued(exclude=self._folder.id)[1])

    def poll_seconds(self) -> float:
        """Seconds until the next check; more with many runs ahead, so that long queues cost no more than short ones."""
        return min(MAX_POLL_SECONDS, POLL_SECONDS * max(1, len(self.ahead())))

    def try_start(self, attempt: int) -> bool:
        """Start if nothing is ahead: sets the status to `starting` and removes `queue.json`."""
        if self.ahead():
            return False
        try:
            with locked(lock_path(self._folder.home, "queue")):
                if self.ahead():
                    return False
                now = status.update(self._folder, of_attempt=attempt, state="starting")
        except TimeoutError:  # the next look is soon enough
            return False
        if now.state != "starting" or now.attempt != attempt:
            return False
        self._folder.queue.unlink(missing_ok=True)
        return True

    def _place(self) -> tuple[float, str]:
        return status.read_status(self._folder).created, self._folder.id
