"""Opens the run of a command, and follows it in the terminal until its end."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import typer
from rich.markup import escape

from llf_core.cli.errors import INTERRUPTED, in_a_sentence
from llf_core.cli.terminal import err, out, print_json
from llf_core.user_error import BAD_CONFIG

if TYPE_CHECKING:
    from llf_core.launch import Run
    from llf_core.runs import Status

SETTLE_SECONDS = 10


def follow_run(run: Run, *, as_json: bool) -> None:
    """Show progress until the run ends, then exit with 0, 1, 2 or (interrupted) 130.

    The first Ctrl-C stops the run with a checkpoint, the second kills it.
    """
    if not as_json:
        err.print(f"{run.id}  [dim]{escape(str(run.folder.path))}[/dim]")
    # The end of a container or machine is handled as Ctrl-C is: a checkpoint, a copy, the end.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        interrupted = _wait_for_end(run, progress=not as_json)
        status = _settled(run)
        _wait_for_copy(run)
    finally:
        signal.signal(signal.SIGTERM, before)
    if as_json:
        print_json(
            {
                "id": run.id,
                "state": status.state,
                "step": status.step,
                "reason": status.reason,
                "finding": status.finding,
            }
        )
    else:
        at = f" at step {status.step:,} of {status.total:,}" if status.total else ""
        why = " ".join(filter(None, (status.finding, status.reason)))
        out.print(f"{status.state}{at}. {escape(why)}".rstrip())
        if status.state == "stopped":
            out.print(f"Continue with: llf runs resume {run.id}")
        if run.output.is_dir():
            out.print(f"The result is in {run.output}", markup=False)
    if interrupted:
        raise typer.Exit(INTERRUPTED)
    if status.state not in {"finished", "stopped"}:
        raise typer.Exit(BAD_CONFIG if status.exit_code == BAD_CONFIG else 1)


def _wait_for_end(run: Run, *, progress: bool) -> bool:
    """Whether there was an interrupt, each of which stops or kills the run."""
    interrupted = False
    while True:
        try:
            run.wait(progress=progress, interrupt="raise")
        except KeyboardInterrupt:
            with in_a_sentence():
                run.kill() if interrupted else run.stop()
            if interrupted:
                err.print("Killed.")
            else:
                interrupted = True
                err.print("Stopping after the current step, with a checkpoint. Ctrl-C again kills the run.")
        else:
            return interrupted


def _settled(run: Run) -> Status:
    """The status once the supervisor has stored the exit code."""
    until = time.monotonic() + SETTLE_SECONDS
    status = run.status()
    while (
        status.exit_code is None
        and status.supervisor_process is not None
        and status.supervisor_process.alive()
        and time.monotonic() < until
    ):
        time.sleep(0.02)
        status = run.status()
    return status


def _wait_for_copy(run: Run) -> None:
    """Wait for the copy at `sync_to`: a container ends with the command that it was started for."""
    from llf_core.runs.config_file import read_config

    place, supervisor = read_config(run.folder.config).get("sync_to"), run.status().supervisor_process
    if place and supervisor is not None and supervisor.alive():
        err.print(f"Copying to {escape(str(place))} …")
        while supervisor.alive():
            time.sleep(0.1)


def attach_run(run_id: str) -> Run:
    """Open a run by any name that `llf_core.runs.folder.find_run` knows, or by its address `ssh://host/run`."""
    from llf_core.launch import attach
    from llf_core.remote.address import is_address
    from llf_core.runs.folder import find_run

    with in_a_sentence():
        return attach(run_id if is_address(run_id) else find_run(run_id))
