"""Watches a run that a cluster has queued, by Slurm or Ray: until it starts, when it is requeued, and at its end."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from llf_core.launch.launchers.ray import HOST as RAY_HOST
from llf_core.launch.launchers.slurm import HOST as SLURM_HOST
from llf_core.launch.launchers.slurm import ask, cancel
from llf_core.launch.queue import enqueue
from llf_core.launch.resume import resume
from llf_core.runs import RunWriter, read_status, status
from llf_core.runs.checkpoints import recoverable_message
from llf_core.runs.control import killed_reason, pending_requests, remove_request
from llf_core.runs.files import open_to_append
from llf_core.runs.listing import shown_status
from llf_core.runs.process import ProcessId
from llf_core.runs.status import BrokenRunError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llf_core.runs import Request, RunFolder, Status

POLL_SECONDS, RUNNING_SECONDS = 1.0, 5.0
"""Seconds between two polls of a pending job or task, and of a running job; chosen by hand."""
KILL_SECONDS = 10.0
"""Maximum seconds for the supervisor in the allocation to carry out a kill; then Slurm cancels the job."""
LAST_SECONDS = 3.0
"""Maximum seconds for the last status of an ended job to arrive over a network drive."""
WAITING = frozenset({"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD"})
ENDED = frozenset(
    ("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT")
)
"""States of a job whose allocation is gone, see `man squeue`."""


class WaitingRun:
    """A run whose supervisor is started elsewhere; until then `host`, not this machine, is in its status."""

    def __init__(self, folder: RunFolder, host: str) -> None:
        self._folder = folder
        self._host = host

    def heartbeat(self, attempt: int) -> None:
        """Record that the run still waits."""
        own, beat = ProcessId.own().json(), time.time()
        status.update(self._folder, of_attempt=attempt, host=self._host, boot_id=None, supervisor=own, heartbeat=beat)

    def requests(self, *types: str) -> list[Request]:
        """Pending requests of these types."""
        return [one for one in pending_requests(self._folder) if one.type in types]

    def close(self, now: Status, state: str, reason: str) -> None:
        """Write why the run ended if its supervisor has not, and answer its pending requests."""
        self._folder.queue.unlink(missing_ok=True)
        writer = RunWriter(self._folder, now.attempt)
        writer.close(state, reason)
        for request in self.requests("stop", "kill"):
            writer.event("answer", id=request.id, request=request.type, ok=True, message=reason)
            remove_request(request)
        writer.release()


def watch_job(folder: RunFolder, job: str, taken_over: Callable[[], object]) -> None:
    """Keep the status of a run right while its job waits, and write why it ended if its supervisor cannot."""
    watch = _JobWatch(folder, job)
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


class _JobWatch:
    def __init__(self, folder: RunFolder, job: str) -> None:
        self._folder = folder
        self.run = WaitingRun(folder, SLURM_HOST)
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


def watch_task(folder: RunFolder, address: str, command: Sequence[str], taken_over: Callable[[], object]) -> None:
    """Have Ray start a run, keep its status right while it waits, and write why it ended if its supervisor cannot."""
    run, attempt = WaitingRun(folder, RAY_HOST), read_status(folder).attempt
    run.heartbeat(attempt)
    taken_over()
    module = [sys.executable, "-P", "-m", "llf_core.launch.launchers.ray_driver"]
    words = [str(folder.path), str(attempt), address, *(("--", *command) if command else ())]
    with open_to_append(folder.log) as log:
        driver = subprocess.Popen(  # noqa: S603 - our own module
            [*module, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True
        )
    try:
        while not _is_done(folder, run, attempt, driver):
            time.sleep(POLL_SECONDS)
    except BrokenRunError:  # the run was removed
        pass
    finally:
        driver.kill()


def _is_done(folder: RunFolder, run: WaitingRun, attempt: int, driver: subprocess.Popen[str]) -> bool:
    """Check the run and Ray's driver once; True when there is nothing left to watch."""
    try:
        now = shown_status(folder)
        if now.attempt != attempt:
            return True
        ended = driver.poll() is not None
        if now.final:
            return ended  # Ray gets the room back from the task itself
        if now.state == "queued" and run.requests("stop", "kill"):
            driver.kill()
            driver.wait()
            run.close(now, "stopped", "Removed from Ray's queue before it started. Resume starts it.")
            return True
        if ended and now.state in {"queued", "lost"}:
            at = f"at step {now.step} of {now.total}" if now.total else "before its first step"
            said = _ray_said(driver)
            run.close(now, "failed", f"Ray ended the run {at}: {said.rstrip('.')}. {recoverable_message(folder)}")
            return True
        if now.state == "queued":
            run.heartbeat(attempt)
    except OSError:  # a drive that does not answer
        return False
    return False


def _ray_said(driver: subprocess.Popen[str]) -> str:
    assert driver.stdout is not None  # noqa: S101 - for the type checker
    lines = driver.stdout.read().strip().splitlines()
    return lines[-1] if lines else f"the connection to its head was lost (exit code {driver.returncode})"
