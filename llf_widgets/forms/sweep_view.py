"""The runs of a sweep below the form: one line per run, and a comparison of their curves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ipywidgets as widgets
import numpy as np
import traitlets

from llf_core.runs import FINAL
from llf_core.runs.metric_catalog import lowercase_label
from llf_widgets.close_parts import close_parts
from llf_widgets.compare.widget import MOST, Compare
from llf_widgets.forms.pane import FormPane
from llf_widgets.forms.sweeping import UNSET
from llf_widgets.forms.values import show
from llf_widgets.monitor.poller import Pump
from llf_widgets.monitor.result import result
from llf_widgets.monitor.watch import Watch
from llf_widgets.monitor.widget import Monitor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llf_core.launch import Run

REST = 1.0  # seconds between two looks


class SweepRuns(FormPane):
    """One line per run: changed values, state, step and loss."""

    _pane = traitlets.Unicode("sweep_runs").tag(sync=True)
    view = traitlets.Dict(help="`keys`, `loss`, `rows`, `live`").tag(sync=True)
    note = traitlets.Unicode("").tag(sync=True)
    shown = traitlets.Unicode("", help="id of the run whose monitor is open").tag(sync=True)


class SweepView(widgets.VBox):
    """Follows the runs of a sweep until all have ended.

    Args:
        runs: in order of execution.
        keys: keys that differ between them.
    """

    def __init__(self, runs: Sequence[Run], keys: Sequence[str]) -> None:
        self._runs = tuple(runs)
        self._keys = tuple(keys)
        self._monitor: Monitor | None = None
        self._watches = [Watch(run.folder) for run in runs]
        for watch in self._watches:
            watch.look()
        self._lines = SweepRuns()
        self._lines.on_msg(self._receive)
        self._compared = self._best()
        self._curves = Compare([self._runs[place] for place in self._compared])
        super().__init__([self._lines, self._curves])
        self.add_class("llf-Studio-sweep")
        self._draw()
        self._pump = Pump(self._tick, self._say_trouble, f"llf-sweep-{self._runs[0].id}")
        self._pump.start()

    def close(self) -> None:
        """Close the view; the runs are not affected."""
        self._pump.stop()
        close_parts(self)
        super().close()

    def show_monitor(self, run_id: str) -> None:
        """Show the monitor of a run below the lines; an empty id closes it."""
        if self._monitor is not None:
            self._monitor.close()
            self._monitor = None
        if run_id:
            self._monitor = Monitor(next(run for run in self._runs if run.id == run_id))
        self._lines.shown = run_id
        self.children = [part for part in (self._lines, self._monitor, self._curves) if part is not None]

    def stop(self) -> None:
        """Stop the active run with a checkpoint, and remove the others from the queue."""
        for run in reversed(self._runs):  # the last first: none of them begins meanwhile
            if not run.status().has_ended:
                run.stop(by="form")

    def _tick(self) -> float | None:
        changed = [watch.look() for watch in self._watches]
        if any(changed):
            self._draw()
            best = self._best()
            if best != self._compared:
                self._compared = best
                self._curves.show([self._runs[place] for place in best])
            else:
                self._curves.refresh()
        return None if all(watch.facts.state in FINAL for watch in self._watches) else REST

    def _draw(self) -> None:
        told = result(self._watches)
        values = [told.value(watch) for watch in self._watches]
        known = [value for value in values if value is not None]
        best = (max if told.more else min)(known) if len(set(known)) > 1 else None
        which = f"the {'highest' if told.more else 'lowest'} {lowercase_label(told.what.label)}"
        self._lines.note = f"Below: the {MOST} with {which} so far." if len(self._runs) > MOST else ""
        self._lines.view = {
            "keys": list(self._keys),
            "loss": told.label,
            "live": any(watch.facts.live for watch in self._watches),
            "rows": [
                {
                    "id": run.id,
                    "values": [show(watch.config.get(key)) or UNSET for key in self._keys],
                    "state": watch.facts.state,
                    "step": f"{watch.facts.step:,} of {watch.facts.total:,}" if watch.facts.total else "",
                    "loss": "" if value is None else told.write(value),
                    "best": value is not None and value == best,
                }
                for run, watch, value in zip(self._runs, self._watches, values, strict=True)
            ],
        }

    def _best(self) -> list[int]:
        """Indices of the runs to compare: all, or the best ones, in order."""
        told = result(self._watches)
        sign = -1 if told.more else 1
        values = [told.value(watch) for watch in self._watches]
        ranked = [np.inf if value is None else sign * value for value in values]
        return sorted(sorted(range(len(ranked)), key=ranked.__getitem__)[:MOST])

    def _say_trouble(self, sentence: str) -> None:
        if sentence:
            self._lines.note = sentence

    def _receive(self, _widget: object, content: dict[str, Any], _buffers: object) -> None:
        if content["type"] == "stop":
            self.stop()
        elif content["type"] == "monitor":
            self.show_monitor("" if content["id"] == self._lines.shown else content["id"])
        self._pump.start()
