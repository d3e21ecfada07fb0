"""`llf.Studio()`: the complete form in a cell."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets

from llf_core.config import presets
from llf_core.data.kind_check import usable_datasets
from llf_core.launch.queue import MachineLoad
from llf_widgets.close_parts import close_parts
from llf_widgets.forms import checks, fallback, model_info, suggestions
from llf_widgets.forms.background_imports import preload
from llf_widgets.forms.columns_pane import ColumnsPane
from llf_widgets.forms.hub_names import HubNames
from llf_widgets.forms.layout import GROUPS, arrange
from llf_widgets.forms.messages import Message
from llf_widgets.forms.presets import Presets
from llf_widgets.forms.preview import Preview
from llf_widgets.forms.section import Section
from llf_widgets.forms.start_pane import StartPane, sentence
from llf_widgets.forms.state import FormState
from llf_widgets.forms.sweep_pane import SweepPane
from llf_widgets.forms.text_pane import TextPane
from llf_widgets.monitor.poller import Pump
from llf_widgets.saved_notebook import VIEW

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

    from llf_core.config import RunConfig
    from llf_core.launch import Run
    from llf_core.launch.queue import RunAhead
    from llf_widgets.inspect import Inspect

_AGAIN = " again"
_CHECK_SECONDS = 5.0
START, MONITOR, SWEEP = "llf-Start", "llf-Studio-monitor", "llf-Sweep-runs"
"""CSS classes of the parts that are scrolled into view."""


class Studio(widgets.VBox):
    """A form for a run: model, data, method and settings, and a Start button that is disabled while there are errors.

    Args:
        config: initial values: a RunConfig, a dict, YAML text or a path. Default: the preset. In a dict, `dataset` may
            also be the rows themselves, as for `llf.train`.
        preset: preset to compare with, one of `llf_core.config.presets()`.

    Attributes:
        state: the values without widgets: `studio.state.set("learning_rate", 1e-4)`, then `studio.refresh()`.

    Example:
        >>> studio = llf.Studio()
        >>> studio                 # shows the form
        >>> studio.config          # a RunConfig
        >>> run = studio.start()   # same as the button
        >>> llf.Studio({"dataset": rows})
    """

    def __init__(self, config: Any = None, *, preset: str = "first-minute") -> None:
        self.state = FormState(config, preset)
        self._run: Run | None = None
        self._started = False
        self._starting = threading.Lock()
        self._others = MachineLoad()
        self._machine: tuple[float, list[Message], list[RunAhead]] = (0.0, [], [])
        self._pump = Pump(self._follow_others, lambda _: None, "llf-studio")
        self._failure: list[Message] = []
        self._hub = HubNames(self._answered)
        self._presets = Presets([(one.name, one.label, one.help) for one in presets()], self.state, self.refresh)
        proposals = {
            "model_name_or_path": suggestions.models,
            "dataset": self._datasets,
            "eval_dataset": self._datasets,
        }
        self._sections = {
            title: Section(title, specs, self.state, groups=GROUPS, offers=proposals, on_change=self._edited)
            for title, specs in arrange(tuple(self.state.specs.values())).items()
        }
        self._preview = Preview(
            lambda: None if self.state.config is None else self.state.config.yaml(), on_inspect=self.inspect
        )
        self._columns = ColumnsPane(self.state, self._edited)
        self._inspection: Inspect | None = None
        self._below: dict[str, widgets.Widget] = {}
        self._runs: tuple[Run, ...] = ()
        self._sweep = SweepPane(self.state, arrange(tuple(self.state.specs.values())), self._sweep_pressed)
        self._start = StartPane(on_start=self._pressed, on_goto=self._goto, on_fix=self._mend)
        self._text = TextPane(self.state, self.refresh)
        super().__init__([self._presets, self._grid()])
        for name in ("llf", "llf-Studio"):
            self.add_class(name)
        self._presets.observe(self._explain, names=["_explain"])
        self.refresh()

    @property
    def config(self) -> RunConfig:
        """The form's values as a config.

        Raises:
            ConfigError: the form has errors; `.problems` lists them.
        """
        from llf_core.config import RunConfig

        return self.state.config or RunConfig.load(dict(self.state.given))

    @property
    def run(self) -> Run | None:
        """The last started run, or None."""
        return self._run

    @property
    def runs(self) -> tuple[Run, ...]:
        """The runs of the last sweep; empty if there is none."""
        return self._runs

    def set(self, **values: Any) -> None:
        """Set fields by key, like typing: `studio.set(learning_rate=1e-4)`.

        Raises:
            KeyError: there is no such field.
        """
        for key in values:
            if key not in self.state.specs:
                raise KeyError(f"{key} is not a field of the form. Field names are the keys of the YAML file.")
        self.state.apply(values)
        self._edited()

    def start(self, *, queue: bool = False) -> Run:
        """Start the run in a separate process and show its monitor below the form; returns at once.

        Args:
            queue: wait until no other run is active on this machine and none has waited longer.

        Raises:
            ConfigError: the form has errors.
            RuntimeError: environment or disk do not allow the run; the message says what to do.
        """
        return self._launch(queue=queue, reveal=False)

    def sweep(self, values: Mapping[str, Sequence[Any]]) -> tuple[Run, ...]:
        """Start a run for each combination of values, one after the other, and compare them below the form.

        Args:
            values: values by key: `{"learning_rate": [1e-4, 3e-4]}`.

        Raises:
            ConfigError: the form or a combination has errors; no run was started.
            ValueError: there are no values, or more than a hundred combinations.
            RuntimeError: environment or disk do not allow the runs; the message says what to do.
        """
        from llf_widgets.forms.sweep_view import SweepView
        from llf_widgets.start import sweep

        with self._starting:
            config = self.config
            self._refuse()
            rows = self._rows()
            asked = config if rows is None else config.flat() | {"dataset": rows}
            self._runs = tuple(sweep(asked, values, name=self._start.name))
        if "sweep" in self._below:
            self._below["sweep"].close()
        self._show_below("sweep", SweepView(self._runs, tuple(values)))
        self._checks(fresh=True)
        self.refresh()
        return self._runs

    def inspect(self) -> Inspect:
        """Show the training data token by token below the form; changes made there are applied to the form.

        Raises:
            ConfigError: the form has errors.
        """
        from llf_widgets.inspect import Inspect

        if self._inspection is not None:
            self._inspection.close()
        self._inspection = Inspect(self.config, on_change=lambda changes: self.set(**changes))
        self._show_below("inspection", self._inspection)
        return self._inspection

    def close(self) -> None:
        """Close the form and the views below it; runs are not affected."""
        self._pump.stop()
        close_parts(self)
        super().close()

    def refresh(self) -> None:
        """Update all parts from the state."""
        self.state.hold_data()
        self._presets.refresh()
        for title, section in self._sections.items():
            section.refresh(self._facts(title))
        self._columns.refresh()
        self._text.refresh()
        self._refresh_start()
        self._hub.want(self.state.names.questions)

    # ---- what the parts call -------------------------------------------------------------------

    def _edited(self) -> None:
        self._started = False
        self._failure = []
        self._sweep.forget()
        self._text.accept_form()
        self.refresh()

    def _answered(self) -> None:
        """Handle a hub's answer about names."""
        self.state.answers = self._hub.answers
        self.refresh()

    def _launch(self, *, queue: bool, reveal: bool) -> Run:
        """Start a run, see `start`.

        Args:
            queue: see `start`.
            reveal: whether to scroll the monitor into view; its placeholder is shown before the run's folder is
                created.
        """
        from llf_core.launch import launch
        from llf_widgets.start import notebook_place

        with self._starting:
            config = self.config
            self._refuse()
            before = self._below.get(MONITOR)
            place = self._place_for_monitor()
            if reveal:
                self._start.reveal(MONITOR)
            try:
                self._run = launch(
                    config, name=self._start.name, rows=self._rows(), notebook=notebook_place(), queue=queue
                )
            except BaseException:
                self._show_below(MONITOR, before)
                place.close()
                if reveal:
                    self._start.reveal(START)
                raise
            self._started = True
            self._failure = []
        self._fill(place, self._run)
        if before is not None:
            _close(before)
        self._checks(fresh=True)
        self.refresh()
        return self._run

    def _sweep_pressed(self, values: Mapping[str, Sequence[Any]]) -> tuple[Run, ...]:
        """Handle the sweep button, and scroll to the runs."""
        runs = self.sweep(values)
        self._start.reveal(SWEEP)
        return runs

    def _pressed(self, queue: bool) -> None:
        """Handle a start button. The second click of a double click finds Start disabled."""
        if not self._start.ready or self._starting.locked():
            return
        try:
            self._launch(queue=queue, reveal=True)
        except (OSError, RuntimeError, ValueError) as error:
            self._failure = [Message("error", str(error))]
            self.refresh()

    def _goto(self, key: str) -> None:
        if key == _AGAIN:
            self._started = False
            self._refresh_start()
            return
        for section in self._sections.values():
            if section.holds(key):
                section.focus_field(key)

    def _mend(self, changes: Mapping[str, Any]) -> None:
        self.state.apply(changes)
        self._edited()

    def _explain(self, change: Any) -> None:
        for section in self._sections.values():
            section.explain(change.new)

    # ---- what is drawn -------------------------------------------------------------------------

    def _grid(self) -> widgets.Box:
        parts: list[widgets.Widget] = []
        for title, section in self._sections.items():
            parts.append(section)
            if title == "Data":
                parts += [self._columns, self._preview]
        form, side = widgets.VBox(parts), widgets.VBox([widgets.VBox([self._start, self._sweep]), self._text])
        form.add_class("llf-Form")
        side.add_class("llf-Side")
        grid = widgets.Box([form, side])
        grid.add_class("llf-Studio-grid")
        return grid

    def _refresh_start(self) -> None:
        machine = self._checks()
        words = sentence(*self._waits_for(machine))
        self._sweep.refresh(blocked=bool(words), ahead=self._machine[2])
        ready = not words and not self._started
        if not words and self._started and self._run is not None:
            waits = self._run.folder.queue.exists()
            begun = f"`{self._run.id}` is in the queue. " if waits else f"Started `{self._run.id}`. "
            words = [{"text": begun}, {"text": "Start another", "key": _AGAIN}, {"text": "."}]
        elif not words:
            words = [{"text": "The run has its own process. You can close this page."}]
        said = [one for one in machine if one.level != "note" or not self._started]
        said = [*(one for one in self._failure if one.text not in {other.text for other in said}), *said]
        busy = bool(self._machine[2]) and not self._started  # nothing is to be decided of a run that has begun
        self._start.show(ready=ready, busy=busy, sentence=words, messages=said, suggested=self._suggested())

    def _waits_for(self, machine: Sequence[Message]) -> tuple[list[tuple[str, str, str]], list[str]]:
        """What disables Start: fields (label, key, section), and other problems."""
        keys = list(dict.fromkeys(problem.key for problem in self.state.errors()))
        fields = [(self.state.specs[key].label, key, self._title(key)) for key in keys if key in self.state.specs]
        others = [f"`{key}`" if key else "the configuration" for key in keys if key not in self.state.specs]
        if self._text.refused:
            others.append("the YAML")
        if any(message.level == "error" for message in machine):
            others.append("this machine")
        return fields, others

    def _checks(self, *, fresh: bool = False) -> list[Message]:
        """Messages about this machine, cached for some seconds."""
        at, said, _ = self._machine
        if fresh or time.monotonic() - at > _CHECK_SECONDS:
            ahead = self._others.ahead()
            said = checks.before_start(self.state.config, ahead)
            self._machine = (time.monotonic(), said, ahead)
            if ahead:
                self._pump.start()
        return said

    def _follow_others(self) -> float | None:
        """Update Start while other runs are active."""
        before, now = ([one.id for one in runs] for runs in (self._machine[2], self._others.ahead()))
        if now != before:
            self._checks(fresh=True)
            self._refresh_start()
        return _CHECK_SECONDS if now else None

    def _refuse(self) -> None:
        """Raise an error if environment or disk do not allow a run."""
        stop = next((message.text for message in self._checks(fresh=True) if message.level == "error"), None)
        if stop:
            self.refresh()
            raise RuntimeError(stop)

    def _suggested(self) -> str:
        """Default name of a run."""
        from llf_core.launch.start import default_name

        return default_name(self.state.report.config) if self.state.report.config else ""

    def _title(self, key: str) -> str:
        return next(title for title, section in self._sections.items() if section.holds(key))

    def _facts(self, title: str) -> tuple[str, ...]:
        if title == "Model":
            return model_info.describe(str(self.state.value("model_name_or_path")))
        if title == "Method" and self.state.report.config is not None:
            return model_info.learns(self.state.report.config)
        if title == "Training":
            batch, times, steps = (
                self.state.value(key)
                for key in ("per_device_train_batch_size", "gradient_accumulation_steps", "max_steps")
            )
            told = (
                ((f"{batch * times:,} examples per step"),) if isinstance(batch, int) and isinstance(times, int) else ()
            )
            ends = isinstance(steps, int) and steps > 0
            return (*told, f"Steps override Epochs: ends after {steps:,} steps") if ends else told
        return ()

    def _datasets(self) -> list[str]:
        named = usable_datasets(self.state.report.config, suggestions.datasets(str(self.state.value("dataset_dir"))))
        return named if self.state.cell_rows is None else [self.state.cell_rows.label, *named]

    def _rows(self) -> pa.Table | None:
        """The rows of the cell, if they are the data set."""
        return self.state.cell_rows.table if self.state.cell_rows and self.state.trains_cell_rows else None

    def _place_for_monitor(self) -> widgets.Box:
        """Placeholder for the monitor."""
        words = widgets.Label("Starting: creating the run folder and starting the process…")
        place = widgets.VBox([words])
        place.add_class(MONITOR)
        place.add_class("is-waiting")
        self._show_below(MONITOR, place)
        return place

    def _fill(self, place: widgets.Box, run: Run) -> None:
        from llf_widgets.monitor import Monitor

        (words,) = place.children
        place.children = (Monitor(run),)
        place.remove_class("is-waiting")
        words.close()

    def _show_below(self, name: str, view: widgets.Widget | None) -> None:
        """Show a view below the form under a name, replacing an earlier one; None removes it."""
        if view is None:
            self._below.pop(name, None)
        else:
            self._below[name] = view
        self.children = (*self.children[:2], *self._below.values())

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        bundle = super()._repr_mimebundle_(**kwargs)
        preload()
        yaml = self.state.yaml()
        run_ids = [run.id for run in (*self._runs, *([self._run] if self._run else []))]
        bundle["text/plain"] = fallback.plain(yaml, run_ids)
        bundle["text/html"] = fallback.static_html(yaml, run_ids)
        bundle[VIEW] = {"view": "studio"}
        return bundle


def _close(box: widgets.Box) -> None:
    """Close a box and its children."""
    for child in box.children:
        child.close()
    box.close()
