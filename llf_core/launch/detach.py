"""Starts a detached supervisor, which outlives cell, kernel, terminal and server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import llf_core
from llf_core.runs import RunReader, read_status, status
from llf_core.runs.disk_errors import failure_message, is_disk_error
from llf_core.runs.files import open_to_append
from llf_core.runs.status import keep_reason, kept_reason

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llf_core.runs import RunFolder

REGISTRATION_SECONDS = 30.0
"""Maximum seconds to wait until the supervisor has registered itself; chosen by hand."""


def start_supervisor(
    folder: RunFolder,
    env: Mapping[str, str] | None = None,
    command: Sequence[str] | None = None,
    *,
    mode: Sequence[str] = (),
) -> None:
    """Start the supervisor of a run's current attempt, and return once it has registered itself in the run's status.

    Args:
        folder: the run, in the state `created`.
        env: additional environment variables, for example tokens; not stored.
        command: program with its arguments, to start instead of the trainer.
        mode: `--joins` where another machine's supervisor writes the status (`llf_core.launch.supervisor`),
            `--slurm` and the number of a job, or `--ray` and the address of a cluster, where it is supervised there
            (`llf_core.launch.launchers.cluster_watch`), `--held` where it ends with its stdin.

    Raises:
        RuntimeError: it did not start; the run is `failed`, and the message has the cause.
    """
    attempt = read_status(folder).attempt
    arguments = [str(folder.path), *mode, *(("--", *command) if command else ())]
    try:
        opened = open_to_append(folder.log)
    except OSError as error:
        of_disk = is_disk_error(error)
        reason = " ".join(failure_message(folder, error)) if of_disk else f"The run's supervisor did not start: {error}"
        raise RuntimeError(mark_failed(folder, attempt, reason)) from error
    try:
        with opened as log:
            first = subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-P", "-m", "llf_core.launch.supervisor_process", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment_with_this_llf({**os.environ, **(env or {})}),
                start_new_session=True,
            )
    except OSError as error:
        reason = f"The run's supervisor did not start: {error.strerror or error}."
        raise RuntimeError(mark_failed(folder, attempt, reason)) from error
    if _has_taken_over(first):
        return
    said = RunReader(folder).log_tail(1)
    reason = f"The run's supervisor did not start: {said or 'no error output'}"
    raise RuntimeError(mark_failed(folder, attempt, kept_reason(folder, attempt) or reason))


def mark_failed(folder: RunFolder, attempt: int, reason: str) -> str:
    """Mark an attempt that did not start as failed. Returns the reason, or the attempt's own if it has one."""
    try:
        return status.update(folder, of_attempt=attempt, state="failed", reason=reason).reason or reason
    except OSError:
        keep_reason(folder, attempt, reason)
        return reason


def _has_taken_over(first: subprocess.Popen[bytes]) -> bool:
    try:
        return first.wait(REGISTRATION_SECONDS) == 0
    except subprocess.TimeoutExpired:
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
        return False


def environment_with_this_llf(env: dict[str, str]) -> dict[str, str]:
    """Environment in which a new interpreter imports this same `llf_core`."""
    here = str(Path(llf_core.__file__).parent.parent)
    paths = [path for path in env.get("PYTHONPATH", "").split(os.pathsep) if path]
    if here in paths or Path(here).name in {"site-packages", "dist-packages"}:
        return env
    return {**env, "PYTHONPATH": os.pathsep.join([here, *paths])}
