"""Supervises one attempt of a run: heartbeat, kill and stop requests, doctor, final status; and its ranks elsewhere."""

from __future__ import annotations

import errno
import logging
import os
import re
import signal
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import psutil

from llf_core.launch.environment import Cgroup, usable_cpus
from llf_core.launch.local_process import Trainer, computing_environment, threads_of, trainer_command
from llf_core.launch.sync_process import start_sync
from llf_core.redaction.file_modes import make_private
from llf_core.runs import Checkpoints, Inbox, RunReader, RunWriter, read_status, status
from llf_core.runs.checkpoints import recoverable_message
from llf_core.runs.control import RUN_VARIABLE, killed_reason, pending_requests, remove_request
from llf_core.runs.disk_errors import failure_message, is_disk_error, is_unwritable
from llf_core.runs.disk_errors import failure_message as disk_told
from llf_core.runs.files import open_to_append
from llf_core.runs.jsonl import reach
from llf_core.runs.listing import shown_status
from llf_core.runs.pace import last_logged_step
from llf_core.runs.process import ProcessId, boot_id, host
from llf_core.runs.status import HEARTBEAT_SECONDS, BrokenRunError, kept_reason
from llf_core.user_error import BAD_CONFIG

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator, Sequence

    from llf_core.doctor import Doctor
    from llf_core.runs import Request, RunFolder, Status

logger = logging.getLogger(__name__)
POLL_SECONDS = 0.5
STOP_GRACE = 120.0
DOCTOR_SECONDS = 5.0

# A trainer keeps its own heartbeat; the supervisor helps out where one computation blocks it for longer.
TRAINER_SILENCE = 3 * HEARTBEAT_SECONDS

REMOVED_SECONDS = 3.0
"""How long a run's status must be missing before its trainer is killed; chosen by hand, for network drives."""

END_SECONDS = 10.0
"""Maximum seconds for the ranks to end by themselves after the run has ended elsewhere."""


