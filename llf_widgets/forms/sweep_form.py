"""The sweep below Start: fields, suggested values, the runs that they make with their problems, and a start button."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets
import numpy as np
import traitlets

from llf_core.config import validate
from llf_core.config.number_format import with_unit
from llf_core.launch.parameter_sweep import combination_label, combinations
from llf_core.runs import home
from llf_core.runs.charts import lowercase_label
from llf_core.runs.status import BrokenRunError
from llf_widgets.compare.widget import ENDED, MAX_RUNS, POLL_SECONDS, Compare
from llf_widgets.forms import preflight
from llf_widgets.forms.messages import Message, messages_json
from llf_widgets.forms.section import FormWidget
from llf_widgets.forms.values import choice_options, control_kind, format_value, parse_value
from llf_widgets.front_end import ClosedByHand, close_descendants
from llf_widgets.monitor.ranking import ranked_metric
from llf_widgets.monitor.run_tracker import RunTracker
from llf_widgets.monitor.snapshot import Poller
from llf_widgets.monitor.widget import Monitor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from llf_core.config import FieldSpec, Problem
    from llf_core.launch import Run
    from llf_core.launch.queue import RunAhead
    from llf_widgets.forms.state import FormState

FIRST = "learning_rate"


def _runs(number: int) -> str:
    return with_unit(number, "run")


class SweepForm(FormWidget):
    """Values for one or more fields; each combination is a run."""

    _component = traitlets.Unicode("sweep_form").tag(sync=True)
    _expanded = traitlets.Bool(default_value=False).tag(sync=True)
    _rows: traitlets.List[dict[str, str]] = traitlets.List().tag(sync=True)
    _choices: traitlets.List[list[object]] = traitlets.List().tag(sync=True)
    _runs = traitlets.Int(0).tag(sync=True)
    _ready = traitlets.Bool(default_value=False).tag(sync=True)
    _sentence = traitlets.Unicode("").tag(sync=True)
    _again = traitlets.Bool(default_value=False).tag(sync=True)
    _messages: traitlets.List[dict[str, object]] = traitlets.List().tag(sync=True)

    def __init__(
        self,
        state: FormState,
        sections: Mapping[str, Sequence[FieldSpec]],
        on_start: Callable[[Mapping[str, Sequence[Any]]], Sequence[Any]],
    ) -> None:
        self._state = state
        self._sections = sections
        self._on_start = on_start
        self._keys = [FIRST]
        self._texts: dict[str, str] = {}  # what was typed; other fields follow the form
        self._started = 0
        self._failure: list[Message] = []
        self._shown_messages: list[Message] = []
        self._blocked = False
        self._ahead: Sequence[RunAhead] = ()
        super().__init__()
        self.on_msg(self._receive)
        self.observe(lambda _: self._draw(), names=["_expanded"])

    def refresh(self, *, blocked: bool, ahead: Sequence[RunAhead]) -> None:
        """Update the widget from the state; a collapsed one is drawn once it is expanded."""
        self._blocked, self._ahead = blocked, ahead
        self._draw()

    def clear_result(self) -> None:
        """Remove the messages of the last start after an edit, and enable the button, with the next `refresh`."""
        self._started, self._failure = 0, []

    def plan(self) -> SweepPlan:
        """The runs that would be started with the values as typed."""
        return plan_sweep(self._state, {key: self._text(key) for key in self._keys})

    def _draw(self) -> None:
        if not self._expanded:
            return
        fields = {
            title: [(spec.key, spec.label) for spec in specs if can_sweep(spec) and self._state.is_visible(spec.key)]
            for title, specs in self._sections.items()
        }
        offered = [key for pairs in fields.values() for key, _ in pairs]
        self._keys = [key for key in self._keys if key in offered] or [FIRST]
        plan = self.plan()
        against = [*plan.messages, *self._disk(plan.runs)]
        ready = plan.ok and not self._blocked and all(message.level != "error" for message in against)
        self._shown_messages = [*self._failure, *against]
        with self.hold_sync():
            self._rows = [self._row(key) for key in self._keys]
            self._choices = [[title, [list(pair) for pair in pairs]] for title, pairs in fields.items()]
            self._runs = plan.runs
            self._ready = ready and not self._started
            self._again = self._started > 0
            self._sentence = self._button_text(plan, ready=ready)
            self._messages = messages_json(self._shown_messages)

    def _row(self, key: str) -> dict[str, str]:
        spec = self._state.specs[key]
        return {"key": key, "label": spec.label, "text": self._text(key), "hint": spec.expected}

    def _text(self, key: str) -> str:
        if key in self._texts:
            return self._texts[key]
        return suggest_values(self._state.specs[key], self._state.value(key))

    def _button_text(self, plan: SweepPlan, *, ready: bool) -> str:
        if self._started:
            return f"Started {_runs(self._started)}, one after the other. Progress is shown below."
        if self._blocked:
            return "Fix the errors in the form first."
        if not ready:
            return "Enter values first."
        counts = [str(len(values)) for values in plan.values.values()]
        product = f" ({' × '.join(counts)})" if len(counts) > 1 else ""  # noqa: RUF001 - the sign of a product
        text = f"{_runs(plan.runs)}{product}, one after the other."
        if not self._ahead:
            return text
        more = len(self._ahead) - 1
        return f"{text} They start after {self._ahead[0]}{f', and {more} more' if more else ''}."

    def _disk(self, runs: int) -> list[Message]:
        config = self._state.config
        if config is None or runs <= 1:
            return []
        message = preflight.check_disk(preflight.disk_bytes(config), home(), runs)
        return [] if message is None else [message]

    def _receive(self, _widget: object, content: dict[str, Any], _buffers: object) -> None:
        kind = content["type"]
        if kind == "start":
            try:
                self._start(content["runs"])
            finally:
                self.send({"type": "done"})
            return
        messages = self._shown_messages
        self.clear_result()
        if kind == "values":
            self._texts[content["key"]] = content["text"]
        elif kind == "field" and content["key"] not in self._keys:
            self._keys[content["row"]] = content["key"]
        elif kind == "add":
            self._keys += self._next()
        elif kind == "remove":
            del self._keys[content["row"]]
        elif kind == "fix" and content["message"] < len(messages):
            self._texts |= messages[content["message"]].fixes[content["fix"]][1]
        self._draw()

    def _start(self, shown: int) -> None:
        """Handle the button, unless the number of runs differs from the one it showed."""
        plan = self.plan()
        if not self._ready or shown != plan.runs:
            self._draw()
            return
        self._ready = False
        self._sentence = f"Starting {_runs(plan.runs)}…"
        try:
            self._failure = []
            self._started = len(self._on_start(plan.values))
        except (OSError, RuntimeError, ValueError) as error:
            self._failure = [Message("error", str(error))]
        self._draw()

    def _next(self) -> list[str]:
        specs = [spec for specs in self._sections.values() for spec in specs]
        free = [spec for spec in specs if spec.key not in self._keys and self._state.is_visible(spec.key)]
        return [spec.key for spec in free if spec.level == "basic" and spec.type in {"int", "float"}][:1]


UNSET = "null"
MAX_LISTED_CHOICES = 4
MAX_MESSAGES = 6
_ORDER = {"error": 0, "warning": 1, "note": 2}


@dataclass(frozen=True)
class SweepPlan:
    """Values of a sweep by key, the number of runs, and problems beyond those of the form, errors first."""

    values: Mapping[str, Sequence[Any]]
    runs: int
    messages: tuple[Message, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the values allow a start."""
        return self.runs > 0 and all(message.level != "error" for message in self.messages)


