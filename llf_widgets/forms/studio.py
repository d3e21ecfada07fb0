"""`llf.Studio()`: the complete form in a cell."""

from __future__ import annotations

import contextvars
import threading
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets

from llf_core.config import presets
from llf_core.data.precheck import usable_datasets
from llf_widgets.forms import suggestions
from llf_widgets.forms.column_mapping import ColumnMapping
from llf_widgets.forms.config_editor import ConfigEditor, PresetSelector, config_html, config_text
from llf_widgets.forms.fit_strip import FitStrip
from llf_widgets.forms.kept_settings import KeptSettings
from llf_widgets.forms.messages import Message
from llf_widgets.forms.places import ask_places
from llf_widgets.forms.preflight import MachineChecks
from llf_widgets.forms.preview import DataPreview
from llf_widgets.forms.section import GROUPS, FormSection, assign_sections
from llf_widgets.forms.section_facts import section_facts
from llf_widgets.forms.start_controls import StartControls, blocked_sentence, preload
from llf_widgets.forms.state import FormState
from llf_widgets.forms.suggestions import HubLookup
from llf_widgets.forms.sweep_form import SweepForm
from llf_widgets.forms.trained_parameters import TrainedParameters
from llf_widgets.front_end import ClosedByHand, close_descendants
from llf_widgets.view_files import VIEW_MIME_TYPE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

    from llf_core.config import RunConfig
    from llf_core.config.name_checks import Question
    from llf_core.launch import Run
    from llf_widgets.inspect import Inspect

_START_ANOTHER = " again"
START, MONITOR, SWEEP, INSPECTION = "llf-Start", "llf-Studio-monitor", "llf-Sweep-runs", "llf-Inspect"
"""CSS classes of the parts that are scrolled into view."""


