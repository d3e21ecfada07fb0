"""Writes a run's folder from the training process: metrics, events, phases and progress."""

from __future__ import annotations

import logging
import os
import threading
import time
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, Unpack

from llf_core.redaction import redact_nested
from llf_core.runs import status as statuses
from llf_core.runs.files import DISK_FULL
from llf_core.runs.jsonl import Appender
from llf_core.runs.process import ProcessId, boot_id, host
from llf_core.runs.states import FINAL
from llf_core.runs.status import HEARTBEAT_SECONDS, give_back_reserve, keep_reason

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llf_core.runs.folder import RunFolder

logger = logging.getLogger(__name__)
FINAL_EVENTS = {"state", "error", "answer"}


class RunWriter:
    """Appends metrics, events and samples, and updates the status. All methods are thread-safe.

    Args:
        attempt: the writer's attempt. Once a later attempt has started, its status updates are ignored.
    """

    def __init__(self, folder: RunFolder, attempt: int = 1) -> None:
        self.folder = folder
        self.attempt = attempt
        self._metrics = Appender(folder.metrics)
        self._events = Appender(folder.events)
        self._samples = Appender(folder.samples)
        self._examples = Appender(folder.examples)
        self._changes: statuses.StatusFields = {}
        self._lock = threading.Lock()
        self._flushing = threading.RLock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def metric(self, step: int, values: Mapping[str, object]) -> None:
        """Append the metrics of a step; non-finite numbers are stored as `NaN`, `Infinity` and `-Infinity`."""
        self._metrics.append({"step": int(step), "time": _now(), "attempt": self.attempt, "values": dict(values)})

    def event(self, type: str, **fields: object) -> None:  # noqa: A002 - the contract's name
        """Append one event, without secrets; `v`, `time` and `attempt` in `fields` replace those of the record."""
        record = redact_nested({"v": 1, "time": _now(), "attempt": self.attempt, "type": type, **fields})
        try:
            self._events.append(record)
        except OSError as error:
            if type not in FINAL_EVENTS or error.errno not in DISK_FULL or not give_back_reserve(self.folder):
                raise
            self._events.append(record)

    def warn(self, key: str, message: str) -> None:
        """Append a warning about a config key or something else (`key`), and log it."""
        self.event("warning", key=key, message=message)
        logger.info(message)

    def sample(self, **fields: object) -> None:
        """Append one generated text, without secrets.

        Args:
            fields: `step`; `kind`, `answer` for a response to a sample prompt, or `completion` for one that a stage
                learns from; `prompt` and `text`; `of` an answer, the model that gave it (`base` or `tuned`); of a
                completion `reward` and `rewards`, the latter by function.
        """
        self._samples.append(redact_nested({"time": _now(), "attempt": self.attempt, **fields}))

    def examples(self, step: int, numbers: Sequence[int], losses: Sequence[float], tokens: Sequence[int]) -> None:
        """Append the losses of the examples of a step.

        Args:
            numbers: `[examples]`, `number` of each in the prepared training set.
            losses: `[examples]`, summed loss of each in nats; its mean over the tokens is stored with five digits.
            tokens: `[examples]`, number of trained tokens of each.
        """
        several = zip(numbers, losses, tokens, strict=True)
        means = [float(f"{loss / max(count, 1):.5g}") for _, loss, count in several]
        record = {"step": step, "attempt": self.attempt, "number": list(numbers), "loss": means, "tokens": list(tokens)}
        self._examples.append(record)

    def status(self, **changes: Unpack[statuses.StatusFields]) -> None:
        """Change fields of the status: a new state at once, other fields with the next heartbeat if there is one."""
        statuses.check_fields(changes)
        with self._lock:
            self._changes.update(changes)
        if "state" in changes or self._thread is None:
            self.flush()

    def flush(self) -> statuses.Status:
        """Write pending status changes with a heartbeat, unless a later attempt has begun; returns the status."""
        with self._flushing:
            with self._lock:
                changes, self._changes = self._changes, {}
            try:
                fields: statuses.StatusFields = {"heartbeat": time.time(), **changes}
                return statuses.update(self.folder, of_attempt=self.attempt, **fields)
            except OSError:
                with self._lock:
                    self._changes = changes | self._changes
                raise

    def start_heartbeat(self, seconds: float = HEARTBEAT_SECONDS) -> None:
        """Register this process as the run's trainer, and write status and heartbeat from a background thread.

        Raises:
            RuntimeError: a later attempt has started.
        """
        own = ProcessId.own()
        self._changes |= {"pid": own.pid, "started": own.started, "ticks": own.ticks}
        self._changes |= {"boot_id": boot_id(), "host": host()}
        if self.flush().attempt != self.attempt:
            raise RuntimeError(f"{self.folder.id} has a newer attempt. Attempt {self.attempt} ends here.")
        self._ended.clear()
        self._thread = threading.Thread(target=self._beat, args=(seconds,), name="llf-heartbeat", daemon=True)
        self._thread.start()

    def stop_heartbeat(self) -> None:
        """Write pending changes, and end the heartbeat: another process of this attempt takes over."""
        self._end_thread()
        self.flush()

    def _end_thread(self) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None  # what comes now is written at once

    def _beat(self, seconds: float) -> None:
        while not self._ended.wait(seconds):
            try:
                if self.flush().attempt != self.attempt:
                    # Two trainers in one folder would corrupt each other's checkpoints.
                    logger.error(f"Attempt {self.attempt} was replaced by a newer one and ends.")
                    os._exit(1)
            except (OSError, statuses.BrokenRunError) as error:
                # A missed heartbeat is no reason to end a training; the changes wait for the next one.
                logger.warning(f"The heartbeat could not be written: {error}")

    def close(self, state: str, reason: str | None = None) -> None:
        """Write the attempt's final state and event, unless the attempt has a final state or a later one has begun.

        The heartbeat ends, and the files are closed, also if an error is raised. If only the event cannot be written,
        that is logged, since the status has it.

        Args:
            state: `finished`, `stopped` or `failed`.
            reason: sentences: what happened, what is safe, what to do; None if the state says enough.

        Raises:
            ValueError: the state is not final; nothing is done.
        """
        if state not in FINAL:
            raise ValueError(f"A run cannot end as {state!r}. Expected one of {', '.join(sorted(FINAL))}.")
        try:
            self._close(state, reason)
        finally:
            self.release()

    def _close(self, state: str, reason: str | None) -> None:
        self._end_thread()
        # The state first: if only one of the two is written, it must be this one.
        ended = time.time()
        with self._lock:
            self._changes |= {"state": state, "reason": reason, "ended": ended}
        try:
            now = self.flush()
        except OSError as error:
            keep_reason(self.folder, self.attempt, self._unwritten(state, reason, error))
            raise
        if (now.ended, now.attempt) == (ended, self.attempt):  # else another one was written before
            try:
                self.event("state", state=state, **({} if reason is None else {"reason": reason}))
            except OSError as error:  # the status has it
                logger.warning(f"The last event could not be written: {error}")

    def _unwritten(self, state: str, reason: str | None, error: OSError) -> str:
        if state == "failed" and reason is not None:
            return reason
        # Imported late: it reads runs, which this module writes.
        from llf_core.runs.disk_errors import failure_message, is_disk_error

        reasons = failure_message(self.folder, error) if is_disk_error(error) else (str(error),)
        return " ".join([f"The attempt had {state}, which could not be saved.", *reasons])

    def release(self) -> None:
        """Close the files. Later writes reopen them."""
        for file in (self._metrics, self._events, self._samples, self._examples):
            file.close()