class Supervisor:
    """Supervises the current attempt of a run, so that every end of its trainer, even by SIGKILL, has a reason."""

    def __init__(self, folder: RunFolder, command: Sequence[str] | None = None) -> None:
        self._folder = folder
        # Keeps naming the folder when that is moved, and never another one that takes its path.
        self._place = os.open(folder.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._removed_since: float | None = None
        self._command = list(command) if command else trainer_command(folder)
        self._attempt = read_status(folder).attempt
        self._writer = RunWriter(folder, self._attempt)
        self._inbox = Inbox(folder, ignored_types=frozenset({"checkpoint", "evaluate", "sample", "set"}))
        self._cgroup = Cgroup()
        self._stop: Request | None = None
        self._stop_received = 0.0
        self._kill: Request | None = None
        self._term_sent = False  # the trainer has had its SIGTERM
        self._term_received = False  # this process has had its own
        self._last_failure = ""
        self._sync: subprocess.Popen[bytes] | None = None
        self._resumes = False  # the next attempt waits for this process to end
        self._doctor: Doctor | None = None
        self._next_checkup = time.monotonic() + DOCTOR_SECONDS

    def run(self, taken_over: Callable[[], object] = lambda: None) -> None:
        """Start the trainer, wait for its end, and write a final state. Handles SIGTERM, SIGINT and SIGHUP.

        Calls `taken_over` once the status names this process, before anything is started.
        """
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._signalled)
        self._refuse_pending("The run ended before this request was read.")
        try:
            waits = self._folder.queue.exists()
            goes = self._take_over("created" if waits else "starting")
            taken_over()
            if goes and (not waits or self._wait_for_turn()):
                ending = self._supervise()
                if not self._is_removed():
                    self._write_final_status(ending)
                self._finish_sync()
        except Exception as error:
            reason = f"The supervisor failed: {type(error).__name__}: {error}."
            if not self._is_removed():
                self._writer.close(
                    "failed", " ".join(failure_message(self._folder, error)) if is_disk_error(error) else reason
                )
            raise

    def _take_over(self, state: str) -> bool:
        """Register this process; False if the run was killed or resumed meanwhile."""
        now = status.update(
            self._folder,
            of_attempt=self._attempt,
            state=state,
            supervisor=ProcessId.own().json(),
            boot_id=boot_id(),
            host=host(),
            heartbeat=time.time(),
        )
        if now.final or now.attempt != self._attempt:
            return False
        if state == "starting":
            self._writer.event("state", state=state)
        return True

    def _wait_for_turn(self) -> bool:
        """Wait in the queue; False if the run was cancelled."""
        from llf_core.launch.queue import QueuePosition

        turn = QueuePosition(self._folder)
        self._writer.event("queued", ahead=[one.id for one in turn.ahead()])
        while not turn.try_start(self._attempt):
            if read_status(self._folder).attempt != self._attempt:
                return False
            until = time.monotonic() + turn.poll_seconds()
            while time.monotonic() < until:
                for request in self._inbox.scan():
                    self._handle_request(request)
                if self._kill is not None or self._stop is not None or self._term_received:
                    self._leave_queue()
                    return False
                time.sleep(POLL_SECONDS)
                self._write_heartbeat()
        self._writer.event("state", state="starting")
        return True

    def _leave_queue(self) -> None:
        self._folder.queue.unlink(missing_ok=True)
        self._writer.close("stopped", "Removed from the queue before it started. Resume starts it.")
        for request in (self._stop, self._kill):
            if request is not None:
                self._answer(request, ok=True, message="Removed from the queue.")
        self._refuse_pending("The run was removed from the queue.")

    def _supervise(self) -> ProcessEnd:
        kills_before = self._cgroup.oom_kills()
        with open_to_append(self._folder.log) as log:
            environment = computing_environment(os.environ, self._threads()) | {RUN_VARIABLE: str(self._folder.path)}
            trainer = Trainer(self._command, environment, log)
            self._sync = start_sync(self._folder, log)
        reach("trainer.forked")
        process = ProcessId.of(trainer.pid)
        status.update(
            self._folder,
            of_attempt=self._attempt,
            pid=process.pid,
            started=process.started,
            ticks=process.ticks,
        )
        reach("trainer.recorded")
        trainer.go()
        code = self._wait(trainer)
        reach("trainer.ended")
        return ProcessEnd(
            code,
            kill_requested=self._kill is not None,
            stop_requested=self._stop is not None or self._term_sent,
            out_of_memory=self._cgroup.oom_kills() > kills_before,
            memory_limit=self._cgroup.memory_limit(),
        )

    def _signalled(self, number: int, frame: object) -> None:  # noqa: ARG002 - the signature of a handler
        """Handle a termination request of the system (shutdown, `docker stop`): let the trainer save."""
        self._term_received = self._term_received or number != signal.SIGHUP
        self._resumes = self._resumes or number == signal.SIGHUP

    def _threads(self) -> int:
        """The recorded number of threads, so that a resumed attempt uses as many."""
        return threads_of(self._folder) or usable_cpus(self._cgroup)

    def _wait(self, trainer: Trainer) -> int:
        while (code := trainer.wait(POLL_SECONDS)) is None:
            self._look_after(trainer)
        self._run_doctor()
        return code

    def _look_after(self, trainer: Trainer) -> None:
        """Pass requests on, keep the heartbeat, run the doctor; no failure here ends the supervision."""
        try:
            for request in self._inbox.scan():
                self._handle_request(request)
            self._write_heartbeat()
        except Exception as error:  # noqa: BLE001 - a folder that was taken apart, an LLF that was upgraded meanwhile
            failure = f"{type(error).__name__}: {error}"
            if failure != self._last_failure:
                self._last_failure = failure
                logger.warning(f"The run is not fully supervised: {failure}")
        if self._kill is not None or self._stays_removed():
            trainer.signal(signal.SIGKILL, group=True)
        elif not self._term_sent and (self._term_received or self._stop_is_overdue()):
            self._term_sent = True
            trainer.signal(signal.SIGTERM)
        if time.monotonic() >= self._next_checkup:
            self._run_doctor()

    def _is_removed(self) -> bool:
        """Whether the run's folder or its status was removed; not if it was moved, or its disk does not answer."""
        try:
            os.stat(self._folder.status.name, dir_fd=self._place)
        except FileNotFoundError:
            return True
        except OSError as error:  # stale: another machine removed the folder, or the drive is gone with all of its runs
            return error.errno == errno.ESTALE and not self._folder.path.exists() and self._folder.path.parent.exists()
        return False

    def _stays_removed(self) -> bool:
        if not self._is_removed():
            self._removed_since = None
            return False
        self._removed_since = self._removed_since or time.monotonic()
        return time.monotonic() - self._removed_since >= REMOVED_SECONDS

    def _run_doctor(self) -> None:
        from llf_core.doctor import Doctor

        began = time.monotonic()
        try:
            if self._doctor is None:
                self._doctor = Doctor(self._folder, float(self._cgroup.memory_limit() or psutil.virtual_memory().total))
            for finding in self._doctor.look():
                self._writer.event("finding", **finding.event())
        except Exception as error:  # noqa: BLE001 - a full disk, a folder that somebody took apart: the run goes on
            logger.warning(f"The metrics could not be checked: {type(error).__name__}: {error}")
        # A long run's first look at all of its numbers takes seconds, which its training should not miss.
        took = time.monotonic() - began
        self._next_checkup = time.monotonic() + max(DOCTOR_SECONDS, 50 * took)

    def _handle_request(self, request: Request) -> None:
        if request.type == "kill" and self._kill is None:
            self._kill = request
            with self._unless_disk_error():
                self._writer.event("request", id=request.id, request=request.type, args=request.args, by=request.by)
        elif request.type == "stop" and self._stop is None:
            self._stop, self._stop_received = request, time.monotonic()

    def _stop_is_overdue(self) -> bool:
        if self._stop is None:
            return False
        grace = self._stop.args.get("grace", STOP_GRACE)
        grace = grace if isinstance(grace, int | float) and grace >= 0 else STOP_GRACE
        return time.monotonic() - self._stop_received >= grace

    def _write_heartbeat(self) -> None:
        try:
            now = read_status(self._folder)
            silence = HEARTBEAT_SECONDS if now.state == "starting" else TRAINER_SILENCE
            # A heartbeat from the future was written before the clock was set back.
            if not now.final and not 0 <= time.time() - now.heartbeat < silence:
                status.update(self._folder, of_attempt=self._attempt, heartbeat=time.time())
        except OSError as error:  # a full disk, for one: the trainer will meet it too, and say so
            logger.warning(f"The heartbeat could not be written: {error}")

    def _write_final_status(self, ending: ProcessEnd) -> None:
        now = read_status(self._folder)
        reached: status.StatusFields = {"exit_code": ending.exit_code, "step": last_logged_step(self._folder, now)}
        with self._unless_disk_error():
            now = status.update(self._folder, of_attempt=self._attempt, **reached)
        if not now.final:
            word = kept_reason(self._folder, self._attempt)  # the trainer's, where its disk took none
            final = exit_reason(self._folder, replace(now, **reached), ending) if word is None else ("failed", word)
            self._writer.close(*final)  # a reserve is kept for it
            with self._unless_disk_error():
                status.update(self._folder, of_attempt=self._attempt, exit_code=ending.exit_code)
        make_private(self._folder.path)
        if self._kill is not None:
            self._answer(self._kill, ok=True, message="Killed.")
        self._refuse_pending("The run has ended.")

    def _finish_sync(self) -> None:
        """Wait until the final state is copied, unless the run is resumed meanwhile: its next attempt copies it."""
        if self._sync is None or self._sync.stdin is None:
            return
        self._sync.stdin.close()
        self._resumes = False
        while self._sync.poll() is None:
            if self._resumes or self._is_removed():
                self._sync.kill()
            time.sleep(POLL_SECONDS / 10)

    def _refuse_pending(self, message: str) -> None:
        for request in pending_requests(self._folder):
            self._answer(request, ok=False, message=message)

    def _answer(self, request: Request, *, ok: bool, message: str) -> None:
        with self._unless_disk_error():
            self._writer.event("answer", id=request.id, request=request.type, ok=ok, message=message)
        with self._unless_disk_error():
            remove_request(request)

    @contextmanager
    def _unless_disk_error(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not is_disk_error(error):
                raise
            logger.warning(f"A line could not be written: {error}")


def supervise_node(folder: RunFolder, taken_over: Callable[[], object]) -> None:
    """Start the ranks of this machine, and end them when the run has ended, is lost or is removed."""
    attempt = read_status(folder).attempt
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: asked.append(number))
    with open_to_append(folder.log) as log:
        environment = computing_environment(os.environ, threads_of(folder)) | {RUN_VARIABLE: str(folder.path)}
        ranks = Trainer(trainer_command(folder), environment, log)
    ranks.go()
    taken_over()
    over_since: float | None = None
    while ranks.wait(POLL_SECONDS) is None:
        if asked:
            asked.clear()
            ranks.signal(signal.SIGTERM)
        if not _is_over(folder, attempt):
            over_since = None
        elif over_since is None:
            over_since = time.monotonic()
        elif time.monotonic() - over_since > END_SECONDS:
            ranks.signal(signal.SIGKILL, group=True)


