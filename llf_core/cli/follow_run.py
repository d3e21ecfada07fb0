"""Follows a run until it ends."""

from __future__ import annotations

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

    Args:
        run: the run.
        as_json: print the summary as JSON instead of progress.

    Raises:
        Exit: the run did not succeed, or the command was interrupted.
        UserError: the run's status or, while progress is shown, its metrics cannot be read, or the run can be neither
            stopped nor killed.
        OSError: too many files are open, or stdout cannot be written.
    """
    if not as_json:
        err.print(f"{run.id}  [dim]{escape(str(run.folder.path))}[/dim]")
    interrupted = False
    while True:
        try:
            run.wait(progress=not as_json, interrupt="raise")
            break
        except KeyboardInterrupt:
            with in_a_sentence():
                run.kill() if interrupted else run.stop()
            if interrupted:
                err.print("Killed.")
            else:
                interrupted = True
                err.print("Stopping after the current step, with a checkpoint. Ctrl-C again kills the run.")
    status = _settled(run)
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
