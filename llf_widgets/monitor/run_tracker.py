"""Incremental reader of a run's folder for views; an update without changes costs a few `stat` calls."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from llf_core.launch.queue import QueuePosition
from llf_core.runs import Checkpoints, RunReader
from llf_core.runs.config_file import read_config
from llf_core.runs.curves import smoothed, window_of
from llf_core.runs.folder import RESULT, RESULTS, finished_predictions
from llf_core.runs.jsonl import as_number, is_count, is_finite_number
from llf_core.runs.pace import RECENT, STEPPING_STATES, newest_step, seconds_per_step
from llf_core.runs.states import LIVE_STATES
from llf_core.runs.status import BrokenRunError
from llf_core.runs.writer import is_after_training
from llf_core.untrusted import UnreadableError, is_folder, read_object_or_empty
from llf_core.untrusted.files import SYSTEM_ERRORS
from llf_widgets.home import display_path
from llf_widgets.monitor.chart_data import NO_PLAN, ChartData, chart_data
from llf_widgets.monitor.completions import Completions, SampleAnswers
from llf_widgets.monitor.event_log import EventIndex, EventLog
from llf_widgets.monitor.key_numbers import key_numbers, summary_rows, training_seconds
from llf_widgets.monitor.snapshot import PREDICTIONS, RunSnapshot, describe_run

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from llf_core.runs import Columns, RunFolder, Status
    from llf_widgets.monitor.chart_data import Line

DISK_TYPES = {"checkpoint", "checkpoint_removed"}
QUEUE_SECONDS = 10.0


class RunTracker:
    """The known state of one run, updated by `refresh`. Thread-safe.

    Attributes:
        snapshot: the run at the last refresh; of state `broken` before the first.
        completions: completions that were sampled for training.
        config: flat keys of the config; empty if it cannot be read, as are `resolved` and `env`.
        series: steps `[n]` (int64) and values `[n]` (float64) by metric, as logged.
        smoothed: smoothed values `[n]`, aligned with the series of that name.
        times: steps `[n]` (int64) and Unix times `[n]` (float64) of all records.
        window: current smoothing window in steps; 0 for none.
        now: time of the last refresh, Unix seconds.
    """

    def __init__(self, folder: RunFolder, window: int | None = None) -> None:
        self.folder = folder
        self._lock = threading.RLock()  # the poller looks while a cell may display the view once more
        self.now = time.time()
        self.snapshot = RunSnapshot(id=folder.id, state="broken")
        self.index = EventIndex()
        self._event_log, self._logged = EventLog(), 0
        self.answers = SampleAnswers()
        self.completions = Completions()
        self.smoothed: dict[str, np.ndarray] = {}
        self.series: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self._reader = RunReader(folder)
        self._unreadable: dict[str, dict[str, Any]] = {}
        self._signatures: dict[str, tuple[int, int, int] | None] = {}
        self._status: Status | None = None
        self._broken = ""
        self._columns: Columns | None = None
        self._checkpoints: tuple[int, ...] = ()
        self._requested_window = window
        self.window = window or 0
        self._numbers = key_numbers({}, {}, self.window)
        self._name = ""
        self.config: dict[str, Any] = {}
        self.resolved: dict[str, Any] = {}
        self.env: dict[str, Any] = {}
        self.times: tuple[np.ndarray, np.ndarray] = (np.empty(0, dtype=np.int64), np.empty(0))
        self._queue_position: QueuePosition | None = None
        self._queued = (0.0, "")
        self._smoothed_for = 0  # planned steps that the window was made for

    def refresh(self) -> set[str]:
        """Read new data, and return which of `status`, `metrics`, `events`, `answers` and `log` changed.

        Metrics, events or samples that cannot be read become a warning among the events, and the others are still read.
        An unreadable status gives a snapshot of state `broken`.
        """
        with self._lock:
            return self._refresh()

    def _refresh(self) -> set[str]:
        self.now = time.time()
        changed = self._refresh_status()  # first: what was written before a final state is then found below
        self._read_small()
        if self._has_changed(self.folder.metrics) or self._total() != self._smoothed_for:
            with self._reading(self.folder.metrics, changed):
                self._read_metrics()
            changed.add("metrics")
        new: list[dict[str, Any]] = []
        if self._has_changed(self.folder.events):
            with self._reading(self.folder.events, changed):
                new = self._reader.events()
        if new:
            self.index.add(new)
            self._count()
            changed.add("events")
        if changed & {"status", "events"} and (not self._checkpoints or _touches_disk(new) or "state" in changed):
            self._checkpoints = tuple(Checkpoints(self.folder).list())
        if self._has_changed(self.folder.samples):
            with self._reading(self.folder.samples, changed):
                samples = self._reader.samples()
                self.answers.add(samples)
                self.completions.add(samples)
            changed.add("answers")
        if self._has_changed(self.folder.log):
            changed.add("log")
        if self._has_changed(self.folder.predictions / RESULTS):  # `llf predict` of a run that has ended, too
            changed.add("status")
        if changed - {"log", "answers"} or self.snapshot.state in LIVE_STATES:
            self.snapshot = self._take_snapshot()
        return changed - {"state"}

    def _read_small(self) -> None:
        for name, path in (
            ("config", self.folder.config),
            ("resolved", self.folder.resolved),
            ("env", self.folder.env),
        ):
            if self._has_changed(path):
                setattr(self, name, read_object_or_empty(path) if name == "env" else read_config(path))
        if self._has_changed(self.folder.meta):
            self._name = str(self._reader.meta().get("name") or "")

    @contextmanager
    def _reading(self, path: Path, changed: set[str]) -> Iterator[None]:
        """Continue if a file is unreadable, and report it among the events until it is readable."""
        before = self._unreadable.pop(path.name, None)
        try:
            yield
        except OSError as error:
            message = str(error)
            if not isinstance(error, UnreadableError):
                self._signatures.pop(path.name, None)  # the file is as before when it can be read again
                if error.errno in SYSTEM_ERRORS:
                    raise
                message = f"{path.name} cannot be read: {error.strerror or error}."
            attempt = 1 if self._status is None else self._status.attempt
            warning = {"type": "warning", "time": self.now, "attempt": attempt, "message": message}
            self._unreadable[path.name] = before if before and before["message"] == message else warning
        if self._unreadable.get(path.name) != before:
            changed.add("events")

    def smooth(self, window: int | None) -> None:
        """Change the smoothing window in steps; 0 for none, None for automatic."""
        with self._lock:
            self._requested_window = window
            self._smooth()
            self.snapshot = replace(self.snapshot, numbers=self._numbers)

    def chart_data(self, *, details: bool = True, window: int | None = None) -> ChartData:
        """Current data of the charts, downsampled, smoothed over `window` steps, or `self.window`."""
        with self._lock:
            best = None if self._status is None or not self._status.best else self._status.best.get("step")
            best_step = best if isinstance(best, int) else None
            return chart_data(
                self.series,
                self.smoothed if window is None else smoothed(self.series, window),
                window=self.window if window is None else window,
                kept=self._checkpoints,
                best=best_step,
                events=self.index.markers(),
                planned=self._planned(),
                details=details,
            )

    def _planned(self) -> Mapping[str, Line]:
        event = self.index.last("schedule") if self.snapshot.live else None
        steps, rates = ((event or {}).get(name) for name in ("steps", "rates"))
        if not isinstance(steps, list) or not isinstance(rates, list) or len(steps) != len(rates):
            return NO_PLAN
        if not all(map(is_count, steps)) or not all(map(is_finite_number, rates)):
            return NO_PLAN
        return {"learning_rate": (np.asarray(steps, dtype=np.int64), np.asarray(rates, dtype=np.float64))}

    def summary(self) -> list[tuple[str, str, str]]:
        """Rows of the saved notebook's table: (label, value, comparison), with what the run keeps on disk."""
        with self._lock:
            kept = [f"checkpoint-{step}" for step in self._checkpoints]
            rows = summary_rows(self.series, self.smoothed, self.window, self.index.events, self.snapshot.elapsed)
        if self.snapshot.output:
            kept.insert(0, "output")
        return [*rows, ("Kept", str(len(kept)), ", ".join(kept))] if kept else rows

    def rows(self, limit: int) -> list[dict[str, Any]]:
        """The newest rows of the `EventLog`, newest first, after warnings about unreadable files."""
        with self._lock:
            self._event_log.add(self.index.events[self._logged :])
            self._logged = len(self.index.events)
            unread = EventLog()
            unread.add(list(self._unreadable.values()))
            return [*unread.newest(limit), *self._event_log.newest(limit)][:limit]

    def log(self, lines: int) -> list[str]:
        """The last lines of the run's log; the reason instead if it cannot be read."""
        try:
            text = self._reader.log_tail(lines)
        except UnreadableError as error:
            text = str(error)
        return text.split("\n") if text else []

    def _has_changed(self, path: Path) -> bool:
        try:
            stat = path.stat(follow_symlinks=False)
            signature = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
        except OSError:
            signature = None
        if path.name in self._signatures and self._signatures[path.name] == signature:
            return False
        self._signatures[path.name] = signature
        return signature is not None

    def _refresh_status(self) -> set[str]:
        """Read the status every time: a run becomes `lost` without a change of the file."""
        before, trouble = self._status, self._broken
        try:
            self._status, self._broken = self._reader.status(), ""
        except BrokenRunError as error:
            self._status, self._broken = None, str(error)
            return {"status", "state"} if self._broken != trouble else set()
        if self._status == before:
            return set()
        moved = before is None or before.state != self._status.state
        return {"status", "state"} if moved else {"status"}

    def _read_metrics(self) -> None:
        columns = self._columns = self._reader.metrics()
        self.times = columns.times()
        self.series = {name: (columns.steps(name), columns.values(name)) for name in columns.names}
        self._smooth()

    def _smooth(self) -> None:
        self._smoothed_for = self._total()
        self.window = (
            window_of(self.series, self._smoothed_for) if self._requested_window is None else self._requested_window
        )
        self.smoothed = smoothed(self.series, self.window)
        self._count()

    def _count(self) -> None:
        forecast, peak = self.index.last("forecast"), self._peak_learning_rate(self._step())
        self._numbers = key_numbers(self.series, self.smoothed, self.window, forecast, peak)

    def _step(self) -> int:
        status = self._status
        if status is None:
            return 0
        return newest_step(status, () if self._columns is None else self._columns.times(status.attempt)[0])

    def _peak_learning_rate(self, step: int) -> float | None:
        return _number(self.index.changes.value_at("learning_rate", step) or self.config.get("learning_rate"))

    def _total(self) -> int:
        return 0 if self._status is None else self._status.total

    def _take_snapshot(self) -> RunSnapshot:
        status = self._status
        if status is None:
            return RunSnapshot(
                id=self.folder.id,
                name=self._name,
                state="broken",
                reason=self._broken,
                description=describe_run(self.config, None),
                numbers=self._numbers,
                events=self.index.notices(1),
            )
        last, value_at, attempt = self.index.last, self.index.changes.value_at, status.attempt
        resumed, saved, data = last("resumed", attempt), last("checkpoint"), last("data")
        start_step = (resumed or {}).get("from_step") or 0
        step = self._step()
        phase = _phase(last("phase", attempt), step, float(self.times[1].max(initial=0.0)), start_step)
        steps = self.config.get("max_steps") or value_at("max_steps", step)
        epochs = None if steps else self.config.get("num_train_epochs")
        return RunSnapshot(
            id=self.folder.id,
            name=self._name,
            state=status.state,
            description=describe_run(self.config, data, status.mirror),
            reason=status.reason,
            stale=(status.reason or "") if status.mirror is not None and status.state in LIVE_STATES else "",
            finding=status.finding,
            step=step,
            total=status.total,
            attempt=status.attempt,
            created=status.created or None,
            ended=status.ended,
            heartbeat=status.heartbeat or None,
            elapsed=self._elapsed(status),
            per_step=self._per_step(status),
            step_seconds=status.step_seconds,
            epoch=None if self._columns is None else self._columns.last("epoch"),
            epochs=float(epochs) if isinstance(epochs, int | float) else None,
            resumed_from=None if resumed is None else resumed.get("from_step"),
            receipt=last("receipt", attempt),
            progress=_current_progress(self.index.current_activity(attempt), step, start_step),
            phase=phase,
            phase_seconds=0.0 if phase is None else max(0.0, self.now - phase["time"]),
            queue=self._queue(status),
            checkpoints=self._checkpoints,
            checkpoint_time=None if saved is None else saved.get("time"),
            output=self._output() if status.state == "finished" else None,
            predictions=display_path(self.folder.predictions / RESULT),
            finished_predictions=finished_predictions(self.folder.predictions),
            peak_learning_rate=self._peak_learning_rate(step),
            held_out=bool((data or {}).get("eval_examples")),
            generates=self.config.get("stage") != "rm",
            watched=bool(self.config.get("watched_prompts") or value_at("watch", step)),
            numbers=self._numbers,
            events=self.index.notices(attempt),
        )

    def _output(self) -> str | None:
        return display_path(self.folder.output) if is_folder(self.folder.output) else None

    def _queue(self, status: Status) -> str:
        """What a queued run waits for; updated rarely, since it scans all runs."""
        if status.state != "queued":
            return ""
        if self.now - self._queued[0] >= QUEUE_SECONDS:
            self._queue_position = self._queue_position or QueuePosition(self.folder)
            try:
                text = queue_text(self._queue_position)
            except BrokenRunError:  # the next refresh reports it
                text = ""
            except OSError as error:
                text = f"The queue cannot be read: {error.strerror or error}."
            self._queued = (self.now, text)
        return self._queued[1]

    def _elapsed(self, status: Status) -> float:
        """Time of all attempts, without pauses and time in the queue."""
        moments = self.index.time_spans()
        if self._columns is not None:
            for attempt in {status.attempt, *(number for number, _ in moments)}:
                logged = self._columns.times(attempt)[1]
                if len(logged):
                    moments.append((attempt, float(logged.max())))
        until = self.now if status.state in LIVE_STATES else status.ended
        return training_seconds(moments, status.attempt, until)

    def _per_step(self, status: Status) -> float | None:
        """Seconds per step of the current attempt, also before it has logged twice."""
        if self._columns is None or status.state not in STEPPING_STATES:
            return status.step_seconds
        steps, times = self._columns.times(status.attempt)
        return seconds_per_step(steps[-RECENT:].tolist(), times[-RECENT:].tolist(), status.step_seconds)


