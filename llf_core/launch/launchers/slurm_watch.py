"""Watches the Slurm job of a run: until it starts, when Slurm requeues it, and at its end."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from llf_core.launch.launchers.slurm import HOST, ask, cancel
from llf_core.launch.launchers.waiting_run import WaitingRun
from llf_core.launch.queue import enqueue
from llf_core.launch.resume import resume
from llf_core.runs import read_status
from llf_core.runs.checkpoints import recoverable_message
from llf_core.runs.kill import killed_reason
from llf_core.runs.shown_status import shown_status
from llf_core.runs.status import BrokenRunError

if TYPE_CHECKING:
    from collections.abc import Callable

    from llf_core.runs import RunFolder, Status

POLL_SECONDS, RUNNING_SECONDS = 1.0, 5.0
"""Seconds between two polls of a pending and of a running job; chosen by hand."""
KILL_SECONDS = 10.0
"""Maximum seconds for the supervisor in the allocation to carry out a kill; then Slurm cancels the job."""
LAST_SECONDS = 3.0
"""Maximum seconds for the last status of an ended job to arrive over a network drive."""
WAITING = frozenset({"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD"})
ENDED = frozenset(
    ("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT")
)
"""States of a job whose allocation is gone, see `man squeue`."""


def watch_job(folder: RunFolder, job: str, taken_over: Callable[[], object]) -> None:
    """Keep the status of a run right while its job waits, and write why it ended if its supervisor cannot."""
    watch = _Watch(folder, job)
    if folder.queue.exists():
        watch.run.heartbeat(read_status(folder).attempt)
    taken_over()
    pause = POLL_SECONDS
    while True:
        try:
            if watch.is_done():
                return
            pause = RUNNING_SECONDS if watch.runs else POLL_SECONDS
        except BrokenRunError:  # the run was removed
            with suppress(RuntimeError):
                cancel(job)
            return
        except (OSError, RuntimeError):  # a drive or Slurm that does not answer
            pause = RUNNING_SECONDS
        time.sleep(pause)


class _Watch:
    def __init__(self, folder: RunFolder, job: str) -> None:
        self._folder = folder
        self.run = WaitingRun(folder, HOST)
        self._job = job
        self._attempt = read_status(folder).attempt
        self._restarts = 0
        self._ended_at: float | None = None
        self.runs = False

    def is_done(self) -> bool:
        """Check job and run once; True when there is nothing left to watch."""
        state, restarts = self._ask()
        now = shown_status(self._folder)
        if now.attempt != self._attempt and restarts <= self._restarts:
            return True  # another job carries on
        self._attempt = now.attempt
        self.runs = state not in WAITING and state not in ENDED
        if state in ENDED:
            return self._ends(now, state)
        if state in WAITING:
            return self._waits(now, restarts)
        kills = self.run.requests("kill")
        if kills and time.time() - kills[0].time > KILL_SECONDS and not now.final:
            cancel(self._job)
        return False

    def _ask(self) -> tuple[str, int]:
        """State of the job, and how often Slurm has requeued it."""
        try:
            found = ask(
                "squeue", "--noheader", f"--jobs={self._job}", "--states=all", "--Format=State:32,RestartCnt:16"
            )
        except RuntimeError as error:
            if "Invalid job id" in str(error):  # it has ended some minutes ago
                return "COMPLETED", self._restarts
            raise
        state, _, restarts = found.partition("\n")[0].partition(" ")
        return state or "COMPLETED", int(restarts.strip() or 0)

    def _waits(self, now: Status, restarts: int) -> bool:
        """Keep a queued run queued, cancel a stopped or killed one, and queue the next attempt of a requeued one."""
        if now.state == "queued":
            requests = self.run.requests("stop", "kill")
            if not requests:
                self.run.heartbeat(now.attempt)
                return False
            cancel(self._job)
            self.run.close(now, "stopped", "Removed from Slurm's queue before it started. Resume starts it.")
            return True
        if not now.has_ended:
            return False
        if restarts <= self._restarts:
            cancel(self._job)  # it was killed while nobody watched
            return True
        self._restarts = restarts
        enqueue(self._folder)
        resume(self._folder, check_config=False)
        self._attempt = now.attempt + 1
        self.run.heartbeat(self._attempt)
        return False

    def _ends(self, now: Status, state: str) -> bool:
        """Write why the run ended if its supervisor has not: it was killed with the job, or has never begun."""
        self._ended_at = self._ended_at or time.monotonic()
        if now.final:
            return True
        if time.monotonic() - self._ended_at < LAST_SECONDS:
            return False
        if self.run.requests("kill"):
            self.run.close(now, "failed", killed_reason(self._folder, now))
            return True
        at = f"at step {now.step} of {now.total}" if now.total else "before its first step"
        told = f"Slurm ended job {self._job} ({state}) {at}."
        self.run.close(now, "failed", f"{told} {recoverable_message(self._folder)}")
        return True