def _is_over(folder: RunFolder, attempt: int) -> bool:
    try:
        now = shown_status(folder)
    except BrokenRunError:
        return True
    except OSError:  # a drive that does not answer
        return False
    return now.has_ended or now.attempt != attempt


EXTERNAL_SIGNALS = {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT}
MAX_LOG_CHARACTERS = 400  # characters of a sentence taken from a log
_EXCEPTION = re.compile(r"^(?:[\w.]+(?:Error|Exception|Interrupt|Exit|Warning|Iteration))(?::.*)?$")


@dataclass(frozen=True)
class ProcessEnd:
    """How a trainer ended.

    Attributes:
        exit_code: negative for a signal.
        out_of_memory: whether the OOM killer ended a process of the run.
        memory_limit: memory limit of the container in bytes; None if there is none.
    """

    exit_code: int
    kill_requested: bool = False
    stop_requested: bool = False
    out_of_memory: bool = False
    memory_limit: int | None = None


def exit_reason(folder: RunFolder, status: Status, ending: ProcessEnd) -> tuple[str, str]:
    """Final state and reason, with what to do, of a trainer that exited without a final status."""
    at = f"at step {status.step} of {status.total}" if status.total else "before its first step"
    safe = recoverable_message(folder)
    if ending.kill_requested:
        return "failed", killed_reason(folder, status)
    if ending.stop_requested and ending.exit_code in {0, -signal.SIGTERM}:
        if Checkpoints(folder).latest() is not None:
            return "stopped", f"Stopped {at}, during a step. {safe}"
        before = ", before the first checkpoint" if status.total else ""
        return "failed", f"Stopped {at}{before}. Restart it with resume."
    said = _last_error(folder, status.attempt) if ending.exit_code > 0 else None
    # What ends a trainer that finds no room to say so: any error, or a mapped file that could not grow.
    if said is None and ending.exit_code in {-signal.SIGBUS, *range(1, 256)} and is_unwritable(folder):
        return "failed", " ".join(disk_told(folder))
    if ending.exit_code <= 0:
        return "failed", f"{_ended_rank(folder, status.attempt)} {_sudden_end(ending)} {at}. {safe}"
    said = said or _last_line(folder) or f"The trainer exited with code {ending.exit_code}. See log.txt."
    return "failed", said if ending.exit_code == BAD_CONFIG else f"{said} {safe}"


