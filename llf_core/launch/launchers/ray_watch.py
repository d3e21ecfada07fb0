"""Watches a run that Ray has queued or started."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

from llf_core.launch.launchers.ray import HOST
from llf_core.launch.launchers.waiting_run import WaitingRun
from llf_core.runs import read_status
from llf_core.runs.checkpoints import recoverable_message
from llf_core.runs.files import open_to_append
from llf_core.runs.shown_status import shown_status
from llf_core.runs.status import BrokenRunError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llf_core.runs import RunFolder

POLL_SECONDS = 1.0


def watch_task(folder: RunFolder, address: str, command: Sequence[str], taken_over: Callable[[], object]) -> None:
    """Have Ray start a run, keep its status right while it waits, and write why it ended if its supervisor cannot."""
    run, attempt = WaitingRun(folder, HOST), read_status(folder).attempt
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
            said = _said(driver)
            run.close(now, "failed", f"Ray ended the run {at}: {said.rstrip('.')}. {recoverable_message(folder)}")
            return True
        if now.state == "queued":
            run.heartbeat(attempt)
    except OSError:  # a drive that does not answer
        return False
    return False


def _said(driver: subprocess.Popen[str]) -> str:
    assert driver.stdout is not None  # noqa: S101 - for the type checker
    lines = driver.stdout.read().strip().splitlines()
    return lines[-1] if lines else f"the connection to its head was lost (exit code {driver.returncode})"