def _current_progress(at: dict[str, Any] | None, step: int, start_step: int) -> dict[str, Any] | None:
    """The current `progress` event before the next step, unless it reports the end and something else follows."""
    if at is None or at.get("type") != "progress":
        return None
    if at.get("rows") == at.get("of", -1) and at.get("what") != PREDICTIONS:  # scoring them is no phase of its own
        return None
    return at if step <= (_number(at.get("step")) or start_step) else None


def _phase(phase: dict[str, Any] | None, step: int, logged: float, start_step: int) -> dict[str, Any] | None:
    """The last `phase` event: until a step is made or logged, or after the last step."""
    since = _number((phase or {}).get("time"))
    if phase is None or since is None:
        return None
    if is_after_training(phase):
        return phase
    return phase if since >= logged and step <= start_step else None  # times are of milliseconds


def queue_text(position: QueuePosition) -> str:
    """What a queued run waits for, as a sentence."""
    ahead = position.ahead()
    if not ahead:
        return "Next in the queue."
    rank = sum(one.waits for one in ahead) + 1
    return f"Waiting for {ahead[0]}. Position {rank} of {rank + position.behind()} in the queue."


def _number(value: object) -> float | None:
    return None if isinstance(value, str) else as_number(value)


def _touches_disk(events: list[dict[str, Any]]) -> bool:
    return any(event.get("type") in DISK_TYPES for event in events)
