"""`python -m llf_core.launch.sync_process RUN`: copies a run to its `sync_to` while it trains, with low priority.

The supervisor starts it and closes its stdin when the run has ended; it then copies the final state and exits. It
outlives a supervisor that is killed as long as the trainer lives.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

import psutil

from llf_core.runs import Checkpoints, RunFolder, read_status
from llf_core.runs.config_file import read_config
from llf_core.runs.formatting import size
from llf_core.runs.process_log import exit_with, log_to_run, tolerate_a_full_log
from llf_core.runs.run_store import RunStore, SyncError, TakenOverError, check_writable, run_place
from llf_core.runs.status import BrokenRunError, effective_status
from llf_core.runs.writer import write_event
from llf_core.untrusted import json_value

if TYPE_CHECKING:
    from llf_core.runs import Status

logger = logging.getLogger("llf_core.launch.sync_process")  # as a program it has another name

KEY = "sync_to"
POLL_SECONDS = 0.2
BEAT_SECONDS = 15.0
"""Interval of the heartbeat at the place; a fourth of the silence after which the run counts as lost."""
REFRESH_SECONDS, REFRESH_SHARE = 30.0, 50
"""Interval between two copies without a new checkpoint, and at most one part in 50 of the time."""
RETRY_SECONDS, GIVE_UP_SECONDS = 5.0, 300.0
"""Seconds until the next try of a place that does not answer, and until giving up once the run has ended."""
CHECK_SECONDS = 60.0
"""Maximum seconds for a place to answer before a start; chosen by hand."""


def start_sync(folder: RunFolder, log: IO[bytes]) -> subprocess.Popen[bytes] | None:
    """Start the process that copies a run; None if the run has no `sync_to`."""
    if not read_config(folder.config).get(KEY):
        return None
    return subprocess.Popen(  # noqa: S603 - our own module
        [sys.executable, "-P", "-m", "llf_core.launch.sync_process", str(folder.path)],
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=log,
    )


def ask_place(action: str, place: str) -> str:
    """Ask a place in a separate process, since libraries of services may wait for minutes; empty if nothing is wrong.

    Args:
        action: `writable`, or `training` for the copy of a run.
    """
    command = [sys.executable, "-P", "-m", "llf_core.launch.sync_process", f"--{action}", place]
    try:
        done = subprocess.run(  # noqa: S603 - our own module
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=CHECK_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return f"{place} did not answer within {CHECK_SECONDS:.0f} s."
    try:
        return str(json_value(done.stdout.rpartition(b"\n")[2]))
    except ValueError:
        return f"{place} cannot be checked: {done.stderr.decode(errors='replace').strip().rpartition(chr(10))[2]}"


class _Sync:
    def __init__(self, folder: RunFolder) -> None:
        self._run = folder
        self._attempt = read_status(folder).attempt
        self._store = RunStore(run_place(str(read_config(folder.config)[KEY]), folder.id))
        self._copied = -1  # step of the newest checkpoint there
        self._next_beat = self._next_refresh = self._not_before = 0.0
        self._said = ""

    def run(self) -> int:
        """Copy until the run has ended; returns the exit code."""
        supervised = True
        while True:
            if supervised:
                supervised = not _has_closed(POLL_SECONDS)
            else:
                time.sleep(POLL_SECONDS)
            now = effective_status(read_status(self._run))
            if now.attempt != self._attempt:
                return 0
            if now.has_ended and not supervised:
                return self._finish(now)
            try:
                if time.monotonic() >= self._not_before:
                    self._look(now)
            except TakenOverError as error:
                self._warn(str(error))
                return 0
            except SyncError as error:
                self._warn(str(error))
                self._not_before = time.monotonic() + RETRY_SECONDS

    def _look(self, now: Status) -> None:
        if not now.has_ended and time.monotonic() >= self._next_beat:
            self._store.beat(now)
            self._next_beat = time.monotonic() + BEAT_SECONDS
        newest = Checkpoints(self._run).latest()
        step = 0 if newest is None else int(newest.name.rpartition("-")[2])
        if step != self._copied or time.monotonic() >= self._next_refresh:
            self._send()

    def _send(self) -> None:
        began = time.monotonic()
        sent = self._store.send(self._run, self._attempt)
        took = time.monotonic() - began
        self._next_refresh = time.monotonic() + max(REFRESH_SECONDS, REFRESH_SHARE * took)
        if sent.state.step != self._copied:
            self._copied = sent.state.step
            if self._copied:
                amount = " ".join(size(sent.bytes))
                logger.info(f"Copied checkpoint-{self._copied} to {self._store.url}: {amount} in {took:.1f} s.")
                write_event(self._run, self._attempt, "synced", step=self._copied, bytes=sent.bytes, files=sent.files)

    def _finish(self, now: Status) -> int:
        """Copy the final state, however long it takes, unless the place does not answer."""
        until = time.monotonic() + GIVE_UP_SECONDS
        while read_status(self._run).attempt == self._attempt:
            try:
                self._send()
                self._store.beat(now)
            except TakenOverError as error:
                self._warn(str(error))
                return 0
            except SyncError as error:
                self._warn(str(error))
                if time.monotonic() >= until:
                    return 1
                time.sleep(RETRY_SECONDS)
            else:
                logger.info(f"Copied the final state to {self._store.url}.")
                return 0
        return 0

    def _warn(self, message: str) -> None:
        """Record a failure once, not at each new try."""
        if message != self._said:
            self._said = message
            logger.warning(message)
            with suppress(OSError):
                write_event(self._run, self._attempt, "warning", key=KEY, message=message)


def _has_closed(seconds: float) -> bool:
    """Whether the supervisor has closed stdin, after waiting up to `seconds`."""
    readable, _, _ = select.select([sys.stdin], [], [], seconds)
    return bool(readable) and not os.read(sys.stdin.fileno(), 1)


def main() -> int:
    """Copy a run, or answer a question about a place; the exit code is 1 if the final state could not be copied."""
    first, *rest = sys.argv[1:]
    if first in {"--writable", "--training"}:
        print(json.dumps(_answer(first, rest[0])), end="")  # noqa: T201 - read by `ask_place`
        return 0
    # The end of the machine or of a container signals all processes; the supervisor tells when the run has ended.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    tolerate_a_full_log()
    os.nice(19)
    with suppress(AttributeError, OSError, psutil.Error):  # Linux
        psutil.Process().ionice(psutil.IOPRIO_CLASS_IDLE)
    log_to_run()
    try:
        return _Sync(RunFolder(Path(first))).run()
    except BrokenRunError:  # the folder was removed
        return 0


def _answer(question: str, place: str) -> str:
    try:
        if question == "--training":
            return RunStore(place).training_message()
        check_writable(place)
    except SyncError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    exit_with(main)