class FollowerWriter(RunWriter):
    """The writer of a rank other than 0, which writes only why it failed."""

    def metric(self, step: int, values: Mapping[str, object]) -> None:
        """Write nothing."""

    def event(self, type: str, **fields: object) -> None:  # noqa: A002 - see `RunWriter.event`
        """Write the error that ended this rank; nothing else."""
        if type == "error":
            super().event(type, **fields)

    def sample(self, **fields: object) -> None:
        """Write nothing."""

    def examples(self, step: int, numbers: Sequence[int], losses: Sequence[float], tokens: Sequence[int]) -> None:
        """Write nothing."""

    def status(self, **changes: Unpack[statuses.StatusFields]) -> None:
        """Write nothing."""

    def start_heartbeat(self, seconds: float = HEARTBEAT_SECONDS) -> None:
        """Write nothing: the status names rank 0."""

    def stop_heartbeat(self) -> None:
        """Write nothing."""

    def close(self, state: str, reason: str | None = None) -> None:
        """Write a failure, which ends the other ranks too; rank 0 writes the other states."""
        if state == "failed":
            super().close(state, reason)
        else:
            self.release()


def write_event(folder: RunFolder, attempt: int, type: str, **fields: object) -> None:  # noqa: A002 - the contract's name
    """Append one event to a run that this process does not train; see `RunWriter.event`."""
    writer = RunWriter(folder, attempt)
    try:
        writer.event(type, **fields)
    finally:
        writer.release()


