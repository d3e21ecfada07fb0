"""`python -m llf_core.launch.torchrun_process RUN N [NODES NODE HOST:PORT]`: trains a run by torchrun's agent.

It starts N ranks, as machine NODE of NODES, which meet at HOST:PORT. The supervisor starts it in place of the trainer.
It ends like the rank that ended first.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from llf_core.doctor.rule import Finding
from llf_core.runs import RunFolder, RunReader, RunWriter, read_status, status
from llf_core.runs.control import AGENT_VARIABLE
from llf_core.runs.process import host
from llf_core.runs.process_log import exit_with
from llf_core.runs.status import BrokenRunError

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

LOST_RANK = 3
"""Exit code of a rank that ended because another one had ended."""
ELSEWHERE_SECONDS = 5.0
"""Maximum seconds for another machine to record which of its ranks has ended."""
LOOK_SECONDS, STILL_SECONDS = 1.0, 3.0
"""Seconds between two checks of the ranks, and until a rank stopped by a signal is reported; chosen by hand."""


def main() -> int:
    """Start the ranks and wait for them; returns the exit code, or ends by the signal that ended a rank."""
    folder, processes, *place = RunFolder(Path(sys.argv[1])), int(sys.argv[2]), *sys.argv[3:]
    nodes, node = (int(place[0]), int(place[1])) if place else (1, 0)
    # The agent would end all ranks within 30 seconds. Rank 0 agrees with the others on a stop instead.
    os.environ["TORCHELASTIC_SIGNALS_TO_HANDLE"] = "SIGINT"
    os.environ[AGENT_VARIABLE] = str(os.getpid())
    signal.signal(signal.SIGTERM, lambda *_: _pass_on(folder, node))
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    command = ["-P", "-m", "llf_core.training.main", str(folder.path)]
    threading.Thread(target=_watch_ranks, args=(folder, processes * nodes), daemon=True).start()
    with tempfile.TemporaryDirectory(prefix="llf-torchrun-") as errors:
        settings = LaunchConfig(
            min_nodes=nodes,
            max_nodes=nodes,
            nproc_per_node=processes,
            run_id=folder.id,
            rdzv_backend="static" if place else "c10d",
            rdzv_endpoint=place[2] if place else "localhost:0",
            rdzv_configs={"rank": node} if place else {},
            max_restarts=0,
            monitor_interval=0.1,
            local_addr=None if place else "localhost",
            logs_specs=DefaultLogsSpecs(log_dir=errors),
        )
        try:
            elastic_launch(settings, sys.executable)(*command)
        except ChildFailedError as error:
            failures = error.failures
        else:
            return 0
    return _end_as(folder, failures, processes, nodes)


def _pass_on(folder: RunFolder, node: int) -> None:
    """Pass a stop on to a rank of this machine, which agrees on it with all others."""
    now = read_status(folder)
    if node > 0 and now.state == "running":
        for rank in psutil.Process().children():
            rank.send_signal(signal.SIGTERM)
    elif node == 0 and now.trainer is not None and now.trainer.pid != os.getpid() and now.trainer.alive():
        os.kill(now.trainer.pid, signal.SIGTERM)


def _watch_ranks(folder: RunFolder, of: int) -> None:
    """Report a rank of this machine that a signal has stopped, until it continues."""
    attempt, still_since, told = read_status(folder).attempt, 0.0, ""
    while True:
        time.sleep(LOOK_SECONDS)
        still = _stopped_rank()
        still_since = 0.0 if still is None else still_since or time.time()
        try:
            if still is not None and not told and time.time() - still_since >= STILL_SECONDS:
                told = _tell_stopped(folder, attempt, *still, of, still_since)
            elif still is None and told:
                if read_status(folder).reason == told:
                    status.update(folder, of_attempt=attempt, reason=None)
                told = ""
        except (OSError, BrokenRunError):  # a full disk, or a run that is removed
            continue


def _stopped_rank() -> tuple[int, int] | None:
    """Rank and process id of a stopped rank of this machine."""
    for process in psutil.Process().children():
        try:
            if process.status() == psutil.STATUS_STOPPED:
                return int(process.environ().get("RANK", "0")), process.pid
        except psutil.Error:  # it ends
            continue
    return None


def _tell_stopped(folder: RunFolder, attempt: int, rank: int, pid: int, of: int, since: float) -> str:  # noqa: PLR0913, PLR0917
    """Record a stopped rank as a finding and in the status; returns the status's reason."""
    when = time.strftime("%H:%M:%S", time.localtime(since))
    message = (
        f"Process {rank} of {of} (counted from 0) stands still since {when}: a signal such as SIGSTOP has stopped it, "
        "and the others wait for it."
    )
    fix = f"Let it go on with kill -CONT {pid} on {host()}, or kill the run."
    reason = f"{message} {fix}"
    step = status.update(folder, of_attempt=attempt, reason=reason).step
    writer = RunWriter(folder, attempt)
    writer.event("finding", **Finding("stands_still", message, fix, until=step + 1).event())
    writer.release()
    return reason


def _end_as(folder: RunFolder, failures: dict[int, ProcessFailure], processes: int, nodes: int) -> int:
    """Record which rank a signal has ended, if one did, and end like the rank that ended first."""
    rank, first = min(failures.items(), key=lambda one: (one[1].exitcode >= 0, one[1].timestamp))
    if first.exitcode == LOST_RANK and nodes > 1:
        return _end_as_elsewhere(folder)
    if first.exitcode >= 0:
        return first.exitcode
    writer = RunWriter(folder, read_status(folder).attempt)
    writer.event("rank_ended", rank=rank, of=processes * nodes, signal=-first.exitcode)
    writer.release()
    _end_by(-first.exitcode)
    return first.exitcode


def _end_as_elsewhere(folder: RunFolder) -> int:
    """End like the rank that ended on another machine, once that has recorded it."""
    attempt, until = read_status(folder).attempt, time.monotonic() + ELSEWHERE_SECONDS
    while time.monotonic() < until:
        for event in reversed(RunReader(folder).events()):
            if event["type"] == "rank_ended" and event.get("attempt") == attempt:
                _end_by(int(event["signal"]))
        time.sleep(0.2)
    writer = RunWriter(folder, attempt)
    told = "A process on another machine has ended, or the link to it."
    writer.event("error", message=told, what_to_do="Look into the log of that machine.")
    writer.release()
    return LOST_RANK


def _end_by(number: int) -> None:
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


if __name__ == "__main__":
    exit_with(main)
