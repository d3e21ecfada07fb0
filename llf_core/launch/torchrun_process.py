"""`python -m llf_core.launch.torchrun_process RUN N`: trains a run in N processes of this machine, by torchrun's agent.

The supervisor starts it in place of the trainer. It ends when all ranks have ended, as the rank did that ended first.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from llf_core.runs import RunFolder, RunWriter, read_status
from llf_core.runs.process_exit import exit_with

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure


def main() -> int:
    """Start the ranks and wait for them.

    Returns:
        Exit code of the trainer; a rank that a signal ended ends this process by the same signal.
    """
    folder, processes = RunFolder(Path(sys.argv[1])), int(sys.argv[2])
    # The agent would end all ranks within 30 seconds. Rank 0 agrees with the others on a stop instead.
    os.environ["TORCHELASTIC_SIGNALS_TO_HANDLE"] = "SIGINT"
    signal.signal(signal.SIGTERM, lambda *_: _pass_on(folder))
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    settings = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=folder.id,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=0.1,
        local_addr="localhost",
    )
    command = ["-P", "-m", "llf_core.training.main", str(folder.path)]
    try:
        elastic_launch(settings, sys.executable)(*command)
    except ChildFailedError as error:
        return _end_as(folder, error.failures, processes)
    return 0


def _pass_on(folder: RunFolder) -> None:
    rank_0 = read_status(folder).trainer
    if rank_0 is not None and rank_0.pid != os.getpid() and rank_0.alive():
        os.kill(rank_0.pid, signal.SIGTERM)


def _end_as(folder: RunFolder, failures: dict[int, ProcessFailure], processes: int) -> int:
    """Record which rank a signal has ended, if one did, and end as the rank did that ended first."""
    rank, first = min(failures.items(), key=lambda one: (one[1].exitcode >= 0, one[1].timestamp))
    if first.exitcode >= 0:
        return first.exitcode
    writer = RunWriter(folder, read_status(folder).attempt)
    writer.event("rank_ended", rank=rank, of=processes, signal=-first.exitcode)
    writer.release()
    if first.exitcode != -signal.SIGKILL:
        signal.signal(-first.exitcode, signal.SIG_DFL)
    os.kill(os.getpid(), -first.exitcode)
    return first.exitcode


if __name__ == "__main__":
    exit_with(main)
