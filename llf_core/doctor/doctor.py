"""Checks a live run periodically and reports each problem once per attempt."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from llf_core.doctor.loss_rules import RULES
from llf_core.doctor.rule import RunMetrics
from llf_core.runs import RunReader
from llf_core.runs.config_file import read_config
from llf_core.runs.control import ActiveChanges
from llf_core.runs.jsonl import is_count

if TYPE_CHECKING:
    from llf_core.doctor.rule import Finding
    from llf_core.runs import RunFolder, Status


class Doctor:
    """Checks a live run for problems, for a view or a command that polls it. Each check reads only new data.

    Args:
        memory_limit: available bytes, 0 if unknown; GPU memory is not known here.
    """

    def __init__(self, folder: RunFolder, memory_limit: float = 0.0) -> None:
        self._folder = folder
        self._reader = RunReader(folder)
        self._limit = memory_limit
        self._config: dict[str, Any] = {}
        self._data: dict[str, int] = {}
        self._changes = ActiveChanges()
        self._reported: set[tuple[int, str]] = set()
        self._last_progress = (-1, 0.0)  # step, and the seconds of the monotonic clock at which it was first seen

    def look(self, now: float | None = None) -> list[Finding]:
        """Find problems that this attempt's `finding` events do not have yet, in the order of `RULES`.

        Args:
            now: seconds of a monotonic clock; None for the current time.
        """
        moment = time.monotonic() if now is None else now
        status = self._reader.status()
        metrics = self._read_metrics(status, moment)
        found = []
        for rule in RULES:
            finding = rule.look(metrics) if rule.applies_to(metrics.stage) else None
            if finding is not None and (status.attempt, finding.rule) not in self._reported:
                self._reported.add((status.attempt, finding.rule))
                found.append(finding)
        return found

    def outcome(self) -> str | None:
        """What the curves say against the result of a run that ends now; None if nothing."""
        metrics = self._read_metrics(self._reader.status(), time.monotonic())
        found = (rule.look(metrics) for rule in RULES if rule.applies_to(metrics.stage))
        return next((finding.outcome for finding in found if finding is not None and finding.outcome), None)

    def _read_metrics(self, status: Status, now: float) -> RunMetrics:
        if not self._config:
            self._config = read_config(self._folder.config)
        events = self._reader.events()
        for event in events:
            self._process_event(event)
        columns = self._reader.metrics()
        # Completions may be sampled for minutes within a step; `progress` events show that the run goes on.
        progressed = any(event["type"] == "progress" for event in events)
        if progressed or self._last_progress[0] != status.step or status.state != "running":
            self._last_progress = (status.step, now)
        return RunMetrics(
            series={name: (columns.steps(name), columns.values(name)) for name in columns.names},
            step=status.step,
            total=status.total,
            running=status.state == "running",
            idle=now - self._last_progress[1],
            step_seconds=status.step_seconds or 0.0,
            config=self._config,
            data=self._data,
            # The status is seconds behind the metrics.
            learning_rate=self._peak_learning_rate(max([status.step, *columns.steps("loss")[-1:].tolist()])),
            memory_limit=0.0 if (status.device or "").startswith("cuda") else self._limit,
        )

    def _process_event(self, event: dict[str, Any]) -> None:
        if event["type"] == "data":
            self._data = {name: value for name, value in event.items() if is_count(value)}
        elif event["type"] == "finding":
            self._reported.add((int(event.get("attempt", 1)), str(event.get("rule"))))
        self._changes.add(event)

    def _peak_learning_rate(self, step: int) -> float:
        configured = self._config.get("learning_rate")
        configured = float(configured) if isinstance(configured, int | float) else 0.0
        return float(self._changes.value_at("learning_rate", step) or configured)