def _sudden_end(ending: ProcessEnd) -> str:
    if ending.exit_code == 0:
        return "exited without a final status (see log.txt)"
    if ending.exit_code == -signal.SIGKILL and ending.out_of_memory:
        remedy = "lower per_device_train_batch_size or cutoff_len, or provide more memory"
        if ending.memory_limit is None:
            return f"was killed by the system, which ran out of memory ({remedy}),"
        return f"was killed by the memory limit of {ending.memory_limit / 1e9:.1f} GB ({remedy}),"
    number = -ending.exit_code
    name = signal_name(number)
    return f"was terminated by {name}" if number in EXTERNAL_SIGNALS else f"crashed with {name} (see log.txt)"


def signal_name(number: int) -> str:
    """Name of a signal, such as `SIGKILL`; `signal 35` for one without a name."""
    return next((one.name for one in signal.Signals if one == number), f"signal {number}")


def _ended_rank(folder: RunFolder, attempt: int) -> str:
    for event in reversed(RunReader(folder).events()):
        if event["type"] == "rank_ended" and event.get("attempt") == attempt:
            return f"Process {event.get('rank')} of {event.get('of')} (counted from 0)"
    return "The trainer"


def _last_error(folder: RunFolder, attempt: int) -> str | None:
    for event in reversed(RunReader(folder).events()):
        if event["type"] == "error" and event.get("attempt") == attempt and event.get("message"):
            return f"{event['message']} {event.get('what_to_do') or ''}".strip()
    return None


def _last_line(folder: RunFolder) -> str | None:
    lines = [line.strip() for line in RunReader(folder).log_tail(50).splitlines() if line.strip()]
    if not lines:
        return None
    said = next((line for line in reversed(lines) if _EXCEPTION.match(line)), lines[-1])[:MAX_LOG_CHARACTERS]
    return said if said.endswith((".", "!", "?")) else f"{said}."