def _now() -> float:
    return round(time.time(), 3)


Phase = Literal["environment", "model", "data", "first step", "evaluation", "saving", "predictions"]
AFTER_LAST_STEP = "All steps are done. Evaluating or saving the result."

AFTER_TRAINING: Mapping[str, str] = MappingProxyType(
    {
        "evaluation": "Training is done. Evaluating the model.",
        "saving": "Training is done. Saving the result.",
        "predictions": "The result is saved. Answering the evaluation data.",
    }
)
INTERVAL_SECONDS = 2.0


def work_after_steps(state: str, step: int, total: int, phase: Mapping[str, object] | None) -> str:
    """Activity of a run whose steps are all done, as a sentence; empty before that, or after its end."""
    if state != "running":
        return ""
    if phase is not None and is_after_training(phase):
        return AFTER_TRAINING[str(phase["name"])]
    return AFTER_LAST_STEP if 0 < total <= step else ""


def is_after_training(phase: Mapping[str, object]) -> bool:
    """Whether a `phase` event is of a phase after the last step."""
    name = phase.get("name")
    return isinstance(name, str) and name in AFTER_TRAINING


def begin_phase(writer: RunWriter, name: Phase, what: str = "") -> None:
    """Record the start of a phase, which ends the previous one.

    Args:
        name: `environment`: imports; `model`; `data`: preparing examples; `first step`: creating the optimizer, and the
            step; `evaluation` and `saving` after the last step; `predictions`: the result answers the evaluation data.
        what: activity within the phase: `find` the model (download and convert it), later `load` it.
    """
    writer.event("phase", name=name, **({"what": what} if what else {}))


class ProgressEvents:
    """Writes a `progress` event every two seconds, and a last one when all items of a reported operation are completed.

    Args:
        writer: the attempt's writer; None disables events.
        of: total number of items; None if unknown, and then there is no last event.
        more: further fields of every event.
    """

    def __init__(self, writer: RunWriter | None, what: str, of: int | None = None, **more: object) -> None:
        self._writer, self._fields = writer, {"what": what, **more} | ({} if of is None else {"of": of})
        self.of = of
        self._next = time.monotonic() + INTERVAL_SECONDS
        self._has_written = False

    def __call__(self, rows: int, **more: object) -> bool:
        """Report the number of completed items. Returns True if an event was due."""
        now = time.monotonic()
        if now < self._next and not (self._has_written and rows == self.of):
            return False
        self._next, self._has_written = now + INTERVAL_SECONDS, rows != self.of
        if self._writer is not None:
            self._writer.event("progress", **self._fields, rows=rows, **more)
        return True