class Studio(ClosedByHand, widgets.VBox):  # type: ignore[misc]  # ipywidgets ships no types
    """A form for a run: model, data, method and settings, and a Start button that is disabled while there are errors.

    It begins with what the cell gives. In a notebook, settings that were changed when the cell was run before, such as
    before a restart of the kernel, are offered above the form, see `llf_widgets.forms.kept_settings`.

    Args:
        config: initial values: a RunConfig, a dict, YAML text or a path; None for the preset. In a dict, `dataset` may
            also be the rows themselves, as for `llf.train`.
        preset: preset that the form begins with if there is no config, and is compared with; one of
            `llf_core.config.read_config()`.

    Attributes:
        state: the values without widgets: `studio.state.set("learning_rate", 1e-4)`, then `studio.refresh()`.

    Raises:
        ValueError: the config cannot be read, or is not a mapping of keys to values.
        KeyError: the preset does not exist.

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
        self._failure: list[Message] = []
        self._hub: HubLookup[Question] = HubLookup(self._answered)
        self._places = HubLookup(self._place_answered, ask_places)
        self._kept = KeptSettings(self.state)
        known = [(one.name, one.label, one.help) for one in presets()]
        self._presets = PresetSelector(known, self.state, self._kept, self.refresh, self._show_failure)
        proposals = {
            "dataset": self._datasets,
            "eval_dataset": self._datasets,
        }
        completions = {
            key: suggestions.complete_model for key, spec in self.state.specs.items() if spec.path == "model"
        }
        self._sections = {
            title: FormSection(
                title,
                specs,
                self.state,
                groups=GROUPS,
                suggestions=proposals,
                completions=completions,
                on_change=self._edited,
                on_type=self._typed,
            )
            for title, specs in assign_sections(tuple(self.state.specs.values())).items()
        }
        self._preview = DataPreview(
            lambda: None if self.state.config is None else self.state.config.yaml(), on_inspect=self._inspect_pressed
        )
        self._columns = ColumnMapping(self.state, self._edited)
        self._trained = TrainedParameters()
        self._inspection: Inspect | None = None
        self._below: dict[str, widgets.Widget] = {}
        self._runs: tuple[Run, ...] = ()
        self._sweep = SweepForm(self.state, assign_sections(tuple(self.state.specs.values())), self._sweep_pressed)
        self._fit = FitStrip(self._apply_fix, lambda: self.state.config_values)
        self._machine = MachineChecks(lambda: self.state.config, self._refresh_start, self._fit.refresh)
        self._start = StartControls(on_start=self._pressed, on_focus_field=self._focus_field, on_fix=self._apply_fix)
        self._text = ConfigEditor(self.state, self.refresh)
        self._grid = self._build_grid()
        super().__init__([self._presets, self._grid])
        for name in ("llf", "llf-Studio"):
            self.add_class(name)
        self._presets.observe(self._show_help, names=["_show_help"])
        self.refresh()

    @property
    def config(self) -> RunConfig:
        """The form's values as a config, for `llf.train` and `llf.sweep`.

        Raises:
            ConfigError: the form has errors; `.problems` lists them.
        """
        from llf_core.config import RunConfig

        return self.state.config or RunConfig.load(dict(self.state.config_values))

    @property
    def run(self) -> Run | None:
        """The last started run; None before Start."""
        return self._run

    @property
    def runs(self) -> tuple[Run, ...]:
        """The runs of the last sweep; empty if there is none."""
        return self._runs

    def set(self, **values: object) -> None:
        """Set fields by key, like typing: `studio.set(learning_rate=1e-4)`; None leaves a field to its default.

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
            queue: whether it waits until no other run is active on this machine and none has waited longer.

        Raises:
            ConfigError: the form has errors.
            RowsError: the rows of the cell are not a table.
        """
        return self._launch(queue=queue, reveal=False)

    def sweep(self, values: Mapping[str, Sequence[Any]]) -> tuple[Run, ...]:
        """Start a run for each combination of values, one after the other, and compare them below the form.

        Args:
            values: values by key: `{"learning_rate": [1e-4, 3e-4]}`.

        Returns:
            The runs in order of execution; the last key changes fastest.

        Raises:
            ConfigError: the form or a combination has errors; no run was started.
            RowsError: the rows are not a table.
        """
        from llf_widgets.forms.sweep_form import SweepView
        from llf_widgets.start import sweep

        with self._starting:
            config = self.config
            self._require_machine()
            rows = self._rows()
            base_config = config if rows is None else config.flat() | {"dataset": rows}
            self._runs = tuple(sweep(base_config, values, name=self._start.name))
        if "sweep" in self._below:
            self._below["sweep"].close()
        self._show_below("sweep", SweepView(self._runs, tuple(values)))
        self._machine.state(fresh=True)
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
        self._machine.stop()
        close_descendants(self)
        super().close()

    def refresh(self) -> None:
        """Update all widgets from the state; needed only after changing `state` in code."""
        self.state.keep_uploads()
        self._presets.refresh()
        self._start.keeps_settings = self._kept.are_kept
        for title, section in self._sections.items():
            section.refresh(section_facts(title, self.state))
        self._columns.refresh()
        self._preview.refresh(self.state.config_values)
        self._trained.refresh(self.state.trained_config)
        self._text.refresh()
        no_model = any(one.severity == "error" for one in self.state.problems("model_name_or_path"))
        self._fit.show(self.state.config, has_model=not no_model)
        self._refresh_start()
        self._hub.request(self.state.name_check.questions)
        self._places.request(() if self.state.place_question is None else (self.state.place_question,))

    # ---- what the parts call -------------------------------------------------------------------

    def _edited(self) -> None:
        self._started = False
        self._failure = []
        self._sweep.clear_result()
        self._text.discard_invalid_text()
        self.refresh()

    def _typed(self, key: str, text: str) -> None:
        """Show the forecast of a value while it is typed; an invalid one is ignored."""
        config = self.state.while_typing(key, text)
        if config is not None:
            self._fit.show(config)

    def _answered(self) -> None:
        self.state.hub_answers = self._hub.answers
        self.refresh()

    def _place_answered(self) -> None:
        self.state.place_answers = self._places.answers
        self.refresh()

    def _launch(self, *, queue: bool, reveal: bool) -> Run:
        """Start a run, and scroll to its monitor (`reveal`), a placeholder until the run's folder is created."""
        from llf_core.launch import launch
        from llf_widgets.start import notebook_location

        with self._starting:
            config = self.config
            self._require_machine()
            before = self._below.get(MONITOR)
            placeholder = self._monitor_placeholder()
            if self.state.place_question is not None:
                self._refresh_start()  # disabled until the place has taken the run
            if reveal:
                self._start.reveal(MONITOR)
            try:
                self._run = launch(
                    config, name=self._start.name, rows=self._rows(), notebook=notebook_location(), queue=queue
                )
            except BaseException:
                self._show_below(MONITOR, before)
                placeholder.close()
                if reveal:
                    self._start.reveal(START)
                raise
            self._started = True
            self._failure = []
        self._show_monitor(placeholder, self._run)
        if before is not None:
            _close(before)
        self._machine.state(fresh=True)
        self.refresh()
        return self._run

    def _sweep_pressed(self, values: Mapping[str, Sequence[object]]) -> tuple[Run, ...]:
        runs = self.sweep(values)
        self._kept.run_started()
        self._start.reveal(SWEEP)
        return runs

    def _inspect_pressed(self) -> None:
        self.inspect()
        self._start.reveal(INSPECTION)

    def _pressed(self, queue: bool) -> None:
        """Handle a start button; the second click of a double click finds Start disabled.

        Another place takes seconds to answer, so a thread starts the run there.
        """
        if not self._start.ready or self._starting.locked():
            return
        if self.state.place_question is None:
            self._start_pressed(queue)
            return
        of_this_cell = contextvars.copy_context()  # by which a run is told its cell
        threading.Thread(target=of_this_cell.run, args=(self._start_pressed, queue), name="llf-form-start").start()

    def _start_pressed(self, queue: bool) -> None:
        try:
            self._launch(queue=queue, reveal=True)
            self._kept.run_started()
        except (OSError, RuntimeError, ValueError) as error:
            self._show_failure(str(error))

    def _show_failure(self, text: str) -> None:
        """Show below Start why an action of the user failed, until the next edit."""
        self._failure = [Message("error", text)]
        self.refresh()

    def _focus_field(self, key: str) -> None:
        if key == _START_ANOTHER:
            self._started = False
            self._refresh_start()
            return
        for section in self._sections.values():
            if section.contains(key):
                section.focus_field(key)

    def _apply_fix(self, changes: Mapping[str, object]) -> None:
        self.state.apply(changes)
        self._edited()

    def _show_help(self, change: Any) -> None:
        for section in self._sections.values():
            section.show_help(change.new)

    # ---- what is drawn -------------------------------------------------------------------------

    def _build_grid(self) -> widgets.Box:
        parts: list[widgets.Widget] = []
        for title, section in self._sections.items():
            parts.append(section)
            if title == "Data":
                parts += [self._columns, self._preview]
            if title == "Method":
                parts.append(self._trained)
        form, side = (
            widgets.VBox(parts),
            widgets.VBox([widgets.VBox([self._start, self._fit, self._sweep]), self._text]),
        )
        form.add_class("llf-Form")
        side.add_class("llf-Side")
        grid = widgets.Box([form, side])
        grid.add_class("llf-Studio-grid")
        return grid

    def _refresh_start(self) -> None:
        machine = self._machine.state()
        sentence_parts = blocked_sentence(*self._blockers(machine_blocks=bool(machine.errors)))
        self._sweep.refresh(blocked=bool(sentence_parts), ahead=machine.ahead)
        starting = self._starting.locked()
        ready = not sentence_parts and not self._started and not starting
        if starting and not sentence_parts:
            sentence_parts = [{"text": "Starting…"}]
        elif not sentence_parts and self._started and self._run is not None:
            is_queued = self._run.folder.queue.exists()
            started = f"`{self._run.id}` is in the queue. " if is_queued else f"Started `{self._run.id}`. "
            sentence_parts = [{"text": started}, {"text": "Start another", "key": _START_ANOTHER}, {"text": "."}]
        elif not sentence_parts:
            sentence_parts = [{"text": "The run has its own process. You can close this page."}]
        messages = [one for one in machine.messages if one.level != "note" or not self._started]
        messages = [*(one for one in self._failure if one.text not in {other.text for other in messages}), *messages]
        busy = bool(machine.ahead) and not self._started  # a started run no longer needs the choice
        self._start.show(
            ready=ready, busy=busy, sentence=sentence_parts, messages=messages, suggested=self._suggested_name()
        )

    def _blockers(self, *, machine_blocks: bool) -> tuple[list[tuple[str, str, str]], list[str]]:
        """Fields (label, key, section) and other problems that disable Start."""
        keys = list(dict.fromkeys(problem.key for problem in self.state.errors()))
        fields = [(self.state.specs[key].label, key, self._title(key)) for key in keys if key in self.state.specs]
        others = [f"`{key}`" if key else "the configuration" for key in keys if key not in self.state.specs]
        if self._text.is_invalid:
            others.append("the YAML")
        if machine_blocks:
            others.append("this machine")
        return fields, others

    def _require_machine(self) -> None:
        errors = self._machine.state(fresh=True).errors
        if errors:
            self.refresh()
            raise RuntimeError(errors[0])

    def _suggested_name(self) -> str:
        from llf_core.launch.start import default_name

        return default_name(self.state.report.config) if self.state.report.config else ""

    def _title(self, key: str) -> str:
        return next(title for title, section in self._sections.items() if section.contains(key))

    def _datasets(self) -> list[str]:
        named = usable_datasets(self.state.report.config, suggestions.datasets(str(self.state.value("dataset_dir"))))
        return named if self.state.cell_rows is None else [self.state.cell_rows.label, *named]

    def _rows(self) -> pa.Table | None:
        return self.state.cell_rows.table if self.state.cell_rows and self.state.uses_cell_rows else None

    def _monitor_placeholder(self) -> widgets.Box:
        label = widgets.Label("Starting: creating the run folder and starting the process…")
        placeholder = widgets.VBox([label])
        placeholder.add_class(MONITOR)
        placeholder.add_class("is-waiting")
        self._show_below(MONITOR, placeholder)
        return placeholder

    def _show_monitor(self, placeholder: widgets.Box, run: Run) -> None:
        from llf_widgets.monitor import Monitor

        (label,) = placeholder.children
        placeholder.children = (Monitor(run),)
        placeholder.remove_class("is-waiting")
        label.close()

    def _show_below(self, name: str, view: widgets.Widget | None) -> None:
        """Show a view below the form under a name, replacing an earlier one; None removes it."""
        if view is None:
            self._below.pop(name, None)
        else:
            self._below[name] = view
        self.children: tuple[widgets.Widget, ...] = (self._presets, self._grid, *self._below.values())

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        bundle = super()._repr_mimebundle_(**kwargs)
        preload()
        yaml = self.state.yaml()
        run_ids = [run.id for run in (*self._runs, *([self._run] if self._run else []))]
        bundle["text/plain"] = config_text(yaml, run_ids)
        bundle["text/html"] = config_html(yaml, run_ids)
        bundle[VIEW_MIME_TYPE] = {"view": "studio"}
        return bundle


def _close(box: widgets.Box) -> None:
    for child in box.children:
        child.close()
    box.close()
