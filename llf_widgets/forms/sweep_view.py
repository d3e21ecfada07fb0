from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets
import numpy as np
import traitlets

from llf_core.runs.charts import lowercase_label
from llf_core.runs.status import BrokenRunError
from llf_widgets.compare.widget import ENDED, MAX_RUNS, POLL_SECONDS, Compare
from llf_widgets.forms.form_widget import FormWidget
from llf_widgets.forms.sweep_form import UNSET
from llf_widgets.forms.values import format_value
from llf_widgets.front_end import ClosedByHand, close_descendants
from llf_widgets.monitor.poller import Poller
from llf_widgets.monitor.ranking import ranked_metric
from llf_widgets.monitor.run_tracker import RunTracker
from llf_widgets.monitor.widget import Monitor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llf_core.launch import Run


class SweepRunTable(FormWidget):
    """One line per run: changed values, state, step and result."""

    _component = traitlets.Unicode("sweep_runs").tag(sync=True)
    view = traitlets.Dict(help="`keys`, `loss`, `rows`, `live`").tag(sync=True)
    note = traitlets.Unicode("").tag(sync=True)
    open_run = traitlets.Unicode("", help="id of the run whose monitor is open").tag(sync=True)


class SweepView(ClosedByHand, widgets.VBox):  # type: ignore[misc]  # ipywidgets ships no types
    """Follows the runs of a sweep (at least one) until all have ended: a table, and a comparison of their curves."""

    def __init__(self, runs: Sequence[Run], keys: Sequence[str]) -> None:
        self._runs = tuple(runs)
        self._keys = tuple(keys)
        self._monitor: Monitor | None = None
        self._trackers = [RunTracker(run.folder) for run in runs]
        for tracker in self._trackers:
            tracker.refresh()
        self._table = SweepRunTable()
        self._table.on_msg(self._receive)
        self._compared_runs = self._best_runs()
        self._comparison = Compare([self._runs[place] for place in self._compared_runs])
        super().__init__([self._table, self._comparison])
        self.add_class("llf-Studio-sweep")
        self._draw()
        self._poller = Poller(self._poll, self._show_error, f"llf-sweep-{self._runs[0].id}")
        self._poller.start()

    def close(self) -> None:
        """Close the view and end its polling; the runs are not affected."""
        self._poller.stop()
        close_descendants(self)
        super().close()

    def show_monitor(self, run_id: str) -> None:
        """Show the monitor of a run of the sweep below the table; an empty id closes it."""
        found = next((run for run in self._runs if run.id == run_id), None)
        if run_id and found is None:
            raise ValueError(f"{run_id[:200]!r} is no run of this sweep. Expected the id of one in the table.")
        if self._monitor is not None:
            self._monitor.close()
        self._monitor = None if found is None else Monitor(found)
        self._table.open_run = run_id
        self.children = [part for part in (self._table, self._monitor, self._comparison) if part is not None]

    def stop(self) -> None:
        """Stop the active run with a checkpoint, and remove the others from the queue."""
        for run in reversed(self._runs):  # the last first: none of them begins meanwhile
            with suppress(BrokenRunError):
                if not run.status().has_ended:
                    run.stop(by="form")

    def _poll(self) -> float | None:
        changed = [tracker.refresh() for tracker in self._trackers]
        if any(changed):
            self._draw()
            best = self._best_runs()
            if best != self._compared_runs:
                self._compared_runs = best
                self._comparison.show([self._runs[place] for place in best])
        return None if all(tracker.snapshot.state in ENDED for tracker in self._trackers) else POLL_SECONDS

    def _draw(self) -> None:
        metric = ranked_metric(self._trackers)
        values = [metric.value(tracker) for tracker in self._trackers]
        known = [value for value in values if value is not None]
        best = (max if metric.higher_is_better else min)(known) if len(set(known)) > 1 else None
        which = f"the {'highest' if metric.higher_is_better else 'lowest'} {lowercase_label(metric.metric.label)}"
        self._table.note = f"Below: the {MAX_RUNS} with {which} so far." if len(self._runs) > MAX_RUNS else ""
        self._table.view = {
            "keys": list(self._keys),
            "metric": metric.label,
            "live": any(tracker.snapshot.live for tracker in self._trackers),
            "rows": [
                {
                    "id": run.id,
                    "values": [format_value(tracker.config.get(key)) or UNSET for key in self._keys],
                    "state": tracker.snapshot.state,
                    "finding": bool(tracker.snapshot.finding),
                    "step": f"{tracker.snapshot.step:,} of {tracker.snapshot.total:,}"
                    if tracker.snapshot.total
                    else "",
                    "result": "" if value is None else metric.format(value),
                    "best": value is not None and value == best,
                }
                for run, tracker, value in zip(self._runs, self._trackers, values, strict=True)
            ],
        }

    def _best_runs(self) -> list[int]:
        """Indices of the runs to compare: all, or the best ones, in order."""
        metric = ranked_metric(self._trackers)
        sign = -1 if metric.higher_is_better else 1
        values = [metric.value(tracker) for tracker in self._trackers]
        ranked = [np.inf if value is None else sign * value for value in values]
        return sorted(sorted(range(len(ranked)), key=ranked.__getitem__)[:MAX_RUNS])

    def _show_error(self, sentence: str) -> None:
        if sentence:
            self._table.note = sentence

    def _receive(self, _widget: object, content: dict[str, Any], _buffers: object) -> None:
        if content["type"] == "stop":
            self.stop()
        elif content["type"] == "monitor":
            self.show_monitor("" if content["id"] == self._table.open_run else content["id"])
        self._poller.start()
