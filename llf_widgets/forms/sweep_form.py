"""The sweep below Start: fields, values, number of runs, and a start button."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import traitlets

from llf_core.config.number_format import with_unit
from llf_core.runs import home
from llf_widgets.forms import preflight, sweep_plan
from llf_widgets.forms.form_widget import FormWidget
from llf_widgets.forms.messages import Message, messages_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from llf_core.config import FieldSpec
    from llf_core.launch.queue import RunAhead
    from llf_widgets.forms.state import FormState

FIRST = "learning_rate"


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

    def plan(self) -> sweep_plan.SweepPlan:
        """The runs that would be started with the values as typed."""
        return sweep_plan.plan_sweep(self._state, {key: self._text(key) for key in self._keys})

    def _draw(self) -> None:
        if not self._expanded:
            return
        fields = {
            title: [
                (spec.key, spec.label)
                for spec in specs
                if sweep_plan.can_sweep(spec) and self._state.is_visible(spec.key)
            ]
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
        return sweep_plan.suggest_values(self._state.specs[key], self._state.value(key))

    def _button_text(self, plan: sweep_plan.SweepPlan, *, ready: bool) -> str:
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


def _runs(number: int) -> str:
    return with_unit(number, "run")
