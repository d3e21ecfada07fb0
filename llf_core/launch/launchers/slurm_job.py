"""`python -m llf_core.launch.launchers.slurm_job RUN ATTEMPT [-- COMMAND …]`: supervises a run in Slurm's allocation.

It stays in the foreground, since Slurm ends what a job leaves behind.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from llf_core.launch.resume import resume
from llf_core.launch.supervisor import Supervisor
from llf_core.runs import RunFolder, read_status, update_env
from llf_core.runs.config_file import read_config
from llf_core.runs.listing import shown_status
from llf_core.runs.process_log import log_to_run, tolerate_a_full_log
from llf_core.runs.status import SILENCE_SECONDS


def main(arguments: list[str]) -> None:
    """Supervise the attempt that was queued, or the next one of a job that Slurm has requeued."""
    tolerate_a_full_log()
    log_to_run()
    path, attempt, *rest = arguments
    folder = RunFolder(Path(path))
    if int(os.environ.get("SLURM_RESTART_COUNT", "0")) > 0:
        if not _begins_again(folder):
            return
    elif read_status(folder).attempt != int(attempt) or read_status(folder).final:
        return
    if read_status(folder).attempt == 1:
        _take_cores(folder)
    folder.queue.unlink(missing_ok=True)
    Supervisor(folder, rest[1:] or None).run()


def _begins_again(folder: RunFolder) -> bool:
    """Whether there is something left to train: the attempt that `cluster_watch` has queued, or a new one."""
    until = time.monotonic() + 2 * SILENCE_SECONDS
    while time.monotonic() < until:
        now = shown_status(folder)
        if now.state == "finished":
            return False
        if now.state in {"queued", "created"}:
            return True
        if now.has_ended:
            resume(folder, check_config=False)
            return True
        time.sleep(1)  # of processes on another node only the silence tells that they have ended
    return False


def _take_cores(folder: RunFolder) -> None:
    """Record the threads of a process in this allocation, instead of those of the machine that queued the run."""
    config = read_config(folder.config)
    cores, processes = os.environ.get("SLURM_CPUS_ON_NODE", ""), config.get("num_processes")
    if config.get("threads") is None and cores.isdecimal():
        update_env(folder, threads=max(1, int(cores) // (processes if isinstance(processes, int) else 1)))


if __name__ == "__main__":
    main(sys.argv[1:])