def can_sweep(spec: FieldSpec) -> bool:
    """Whether values of a field can be listed with commas: numbers and choices, not texts, which may contain commas."""
    return control_kind(spec) != "text"


def suggest_values(spec: FieldSpec, value: object) -> str:
    """Suggest values to try, for `parse_values`: around a number, or all of at most `MAX_LISTED_CHOICES` choices.

    Around means a third and three times a real number, about half a power of ten, and half and twice an integer: a
    coarse grid, chosen by this project. Around 0 are 0.01 and 0.1; of a seed, the next two. Values out of range are
    left out. For all other fields the form's own value is suggested.
    """
    if control_kind(spec) != "number":
        offered = [text for text, _ in choice_options(spec) if text]
        return ", ".join(offered) if len(offered) <= MAX_LISTED_CHOICES else format_value(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return format_value(value)
    if spec.key.endswith("seed"):
        around = [value, value + 1, value + 2]
    elif spec.type == "int":
        around = [value // 2, value, 2 * value]
    elif value == 0:
        around = [0, 0.01, 0.1]
    else:
        around = [float(f"{value / 3:.2g}"), value, float(f"{value * 3:.2g}")]
    texts = [format_value(one) for one in around if _within(spec, one)] if value >= 0 else []
    return ", ".join(dict.fromkeys(texts)) or format_value(value)


def parse_values(spec: FieldSpec, text: str) -> list[Any]:
    """Parse comma-separated values; `null` means "not set" for optional fields, and invalid values stay text."""
    pieces = (piece.strip() for piece in text.split(","))
    return [None if spec.optional and piece == UNSET else parse_value(spec, piece) for piece in pieces if piece]


def plan_sweep(state: FormState, chosen: Mapping[str, str]) -> SweepPlan:
    """Plan a sweep, with each run validated like a single one."""
    values: dict[str, list[object]] = {}
    messages: list[Message] = []
    for key, text in chosen.items():
        spec = state.specs[key]
        given = parse_values(spec, text)
        found: dict[str, object] = {}
        for value in given:
            found.setdefault(format_value(value) or UNSET, value)
        values[key] = list(found.values())
        if not found:
            messages.append(_no_values(spec, suggest_values(spec, state.value(key))))
        elif len(found) < len(given):
            repeated = ", ".join(
                one for one in found if sum((format_value(value) or UNSET) == one for value in given) > 1
            )
            messages.append(Message("note", f"{spec.label} (`{key}`) has {repeated} more than once. It is run once."))
    if not all(values.values()):
        return SweepPlan(values, 0, tuple(messages))
    try:
        runs = list(combinations(values))
    except ValueError as error:
        return SweepPlan(values, 0, (Message("error", str(error)), *messages))
    messages += _new_problems(state, runs)
    messages.sort(key=lambda message: _ORDER[message.level])
    return SweepPlan(values, len(runs), tuple(messages))


def _no_values(spec: FieldSpec, proposed: str) -> Message:
    text = (
        f"{spec.label} (`{spec.key}`) has no values. Expected {spec.expected}, or several values separated by commas."
    )
    return Message("error", text, ((f"Set to {proposed}", {spec.key: proposed}),) if proposed else ())


def _new_problems(state: FormState, runs: Sequence[Mapping[str, object]]) -> list[Message]:
    """Problems of the runs that the form itself does not have, without duplicates."""
    if state.config is None:
        return []  # what is wrong in the form comes first
    known = {problem.message for problem in validate(state.config).problems}
    found: dict[str, tuple[Problem, list[Mapping[str, object]]]] = {}
    for one in runs:
        for problem in validate({**state.config.flat(), **one}).problems:
            if problem.message not in known:
                found.setdefault(problem.message, (problem, []))[1].append(one)
    worst = sorted(found.values(), key=lambda pair: _ORDER[pair[0].severity])
    messages = [
        Message(problem.severity, _affected_runs(where, len(runs)) + problem.message) for problem, where in worst
    ]
    if len(messages) <= MAX_MESSAGES:
        return messages
    rest = messages[MAX_MESSAGES:]
    return [*messages[:MAX_MESSAGES], Message(rest[0].level, f"{len(rest)} more of this type.")]


def _affected_runs(runs: Sequence[Mapping[str, object]], of: int) -> str:
    """The runs that a message applies to, by common values, else by number; empty for all."""
    if len(runs) == of:
        return ""
    shared = {key: value for key, value in runs[0].items() if all(one[key] == value for one in runs)}
    count = f"{len(runs)} of {of} runs"
    return f"`{combination_label(shared)}` ({count}): " if shared else f"{count}: "


def _within(spec: FieldSpec, value: float) -> bool:
    minimum, maximum = (
        (-math.inf if spec.minimum is None else spec.minimum),
        (math.inf if spec.maximum is None else spec.maximum),
    )
    above, below = (-math.inf if spec.above is None else spec.above), (math.inf if spec.below is None else spec.below)
    return minimum <= value <= maximum and above < value < below


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
